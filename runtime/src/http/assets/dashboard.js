// The dashboard's pages: panels that take part of the scheduler's figures, and the loop that fetches them.
"use strict";

const page = location.pathname.replace(/\/+$/, "").split("/").pop() || "status";
const single = page.startsWith("individual-") ? page.slice("individual-".length) : null;

function panel(title, body, options = {}) {
  const note = el("span", { class: "note" });
  const head = el("header", null, el("h2", null, title), note, el("span", { class: "grow" }), ...(options.tools || []));
  const node = el("section", { class: "panel " + (options.class || "") }, head, el("div", { class: "body " + (options.scroll ? "scroll" : "") }, ...[body].flat()));
  return { node, note, head };
}
function segments(names, chosen, onchange) {
  const buttons = names.map((name) => el("button", { class: name === chosen ? "on" : "", onclick: () => { buttons.forEach((b) => b.classList.toggle("on", b.textContent === name)); onchange(name); } }, name));
  return el("span", { class: "segments" }, ...buttons);
}
function legend(items) { return el("div", { class: "legend" }, ...items.map(([text, colour]) => el("span", null, el("i", { style: { background: colour } }), text))); }
function meter(parts) { return el("div", { class: "meter" }, ...parts.map(([share, colour]) => el("i", { style: { width: Math.max(0, Math.min(100, share * 100)) + "%", background: colour } }))); }
function workerName(row) { return row.name === null || row.name === "" ? row.address : String(row.name); }
function byName(rows) { return [...rows].sort((a, b) => workerName(a).localeCompare(workerName(b), undefined, { numeric: true })); }
function workerHref(address) { return "info/worker/" + encodeURIComponent(address) + ".html"; }
function taskHref(key) { return "info/task/" + encodeURIComponent(key).replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase()) + ".html"; }

// --- Panels: each has `node`, and any of `overview(data)`, `stream(data, now)`, and `fetch: [path, every ms, function]`.

function tiles() {
  const node = el("div", { class: "tiles" });
  const tile = (label, value, unit, sub, extra, bad) => el("div", { class: "tile" + (bad ? " bad" : "") }, el("div", { class: "label" }, label), el("div", { class: "value" }, value, unit ? el("small", null, unit) : null), el("div", { class: "sub", title: sub }, sub || "\u00a0"), extra);
  return {
    node,
    overview(data) {
      const t = data.totals, c = data.cluster, paused = data.workers.filter((w) => w.status === "paused").length;
      const state = [c.idle ? `${c.idle} idle` : "", c.saturated ? `${c.saturated} saturated` : "", paused ? `${paused} paused` : ""].filter(Boolean).join(", ");
      const wants = c.desired_workers !== data.n_workers ? `wants ${c.desired_workers}` : "";
      node.replaceChildren(
        tile("Workers", fmt.count(data.n_workers), wants, state || "none idle", null),
        tile("CPU", (t.threads ? t.cpu / t.threads : 0).toFixed(0) + " %", `of ${fmt.count(t.threads)} threads`, null, meter([[t.threads ? t.cpu / t.threads / 100 : 0, "var(--good)"]])),
        tile("Cluster memory", fmt.bytes(t.memory), null, (t.memory_limit ? "of " + fmt.bytes(t.memory_limit) : "") + (t.spilled ? ", " + fmt.bytes(t.spilled) + " spilled" : ""),
          meter(t.memory_limit ? [[t.managed / t.memory_limit, "var(--managed)"], [(t.memory - t.managed) / t.memory_limit, "var(--recent)"]] : [])),
        tile("Processing", fmt.count(t.processing), "tasks", fmt.time(c.occupancy) + " of work"),
        tile("Waiting", fmt.count(t.waiting), "tasks", "queued, or not ready"),
        tile("In memory", fmt.count(t.in_memory), "tasks", fmt.count(t.released) + " released"),
        tile("Erred", t.erred ? el("a", { href: "exceptions" }, fmt.count(t.erred)) : "0", "tasks", t.erred ? "see Exceptions" : null, null, t.erred > 0),
        tile("Clients", fmt.count(c.clients), "", "up " + fmt.time(Math.max(0, data.process.time - c.started))));
    },
  };
}

function memoryPanel() {
  const chart = new Bars(fmt.bytes, 1024);
  const box = panel("Bytes stored per worker", [chart.node, legend([["managed", "var(--managed)"], ["unmanaged", "var(--old)"], ["unmanaged, recent", "var(--recent)"], ["spilled", "var(--spilled)"]])]);
  return {
    node: box.node,
    overview(data) {
      const [managed, old, recent, spilled] = ["--managed", "--old", "--recent", "--spilled"].map(css);
      box.note.textContent = fmt.bytes(data.totals.memory) + (data.totals.memory_limit ? " of " + fmt.bytes(data.totals.memory_limit) : "");
      chart.set(byName(data.workers).map((w) => ({
        label: workerName(w), faded: w.status !== "running", mark: w.memory_limit || null,
        parts: [[w.managed, managed], [w.unmanaged_old, old], [w.unmanaged_recent, recent], [w.spilled, spilled]],
        tip: [workerName(w), w.address, `process ${fmt.bytes(w.memory)}` + (w.memory_limit ? ` of ${fmt.bytes(w.memory_limit)}` : ""), `managed ${fmt.bytes(w.managed)}, unmanaged ${fmt.bytes(w.unmanaged_old)} + ${fmt.bytes(w.unmanaged_recent)} recent, spilled ${fmt.bytes(w.spilled)}`],
      })));
    },
  };
}

const MEASURES = {
  Processing: [(w) => w.processing, fmt.count, 10],
  CPU: [(w) => w.cpu, (n) => n.toFixed(0) + " %", 10],
  Occupancy: [(w) => w.occupancy, fmt.time, 10],
  Transfer: [(w) => w.net_read + w.net_write, (n) => fmt.bytes(n) + "/s", 1024],
};
function loadPanel(first = "Processing", fixed = false) {
  const chart = new Bars(fmt.count);
  let chosen = first, latest = null;
  const tools = fixed ? [] : [segments(Object.keys(MEASURES), chosen, (name) => { chosen = name; if (latest) show(); })];
  const box = panel(fixed ? first + " per worker" : "Load per worker", chart.node, { tools });
  function show() {
    const [value, format, base] = MEASURES[chosen];
    chart.format = format; chart.base = base; chart.whole = chosen === "Processing";
    const busy = css("--blue"), idle = css("--recent"), paused = css("--warn"), full = css("--good");
    chart.set(byName(latest.workers).map((w) => {
      const colour = w.status !== "running" ? paused : chosen !== "Processing" ? busy : w.processing < w.nthreads ? idle : w.processing > w.nthreads * 2 ? full : busy;
      return { label: workerName(w), faded: w.status !== "running", parts: [[value(w), colour]], mark: chosen === "Processing" ? w.nthreads : chosen === "CPU" ? w.nthreads * 100 : null,
        tip: [workerName(w), w.address, `${w.processing} processing, ${w.executing} executing on ${w.nthreads} threads`, `CPU ${w.cpu.toFixed(0)} %, occupancy ${fmt.time(w.occupancy)}`, `network ${fmt.bytes(w.net_read)}/s in, ${fmt.bytes(w.net_write)}/s out`] };
    }));
  }
  return { node: box.node, overview(data) { latest = data; show(); } };
}

function clusterPanel() {
  const history = [[], []], chart = new Line(fmt.bytes, ["--managed", "--recent"]);
  const box = panel("Cluster memory", [chart.node, legend([["managed", "var(--managed)"], ["process", "var(--recent)"]])], { class: "fill" });
  return { node: box.node, overview(data) { push(history[0], data.process.time, data.totals.managed); push(history[1], data.process.time, data.totals.memory); chart.set(history); } };
}
function push(list, time, value) { list.push([time, value]); if (list.length > 900) list.shift(); }

function streamPanel(options = {}) {
  const chart = new Stream(), key = legend([]);
  const windows = { "10 s": 10, "30 s": 30, "2 min": 120, "10 min": 600 };
  const follow = el("button", { onclick: () => chart.follow() }, "Follow");
  follow.hidden = true;
  chart.onmove = () => { follow.hidden = chart.end === null; };
  const box = panel("Task stream", [chart.node, key], { class: options.class || "", tools: [follow, segments(Object.keys(windows), "30 s", (name) => chart.follow(windows[name]))] });
  return {
    node: box.node,
    stream(data, now) {
      chart.add(data.records, now);
      const counts = new Map();
      let failed = false;
      for (const record of chart.records.slice(-4000)) { counts.set(record.name, (counts.get(record.name) || 0) + 1); failed ||= record.erred; }
      const top = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 10).map(([name]) => [name, colourOf(name)]);
      key.replaceChildren(...legend([...top, ["transfer", ACTIONS.transfer[0]], ["disk", ACTIONS["disk-read"][0]], ["(de)serialize", ACTIONS.deserialize[0]], ...(failed ? [["failed", "var(--erred)"]] : [])]).childNodes);
      const threads = new Set(chart.records.map((r) => r.row)).size;
      box.note.textContent = chart.records.length ? `${fmt.count(chart.records.length)} tasks on ${threads} threads` : "";
    },
  };
}

function progressPanel(options = {}) {
  const grid = el("div", { class: "progress" });
  const box = panel("Progress", grid, { scroll: true, class: options.class || "progressing" });
  const rows = new Map();
  return {
    node: box.node,
    overview(data) {
      const list = data.progress.map((p) => ({ ...p, total: p.memory + p.released + p.processing + p.waiting + p.queued + p.no_worker + p.erred })).filter((p) => p.total > 0).slice(-(options.rows || 200));
      const t = data.totals;
      box.note.textContent = t.tasks ? `${fmt.count(t.tasks)} tasks: ${fmt.count(t.in_memory)} in memory, ${fmt.count(t.released)} released, ${fmt.count(t.processing)} processing, ${fmt.count(t.waiting)} waiting, ${fmt.count(t.erred)} erred` : "";
      const seen = new Set(list.map((p) => p.name));
      for (const [name, row] of rows) if (!seen.has(name)) { row.all.forEach((node) => node.remove()); rows.delete(name); }
      for (const p of list) {
        let row = rows.get(p.name);
        if (!row) {
          const colour = colourOf(p.name);
          const bars = Object.fromEntries(["released", "memory", "erred", "processing"].map((state) => [state, el("i", { class: state, style: { background: colour } })]));
          row = { bars, track: el("div", { class: "track" }, bars.memory, bars.released, bars.erred, bars.processing), count: el("div", { class: "count" }) };
          row.all = [el("div", { class: "name", title: p.name }, p.name), row.track, row.count];
          row.track.addEventListener("mousemove", (event) => tip.show(event, p.name, ...row.tip));
          row.track.addEventListener("mouseleave", tip.hide);
          grid.append(...row.all);
          rows.set(p.name, row);
        }
        for (const [state, bar] of Object.entries(row.bars)) bar.style.width = (p[state] / p.total) * 100 + "%";
        row.count.replaceChildren(el("b", null, fmt.count(p.memory + p.released)), " / " + fmt.count(p.total), p.erred ? el("em", null, ` · ${fmt.count(p.erred)} erred`) : "");
        row.tip = [`in memory ${p.memory}, released ${p.released}, processing ${p.processing}`, `waiting ${p.waiting}, queued ${p.queued}, no worker ${p.no_worker}, erred ${p.erred}`, `${fmt.bytes(p.nbytes)} in memory` + (p.duration >= 0 ? `, ${fmt.time(p.duration)} each` : "")];
      }
      if (!list.length && !grid.firstChild) box.note.textContent = "no tasks yet";
    },
  };
}

/// A table that sorts by its heads; `columns` are [head, value, cell or null, numeric].
function sortedTable(columns, first) {
  let by = first, down = false, rows = [];
  const body = el("tbody"), heads = columns.map(([head, , , numeric], i) => el("th", { class: "sortable" + (numeric ? " num" : ""), onclick: () => { down = by === i ? !down : Boolean(numeric); by = i; render(); } }, head));
  function render() {
    heads.forEach((head, i) => { head.classList.toggle("up", i === by && !down); head.classList.toggle("down", i === by && down); });
    const value = columns[by][1];
    const sorted = [...rows].sort((a, b) => { const x = value(a), y = value(b); return (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true })) * (down ? -1 : 1); });
    body.replaceChildren(...sorted.map((row) => el("tr", { class: row.last_seen_ago > 60 ? "stale" : "" }, ...columns.map(([, value, cell, numeric]) => el("td", { class: numeric ? "num" : "" }, cell ? cell(row) : String(value(row)))))));
  }
  return { node: el("table", null, el("thead", null, el("tr", null, ...heads)), body), set(list) { rows = list; render(); } };
}

function gauge(text, parts) { return el("span", { class: "gauge" }, meter(parts), text); }
function workersPanel() {
  let api = false, filter = "", latest = null;
  const retire = (w) => el("button", { onclick: async (event) => {
    if (!confirm(`Retire ${w.address}? Its data moves to other workers first.`)) return;
    event.target.disabled = true;
    await fetch("api/v1/retire_workers", { method: "POST", body: JSON.stringify({ workers: [w.address] }) });
  } }, "Retire");
  const table = sortedTable([
    ["Name", workerName, (w) => el("a", { href: workerHref(w.address) }, workerName(w))],
    ["Address", (w) => w.address, (w) => el("span", { class: "mono" }, w.address)],
    ["Status", (w) => w.status, (w) => el("span", { class: "chip " + w.status.replace(/\W/g, "") }, w.status)],
    ["Threads", (w) => w.nthreads, null, true],
    ["CPU", (w) => w.cpu, (w) => gauge(w.cpu.toFixed(0) + " %", [[w.cpu / 100 / Math.max(1, w.nthreads), "var(--good)"]])],
    ["Memory", (w) => w.memory, (w) => gauge(fmt.bytes(w.memory) + (w.memory_limit ? " / " + fmt.bytes(w.memory_limit).replace(/\.0+ /, " ") : ""), w.memory_limit ? [[w.managed / w.memory_limit, "var(--managed)"], [w.unmanaged_old / w.memory_limit, "var(--old)"], [w.unmanaged_recent / w.memory_limit, "var(--recent)"]] : [])],
    ["Spilled", (w) => w.spilled, (w) => fmt.bytes(w.spilled), true],
    ["Processing", (w) => w.processing, null, true],
    ["In memory", (w) => w.in_memory, null, true],
    ["Occupancy", (w) => w.occupancy, (w) => fmt.time(w.occupancy), true],
    ["Last seen", (w) => w.last_seen_ago, (w) => fmt.time(w.last_seen_ago), true],
    ["", () => 0, (w) => el("span", { class: "tools" }, el("a", { href: "info/logs/" + encodeURIComponent(w.address) + ".html" }, "logs"), api ? retire(w) : null)],
    ["Network /s", (w) => w.net_read + w.net_write, (w) => `↓ ${fmt.bytes(w.net_read)}  ↑ ${fmt.bytes(w.net_write)}`, true],
    ["Disk /s", (w) => w.disk_read + w.disk_write, (w) => `↓ ${fmt.bytes(w.disk_read)}  ↑ ${fmt.bytes(w.disk_write)}`, true],
    ["fds", (w) => w.num_fds, null, true],
  ], 0);
  const input = el("input", { placeholder: "Filter", type: "search", oninput: (event) => { filter = event.target.value.toLowerCase(); show(); } });
  const box = panel("Workers", table.node, { scroll: true, class: "fill", tools: [input] });
  const show = () => latest && table.set(latest.workers.filter((w) => (workerName(w) + " " + w.address + " " + w.status).toLowerCase().includes(filter)));
  return {
    node: box.node,
    overview(data) {
      api = data.api; latest = data;
      box.note.textContent = data.workers.length < data.n_workers ? `${data.workers.length} of ${data.n_workers} shown` : String(data.n_workers);
      // A table under the mouse stays put: buttons must not move away while one aims at them.
      if (!table.node.matches(":hover") || !table.node.querySelector("tbody tr")) show();
    },
  };
}

function groupsPanel() {
  const total = (p) => p.memory + p.released + p.processing + p.waiting + p.queued + p.no_worker + p.erred;
  const count = (name, field) => [name, (p) => p[field], (p) => fmt.count(p[field]), true];
  const table = sortedTable([
    ["Tasks", (p) => p.name, (p) => el("span", { class: "tools" }, el("i", { style: { background: colourOf(p.name), width: "10px", height: "10px", borderRadius: "2px" } }), p.name)],
    ["Total", total, (p) => fmt.count(total(p)), true], count("Waiting", "waiting"), count("Queued", "queued"), count("No worker", "no_worker"), count("Processing", "processing"),
    count("In memory", "memory"), count("Released", "released"), count("Erred", "erred"), ["Bytes", (p) => p.nbytes, (p) => fmt.bytes(p.nbytes), true],
    ["Mean duration", (p) => p.duration, (p) => (p.duration >= 0 ? fmt.time(p.duration) : "–"), true],
  ], 1);
  const box = panel("Task groups by prefix", table.node, { scroll: true, class: "fill" });
  return { node: box.node, overview(data) { box.note.textContent = `${fmt.count(data.cluster.task_groups)} groups`; table.set(data.progress); } };
}

function systemPanels() {
  const defs = [["CPU", (n) => n.toFixed(n < 10 ? 1 : 0) + " %", "--blue"], ["Resident memory", fmt.bytes, "--managed"], ["State transitions", (n) => fmt.count(n) + "/s", "--good"], ["Longest turn of the core loop", fmt.time, "--warn"], ["Open file descriptors", fmt.count, "--recent"], ["Cluster CPU", (n) => n.toFixed(0) + " %", "--accent"]];
  const charts = defs.map(([title, format, colour]) => { const chart = new Line(format, [colour]); const box = panel(title, chart.node); return { chart, box, history: [] }; });
  const node = el("div", { class: "charts" }, ...charts.map((c) => c.box.node));
  let before = null;
  return {
    node,
    overview(data) {
      const p = data.process, now = p.time;
      if (before && now > before.time) {
        const dt = now - before.time;
        const values = [((p.cpu_seconds_total - before.cpu) / dt) * 100, p.resident_memory_bytes, Math.max(0, data.cluster.transitions - before.transitions) / dt, data.cluster.tick_seconds, p.open_fds, data.totals.cpu];
        values.forEach((value, i) => { push(charts[i].history, now, value); charts[i].chart.set([charts[i].history]); charts[i].box.note.textContent = defs[i][1](value); });
      }
      before = { time: now, cpu: p.cpu_seconds_total, transitions: data.cluster.transitions };
    },
  };
}

function graphPanel() {
  const chart = new Dag();
  const box = panel("Task graph", [chart.node, legend(Object.entries(STATES).map(([state, colour]) => [state, colour || "var(--erred)"]))], { class: "fill" });
  const empty = el("div", { class: "empty" });
  chart.node.after(empty);
  return {
    node: box.node,
    fetch: ["oxidask/graph.json", 1500, (graph) => {
      const large = graph.total > 0 && !graph.nodes.length;
      box.note.textContent = graph.total ? `${fmt.count(graph.total)} tasks, ${fmt.count(graph.edges.length)} dependencies` : "";
      empty.textContent = large ? `The graph has ${fmt.count(graph.total)} tasks, too many to draw; distributed.dashboard.graph-max-items sets the limit.` : graph.total ? "" : "No tasks.";
      empty.hidden = graph.nodes.length > 0; chart.node.hidden = !graph.nodes.length;
      chart.set(graph);
    }],
  };
}

function listPanel(title, path, render, every = 2000) {
  let filter = "", latest = [];
  const content = el("div");
  const input = el("input", { placeholder: "Filter", type: "search", oninput: (event) => { filter = event.target.value.toLowerCase(); show(); } });
  const box = panel(title, content, { scroll: true, class: "fill", tools: [input] });
  const show = () => {
    const rows = latest.filter((row) => JSON.stringify(row).toLowerCase().includes(filter));
    content.replaceChildren(rows.length ? render(rows) : el("div", { class: "empty" }, latest.length ? "Nothing matches." : "Nothing yet."));
    box.note.textContent = latest.length ? `latest ${latest.length}` : "";
  };
  return { node: box.node, fetch: [path, every, (rows) => { latest = rows; if (!content.querySelector("details[open]")) show(); }] };
}
const eventsPanel = () => listPanel("Events", "oxidask/events.json", (rows) => el("table", null, el("thead", null, el("tr", null, ...["Time", "Topic", "Event"].map((h) => el("th", null, h)))), el("tbody", null, ...rows.map((e) => el("tr", null, el("td", null, fmt.clock(e.time)), el("td", { class: "mono" }, e.topic), el("td", { class: "wide mono" }, e.text))))));
const logsPanel = () => listPanel("Scheduler log", "oxidask/logs.json", (rows) => el("pre", { class: "log" }, ...rows.map((r) => el("span", { class: { WARNING: "warning", ERROR: "error", CRITICAL: "error", DEBUG: "debug" }[r.level] || "plain" }, r.text + "\n"))));
const exceptionsPanel = () => listPanel("Exceptions", "oxidask/exceptions.json", (rows) => el("div", null, ...rows.map((e) => el("div", { class: "card exception" },
  el("div", null, el("a", { href: taskHref(e.key) }, el("code", null, e.key)), el("span", { class: "quiet" }, ` ${fmt.clock(e.time)} on ${e.erred_on.join(", ") || "an unknown worker"}`)),
  el("p", null, el("code", null, e.exception_text)), el("details", null, el("summary", null, "Traceback"), el("pre", null, e.traceback_text))))));

// --- Pages

function build() {
  const main = document.getElementById("main"), panels = [];
  const use = (panel) => { panels.push(panel); return panel.node; };
  const row = (name, ...nodes) => el("div", { class: name }, ...nodes);
  const singles = { "task-stream": () => streamPanel({ class: "fill" }), progress: () => progressPanel({ class: "fill" }), graph: graphPanel, groups: groupsPanel, workers: workersPanel, "workers-memory": memoryPanel, "cluster-memory": clusterPanel, cpu: () => loadPanel("CPU", true), nprocessing: () => loadPanel("Processing", true), exceptions: exceptionsPanel };
  const pages = {
    status: () => [use(tiles()), row("row status", row("column", use(memoryPanel()), use(loadPanel())), use(streamPanel())), use(progressPanel())],
    workers: () => [use(tiles()), use(workersPanel())],
    tasks: () => [use(streamPanel({ class: "tasks" })), use(progressPanel())],
    system: () => [use(systemPanels())],
    graph: () => [use(graphPanel())],
    groups: () => [use(groupsPanel())],
    events: () => [use(eventsPanel())],
    logs: () => [use(logsPanel())],
    exceptions: () => [use(exceptionsPanel())],
  };
  if (single && singles[single]) {
    document.body.classList.add("single");
    document.getElementById("bar").hidden = true;
    const node = use(singles[single]());
    node.classList.add("fill");
    main.append(node);
  } else {
    main.append(...(pages[page] || pages.status)());
  }
  document.querySelectorAll("#nav a").forEach((link) => link.classList.toggle("here", link.getAttribute("href") === page));
  return panels;
}

function theme() {
  const root = document.documentElement;
  try { const saved = localStorage.getItem("oxidask-theme"); if (saved) root.dataset.theme = saved; } catch (error) { /* no storage */ }
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("oxidask-theme", root.dataset.theme); } catch (error) { /* no storage */ }
    dispatchEvent(new Event("resize"));
  });
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function json(path) {
  const abort = new AbortController(), timer = setTimeout(() => abort.abort(), 10000);
  try {
    const response = await fetch(path, { signal: abort.signal, cache: "no-store" });
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return await response.json();
  } finally { clearTimeout(timer); }
}
/// Repeats `work` every `ms`, slower if it takes long, not at all while nobody looks.
async function repeat(ms, work) {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) {
      try { await work(); status(true); } catch (error) { console.warn(error); status(false); await sleep(1500); }
    }
    const took = performance.now() - began;
    await sleep(Math.max(ms - took, took * 3, 100));
  }
}
function status(on) {
  const live = document.getElementById("live");
  live.textContent = on ? "live" : "no answer";
  live.className = "live " + (on ? "on" : "off");
}

(function start() {
  theme();
  const panels = build();
  const overviews = panels.filter((p) => p.overview), streams = panels.filter((p) => p.stream);
  let id = null, next = 0, now = 0;
  repeat(overviews.length ? 500 : 2000, async () => {
    const data = await json("oxidask/overview.json");
    now = data.process.time;
    // Another scheduler at the same address: what is shown is not its own.
    if (id !== null && id !== data.cluster.id) location.reload();
    id = data.cluster.id;
    document.getElementById("address").textContent = data.cluster.address;
    document.title = `Oxidask: ${data.n_workers} workers, ${fmt.count(data.totals.processing)} processing`;
    for (const task of data.progress) colourOf(task.name);
    for (const panel of overviews) panel.overview(data);
  });
  if (streams.length) {
    // After the first overview: it names the tasks in their order, and with it gives them their colours.
    repeat(500, async () => {
      if (id === null) return;
      const data = await json("oxidask/stream.json?since=" + next);
      next = data.next;
      for (const panel of streams) panel.stream(data, now || Date.now() / 1000);
    });
  }
  for (const panel of panels) if (panel.fetch) repeat(panel.fetch[1], async () => panel.fetch[2](await json(panel.fetch[0])));
})();
