// The replicas, a row each. Rows stay, so that screen readers keep their place.

import { $, arrange, write } from "./dom.js";
import { picture, swatch } from "./versions.js";
import { knows, language, list, say, showAgo, showNumber, showRate, showShare } from "./words.js";

const SMOOTH = 5; // seconds of which "per second" is the average
const SORT = 10_000; // milliseconds between two sortings, so that rows do not jump

let replicas = new Map(); // by hostname

// From samples, {time, total}. A counter that was reset, as by FLUSHALL, adds nothing.
export function rateOf(samples) {
  const recent = samples.filter((one) => one.time > samples.at(-1).time - SMOOTH - 0.5);
  if (recent.length < 2) return null;
  let added = 0;
  for (let i = 1; i < recent.length; i++) {
    added += Math.max(0, recent[i].total - recent[i - 1].total);
  }
  return added / (recent.at(-1).time - recent[0].time);
}

export function sample(samples, time, total) {
  const last = samples.at(-1)?.time;
  if (time < last) samples.length = 0; // the clock was set back
  if (time !== last) samples.push({ time, total });
  if (samples.length > 2 * SMOOTH) samples.shift();
}

export function take(event) {
  const known = replicas;
  replicas = new Map(event.replicas.map((told) => {
    const { hostname, visits, state, faults = [], labels = {} } = told;
    const { samples = [], row = $("row").content.cloneNode(true).firstChild } = known.get(hostname) ?? {};
    sample(samples, event.time, visits);
    return [hostname, {
      version: "", ...told, samples, row,
      rate: rateOf(samples),
      states: [state, ...faults].filter(Boolean),
      labels: list(Object.entries(labels).map(([key, value]) => `${key}=${value}`)),
    }];
  }));
}

const isOf = (one, state) => one.states.includes(state);

export const silent = () =>
  [...replicas.values()].filter((one) => isOf(one, "silent")).map((one) => one.hostname);

function drawRow(one, sum, most) {
  const [hostname, version, state, visits, share, rate, seen, labels] = one.row.cells;
  write(hostname, one.hostname);
  if (version.textContent !== one.version) {
    version.replaceChildren(picture(swatch(one.version)), one.version);
  }
  write(state, list(one.states.map((state) => say(`is ${state}`, {}, state))));
  write(visits, showNumber(one.visits));
  write(share.firstChild, showShare(one.visits / (sum || 1)));
  share.lastChild.style.width = `calc(${one.visits / (most || 1)} * (100% - 4rem))`;
  write(rate, showRate(one.rate));
  write(seen, showAgo(one.seen));
  write(labels, one.labels);
  one.row.className = one.states.find((state) => knows(`is ${state}`)) ?? "";
}

// Sorting. A first click sorts texts upwards, and numbers downwards.

const TEXTS = ["hostname", "version", "labels"];
const { compare } = new Intl.Collator(language, { numeric: true });

let column = "hostname";
let isTurned = false;
let sorted; // the last sorting: its rows and time

const valueOf = (one) => ({ ...one, share: one.visits, state: one.states.length })[column];

function order(a, b) {
  const [one, other] = isTurned ? [b, a] : [a, b];
  const isText = TEXTS.includes(column);
  return isText ? compare(valueOf(one), valueOf(other)) : valueOf(other) - valueOf(one);
}

function sort() {
  const all = [...replicas.values()];
  all.sort((a, b) => order(a, b) || compare(a.hostname, b.hostname));
  const rows = (areGone) => all.filter((one) => isOf(one, "gone") === areGone).map((one) => one.row);
  arrange($("replicas"), rows(false));
  arrange($("gone"), rows(true));
}

document.querySelector("thead").addEventListener("click", ({ target }) => {
  const clicked = target.closest("button")?.parentElement;
  if (!clicked) return;
  isTurned = clicked.className === column && !isTurned;
  column = clicked.className;
  for (const head of document.querySelectorAll("thead th")) head.ariaSort = null;
  clicked.ariaSort = TEXTS.includes(column) === isTurned ? "descending" : "ascending";
  sort();
});

export function drawTable() {
  const all = [...replicas.values()];
  const sum = all.reduce((sum, one) => sum + one.visits, 0);
  const most = Math.max(...all.map((one) => one.visits));
  for (const one of all) drawRow(one, sum, most);
  const present = all.map((one) => `${one.hostname} ${one.version} ${one.states}`).join()
    + Math.floor(performance.now() / SORT);
  if (present !== sorted) sort();
  sorted = present;
  $("table").classList.toggle("unversioned", all.every((one) => !one.version));
  $("table").classList.toggle("unlabelled", all.every((one) => !one.labels));
  $("none").hidden = all.length > 0;
  const here = all.filter((one) => !isOf(one, "silent") && !isOf(one, "gone"));
  write($("count"), showNumber(here.length));
}
