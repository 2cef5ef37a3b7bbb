// What is shown in words and tables. Everything goes in as text, never as markup.

import { about, bytes, count, duration, element, moment, put, DASH } from "./words.js";

const MOST_ROWS = 200;
const hide = (id, hidden) => { element(id).hidden = hidden; };
const say = (id, text) => put(element(id), text);

// Pairs of a name and a value; null leaves a pair out.
function facts(id, pairs) {
  const list = element(id);
  const wanted = pairs.filter((pair) => pair !== null);
  while (list.children.length > wanted.length) list.lastChild.remove();
  wanted.forEach(([name, value], index) => {
    let pair = list.children[index];
    if (!pair) {
      pair = document.createElement("div");
      pair.append(document.createElement("dt"), document.createElement("dd"));
      list.append(pair);
    }
    put(pair.firstChild, name);
    put(pair.lastChild, value);
  });
}

// Rows of cells, each { text, label, kind }; what is there is changed in place.
function rows(id, wanted) {
  const body = element(id);
  while (body.rows.length > wanted.length) body.lastChild.remove();
  wanted.forEach((cells, index) => {
    const row = body.rows[index] ?? body.insertRow();
    row.setAttribute("role", "row");
    cells.forEach(({ text, label, kind }, column) => {
      let cell = row.cells[column];
      if (!cell) {
        cell = document.createElement(column === 0 ? "th" : "td");
        if (column === 0) cell.scope = "row";
        cell.setAttribute("role", column === 0 ? "rowheader" : "cell");
        row.append(cell);
      }
      if (label !== undefined) cell.dataset.label = label;
      if (cell.className !== (kind ?? "")) cell.className = kind ?? "";
      put(cell, text);
    });
  });
}

// --- the slot

export function slot(status, budget) {
  const own = status.slot;
  const readers = status.nodes.filter((node) => node.reader !== null);
  hide("slot-bar", !own || own.safe_bytes === null || own.retained_bytes === null);
  if (!own && readers.length > 0) {
    say("slot-text", "What this primary keeps for those who read from it:");
    facts("slot-facts", readers.map((node) => [node.name, ofReader(node.reader)]));
    return;
  }
  if (!own) {
    const primary = status.role === "primary";
    const silent = "The source has not said anything of the slot yet.";
    say("slot-text", primary ? "Nobody has a slot on this primary." : silent);
    facts("slot-facts", []);
    return;
  }
  const { retained_bytes: retained, safe_bytes: safe, wal_status: wal } = own;
  const danger = wal === "unreserved" || wal === "lost";
  element("slot-text").classList.toggle("bad", danger);
  say("slot-text", own.name + ": " + walWords(wal));
  if (safe !== null && retained !== null) element("slot-bar").value = retained / Math.max(1, retained + safe);
  const limited = safe !== null;
  facts("slot-facts", [
    ["Kept for this standby", bytes(retained)],
    ["May still be written", limited ? bytes(safe) : NO_LIMIT],
    ["The source writes", written(budget)],
    limited ? ["Time left at the present rate", left(budget)] : null,
    limited ? ["If nothing were applied from now on", ifStopped(budget)] : null,
  ]);
}

const NO_LIMIT = "as much as the source's disk holds (max_slot_wal_keep_size sets no limit)";

function written(budget) {
  const rate = budget?.wal_bytes_per_second ?? null;
  return rate === null ? DASH : bytes(rate) + " a second";
}

const walWords = (wal) => ({
  reserved: "everything is kept",
  extended: "more is kept than max_wal_size, within the limit",
  unreserved: "about to lose WAL that is needed",
  lost: "WAL that is needed is gone; the standby has to be copied again",
})[wal] ?? "has kept nothing yet";

function ofReader({ active, slot: of }) {
  const { retained_bytes: retained, safe_bytes: safe, wal_status: wal } = of;
  const limit = safe === null ? "no limit" : bytes(safe) + " more may be written";
  const lost = wal === "lost" ? "; it is lost" : "";
  return bytes(retained) + " kept, " + limit + (active ? "" : "; it does not read now") + lost;
}

function left(budget) {
  if (!budget || budget.wal_bytes_per_second === null) return "not known yet";
  const seconds = budget.remaining_seconds;
  return seconds === null ? "the budget does not shrink" : "about " + about(seconds);
}

function ifStopped(budget) {
  if (!budget || budget.wal_bytes_per_second === null) return "not known yet";
  const seconds = budget.remaining_if_stopped_seconds;
  return seconds === null ? "for ever: nothing is written" : "about " + about(seconds);
}

// --- tables

const ORDER = { copying: 0, pending: 1, copied: 2, streaming: 3 };
// When the copy of a table was first seen, and with how many bytes.
const first = new Map();

function timeLeft(table, now) {
  if (table.state !== "copying") { first.delete(table.name); return DASH; }
  const begin = first.get(table.name);
  if (!begin || table.bytes < begin.bytes) { first.set(table.name, { now, bytes: table.bytes }); return DASH; }
  const [seconds, sent] = [now - begin.now, table.bytes - begin.bytes];
  if (seconds < 3 || sent === 0 || table.total_bytes_estimate === null) return DASH;
  return about(Math.max(0, table.total_bytes_estimate - table.bytes) * seconds / sent);
}

function copied(table) {
  if (table.state === "copied" || table.state === "streaming") return "all";
  const total = table.total_bytes_estimate;
  if (!total) return bytes(table.bytes);
  return Math.min(99, Math.floor(100 * table.bytes / total)) + " %";
}

export function tables(list, now) {
  const compare = (a, b) =>
    ORDER[a.state] - ORDER[b.state] || b.bytes - a.bytes || a.name.localeCompare(b.name);
  const sorted = [...list].sort(compare);
  const some = sorted.slice(0, MOST_ROWS);
  hide("tables-scroll", some.length === 0);
  element("tables-table").classList.toggle("settled", !some.some((table) => table.state === "copying"));
  rows("tables", some.map((table) => [
    { text: table.name },
    { text: table.state, label: "State", kind: "state-word " + table.state },
    { text: copied(table), label: "Copied", kind: "count" },
    { text: count(table.rows), label: "Rows", kind: "count" },
    { text: bytes(table.bytes), label: "Bytes", kind: "count" },
    { text: timeLeft(table, now), label: "Time left", kind: "count left" },
  ]));
  hide("tables-more", sorted.length <= MOST_ROWS);
  say("tables-more", "and " + count(sorted.length - MOST_ROWS) + " more, see tables below");
}

export function copy(status) {
  const { copied: done, total, not_added: missing } = status.tables;
  const copying = status.copy;
  const parts = [total === 0 ? "No tables are known yet." : `${count(done)} of ${count(total)} are copied.`];
  const busy = copying !== null && copying.phase !== "";
  if (busy) {
    const size = copying.total_bytes_estimate;
    parts.push(`The copy is at: ${copying.phase}. ${count(copying.rows)} rows, ${bytes(copying.bytes)}` +
      (size ? ` of about ${bytes(size)}` : "") +
      (copying.bytes_per_second ? `, ${bytes(copying.bytes_per_second)} a second` : "") +
      (copying.remaining_seconds ? `; about ${about(copying.remaining_seconds)} left.` : "."));
    element("copy-bar").value = size ? Math.min(1, copying.bytes / size) : 0;
  }
  hide("copy-bar", !busy);
  if (missing > 0) parts.push(`Chosen by the patterns, not part of the flow: ${count(missing)} (relevo tables add).`);
  say("tables-text", parts.join(" "));
  // Nothing is copied to a primary.
  hide("tables-section", status.role === "primary" && total === 0);
}

// --- what went wrong, what was compared, who had the role

export function errors(status) {
  const since = status.errors === 0 ? "None" : count(status.errors);
  const queued = status.queued_errors;
  const some = queued === 1
    ? " One is written down: relevo errors lists it."
    : ` ${count(queued)} are written down: relevo errors lists them.`;
  const none = queued === null ? "" : " None is written down.";
  const kept = queued ? some : none;
  say("errors-text", `${since} since this Relevo started.${kept}`);
  const last = status.last_error;
  hide("last-error", !last);
  hide("last-error-when", !last);
  if (!last) return;
  say("last-error", last.text);
  const parts = [last.kind, last.side && "on the " + last.side, moment(last.at, status.at)];
  say("last-error-when", parts.filter(Boolean).join(", "));
}

export function verified(status) {
  const last = status.verification;
  const text = element("verified-text");
  hide("verified-section", last === null && status.role === "primary");
  text.classList.toggle("bad", (last?.differences ?? 0) > 0);
  if (last === null) {
    put(text, "Not looked up yet.");
  } else if (last.at === null) {
    const some = last.differences === null ? "Nothing" : "Not every table";
    put(text, some + " was compared: relevo verify does." + differences(last.differences));
  } else {
    const oldest = moment(last.at, status.at);
    put(text, `Every table was compared; the oldest comparison: ${oldest}.${differences(last.differences)}`);
  }
}

function differences(rows) {
  if (rows === null) return "";
  return rows === 0 ? " No row differed." : ` ${count(rows)} rows differ: relevo repair mends them.`;
}

export function handovers(status) {
  const among = status.node !== null;
  hide("handovers-section", !among);
  if (!among) return;
  const list = status.handovers;
  hide("handovers-table", list.length === 0);
  const some = "As this node remembers them; relevo history asks all nodes.";
  say("handovers-text", list.length === 0 ? "This node remembers none." : some);
  rows("handovers", list.map((one) => [
    { text: one.kind },
    { text: (one.from ?? DASH) + " → " + one.to, label: "From, to" },
    { text: moment(one.started_at, status.at), label: "Began" },
    { text: ended(one), label: "State", kind: one.state === "done" ? "" : "bad" },
    { text: pause(one), label: "Nobody could write", kind: "count" },
    { text: String(one.epoch), label: "Epoch", kind: "count" },
    { text: one.requested_by, label: "Asked by" },
  ]));
}

const ended = (one) => one.state + (one.loss ? "; may be lost: " + one.loss : "");
const pause = (one) => one.pause_ms === null ? DASH : count(one.pause_ms) + " ms";

export function positions(status) {
  const silent = (seconds) => seconds === null ? "never" : duration(seconds) + " ago";
  const standby = status.role === "standby";
  facts("positions", [
    standby ? ["Source", status.source_lsn ?? DASH] : null,
    standby ? ["Received", status.received_lsn ?? DASH] : null,
    standby ? ["Applied", status.applied_lsn ?? DASH] : null,
    standby ? ["Durable", status.durable_lsn ?? DASH] : null,
    standby ? ["Source last heard", silent(status.source_silent_seconds)] : null,
    [standby ? "Target last heard" : "Database last heard", silent(status.target_silent_seconds)],
    ["Transactions applied", count(status.transactions_applied)],
    ["Changes applied", count(status.changes_applied)],
    ["In memory", bytes(status.buffer_bytes)],
    ["Running since", moment(status.started_at, status.at)],
  ]);
}
