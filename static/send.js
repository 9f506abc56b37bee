// Sends visits: ten a second while the reader holds the button. They count.

import { $, svg } from "./dom.js";
import { picture, swatch } from "./versions.js";
import { list, say, showNumber, withMore } from "./words.js";

const EVERY = 100; // milliseconds
const PATIENCE = 10_000;
const AT_ONCE = 10; // under way
const KEPT = 200; // squares

const button = $("send");
const sent = $("sent");
const answers = new Map(); // from hostname, or error, to how often
let underway = 0;
let timer;

function show(who, shape) {
  $("squares").append(picture(shape, svg("title", {}, who)));
  if ($("squares").children.length > KEPT) $("squares").firstChild.remove();
  answers.set(who, (answers.get(who) ?? 0) + 1);
  const told = [...answers].sort().map(([who, times]) => `${who} ×${showNumber(times)}`);
  sent.textContent = list(told);
}

// An answer is a square, or a ring when it has no number; an error is a cross.
async function visit() {
  if (underway >= AT_ONCE) return;
  underway++;
  try {
    const answer = await fetch(".", { cache: "no-store", signal: AbortSignal.timeout?.(PATIENCE),
      headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(say("error", answer));
    const { hostname, version, visits } = await answer.json();
    if (visits !== null) show(hostname, swatch(version ?? ""));
    else show(withMore(hostname, say("uncounted")), svg("circle", { class: "ring", r: 5 }));
  } catch ({ name, message }) {
    show(name === "Error" ? message : say("unanswered"), svg("path", { class: "silent", d: "M-5-5 5 5M5-5-5 5" }));
  }
  underway--;
  settle();
}

// The result is spoken at the end.
const settle = () => { sent.ariaBusy = String(Boolean(timer || underway)); };

function start() {
  if (timer) return;
  button.classList.add("held");
  timer = setInterval(visit, EVERY);
  visit();
}

function stop() {
  clearInterval(timer);
  timer = undefined;
  button.classList.remove("held");
  settle();
}

button.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  start();
  try {
    button.setPointerCapture(event.pointerId);
  } catch { /* the pointer has gone, or cannot be captured: leaving the button stops then */ }
});
button.addEventListener("keydown", (event) => {
  if (event.key !== " " && event.key !== "Enter") return;
  event.preventDefault(); // so its release is no click
  start();
});
// A screen reader clicks without a pointer, and cannot hold: send for a second.
button.addEventListener("click", (event) => {
  if (event.detail) return;
  start();
  setTimeout(stop, 1000 - EVERY / 2);
});
for (const end of ["pointerup", "pointercancel", "pointerleave", "keyup", "blur"]) button.addEventListener(end, stop);
button.addEventListener("contextmenu", (event) => event.preventDefault());
document.addEventListener("visibilitychange", stop);
