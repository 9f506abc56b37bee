// The page's words in its language, and numbers and times in the reader's form.

import { $, bare } from "./dom.js";

const words = bare(JSON.parse($("words").textContent));

export const knows = (key) => key in words;

// A text of the page, with each {name} filled in; for an unknown key (of a newer release) `word`.
export const say = (key, values = {}, word = key) =>
  (words[key] ?? word).replace(/\{(\w+)\}/g, (_, name) => values[name]);

// Texts as a list, and a text with a detail, in the form of the page's language.
export const list = (texts) =>
  texts.reduce((before, next) => (before ? say("list", { before, next }) : next), "");
export const withMore = (text, more) => (more ? say("more", { text, more }) : text);

// A browser may give a name that is no language, such as "C" or "en-US@posix", or none.
function readersLanguage() {
  try {
    return Intl.getCanonicalLocales(navigator.language)[0] ?? document.documentElement.lang;
  } catch {
    return document.documentElement.lang;
  }
}

export const language = readersLanguage();

function formatter(kind, options) {
  try {
    return new Intl[kind](language, options);
  } catch { // the system's time zone is invalid
    return new Intl[kind](language, { ...options, timeZone: "UTC" });
  }
}

const format = (kind, options) => {
  const made = formatter(kind, options);
  return (...what) => made.format(...what);
};

const number = (options) => format("NumberFormat", options);
export const showNumber = number({});
export const showShare = number({ style: "percent", maximumFractionDigits: 1 });
const few = number({ maximumSignificantDigits: 2 });
export const showRate = (rate) =>
  rate === null ? "–" : rate < 10 ? few(rate) : showNumber(Math.round(rate));

// Seconds in a suitable unit: [name, amount].
const inUnit = (seconds) =>
  seconds < 60 ? ["second", seconds] : seconds < 3600 ? ["minute", seconds / 60]
  : ["hour", seconds / 3600];

const ago = format("RelativeTimeFormat", { numeric: "auto", style: "narrow" });
export function showAgo(seconds) {
  const [unit, amount] = inUnit(seconds < 2 ? 0 : seconds);
  return ago(-Math.round(amount), unit);
}
export function showLength(seconds) {
  const [unit, amount] = inUnit(Math.max(1, seconds));
  return number({ style: "unit", unit, maximumFractionDigits: 0 })(amount);
}

const clock = format("DateTimeFormat", { timeStyle: "short" });
const exactClock = format("DateTimeFormat", { timeStyle: "medium" });
export const showHour = (time) => clock(1000 * time);
export const showTime = (time) => exactClock(1000 * time);
