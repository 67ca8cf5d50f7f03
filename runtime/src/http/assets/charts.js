// Building blocks of the dashboard: elements, formats, colours, and the canvas charts. Nothing here writes HTML text: keys
// and names come from users, so all of them go through text nodes.
"use strict";

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style") Object.assign(node.style, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null));
  return node;
}

const fmt = {
  count(n) {
    if (n < 100000) return String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, "\u2009");
    return n < 1e6 ? (n / 1e3).toFixed(0) + " k" : (n / 1e6).toFixed(2) + " M";
  },
  bytes(n) {
    for (const [unit, power] of [["PiB", 50], ["TiB", 40], ["GiB", 30], ["MiB", 20], ["kiB", 10]]) {
      const size = 2 ** power;
      if (n >= size * 0.9) return (n / size).toFixed(n / size < 10 ? 2 : 1) + " " + unit;
    }
    return Math.round(n) + " B";
  },
  time(s) {
    if (s > 172800) return Math.floor(s / 86400) + " d " + Math.floor((s / 3600) % 24) + " h";
    if (s > 7200) return Math.floor(s / 3600) + " h " + Math.floor((s / 60) % 60) + " min";
    if (s > 100) return Math.floor(s / 60) + " min " + Math.floor(s % 60) + " s";
    if (s >= 1) return s.toFixed(s < 10 ? 2 : 1) + " s";
    if (s >= 1e-3) return (s * 1e3).toFixed(s < 1e-2 ? 2 : 0) + " ms";
    return (s * 1e6).toFixed(0) + " µs";
  },
  clock(s) { return new Date(s * 1000).toLocaleTimeString([], { hour12: false }); },
};

const PALETTE = ["#4e79a7", "#f0a33e", "#59a14f", "#b07aa1", "#2aa5a0", "#d37295", "#9c755f", "#8cb93a", "#6b6ecf", "#e07b54",
  "#3d9ad1", "#c7a93c", "#7f63b8", "#46a873", "#bb6a3c", "#5f8fa3"];
const colourCache = new Map();
/// The colour of a task name: by order of appearance, so that the first sixteen differ.
function colourOf(name) {
  let colour = colourCache.get(name);
  if (!colour) {
    colour = PALETTE[colourCache.size % PALETTE.length];
    colourCache.set(name, colour);
  }
  return colour;
}
const ACTIONS = { transfer: ["#e5484d", 0.55], "disk-read": ["#f5a623", 0.75], "disk-write": ["#f5a623", 0.75], deserialize: ["#8a93a0", 0.6], serialize: ["#8a93a0", 0.6] };
const STATES = { memory: "#d9534f", released: "#4e86c6", processing: "#3fa66a", waiting: "#9aa5b1", queued: "#d9b43c", "no-worker": "#b07aa1", erred: null };

function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

const tip = {
  show(event, title, ...lines) {
    const node = document.getElementById("tip");
    node.replaceChildren(el("b", null, title), ...lines.filter(Boolean).map((line) => el("div", null, line)));
    node.hidden = false;
    const box = node.getBoundingClientRect();
    node.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
    node.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18) + "px";
  },
  hide() { document.getElementById("tip").hidden = true; },
};

/// A canvas that fills its parent, redraws when it changes size, and knows what is under the mouse.
class Chart {
  constructor() {
    this.canvas = el("canvas");
    this.node = el("div", { class: "canvas" }, this.canvas);
    this.pending = false;
    new ResizeObserver(() => this.redraw()).observe(this.node);
    this.canvas.addEventListener("mousemove", (event) => {
      const box = this.canvas.getBoundingClientRect();
      const found = this.hit ? this.hit(event.clientX - box.left, event.clientY - box.top) : null;
      if (found) tip.show(event, ...found);
      else tip.hide();
    });
    this.canvas.addEventListener("mouseleave", () => tip.hide());
  }
  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.paint(); });
  }
  paint() {
    const width = this.node.clientWidth, height = this.node.clientHeight;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const g = this.canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = "11px system-ui, -apple-system, 'Segoe UI', sans-serif";
    g.textBaseline = "middle";
    this.draw(g, width, height);
  }
}

/// Round steps for an axis of `span` with about `count` marks.
function step(span, count) {
  const raw = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw || 1));
  for (const factor of [1, 2, 5, 10]) if (raw <= factor * power) return factor * power;
  return 10 * power;
}

/// The text, cut to fit.
function elide(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let end = Math.min(text.length, 60);
  while (end > 1 && g.measureText(text.slice(0, end) + "…").width > width) end--;
  return text.slice(0, end) + "…";
}

/// Horizontal bars, stacked, one a worker: `rows` of {label, parts: [[value, colour]], tip, mark}.
class Bars extends Chart {
  constructor(format, base) { super(); this.format = format; this.base = base || 10; this.rows = []; }
  set(rows) { this.rows = rows; this.redraw(); }
  draw(g, width, height) {
    const n = this.rows.length;
    if (!n) return;
    const bottom = 18, room = height - bottom;
    const pitch = Math.min(24, room / n), thick = Math.max(1, pitch * (pitch > 6 ? 0.74 : 1));
    const labels = pitch >= 11;
    const left = labels ? Math.min(110, 10 + Math.max(...this.rows.map((row) => g.measureText(row.label).width))) : 4;
    const right = 8, span = width - left - right;
    const max = Math.max(0, ...this.rows.map((row) => Math.max(row.mark || 0, row.parts.reduce((sum, part) => sum + part[0], 0)))) * 1.02 || 1;
    const quiet = css("--quiet"), line = css("--faint");
    const unit = this.base === 1024 ? 1024 ** Math.floor(Math.log2(max) / 10) : 1;
    const marks = Math.max(this.whole ? 1 : 0, step(max / unit, Math.max(2, span / 80)) * unit);
    g.fillStyle = quiet; g.textAlign = "center"; g.strokeStyle = line; g.beginPath();
    for (let value = 0; value <= max * 1.001; value += marks) {
      const x = left + (value / max) * span;
      g.moveTo(x, 0); g.lineTo(x, room);
      g.textAlign = value === 0 ? "left" : x > width - 30 ? "right" : "center";
      g.fillText(value === 0 ? "0" : this.format(value).replace(/\.0+ /, " "), Math.min(x, width - 4), height - 7);
    }
    g.stroke();
    this.pitch = pitch;
    this.rows.forEach((row, i) => {
      const y = i * pitch + (pitch - thick) / 2;
      let x = left;
      for (const [value, colour] of row.parts) {
        const w = (value / max) * span;
        g.fillStyle = colour;
        g.fillRect(x, y, w, thick);
        x += w;
      }
      if (row.mark) {
        g.fillStyle = quiet;
        g.fillRect(left + (row.mark / max) * span - 1, y - 1, 1.5, thick + 2);
      }
      if (labels) {
        g.fillStyle = row.faded ? css("--warn") : quiet; g.textAlign = "right";
        g.fillText(elide(g, row.label, left - 9), left - 7, i * pitch + pitch / 2);
      }
    });
  }
  hit(_, y) { const row = this.rows[Math.floor(y / this.pitch)]; return row && row.tip; }
}

/// Values over time: series of [time, value], newest last.
class Line extends Chart {
  constructor(format, colours) { super(); this.format = format; this.colours = colours; this.series = []; }
  set(series) { this.series = series; this.redraw(); }
  draw(g, width, height) {
    const points = this.series.flat();
    if (!points.length) return;
    const left = 58, bottom = 16, w = width - left - 6, h = height - bottom - 6;
    const end = Math.max(...points.map((p) => p[0])), start = Math.min(end - 60, Math.min(...points.map((p) => p[0])));
    const top = Math.max(...points.map((p) => p[1])) * 1.12 || 1;
    const quiet = css("--quiet"), line = css("--faint");
    g.strokeStyle = line; g.fillStyle = quiet; g.textAlign = "right"; g.beginPath();
    for (let i = 0; i <= 4; i++) {
      const y = 6 + h - (i / 4) * h;
      g.moveTo(left, y); g.lineTo(left + w, y);
      if (i % 2 === 0) g.fillText(this.format((top * i) / 4), left - 6, y);
    }
    g.stroke();
    g.textAlign = "left"; g.fillText(fmt.time(Math.round(end - start)).replace(/\.0+ /, " ") + " ago", left, height - 6);
    g.textAlign = "right"; g.fillText("now", left + w, height - 6);
    this.series.forEach((list, index) => {
      const colour = css(this.colours[index]);
      const at = (p) => [left + ((p[0] - start) / (end - start)) * w, 6 + h - (p[1] / top) * h];
      g.beginPath();
      list.forEach((p, i) => { const [x, y] = at(p); if (i) g.lineTo(x, y); else g.moveTo(x, y); });
      g.strokeStyle = colour; g.lineWidth = 1.6; g.stroke(); g.lineWidth = 1;
      if (list.length > 1) {
        g.lineTo(at(list[list.length - 1])[0], 6 + h); g.lineTo(at(list[0])[0], 6 + h); g.closePath();
        g.globalAlpha = 0.12; g.fillStyle = colour; g.fill(); g.globalAlpha = 1;
      }
    });
  }
}

/// A rectangle per span of work: a row per thread, time to the right. Wheel zooms, dragging moves, double click follows again.
class Stream extends Chart {
  constructor() {
    super();
    this.records = []; this.rows = new Map(); this.window = 30; this.end = null; this.now = 0;
    this.latest = 0;
    this.canvas.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => { this.drag = { x: event.clientX, end: this.right() }; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!this.drag || Math.abs(event.clientX - this.drag.x) < 3) return;
      this.end = this.drag.end - ((event.clientX - this.drag.x) / this.span) * this.window;
      this.moved();
    });
    this.canvas.addEventListener("pointerup", () => { this.drag = null; });
    this.canvas.addEventListener("dblclick", () => this.follow());
  }
  follow(window) { if (window) this.window = window; this.end = null; this.moved(); }
  moved() { if (this.onmove) this.onmove(); this.redraw(); }
  zoom(event) {
    event.preventDefault();
    const x = event.clientX - this.canvas.getBoundingClientRect().left - this.left;
    const at = this.right() - this.window * (1 - x / this.span);
    const factor = Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 150);
    const window = Math.max(1e-3, Math.min(86400, this.window * factor));
    if (this.end !== null) this.end = at + (this.right() - at) * (window / this.window);
    this.window = window;
    this.moved();
  }
  /// The right edge: where it was put, else the present, but no emptiness to speak of after the last task.
  right() { return this.end !== null ? this.end : Math.min(Math.max(this.now, this.latest), this.latest + this.window * 0.04); }
  add(records, now) {
    this.now = now;
    for (const record of records) {
      for (const span of record.startstops) this.latest = Math.max(this.latest, span.stop);
      const key = record.worker + " " + record.thread;
      if (!this.rows.has(key)) this.rows.set(key, record.worker);
      record.row = key;
      this.records.push(record);
    }
    if (this.records.length > 40000) this.records.splice(0, this.records.length - 40000);
    this.redraw();
  }
  clear() { this.records = []; this.rows.clear(); this.redraw(); }
  draw(g, width, height) {
    const end = this.right(), start = end - this.window;
    const shown = this.records.filter((r) => r.startstops.length && r.startstops[r.startstops.length - 1].stop >= start && r.startstops[0].start <= end);
    // Rows of threads seen lately, those of a worker side by side.
    const names = [...this.rows.keys()].sort();
    const active = new Set(this.records.map((r) => r.row));
    const order = new Map(names.filter((name) => active.has(name)).map((name, i) => [name, i]));
    const n = Math.max(1, order.size), bottom = 18;
    this.left = 4; this.span = width - 8;
    this.pitch = (height - bottom) / n;
    const x = (time) => this.left + ((time - start) / this.window) * this.span;
    const quiet = css("--quiet"), faint = css("--faint"), erred = css("--erred");
    const marks = step(this.window, Math.max(3, this.span / 110));
    g.strokeStyle = faint; g.fillStyle = quiet; g.beginPath();
    for (let t = Math.ceil(start / marks) * marks; t <= end; t += marks) {
      g.moveTo(x(t), 0); g.lineTo(x(t), height - bottom);
      g.textAlign = "center";
      const text = marks >= 1 ? fmt.clock(t) : fmt.clock(t) + (t % 1).toFixed(marks >= 0.01 ? 2 : 4).slice(1);
      if (x(t) > 26 && x(t) < width - 26) g.fillText(text, x(t), height - 7);
    }
    g.stroke();
    // A hairline between workers.
    let before = null; g.strokeStyle = css("--line"); g.beginPath();
    for (const [name, i] of order) {
      const worker = this.rows.get(name);
      if (before !== null && worker !== before && this.pitch > 2) { const y = Math.round(i * this.pitch) + 0.5; g.moveTo(0, y); g.lineTo(width, y); }
      before = worker;
    }
    g.stroke();
    this.boxes = [];
    const gap = this.pitch > 5 ? 1 : 0;
    for (const record of shown) {
      const y = order.get(record.row) * this.pitch + gap / 2, h = Math.max(1, this.pitch - gap);
      for (const span of record.startstops) {
        const from = x(span.start), to = x(span.stop);
        if (to < 0 || from > width) continue;
        const special = ACTIONS[span.action];
        g.globalAlpha = special ? special[1] : 1;
        g.fillStyle = special ? special[0] : record.erred ? erred : colourOf(record.name);
        const inset = special ? h * 0.18 : 0;
        g.fillRect(from, y + inset, Math.max(0.6, to - from), h - 2 * inset);
        this.boxes.push([from, Math.max(to, from + 1), y, y + h, record, span]);
      }
    }
    g.globalAlpha = 1;
    if (!shown.length) {
      g.fillStyle = quiet; g.textAlign = "center";
      g.fillText(this.records.length ? "No task ran in this time" : "No task has finished since recording began (with the first look at this page)", width / 2, (height - bottom) / 2);
    }
  }
  hit(x, y) {
    for (let i = (this.boxes || []).length - 1; i >= 0; i--) {
      const [from, to, top, bottom, record, span] = this.boxes[i];
      if (x >= from && x <= to && y >= top && y <= bottom) {
        const action = span.action === "compute" ? (record.erred ? "failed" : "compute") : span.action;
        return [record.key, `${action}: ${fmt.time(span.stop - span.start)}`, `${record.worker}, thread ${record.thread}`, `from ${fmt.clock(span.start)}`];
      }
    }
    return null;
  }
}

/// The task graph: layers by depth from left to right. Wheel zooms, dragging moves.
class Dag extends Chart {
  constructor() {
    super();
    this.nodes = []; this.edges = []; this.view = { x: 0, y: 0, scale: 1 };
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = this.canvas.getBoundingClientRect(), mx = event.clientX - box.left, my = event.clientY - box.top;
      const factor = Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) / 200);
      this.view.x = mx - (mx - this.view.x) * factor; this.view.y = my - (my - this.view.y) * factor; this.view.scale *= factor;
      this.redraw();
    }, { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => { this.drag = [event.clientX - this.view.x, event.clientY - this.view.y]; this.canvas.setPointerCapture(event.pointerId); });
    this.canvas.addEventListener("pointermove", (event) => { if (this.drag) { this.view.x = event.clientX - this.drag[0]; this.view.y = event.clientY - this.drag[1]; this.redraw(); } });
    this.canvas.addEventListener("pointerup", () => { this.drag = null; });
    this.canvas.addEventListener("dblclick", () => { this.view = { x: 0, y: 0, scale: 1 }; this.redraw(); });
  }
  set(graph) {
    const shape = graph.nodes.length + "/" + graph.edges.length + "/" + (graph.nodes[0] ? graph.nodes[0].key : "");
    this.nodes = graph.nodes; this.edges = graph.edges;
    if (shape !== this.shape) { this.shape = shape; this.layout(); }
    this.redraw();
  }
  layout() {
    const n = this.nodes.length, depth = new Int32Array(n), into = Array.from({ length: n }, () => []), out = Array.from({ length: n }, () => []), missing = new Int32Array(n);
    for (const [from, to] of this.edges) { into[to].push(from); out[from].push(to); missing[to]++; }
    const queue = [];
    for (let i = 0; i < n; i++) if (!missing[i]) queue.push(i);
    for (let at = 0; at < queue.length; at++) {
      for (const to of out[queue[at]]) {
        depth[to] = Math.max(depth[to], depth[queue[at]] + 1);
        if (--missing[to] === 0) queue.push(to);
      }
    }
    const layers = [];
    for (const i of queue) (layers[depth[i]] ||= []).push(i);
    // Each node at the mean height of its neighbours, forth and back, then spread evenly: few crossings at little cost.
    const place = new Float64Array(n);
    const arrange = (layer, near) => {
      const mean = new Map(layer.map((i) => [i, near[i].length ? near[i].reduce((sum, j) => sum + place[j], 0) / near[i].length : place[i]]));
      layer.sort((a, b) => mean.get(a) - mean.get(b) || a - b);
      layer.forEach((i, k) => { place[i] = (k + 0.5) / layer.length; });
    };
    layers.forEach((layer) => layer.forEach((i, k) => { place[i] = (k + 0.5) / layer.length; }));
    for (let sweep = 0; sweep < 3; sweep++) {
      layers.slice(1).forEach((layer) => arrange(layer, into));
      layers.slice(0, -1).reverse().forEach((layer) => arrange(layer, out));
    }
    this.place = place; this.depth = depth; this.levels = Math.max(1, layers.length); this.tallest = Math.max(1, ...layers.map((l) => l.length));
  }
  draw(g, width, height) {
    if (!this.nodes.length) return;
    const pad = 18, size = Math.max(2, Math.min(9, (height - 2 * pad) / this.tallest * 0.36, width / this.levels * 0.25));
    const px = (i) => this.view.x + (pad + ((this.depth[i] + 0.5) / this.levels) * (width - 2 * pad)) * this.view.scale;
    const py = (i) => this.view.y + (pad + this.place[i] * (height - 2 * pad)) * this.view.scale;
    g.strokeStyle = css("--quiet"); g.globalAlpha = this.edges.length > 3000 ? 0.18 : 0.4; g.beginPath();
    for (const [from, to] of this.edges) {
      const x1 = px(from), x2 = px(to), middle = (x1 + x2) / 2;
      g.moveTo(x1, py(from)); g.bezierCurveTo(middle, py(from), middle, py(to), x2, py(to));
    }
    g.stroke(); g.globalAlpha = 1;
    const erred = css("--erred"), radius = size * Math.min(3, Math.max(1, Math.sqrt(this.view.scale)));
    this.boxes = [];
    this.nodes.forEach((node, i) => {
      const x = px(i), y = py(i);
      g.fillStyle = STATES[node.state] || erred;
      g.beginPath(); g.roundRect(x - radius, y - radius, 2 * radius, 2 * radius, radius * 0.35); g.fill();
      this.boxes.push([x, y]);
    });
    this.radius = radius + 1;
  }
  hit(x, y) {
    const i = (this.boxes || []).findIndex(([bx, by]) => Math.abs(bx - x) <= this.radius && Math.abs(by - y) <= this.radius);
    return i < 0 ? null : [this.nodes[i].key, this.nodes[i].state];
  }
}
