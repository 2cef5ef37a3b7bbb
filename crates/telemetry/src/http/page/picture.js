// Who follows whom: the databases, and arrows in the direction in which changes go.

import { Drawing } from "./chart.js";
import { bytes, duration, element } from "./words.js";

const BOX = 88;
const NARROW = 640;
const SILENT_SECONDS = 10;

const svg = element("picture");
const drawing = new Drawing(svg);
let shown = null;
new ResizeObserver(() => shown && draw(...shown)).observe(svg.parentElement);

const cut = (text, length) => text.length > length ? text.slice(0, Math.max(1, length - 1)) + "…" : text;

function contact(node, old) {
  if (old !== null) return "not known";
  if (node.silent_seconds === null) return "has not answered yet";
  return node.silent_seconds <= SILENT_SECONDS ? "answers" : "silent for " + duration(node.silent_seconds);
}

function isWell({ silent_seconds: silent }, old) {
  return old === null && silent !== null && silent <= SILENT_SECONDS;
}

// Where the arrows begin, and what each of the others is to it.
function scene(status, old) {
  const nodes = status.nodes;
  const root = nodes.find((node) => node.role === "primary") ?? nodes[0];
  const own = nodes.find((node) => node.here) ?? nodes.find((node) => node.source !== null);
  const others = nodes.filter((node) => node !== root);
  const links = others.map((node, index) => ({ node, index, ...link(status, root, node, own) }));
  return { root, others: old === null ? links : links.map(outdated), old };
}

// What was so when the last answer came is not what is so now.
function outdated(link) {
  if (link.kind === "none" || link.kind === "elsewhere") return link;
  return { ...link, kind: "elsewhere", first: "not known", second: `was: ${link.first}, ${link.second}` };
}

// What is known of the way from the primary to a node: a class, and two lines.
function link(status, root, node, own) {
  if (root.role !== "primary") return { kind: "none", first: "", second: "" };
  if (node === own && status.role === "standby") {
    const lag = duration(status.lag_seconds) + " behind" + (status.lag_bytes ? ", " + bytes(status.lag_bytes) : "");
    const rest = own.source !== null && own.source !== root.name;
    const second = rest ? "reads the rest of " + own.source : lag;
    return { kind: status.state, first: status.state, second };
  }
  if (node.reader) {
    const { active, slot } = node.reader;
    const lost = slot.wal_status === "lost";
    const first = lost ? "its slot is lost" : active ? "reads" : "does not read now";
    const second = bytes(slot.retained_bytes) + " of WAL kept";
    return { kind: active && !lost ? "streaming" : "failed", first, second };
  }
  if (own === root) return { kind: "none", first: "has no slot here", second: "" };
  return { kind: "elsewhere", first: "its own Relevo knows", second: "" };
}

function box(key, { node, old }, x, y, width) {
  const role = node.role ?? "role not known";
  const letters = Math.floor((width - 24) / 7);
  const here = node.here ? " here" : "";
  drawing.shape(key + "box", "rect", { class: "node " + (node.role ?? "") + here, x, y, width, height: BOX, rx: 8 });
  drawing.shape(key + "name", "text", { class: "node-name", x: x + 12, y: y + 24 }, cut(node.name, letters));
  const place = { class: "node-place", x: x + 12, y: y + 44 };
  drawing.shape(key + "place", "text", place, cut(node.place, letters));
  const text = role + (node.here ? ", this Relevo" : "");
  drawing.shape(key + "role", "text", { class: "node-role", x: x + 12, y: y + 62 }, text);
  const well = isWell(node, old) ? "well" : "ill";
  drawing.shape(key + "light", "circle", { class: "light " + well, cx: x + 16, cy: y + 75, r: 4 });
  drawing.shape(key + "contact", "text", { class: "node-contact " + well, x: x + 26, y: y + 79 }, contact(node, old));
}

function arrow(key, kind, path, [x, y, turn], moving) {
  if (kind === "none") return;
  drawing.shape(key + "line", "path", { class: "way " + kind, d: path });
  if (moving) drawing.shape(key + "moving", "path", { class: "moving", d: path });
  const head = { class: "head " + kind, points: "0,-7 12,0 0,7", transform: `translate(${x} ${y}) rotate(${turn})` };
  drawing.shape(key + "head", "polygon", head);
}

// The flow that this Relevo applies, and of which it knows whether anything moves.
const isOwn = ({ kind, node }) => kind === "streaming" && node.reader === null;

function label(key, { kind, first, second }, x, y, anchor, below) {
  const place = { x, "text-anchor": anchor };
  drawing.shape(key + "first", "text", { class: "way-state " + kind, y, ...place }, first);
  drawing.shape(key + "second", "text", { class: "way-lag", y: y + below, ...place }, second);
}

// What is known lies above what is not, where ways share a part.
const inOrder = (others) => [...others].sort((a, b) => (a.kind !== "elsewhere") - (b.kind !== "elsewhere"));

function wide(width, { root, others, old }, moving) {
  const row = BOX + 20;
  const height = Math.max(1, others.length) * row - 20 + 4;
  const boxWidth = Math.min(300, Math.floor((width - 210) / 2));
  const middle = height / 2;
  drawing.begin(width, height);
  const right = width - boxWidth - 2;
  const bend = boxWidth + 34;
  inOrder(others).forEach((other) => {
    const y = 2 + other.index * row + BOX / 2;
    const key = other.kind + other.index;
    const path = `M${boxWidth + 2} ${middle}H${bend}V${y}H${right - 12}`;
    arrow(key, other.kind, path, [right - 13, y, 0], moving && isOwn(other));
    label(key, other, (bend + right) / 2, y - 10, "middle", 30);
    box(key, { node: other.node, old }, right, y - BOX / 2, boxWidth);
  });
  box("root", { node: root, old }, 2, middle - BOX / 2, boxWidth);
}

function narrow(width, { root, others, old }, moving) {
  const gap = 60;
  const height = BOX + 4 + others.length * (BOX + gap);
  drawing.begin(width, height);
  inOrder(others).forEach((other) => {
    const top = BOX + 2 + gap + other.index * (BOX + gap);
    const key = other.kind + other.index;
    const y = top + BOX / 2;
    arrow(key, other.kind, `M22 ${BOX + 2}V${y}H36`, [35, y, 0], moving && isOwn(other));
    label(key, other, 48, top - 34, "start", 20);
    box(key, { node: other.node, old }, 48, top, width - 50);
  });
  box("root", { node: root, old }, 2, 2, width - 4);
}

// The same in words, for whoever does not see it.
function words({ root, others, old }) {
  if (!root) return "Nothing is known of the databases yet.";
  const each = others.map(({ node, first, second }) => {
    const what = [first, second].filter((text) => text !== "").join(", ");
    return `${node.name} (${node.role ?? "role not known"}, ${contact(node, old)}): ${what}`;
  });
  const begin = `${root.name} (${root.role ?? "role not known"}, ${contact(root, old)})`;
  return each.length === 0 ? begin + "." : `From ${begin} to ${each.join("; to ")}.`;
}

// `old`: how long ago the last answer came, in seconds, if none comes any more.
export function draw(status, moving, old) {
  shown = [status, moving, old];
  const all = scene(status, old);
  const text = words(all);
  if (svg.getAttribute("aria-label") !== text) svg.setAttribute("aria-label", text);
  const width = svg.clientWidth;
  if (width === 0 || !all.root) return;
  (width < NARROW ? narrow : wide)(width, all, moving);
  drawing.end();
}
