// The live page: draws the events of stream.js.

import "./send.js";
import "./stream.js";
import { drawChart } from "./chart.js";
import { $, write } from "./dom.js";
import * as history from "./history.js";
import * as marks from "./marks.js";
import * as table from "./table.js";
import { list, say, showNumber, showRate, withMore } from "./words.js";

const samples = []; // {time, total} of the last seconds with Redis

function tell(state, text) {
  write($("state"), text);
  $("state").dataset.state = state;
  $("picture").classList.toggle("stale", state === "lost" || state === "away");
}

function tellOf({ redis, reason, refused }) {
  const silent = table.silent();
  const number = showNumber(silent.length);
  if (redis !== "up") tell("away", withMore(say(redis), reason));
  else if (refused) tell("live", say("partly", { refused: list(refused) }));
  else if (!silent.length) tell("live", say("live"));
  else if (silent.length > 3) tell("live", say("without many", { number }));
  else tell("live", say("without", { names: list(silent) }));
}

function draw() {
  marks.look();
  drawChart();
}

const TAKE = {
  history: history.begin,
  marks(event) {
    marks.take(event);
    draw();
  },
  message(event) {
    history.add(event);
    const isUp = event.redis === "up";
    if (isUp) {
      table.sample(samples, event.time, event.total);
      write($("total"), showNumber(event.total));
      table.take(event);
      table.drawTable();
    }
    write($("rate"), showRate(isUp ? table.rateOf(samples) : null));
    draw();
    tellOf(event);
  },
  lost: () => tell("lost", say("lost")),
};

document.addEventListener("stream", ({ detail: { kind, data } }) => TAKE[kind](data));
