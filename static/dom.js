// Elements.

export const $ = (id) => document.getElementById(id);

// A text that is the same stays: what changes is spoken, or marked no more.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// What the parent has becomes `children`, in this order. Those that it has stay in the document.
export function arrange(parent, children) {
  children.forEach((one, place) => {
    if (parent.children[place] !== one) parent.insertBefore(one, parent.children[place] ?? null);
  });
  while (parent.children.length > children.length) parent.lastElementChild.remove();
}

// Without a prototype: a version may be named "constructor".
export const bare = (entries) => Object.assign(Object.create(null), entries);

export function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
