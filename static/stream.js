// The stream of events, one for all tabs of a browser with the same view: it allows a host six
// connections over HTTP/1.1. One tab leads: it has the stream, and passes on what comes. The others
// follow; one of them leads when they hear nothing more of it. They talk by a BroadcastChannel,
// which plain HTTP has, too. Where there is none, each tab leads. A hidden tab rests.
//
// The document is told by events "stream" of a kind: "history", "marks", "message" or "lost".

import { asEvent, now, view } from "./history.js";

// Milliseconds.
const DEAD = 10_000; // without an event, after which another connection is tried
const AGAIN = 2_000; // until then, where the browser would give up
const BEAT = 1_000; // between two signs of life of the tab that leads
const QUIET = 3_000; // without one, after which another tab leads
const ASKED = 200; // in which the tab that leads answers one that begins

const CLOSED = 2; // the state of a stream that the browser has given up

const me = Math.random();
// Those of the same server, path, version and view.
const tabs = newChannel(`${import.meta.url} ${view}`);

let source = null; // of the tab that leads
let marks; // what it said last, of each kind
let last;
let dead; // timers
let beat;
let quiet;

// Firefox throws where it blocks cookies.
function newChannel(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return null;
  }
}

const send = (kind, data) => tabs?.postMessage({ from: me, kind, data });

const show = (kind, data) =>
  document.dispatchEvent(new CustomEvent("stream", { detail: { kind, data } }));

function tell(kind, data) {
  if (kind === "marks") marks = data;
  else last = [kind, data];
  send(kind, data);
  show(kind, data);
}

// The tab that leads. The browser reconnects by itself, but for a balancer's 502, and for a
// connection on which nothing comes any more without its being closed.

// A browser that has none, or may have none, says so as one that lost it, and tries again.
function newSource() {
  try {
    return new EventSource(`live/events?last=${view}`);
  } catch {
    const none = Object.assign(new EventTarget(), { readyState: CLOSED, close() {} });
    setTimeout(() => none.dispatchEvent(new Event("error")));
    return none;
  }
}

function connect() {
  const mine = (source = newSource());
  const again = (milliseconds) => {
    clearTimeout(dead);
    dead = setTimeout(() => {
      mine.close();
      tell("lost");
      connect();
    }, milliseconds);
  };
  mine.addEventListener("open", () => again(DEAD));
  for (const kind of ["history", "marks", "message"]) {
    mine.addEventListener(kind, (message) => {
      again(DEAD);
      tell(kind, JSON.parse(message.data));
    });
  }
  mine.addEventListener("error", () => {
    tell("lost");
    again(mine.readyState === CLOSED ? AGAIN : DEAD);
  });
  again(DEAD);
}

function lead() {
  last = marks = null;
  send("beat");
  beat = setInterval(send, BEAT, "beat");
  connect();
}

function stop() {
  clearInterval(beat);
  clearTimeout(dead);
  source?.close();
  source = null;
}

// The others. They do not all begin to lead at once.

function follow(milliseconds) {
  clearTimeout(quiet);
  quiet = setTimeout(lead, milliseconds * (1 + Math.random()));
}

tabs?.addEventListener("message", ({ data: { from, kind, data } }) => {
  if (document.hidden) return;
  if (source !== null) {
    if (kind === "begin") {
      if (now !== undefined) send("history", asEvent());
      if (marks) send("marks", marks);
      if (last) send(...last);
      return;
    }
    if (kind === "end" || me < from) return;
    stop(); // two lead: the other one goes on
  }
  if (kind === "begin") return;
  follow(kind === "end" ? ASKED : QUIET);
  if (kind !== "beat" && kind !== "end") show(kind, data);
});

function begin() {
  send("begin");
  if (tabs) follow(ASKED);
  else if (source === null) lead();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return begin();
  clearTimeout(quiet);
  if (source !== null) send("end");
  stop();
});

if (!document.hidden) begin();
