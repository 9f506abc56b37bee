// The visits in the view, in steps, by version. Times are seconds by Redis's clock.

import { bare } from "./dom.js";

const told = document.documentElement.dataset;
export const view = told.last;
export const [span, step] = [Number(told.span), Number(told.step)]; // seconds: view, step
export let now; // the history has all visits until this time

let moments = new Map(); // from the second when a step begins to its visits by version
let aways = []; // marks: when Redis was away, by the stream

const startOf = (time) => Math.floor(time / step) * step;

export const asEvent = () => ({ time: now, moments: [...moments] });

export function begin(event) {
  moments = new Map(event.moments.map(([start, visits]) => [start, bare(visits)]));
  now = event.time;
}

// The visits came at some time since the last message, so each step gets its part of them.
export function add({ time, counted = {}, redis }) {
  if (time < now - span) moments.clear(); // the clock was set back
  else if (time <= now) return;
  const from = now > time - span ? now : time - 1;
  for (let start = startOf(from); start < time; start += step) {
    const part = (Math.min(start + step, time) - Math.max(start, from)) / (time - from);
    const moment = moments.get(start) ?? bare();
    for (const [version, visits] of Object.entries(counted)) {
      moment[version] = (moment[version] ?? 0) + visits * part;
    }
    moments.set(start, moment);
  }
  for (const start of moments.keys()) if (start < time - span - step) moments.delete(start);
  if (redis === "down") {
    if (aways.at(-1)?.until !== from) aways.push({ kind: "away", time: from });
    aways.at(-1).until = time;
  }
  aways = aways.filter(({ until }) => until > time - span);
  now = time;
}

// The steps of the view, the oldest first: [start, end, visits by version]. The present step ends
// now: else its rate would seem to fall.
export function steps() {
  const all = [];
  for (let start = startOf(now - span); start < now; start += step) {
    all.push([start, Math.min(start + step, now), moments.get(start) ?? bare()]);
  }
  return all;
}

// The times without Redis that this page noticed, unless the replicas have reported them since.
export const ownAways = (marks) => aways.filter(({ time, until }) =>
  until === now || !marks.some((one) => one.time < until && one.until > time));
