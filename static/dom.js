// Elements.

export const $ = (id) => document.getElementById(id);

// Leave the same text alone: a change is spoken, and ends a selection.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Give the parent these children, in this order. Children that it has already stay in place.
export function arrange(parent, children) {
  children.forEach((one, place) => {
    if (parent.children[place] !== one) parent.insertBefore(one, parent.children[place] ?? null);
  });
  while (parent.children.length > children.length) parent.lastElementChild.remove();
}

// It has no prototype: a version's name may be "constructor".
export const bare = (entries) => Object.assign(Object.create(null), entries);

export function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
