// The chart: visits per second, stacked by version, with marks.

import { $, arrange, svg } from "./dom.js";
import { now, span, steps } from "./history.js";
import { HEIGHT, drawMarks } from "./marks.js";
import { colourOf, fillOf, picture, swatch, versions } from "./versions.js";
import { say, showHour, showNumber, showRate, showShare } from "./words.js";

const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720]; // between times on the axis
const LABEL = 88; // pixels for a time

// Twice a round number, not below `most`. So the middle line has a round number too.
function ceiling(most) {
  const half = Math.max(most, 2) / 2;
  const power = 10 ** Math.floor(Math.log10(half));
  return 2 * power * [1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10].find((one) => one * power >= half);
}

// A layer for each version in view, the lowest first. Each part is a step: [start, end, from, to];
// `from` and `to` are visits per second.
function layers() {
  const all = steps();
  const heights = all.map(() => 0);
  const met = new Set(all.flatMap(([, , moment]) => Object.keys(moment)));
  return [...new Set(["", ...versions, ...met])].filter((one) => met.has(one)).map((version) => {
    let visits = 0;
    const parts = all.map(([start, end, moment], place) => {
      const some = moment[version] ?? 0;
      visits += some;
      const from = heights[place];
      heights[place] += some / (end - start);
      return [start, end, from, heights[place]];
    });
    return { version, visits, parts };
  });
}

// A layer's area and upper edge, without the steps that have no visits.
function drawLayer({ version, parts }, x, y) {
  let [area, edge, back] = ["", "", ""]; // back: the lower edge, from right to left
  for (const [start, end, from, to] of [...parts, [0, 0, 0, 0]]) {
    if (to > from) {
      const [left, right] = [x(start).toFixed(1), x(end).toFixed(1)];
      const part = `${back ? "V" : `M${left} `}${y(to).toFixed(1)}H${right}`;
      area += part;
      edge += part;
      back = `L${right} ${y(from).toFixed(1)}H${left}${back}`;
    } else if (back) {
      area += `${back}Z`;
      back = "";
    }
  }
  return [svg("path", { d: area, fill: fillOf(version) }),
    svg("path", { class: "line", d: edge, stroke: colourOf(version) })];
}

// Round times of the reader's clock.
function drawTimes(x, right, y) {
  const least = (span * LABEL) / (right - x(now - span)) / 60;
  const every = 60 * MINUTES.find((one) => one >= least || one === 720);
  const shift = 60 * new Date(1000 * now).getTimezoneOffset();
  const drawn = [svg("text", { x: right, y, "text-anchor": "end" }, say("now"))];
  let time = Math.ceil((now - span - shift) / every) * every + shift;
  for (; x(time) < right - 0.8 * LABEL; time += every) {
    drawn.push(svg("text", { x: x(time), y, "text-anchor": "middle" }, showHour(time)));
  }
  return drawn;
}

function drawLegend(layers) {
  const all = layers.reduce((sum, one) => sum + one.visits, 0);
  const isPlain = layers.every((one) => !one.version);
  arrange($("legend"), isPlain ? [] : layers.map(({ version, visits }) => {
    const entry = document.createElement("li");
    const name = document.createElement("b");
    name.textContent = version || say("unversioned");
    entry.append(picture(swatch(version)), name, ` ${showShare(visits / all)}`);
    return entry;
  }));
}

export function drawChart() {
  const { width, height } = $("chart").getBoundingClientRect();
  if (!width || now === undefined) return;
  const [left, right, top, bottom] = [48, width - 12, 20, height - HEIGHT - 26];
  const drawn = layers();
  const most = Math.max(0, ...drawn.flatMap(({ parts }) => parts.map(([, , , to]) => to)));
  const highest = ceiling(most);
  const x = (time) => left + Math.max(0, 1 - (now - time) / span) * (right - left);
  const y = (rate) => bottom - (rate / highest) * (bottom - top);

  const grid = [0, highest / 2, highest].flatMap((rate) => [
    svg("line", { class: "grid", x1: left, x2: right, y1: y(rate), y2: y(rate) }),
    svg("text", { x: left - 8, y: y(rate) + 4, "text-anchor": "end" }, showNumber(rate)),
  ]);
  $("chart").setAttribute("viewBox", `0 0 ${width} ${height}`);
  $("chart").replaceChildren(...grid, ...drawn.flatMap((layer) => drawLayer(layer, x, y)),
    ...drawMarks(x, left, right, top, bottom), ...drawTimes(x, right, height - 6));
  drawLegend(drawn);
  const rate = showRate(drawn.at(-1)?.parts.at(-1)[3] ?? 0);
  $("chart-text").textContent = say("rates", { rate, most: showRate(most) });
}

if (globalThis.ResizeObserver) new ResizeObserver(drawChart).observe($("chart"));
else addEventListener("resize", drawChart);
