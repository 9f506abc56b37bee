// The colour and pattern of a version, by its place in the order of first appearance, which is the
// same on all replicas. "" is no version.

import { $, svg } from "./dom.js";

// Lines on the colour, in a square of eight pixels. The colours are in live.css.
const PATTERNS = [
  "", // plain
  "M-2 2 2-2M0 8 8 0M6 10 10 6",
  "M2 2h.1M6 6h.1",
  "M-2 6 2 10M0 0 8 8M6-2 10 2",
  "M0 4H8",
  "M4 0V8M0 4H8",
  "M0 0 8 8M0 8 8 0",
  "M4 0V8",
];

export let versions = [];

// The order from the stream, and then some versions that this page has met since.
export function know(told) {
  versions = [...new Set([...told, ...versions])].filter(Boolean).slice(0, told.length + 20);
  for (const one of document.querySelectorAll("[data-version]")) paint(one, one.dataset.version);
}

function placeOf(version) {
  if (!version) return 0;
  if (!versions.includes(version)) versions.push(version);
  return 1 + (versions.indexOf(version) % PATTERNS.length);
}

export const fillOf = (version) => `url(#pattern-${placeOf(version)})`;
export const colourOf = (version) => version ? `var(--version-${placeOf(version)})` : "var(--line)";

export const picture = (...shapes) =>
  svg("svg", { class: "picture", viewBox: "-7 -7 14 14", "aria-hidden": true }, ...shapes);

function paint(element, version) {
  element.setAttribute("fill", fillOf(version));
  element.setAttribute("stroke", colourOf(version));
  return element;
}

export const swatch = (version) =>
  paint(svg("path", { d: "M-6-6H6V6H-6Z", "data-version": version }), version);

$("patterns").append(...["", ...PATTERNS].map((lines, place) =>
  svg("pattern", { id: `pattern-${place}`, patternUnits: "userSpaceOnUse", width: 8, height: 8 },
    svg("rect", { width: 8, height: 8, fill: `var(--version-${place})` }),
    svg("path", { d: lines }))));
