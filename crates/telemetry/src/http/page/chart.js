// Drawings that are kept and changed in place, and the charts of the last quarter of an hour.

import { ago, put } from "./words.js";

// Shapes by key. What is drawn again under its key stays the same element, so that motion goes on.
export class Drawing {
  constructor(svg) {
    this.svg = svg;
    this.kept = new Map();
    this.used = new Set();
  }

  begin(width, height) {
    this.used.clear();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (this.svg.getAttribute("height") !== String(height)) this.svg.setAttribute("height", height);
  }

  shape(key, tag, attributes, text) {
    let shape = this.kept.get(key);
    if (!shape) {
      // The namespace comes from the page itself.
      shape = document.createElementNS(this.svg.namespaceURI, tag);
      this.kept.set(key, shape);
      this.svg.append(shape);
    }
    this.used.add(key);
    for (const [name, value] of Object.entries(attributes)) {
      const wanted = typeof value === "number" ? String(Math.round(value * 10) / 10) : value;
      if (shape.getAttribute(name) !== wanted) shape.setAttribute(name, wanted);
    }
    if (text !== undefined) put(shape, text);
    return shape;
  }

  end() {
    for (const [key, shape] of this.kept) {
      if (this.used.has(key)) continue;
      shape.remove();
      this.kept.delete(key);
    }
  }
}

// The next round number: 1, 2 or 5, with noughts; of bytes and of times, in their own units.
export function ceiling(value, least, base) {
  const wanted = Math.max(value, least);
  let unit = 1;
  if (base) while (unit * base <= wanted) unit *= base;
  for (let power = unit; ; power *= 10) {
    for (const digit of base === 60 ? [1, 2, 3, 6] : [1, 2, 5]) {
      if (digit * power >= wanted) return Math.min(digit * power, base ? unit * base : Infinity);
    }
  }
}

const HEIGHT = 132;
const TOP = 16;
const BOTTOM = 20;

export class Chart {
  // `shown`: a value in words; `least`: the axis reaches at least so far; `base`: 1024 for bytes, 60 for times.
  constructor(figure, { shown, least, base }) {
    this.figure = figure;
    this.svg = figure.querySelector("svg");
    this.drawing = new Drawing(this.svg);
    this.readout = figure.querySelector(".readout");
    Object.assign(this, { shown, least, base });
    this.points = [];
    this.cursor = null;
    this.now = 0;
    this.span = 900;
    this.svg.setAttribute("aria-valuemin", "-15");
    this.svg.setAttribute("aria-valuemax", "0");
    this.svg.setAttribute("aria-valuenow", "0");
    this.svg.setAttribute("aria-valuetext", "no samples yet");
    new ResizeObserver(() => this.draw()).observe(figure);
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("focus", () => this.say());
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.move(null));
  }

  // `points`: [{ at, value, state }] in seconds and the oldest first; `gap`: beyond it nobody looked.
  update({ now, span, gap, points, current }) {
    Object.assign(this, { now, span, gap });
    this.points = points.filter((point) => point.value !== null && point.value !== undefined);
    this.all = points;
    put(this.figure.querySelector(".now"), current);
    this.draw();
  }

  greatest() {
    return this.points.reduce((most, point) => Math.max(most, point.value), 0);
  }

  draw() {
    const width = this.svg.clientWidth;
    if (width === 0) return;
    const most = this.greatest();
    const top = ceiling(most, this.least, this.base);
    const x = (at) => (1 - (this.now - at) / this.span) * width;
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
    const drawing = this.drawing;
    drawing.begin(width, HEIGHT);
    this.bands(x);
    for (const part of [0, 0.5, 1]) {
      const at = y(top * part);
      drawing.shape("grid" + part, "line", { class: "grid", x1: 0, x2: width, y1: at, y2: at });
    }
    this.lines(x, y);
    drawing.shape("top", "text", { class: "tick", x: 0, y: TOP - 5 }, this.shown(top));
    for (const [minutes, anchor] of [[15, "start"], [10, "middle"], [5, "middle"], [0, "end"]]) {
      const text = minutes === 0 ? "now" : minutes + " min";
      const place = { class: "tick", x: x(this.now - minutes * 60), y: HEIGHT - 5, "text-anchor": anchor };
      drawing.shape("time" + minutes, "text", place, text);
    }
    if (this.cursor !== null && this.points[this.cursor]) {
      const { at, value } = this.points[this.cursor];
      drawing.shape("cursor", "line", { class: "cursor", x1: x(at), x2: x(at), y1: TOP, y2: HEIGHT - BOTTOM });
      drawing.shape("dot", "circle", { class: "dot", cx: x(at), cy: y(value), r: 4 });
    }
    drawing.end();
    this.svg.dataset.points = this.points.length;
    put(this.readout, this.words(most));
  }

  // One line for each stretch without a gap.
  lines(x, y) {
    const stretches = [];
    let before = null;
    for (const point of this.points) {
      if (x(point.at) < 0) continue;
      if (before === null || point.at - before > this.gap) stretches.push([]);
      stretches.at(-1).push(point);
      before = point.at;
    }
    stretches.forEach((stretch, index) => {
      const corners = stretch.map((point) => x(point.at).toFixed(1) + "," + y(point.value).toFixed(1));
      const [from, to] = [x(stretch[0].at), x(stretch.at(-1).at)];
      const ground = y(0).toFixed(1);
      const area = `${from.toFixed(1)},${ground} ${corners.join(" ")} ${to.toFixed(1)},${ground}`;
      this.drawing.shape("area" + index, "polygon", { class: "area", points: area });
      this.drawing.shape("line" + index, "polyline", { class: "line", points: corners.join(" ") });
    });
  }

  // When the flow did not stream.
  bands(x) {
    let band = null;
    const bands = [];
    for (const point of this.all ?? []) {
      const odd = ["preparing", "failed", "paused"].includes(point.state) ? point.state : null;
      if (band && band.state === odd && point.at - band.to <= this.gap) band.to = point.at;
      else band = odd && { state: odd, from: point.at, to: point.at };
      if (band && !bands.includes(band)) bands.push(band);
    }
    bands.forEach(({ state, from, to }, index) => {
      const left = Math.max(0, x(from));
      const place = { x: left, width: Math.max(2, x(to) - left), y: TOP, height: HEIGHT - BOTTOM - TOP };
      this.drawing.shape("band" + index, "rect", { class: "band " + state, ...place });
    });
  }

  words(most) {
    if (this.points.length === 0) return "no samples yet";
    if (this.cursor === null || !this.points[this.cursor]) return "highest: " + this.shown(most);
    const { at, value } = this.points[this.cursor];
    return this.shown(value) + ", " + ago(this.now - at);
  }

  move(cursor) {
    this.cursor = cursor;
    this.draw();
  }

  // Only when somebody asks: a value that changed by itself would be read aloud each second.
  say() {
    const point = this.points[this.cursor ?? this.points.length - 1];
    const minutes = point ? (point.at - this.now) / 60 : 0;
    this.svg.setAttribute("aria-valuenow", String(Math.round(minutes * 10) / 10));
    const now = point && this.cursor === null ? "now " + this.shown(point.value) + ", " : "";
    this.svg.setAttribute("aria-valuetext", now + this.words(this.greatest()));
  }

  key(event) {
    const last = this.points.length - 1;
    const here = this.cursor ?? last;
    const steps = {
      ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1,
      PageDown: here - 12, PageUp: here + 12, Home: 0, End: last, Escape: null,
    };
    if (!(event.key in steps) || last < 0) return;
    event.preventDefault();
    const to = steps[event.key];
    this.move(to === null ? null : Math.min(last, Math.max(0, to)));
    this.say();
  }

  point(event) {
    if (this.points.length === 0) return;
    const box = this.svg.getBoundingClientRect();
    const at = this.now - (1 - (event.clientX - box.left) / box.width) * this.span;
    const far = (index) => Math.abs(this.points[index].at - at);
    let nearest = 0;
    for (let index = 1; index < this.points.length; index += 1) if (far(index) < far(nearest)) nearest = index;
    this.move(nearest);
  }
}
