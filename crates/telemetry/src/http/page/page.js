// The live page: asks once a second how things are, now and then what they were, and says at once when nobody answers.
// What is shown is text, never markup.

import { Chart } from "./page/chart.js";
import * as panels from "./page/panels.js";
import { draw } from "./page/picture.js";
import { DASH, ago, bytes, duration, element, put, rate } from "./page/words.js";

const POLL_MS = 1000;
const ANSWER_LIMIT_MS = 3000;
// What was said longer ago is old.
const OLD_MS = 2500;
// A main loop that stands still for so long does not know what it says.
const STILL_SECONDS = 30;
const RATE_MS = 5000;

const charts = {
  lag: new Chart(element("chart-lag"), { shown: duration, least: 1, base: 60 }),
  transactions: new Chart(element("chart-transactions"), { shown: rate, least: 10 }),
  changes: new Chart(element("chart-changes"), { shown: rate, least: 10 }),
  slot: new Chart(element("chart-slot"), { shown: bytes, least: 1024, base: 1024 }),
};

let status = null;
let history = null;
let tables = null;
// When the last answer came, by a clock that nobody sets.
let answeredAt = null;
let failure = null;
// Totals of the last seconds, for the rates of this moment.
let totals = [];
const asked = { history: 0, tables: 0 };

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_LIMIT_MS) });
  if (!answer.ok) throw new Error("HTTP " + answer.status);
  return answer.json();
}

async function poll() {
  const now = performance.now();
  try {
    const said = await ask("/api/status");
    answeredAt = performance.now();
    failure = null;
    remember(said);
    status = said;
    const copying = said.copy !== null && said.copy.phase !== "";
    if (history === null || now - asked.history >= history.interval_seconds * 1000) {
      asked.history = now;
      history = await ask("/api/history");
    }
    if (tables === null || now - asked.tables >= (copying ? 2000 : 10000)) {
      asked.tables = now;
      tables = (await ask("/api/tables")).tables;
    }
  } catch (error) {
    failure = error.name === "TimeoutError" ? "no answer within " + ANSWER_LIMIT_MS / 1000 + " s" : error.message;
  }
  show();
}

function remember(said) {
  const now = performance.now();
  if (totals.length > 0 && totals.at(-1).started !== said.started_at) totals = [];
  const { started_at: started, transactions_applied: transactions, changes_applied: changes } = said;
  totals.push({ now, started, transactions, changes });
  while (totals.length > 2 && now - totals[1].now >= RATE_MS) totals.shift();
}

// A second, over the last few seconds; null: it is too early to say.
function rateOf(name) {
  if (totals.length < 2) return null;
  const [from, to] = [totals[0], totals.at(-1)];
  return (to[name] - from[name]) * 1000 / (to.now - from.now);
}

// --- who answers

const isOld = () => answeredAt !== null && (failure !== null || performance.now() - answeredAt > OLD_MS);

// What is wrong with the page's own sight, if anything, in words that do not change from second to second.
function trouble() {
  if (answeredAt === null) return failure === null ? null : "Relevo does not answer.";
  if (isOld()) return "Relevo does not answer. What is below is old.";
  if (status.heartbeat_age_seconds > STILL_SECONDS) return "Relevo's main loop stands still. What is below may be old.";
  return null;
}

// How long ago the last answer came, in seconds; null while answers come.
const oldSeconds = () => isOld() ? (performance.now() - answeredAt) / 1000 : null;

function age() {
  if (answeredAt === null) return failure ?? "";
  const old = oldSeconds();
  if (old === null) return "It last went round " + ago(status.heartbeat_age_seconds) + ".";
  return `The last answer came ${ago(old)}${failure === null ? "" : " (" + failure + ")"}.`;
}

function alarm() {
  const text = trouble();
  document.body.classList.toggle("stale", text !== null);
  element("alarm").hidden = text === null;
  put(element("alarm-text"), text ?? "");
  put(element("alarm-age"), text === null ? "" : age());
  if (text === null) return;
  put(element("state"), answeredAt === null || isOld() ? "no answer" : "stands still");
  element("state").className = "state failed";
  document.title = "⚠ no answer – " + (status?.name || "Relevo");
}

// --- what is shown

function show() {
  const old = oldSeconds();
  if (status !== null) {
    draw(status, (rateOf("transactions") ?? 0) > 0.2, old);
    past(old);
  }
  if (status !== null && old === null) {
    head();
    panels.slot(status, history?.slot_budget);
    panels.errors(status);
    panels.verified(status);
    panels.copy(status);
    if (tables !== null) panels.tables(tables, performance.now() / 1000);
    panels.handovers(status);
    panels.positions(status);
  }
  alarm();
}

function head() {
  document.title = (status.name || "Relevo") + " – Relevo";
  put(element("name"), status.name || "Relevo");
  // A primary has nothing to stream: that its own flow is stopped is as it should be.
  const leads = status.role === "primary" && status.state === "stopped";
  put(element("state"), leads ? "primary" : status.state);
  element("state").className = "state " + (leads ? "primary" : status.state);
  const who = status.node === null ? "" : `node ${status.node}, ${status.role}, epoch ${status.epoch}`;
  put(element("who"), who);
  put(element("detail"), leads ? "" : status.state_detail ?? "");
  put(element("version"), "Relevo " + status.version);
}

// `old`: how long ago the last answer came, in seconds, if none comes any more. Then the lines end where it came.
function past(old) {
  const samples = history?.samples ?? [];
  // The page's own clock need not be right: time is counted from what the server said last.
  const said = Date.parse(status.at) / 1000;
  const now = said + (old ?? 0);
  const [span, gap] = [history?.span_seconds ?? 900, 3 * (history?.interval_seconds ?? 5)];
  const show = (chart, field, live, words) => {
    const past = samples.map((one) => ({ at: one.at_unix_ms / 1000, value: one[field], state: one.state }));
    const points = [...past.filter((point) => point.at < said), { at: said, value: live, state: status.state }];
    chart.update({ now, span, gap, points, current: old === null ? words : `was ${words}, ${ago(old)}` });
  };
  const standby = status.role === "standby";
  // Nobody is ahead of a primary; what it did as a standby is shown as long as it is known.
  // Epoch 0 is before anybody has said which it is.
  element("past-section").hidden = !standby && samples.every((one) => one.role === "primary" || one.epoch === 0);
  const lag = standby ? status.lag_seconds : null;
  show(charts.lag, "lag_seconds", lag, duration(lag));
  for (const name of ["transactions", "changes"]) {
    const live = rateOf(name);
    show(charts[name], name + "_per_second", live, rate(live));
  }
  const retained = standby && status.slot ? status.slot.retained_bytes : null;
  show(charts.slot, "retained_bytes", retained, retained === null ? DASH : bytes(retained));
}

let timer = null;
let asking = false;

async function live() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  await poll();
  asking = false;
  timer = setTimeout(live, POLL_MS);
}

// A browser slows the timers of a page that nobody sees: ask at once when somebody does again.
document.addEventListener("visibilitychange", () => { if (!document.hidden) live(); });
// Apart from the asking, which may hang.
setInterval(() => { if (!document.hidden && trouble() !== null) show(); }, 500);
live();
