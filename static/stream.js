// Reads the stream of events, once for all tabs with the same view: a browser opens six connections
// to a host over HTTP/1.1. One tab, the leader, reads the stream and sends the events to the others.
// When they hear nothing of the leader, one of them leads. The tabs use a BroadcastChannel, which
// plain HTTP has too. Without one, each tab leads. A hidden tab rests.
//
// The document gets events "stream" of a kind: "history", "marks", "message" or "lost".

import { asEvent, now, view } from "./history.js";

// Milliseconds.
const DEAD = 10_000; // without an event, until the leader connects anew
const AGAIN = 2_000; // until then, if the browser has given up
const BEAT = 1_000; // between two beats of the leader
const QUIET = 3_000; // without a beat, until another tab leads
const ASKED = 200; // for the leader to answer a new tab

const CLOSED = 2; // the state of a stream that the browser has given up

const me = Math.random();
// The tabs with the same server, path, version and view.
const tabs = newChannel(`${import.meta.url} ${view}`);

let source = null; // the leader's stream
let marks; // the leader's last marks
let last; // its last other event
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

// The leader. The browser reconnects by itself, except after a balancer's 502, and on a dead
// connection that nobody has closed.

// A browser that allows no EventSource is treated as one that has lost it, and tries again.
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

// The followers. They do not all begin to lead at the same time.

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
