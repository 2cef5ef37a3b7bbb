"use strict";
// Shows /api/status, once a second. What it shows is text, never markup.

const element = (id) => document.getElementById(id);
const show = (id, text) => { element(id).textContent = text ?? "–"; };

function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return (unit === 0 ? count : count.toFixed(1)) + " " + units[unit];
}

function seconds(count) {
  return count === null ? "never" : count.toFixed(1) + " s ago";
}

function facts(status) {
  const slot = status.slot;
  return [
    ["Role", status.role + (status.node ? " (node " + status.node + ")" : "") + ", epoch " + status.epoch],
    ["Source position", status.source_lsn ?? "–"],
    ["Received", status.received_lsn ?? "–"],
    ["Applied", status.applied_lsn ?? "–"],
    ["Durable", status.durable_lsn ?? "–"],
    ["Source last heard", seconds(status.source_silent_seconds)],
    ["Target last heard", seconds(status.target_silent_seconds)],
    ["Slot", slot ? slot.name + ": " + (slot.wal_status ?? "–") + ", keeps " + bytes(slot.retained_bytes) : "–"],
    ["Tables copied", status.tables.copied + " of " + status.tables.total],
    ["Transactions applied", String(status.transactions_applied)],
    ["In memory", bytes(status.buffer_bytes)],
    ["Errors", String(status.errors)],
    ["Running since", status.started_at],
  ];
}

function draw(status) {
  document.title = status.name + " – Relevo";
  show("name", status.name);
  show("state", status.state);
  element("state").className = "state " + status.state;
  show("detail", status.state_detail ?? "");
  show("lag-seconds", status.lag_seconds.toFixed(1));
  show("lag-bytes", bytes(status.lag_bytes));
  show("version", "Relevo " + status.version);
  element("facts").replaceChildren(...facts(status).map(([name, value]) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    const cell = document.createElement("td");
    head.scope = "row";
    head.textContent = name;
    cell.textContent = value;
    row.append(head, cell);
    return row;
  }));
  const copy = status.copy;
  element("copy").hidden = !copy;
  if (copy) {
    const total = copy.total_bytes_estimate;
    show("copy-text", (copy.phase || "done") + ": " + copy.rows + " rows, " + bytes(copy.bytes) +
      (total ? " of about " + bytes(total) : ""));
    element("copy-bar").value = !copy.phase ? 1 : total ? Math.min(1, copy.bytes / total) : 0;
  }
  const last = status.last_error;
  element("last-error").hidden = !last;
  if (last) show("last-error", "Last error, " + last.at + (last.side ? ", " + last.side : "") + ": " + last.text);
}

async function poll() {
  try {
    const answer = await fetch("/api/status", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    draw(await answer.json());
    show("contact", "");
  } catch (error) {
    // What is shown is old from here on: say so, in place of the state.
    show("contact", "Relevo does not answer (" + error.message + "); the values above are old.");
    show("state", "no answer");
    element("state").className = "state failed";
  }
  setTimeout(poll, 1000);
}

poll();
