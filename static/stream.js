// The stream of events, one for all tabs of a browser, which allows a host six connections over
// HTTP/1.1: with a stream for each, the seventh page would not load. One tab leads: it has the
// stream, and passes on what comes. The others follow; one of them leads when they hear nothing
// more of it. They talk by a BroadcastChannel, which, other than Web Locks, plain HTTP has too.
// A hidden tab does neither. Shown again, it gets the five minutes' history like a new one.
//
// The document is told by events: "stream", its detail a kind ("history", "message", "lost") and
// the data.

const HISTORY = 300; // events that the history has
const DEAD = 10_000; // milliseconds without an event after which another connection is tried
const AGAIN = 2_000; // milliseconds until then, where the browser would give up
const BEAT = 1_000; // milliseconds between two signs of life of the tab that leads
const QUIET = 3_000; // milliseconds without one after which another tab leads
const ASKED = 200; // milliseconds in which the tab that leads answers one that begins

const me = Math.random();
const tabs = new BroadcastChannel(import.meta.url); // those of the same server, path and version

let source = null; // of the tab that leads
let totals; // what it has been told, as a history
let last; // what it said last
let dead; // timers
let beat;
let quiet;

const send = (kind, data) => tabs.postMessage({ from: me, kind, data });

const show = (kind, data) =>
  document.dispatchEvent(new CustomEvent("stream", { detail: { kind, data } }));

function tell(kind, data) {
  last = [kind, data];
  send(kind, data);
  show(kind, data);
}

// The tab that leads. The browser reconnects by itself, but for a balancer's 502, and for a
// connection on which nothing comes any more without its being closed.

function connect() {
  const mine = (source = new EventSource("live/events"));
  totals = [];
  const again = (milliseconds) => {
    clearTimeout(dead);
    dead = setTimeout(() => {
      mine.close();
      tell("lost");
      connect();
    }, milliseconds);
  };
  mine.addEventListener("open", () => again(DEAD));
  mine.addEventListener("history", (message) => {
    const data = JSON.parse(message.data);
    totals.push(...data.totals);
    tell("history", data);
  });
  mine.addEventListener("message", (message) => {
    const data = JSON.parse(message.data);
    again(DEAD);
    if (data.redis === "up") totals.push([data.time, data.total]);
    totals.splice(0, totals.length - HISTORY);
    tell("message", data);
  });
  mine.addEventListener("error", () => {
    tell("lost");
    again(mine.readyState === EventSource.CLOSED ? AGAIN : DEAD);
  });
  again(DEAD);
}

function lead() {
  last = null;
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

tabs.addEventListener("message", ({ data: { from, kind, data } }) => {
  if (document.hidden) return;
  if (source !== null) {
    if (kind === "begin") {
      send("history", { totals });
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
  follow(ASKED);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return begin();
  clearTimeout(quiet);
  if (source !== null) send("end");
  stop();
});

if (!document.hidden) begin();
