// What happened: marks on the time axis, and in a list.

import { $, arrange, svg, write } from "./dom.js";
import { now, ownAways, span } from "./history.js";
import { colourOf, fillOf, know, picture } from "./versions.js";
import { say, showLength, showNumber, showTime, withMore } from "./words.js";

const LANES = ["came", "gone", "silent"]; // below the chart, from the top
const LANE = 15; // pixels
export const HEIGHT = LANE * LANES.length;

const SHAPES = {
  came: "M0-5 5 4H-5Z",
  gone: "M0 5 5-4H-5Z",
  silent: "M-4-4 4 4M4-4-4 4",
  version: "M0-5 5 0 0 5-5 0Z",
  away: "M-5-4H5V4H-5Z",
};

let marks = []; // from the stream, the oldest first
let shown = []; // the marks in view

function textOf(mark) {
  const length = mark.until && showLength(mark.until - mark.time);
  const detail = mark.kind !== "version" && (mark.version ?? mark.reason);
  return withMore(say(mark.kind, { ...mark, length }), detail);
}

const titleOf = (...marks) =>
  svg("title", {}, marks.map((mark) => `${showTime(mark.time)} ${textOf(mark)}`).join("\n"));

const glyph = ({ kind, version }, x = 0, y = 0) =>
  svg("path", { class: kind, d: SHAPES[kind], fill: fillOf(version), transform: `translate(${x} ${y})` });

// A text after `to`, or before `from`, where there is room. `taken`: the places in use.
function beside(text, from, to, y, taken, right) {
  const width = 7 * text.length + 5 * (text.match(/[^\0-\u024f]/g)?.length ?? 0); // roughly
  for (const [x, begin, anchor] of [[to, to, "start"], [from, from - width, "end"]]) {
    const end = begin + width;
    if (begin < 40 || end > right || taken.some((one) => begin < one[1] && end > one[0])) continue;
    taken.push([begin, end]);
    return [svg("text", { x, y, "text-anchor": anchor }, text)];
  }
  return [];
}

// Marks that touch each other share one text: their number.
function drawLane(kind, y, x, right) {
  const groups = [];
  for (const mark of shown.filter((one) => one.kind === kind)) {
    const at = x(mark.time);
    if (at - groups.at(-1)?.to >= 12 || !groups.length) groups.push({ from: at, marks: [] });
    groups.at(-1).to = at;
    groups.at(-1).marks.push(mark);
  }
  const taken = groups.map(({ from, to }) => [from - 6, to + 6]);
  return groups.map(({ from, to, marks }) => {
    const text = marks.length > 1 ? `×${showNumber(marks.length)}` : marks[0].hostname;
    return svg("g", { class: kind }, titleOf(...marks),
      ...marks.map((mark) => glyph(mark, x(mark.time), y)),
      ...beside(text, from - 8, to + 8, y + 4, taken, right));
  });
}

// Lanes of marks below the chart. `x` returns a time's place.
const drawLanes = (x, left, right, bottom) => LANES.flatMap((kind, place) => {
  const y = bottom + LANE * (place + 0.5) + 2;
  return [
    svg("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }),
    svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, say(`is ${kind}`)),
    ...drawLane(kind, y, x, right),
  ];
});

// Also a band for each time without Redis, and a line where a version first came.
export function drawMarks(x, left, right, top, bottom) {
  const taken = [];
  const told = shown.filter((one) => one.kind === "away");
  const bands = [...told, ...ownAways(told)].map((mark) => {
    const [from, to] = [x(mark.time), x(mark.until)];
    const width = Math.max(2, to - from);
    return svg("g", { class: "away" }, titleOf(mark),
      svg("rect", { x: from, y: top, width, height: bottom - top, fill: "url(#away)" }),
      ...beside(say("band"), from + width, from, top - 6, taken, right));
  });
  const firsts = shown.filter((one) => one.kind === "version").reverse().map((mark) => {
    const at = x(mark.time);
    const stroke = colourOf(mark.version);
    return svg("g", {}, titleOf(mark),
      svg("line", { class: "first", x1: at, x2: at, y1: top, y2: bottom, stroke }),
      glyph(mark, at, top), ...beside(textOf(mark), at - 8, at + 8, top - 6, taken, right));
  });
  return [...bands, ...firsts, ...drawLanes(x, left, right, bottom)];
}

// The list. Entries stay, so that only new ones are spoken.

const entries = new Map(); // from time and kind to the entry

function entryOf(mark) {
  const key = [mark.time, mark.kind, mark.hostname, mark.version].join(" ");
  if (!entries.has(key)) {
    const entry = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = showTime(mark.time);
    entry.append(picture(glyph(mark)), time, " ", document.createElement("span"));
    entries.set(key, entry);
  }
  write(entries.get(key).lastChild, textOf(mark));
  return entries.get(key);
}

export function look() {
  shown = marks.filter((one) => one.kind in SHAPES && (one.until ?? one.time) > now - span);
  arrange($("marks"), shown.map(entryOf).reverse());
  for (const [key, entry] of entries) if (!entry.isConnected) entries.delete(key);
  $("unmarked").hidden = shown.length > 0;
}

export function take(event) {
  marks = event.marks;
  know(event.versions);
  setTimeout(() => { $("log").ariaLive = "polite"; }, 1000); // the first entries are no news
}
