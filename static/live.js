// The live page: takes the events that stream.js has, keeps five minutes of them, and draws.
// Times are seconds of the server's clock, as the events say; the browser's is never asked.

const HISTORY = 300; // seconds that the chart shows
const GAP = 3; // seconds between two samples that are not joined by a line
const SMOOTH = 5; // seconds over which "per second" is taken
const SILENT = 5; // seconds that a replica may be behind the others before it is greyed

const $ = (id) => document.getElementById(id);
const picture = $("picture");
const chart = $("chart");

let samples = []; // {time, total}, by time; total is null while Redis was away
let replicas = new Map(); // hostname to {visits, seen, version, labels, faults, samples, row}

// Figures.

const numbers = new Intl.NumberFormat("en");
const rates = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const shares = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const narrow = matchMedia("(max-width: 36rem)");

const showVisits = (visits) =>
  (narrow.matches && visits >= 100_000 ? short : numbers).format(visits);

const showRate = (rate) =>
  rate === null ? "–" : rate < 10 ? rates.format(rate) : numbers.format(Math.round(rate));

function showSeen(seconds) {
  if (seconds < 2) return "now";
  if (seconds < 60) return `${Math.round(seconds)}\u00a0s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)}\u00a0min ago`;
  return `${Math.round(seconds / 3600)}\u00a0h ago`;
}

const showLabels = (labels) =>
  Object.entries(labels).map(([key, value]) => `${key}=${value}`).join(", ");

// What came in between, a second. A counter that was set back, as by FLUSHALL, adds nothing.
function between(before, after) {
  if (before.total === null || after.total === null) return null;
  return Math.max(0, after.total - before.total) / (after.time - before.time);
}

function rateOf(samples) {
  const now = samples.at(-1);
  const recent = samples.filter((one) => one.time > now.time - SMOOTH - 0.5 && one.total !== null);
  if (recent.length < 2) return null;
  let added = 0;
  for (let i = 1; i < recent.length; i++) {
    added += Math.max(0, recent[i].total - recent[i - 1].total);
  }
  return added / (recent.at(-1).time - recent[0].time);
}

function add(list, sample) {
  const last = list.at(-1);
  if (last && sample.time < last.time - HISTORY) list.length = 0; // the clock was set back
  else if (last && sample.time <= last.time) return;
  list.push(sample);
  while (list[0].time < sample.time - HISTORY - GAP) list.shift();
}

// What others were told before, where there is nothing of one's own.
function fill(totals) {
  const missing = totals
    .filter(([time]) => !samples.some((one) => Math.abs(one.time - time) < 0.75))
    .map(([time, total]) => ({ time, total }));
  samples = [...samples, ...missing].sort((a, b) => a.time - b.time);
}

function take(event) {
  add(samples, { time: event.time, total: event.total ?? null });
  if (event.redis !== "up") return;
  const known = replicas;
  replicas = new Map();
  for (const { hostname, visits, seen, version, labels, faults } of event.replicas) {
    const one = known.get(hostname) ?? { samples: [], row: newRow(hostname) };
    Object.assign(one, { visits, seen, version, labels, faults });
    add(one.samples, { time: event.time, total: visits });
    while (one.samples[0].time < event.time - 2 * SMOOTH) one.samples.shift();
    replicas.set(hostname, one);
  }
  const latest = Math.min(...event.replicas.map((one) => one.seen));
  for (const one of replicas.values()) one.silent = one.seen - latest > SILENT;
}

// The table: rows stay, so that whoever reads it is not thrown out of it.

function newRow(hostname) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const name = document.createElement("span");
  name.textContent = hostname;
  const version = document.createElement("span");
  version.className = "version";
  const labels = document.createElement("span");
  labels.className = "labels";
  const faults = document.createElement("span");
  faults.className = "faults";
  head.append(name, " ", version, " ", faults, " ", labels);
  row.append(head);
  for (const kind of ["number", "share", "number", "number seen"]) {
    const cell = row.insertCell();
    cell.className = kind;
  }
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.append(document.createElement("span"));
  row.cells[2].append(bar, document.createElement("span"));
  return row;
}

function drawTable() {
  const body = $("replicas");
  const all = [...replicas.values()];
  const sum = all.reduce((sum, one) => sum + one.visits, 0);
  all.forEach((one, place) => {
    const [head, visits, share, rate, seen] = one.row.cells;
    const part = sum ? one.visits / sum : 0;
    const [, version, faults, labels] = head.children;
    version.textContent = one.version ?? "";
    faults.textContent = one.faults?.join(", ") ?? "";
    labels.textContent = showLabels(one.labels ?? {});
    visits.textContent = showVisits(one.visits);
    share.firstChild.firstChild.style.width = `${100 * part}%`;
    share.lastChild.textContent = shares.format(part);
    rate.textContent = showRate(rateOf(one.samples));
    seen.textContent = showSeen(one.seen);
    one.row.classList.toggle("silent", one.silent);
    if (body.rows[place] !== one.row) body.insertBefore(one.row, body.rows[place] ?? null);
  });
  while (body.rows.length > all.length) body.lastChild.remove();
  $("none").hidden = all.length > 0;
  $("count").textContent = numbers.format(all.filter((one) => !one.silent).length);
}

// The chart.

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Twice a round number, so that the line in the middle has one, too; not below.
function ceiling(most) {
  const half = Math.max(most, 2) / 2;
  const power = 10 ** Math.floor(Math.log10(half));
  return 2 * power * [1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10].find((one) => one * power >= half);
}

// Pieces of line, each a list of [time, rate], and stretches [from, to] without Redis.
function pieces() {
  const lines = [];
  const away = [];
  let line = null;
  for (let i = 1; i < samples.length; i++) {
    const [before, after] = [samples[i - 1], samples[i]];
    if (before.total === null || after.total === null) {
      if (away.at(-1)?.[1] === before.time) away.at(-1)[1] = after.time;
      else away.push([before.time, after.time]);
      line = null;
    } else if (after.time - before.time > GAP) {
      line = null;
    } else {
      if (line === null) lines.push((line = []));
      line.push([after.time, between(before, after)]);
    }
  }
  return [lines, away];
}

function drawChart() {
  const { width, height } = chart.getBoundingClientRect();
  const now = samples.at(-1)?.time;
  if (!width || now === undefined) return;
  const edge = { left: 44, right: 12, top: 12, bottom: 26 }; // pixels, for the labels
  const [lines, away] = pieces();
  const most = Math.max(0, ...lines.flat().map(([, rate]) => rate));
  const top = ceiling(most);
  const begin = now - HISTORY;
  const x = (time) =>
    edge.left + (Math.max(0, time - begin) / HISTORY) * (width - edge.left - edge.right);
  const y = (rate) => height - edge.bottom - (rate / top) * (height - edge.top - edge.bottom);
  const drawn = [];

  for (const rate of [0, top / 2, top]) {
    drawn.push(svg("line", { class: "grid", x1: x(begin), x2: x(now), y1: y(rate), y2: y(rate) }));
    drawn.push(svg("text", { x: edge.left - 8, y: y(rate) + 4, "text-anchor": "end" },
      numbers.format(rate)));
  }
  for (const minutes of width < 480 ? [5, 3, 2, 1, 0] : [5, 4, 3, 2, 1, 0]) {
    const anchor = minutes === 0 ? "end" : minutes === 5 ? "start" : "middle";
    const label = minutes === 0 ? "now" : minutes === 5 ? "−5 min" : `−${minutes}`;
    drawn.push(svg("text", { x: x(now - 60 * minutes), y: height - 8, "text-anchor": anchor }, label));
  }
  for (const [from, to] of away) {
    if (to <= begin) continue;
    drawn.push(svg("rect", { class: "away", x: x(from), y: edge.top,
      width: Math.max(1, x(to) - x(from)), height: height - edge.top - edge.bottom }));
  }
  for (const line of lines) {
    const shown = line.filter(([time]) => time >= begin);
    if (!shown.length) continue;
    const points = shown.map(([time, rate]) => `${x(time).toFixed(1)},${y(rate).toFixed(1)}`);
    const [first, last] = [shown[0], shown.at(-1)];
    drawn.push(svg("polygon", { class: "area",
      points: [`${x(first[0])},${y(0)}`, ...points, `${x(last[0])},${y(0)}`].join(" ") }));
    drawn.push(svg("polyline", { class: "line", points: points.join(" ") }));
    if (last[0] === now) {
      drawn.push(svg("circle", { class: "now", r: 3.5, cx: x(now), cy: y(last[1]) }));
    }
  }
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.replaceChildren(...drawn);
  $("chart-text").textContent =
    `Now ${showRate(rateOf(samples))} a second; at most ${showRate(most)}.`;
}

// The state is spoken (role="status"), so it is written when it changes, and not each second.

function tell(state, text) {
  const element = $("state");
  if (element.textContent !== text) element.textContent = text;
  element.dataset.state = state;
  picture.classList.toggle("stale", state === "lost" || state === "away");
}

function tellOf(event) {
  if (event.redis !== "up") {
    const state = event.redis === "refused"
      ? "Redis does not let this server read what is counted."
      : "Redis is away: the counter is disabled.";
    const reason = event.reason ? ` (${event.reason})` : ""; // an older replica gives none
    tell("away", `${state} This is what it was.${reason}`);
    return;
  }
  if (event.refused) {
    tell("live", `Live, but not whole. Redis refuses ${event.refused.join("; ")}`);
    return;
  }
  const silent = [...replicas].filter(([, one]) => one.silent).map(([hostname]) => hostname);
  if (!silent.length) tell("live", "Live");
  else if (silent.length <= 3) tell("live", `Live; no more from ${silent.join(", ")}`);
  else tell("live", `Live; no more from ${silent.length} replicas`);
}

function draw(event) {
  if (event.redis === "up") {
    $("total").textContent = numbers.format(event.total);
    drawTable();
  }
  $("rate").textContent = showRate(event.redis === "up" ? rateOf(samples) : null);
  drawChart();
  tellOf(event);
}

// What stream.js tells.

document.addEventListener("stream", ({ detail: { kind, data } }) => {
  if (kind === "history") {
    fill(data.totals);
  } else if (kind === "message") {
    take(data);
    draw(data);
  } else {
    tell("lost", "Connection lost, trying again. This is what it was.");
  }
});

new ResizeObserver(drawChart).observe(chart);
