// The page: fetches what the process says, and shows it by uPlot (graphs), Tabulator (tables) and Cytoscape (who waits
// for whom). Text from the process only ever becomes text: see el() and cellText().

const byId = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ------------------------------------------------------------ words and units
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const units = [["µs", 1e-6, 1e-3], ["ms", 1e-3, 1], ["s", 1, 120], ["min", 60, 7200], ["h", 3600, 172800]];
  const [name, size] = units.find(([, , below]) => seconds < below) ?? ["d", 86400];
  return `${short(seconds / size)} ${name}`;
}

function bytes(count) {
  if (count === null || count === undefined) return "–";
  for (const unit of ["B", "kB", "MB"]) {
    if (count < 1000) return `${short(count)} ${unit}`;
    count /= 1000;
  }
  return `${short(count)} GB`;
}

const short = (number) => (number >= 100 || number === 0 ? Math.round(number).toString() : number.toPrecision(2));
const whole = (number) => Math.round(number).toLocaleString("en");
const clock = (time) => new Date(1000 * time).toLocaleTimeString("en-GB");
const place = (file, line) => (file ? `${file}:${line}` : "");

// ------------------------------------------------------------------ the data
async function get(path) {
  try {
    const response = await fetch(path, { signal: AbortSignal.timeout(20000) });
    if (!response.ok) throw new Error(await response.text());
    byId("trouble").hidden = true;
    return response;
  } catch (problem) {
    const silent = problem.name === "TimeoutError" || problem.name === "TypeError";
    byId("trouble").textContent = silent
      ? "The program does not answer: it has ended, is stopped, or something keeps its interpreter lock."
      : `The program says: ${problem.message}`;
    byId("trouble").hidden = false;
    throw problem;
  }
}

const getJson = async (path) => (await get(path)).json();

// ------------------------------------------------------------------ the tables
function cellText(format = (value) => value ?? "") {
  return (cell) => document.createTextNode(format(cell.getValue()));
}

const text = (title, field, extra = {}) => ({ title, field, formatter: cellText(), ...extra });
const amount = (title, field, format, extra = {}) => ({
  title, field, formatter: cellText(format), hozAlign: "right", headerHozAlign: "right", sorter: "number",
  headerSortStartingDir: "desc", ...extra,
});

// Resolves when the table can take data.
function table(id, columns, options = {}) {
  const made = new Tabulator(byId(id), {
    columns, layout: "fitColumns", responsiveLayout: false, placeholder: "none", ...options,
  });
  return new Promise((resolve) => made.on("tableBuilt", () => resolve(made)));
}

const tables = {};
const lazyTable = (name, make) => (tables[name] ??= make());

// ----------------------------------------------------------------- overview
let first = null; // the first look, for the times since the page was opened
let latest = null;

async function showOverview() {
  const look = await getJson("api/overview");
  first ??= look;
  latest = look;
  document.title = `goloop: ${look.program} (${look.pid})`;
  byId("program").textContent = `${look.program || "python"} (${look.pid})`;
  byId("versions").textContent = `goloop ${look.goloop}, Python ${look.python}`;
  const stuck = look.loop_list.filter((loop) => loop.running_for >= 0.1);
  byId("alarms").replaceChildren(
    ...look.deadlocks.map((words) => el("p", { class: "alarm" }, `Deadlock: ${words}`)),
    ...stuck.map((loop) => el("p", { class: "alarm" },
      `The loop of ${loop.thread_name ?? "no thread"} has been in ${loop.running || "one callback"} for ${duration(loop.running_for)}.`)),
  );
  const tiles = [
    ["up", duration(look.uptime)], ["processor time", duration(look.cpu)], ["memory", bytes(look.rss)],
    ["threads", whole(look.threads ?? 0)], ["tasks", whole(look.tasks)], ["goroutines", whole(look.goroutines)],
    ["connections", whole(look.connections)], ["workers", whole(look.stats.workers)],
    ["waiting for a worker", whole(look.stats.backlog)], ["handoffs", whole(look.stats.handoffs)],
  ];
  byId("tiles").replaceChildren(
    ...tiles.map(([name, value]) => el("div", { class: "tile" }, el("b", {}, value), el("span", {}, name))));
  const loops = await lazyTable("loops", () => table("loops", [
    text("Thread", "thread", { minWidth: 140 }), text("Runs", "running", { minWidth: 200, widthGrow: 2 }),
    amount("for", "running_for", (s) => (s ? duration(s) : "")), amount("Ready", "ready", whole),
    amount("Timers", "timers", whole), amount("Descriptors", "descriptors", whole),
    amount("Iterations", "iterations", whole), amount("Accepted", "accepts", whole),
    amount("Received", "received", bytes), amount("Written", "written", bytes), amount("Handoffs", "handoffs", whole),
  ].map((column) => ({ minWidth: 90, ...column }))));
  const running = new Map(look.loop_list.map((loop) => [loop.thread_name, loop]));
  loops.replaceData(look.stats.loops.map((loop) => ({
    ...loop, running: running.get(loop.thread)?.running ?? "", running_for: running.get(loop.thread)?.running_for ?? 0,
  })));
  const slowest = await lazyTable("slowest", () => table("slowest", [
    amount("Count", "count", whole, { width: 90 }), text("Function", "function", { minWidth: 180, widthGrow: 2 }),
    text("Waits for", "wait", { minWidth: 200, widthGrow: 2 }), amount("Longest", "oldest", duration, { width: 110 }),
    text("Where", "where", { minWidth: 180, widthGrow: 2 }),
  ], { maxHeight: 420 }));
  slowest.replaceData(look.waits);
  return look.took;
}

// ------------------------------------------------------------------- graphs
const GRAPHS = [
  { title: "Lag", lines: [["waited for the loop", "lag"], ["in one callback by now", "stuck"]], format: duration },
  { title: "Throughput", lines: [["callbacks/s", "callbacks"]], format: (x) => (x === null ? "–" : whole(x)) },
  { title: "Bytes", lines: [["received/s", "received"], ["written/s", "written"]], format: bytes },
  { title: "Goroutines and tasks", lines: [["goroutines", "goroutines"], ["tasks", "tasks"]], format: (x) => (x === null ? "–" : whole(x)) },
  { title: "Connections", lines: [["open", "connections"], ["accepted/s", "accepts"]], format: (x) => (x === null ? "–" : short(x)) },
  { title: "Processor", lines: [["loops busy", "busy"], ["process", "cpu"]], format: (x) => (x === null ? "–" : `${whole(100 * x)} %`) },
];
const samples = [];
let plots = [];

function makePlots() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  byId("graphs").replaceChildren();
  plots = GRAPHS.map(({ title, lines, format }) => {
    const box = el("div", { class: "graph" }, el("h2", {}, title));
    byId("graphs").append(box);
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
    const options = {
      width: 400, height: 190, cursor: { y: false, sync: { key: "graphs" } },
      scales: { y: { range: (plot, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [{ ...axis, space: 80, values: (plot, ticks) => ticks.map(clock) }, { ...axis, size: 70, values: (plot, ticks) => ticks.map(format) }],
      series: [{ label: "at", value: (plot, time) => (time ? clock(time) : "–") }, ...lines.map(([label], number) => ({
        label, stroke: color(number ? "--two" : "--one"), width: 1.5, points: { show: false },
        value: (plot, value) => format(value ?? null),
      }))],
    };
    return { box, lines, plot: new uPlot(options, [[], ...lines.map(() => [])], box) };
  });
  fitPlots();
  drawPlots();
}

function fitPlots() {
  for (const { box, plot } of plots) plot.setSize({ width: Math.max(200, box.clientWidth - 18), height: 190 });
}

function drawPlots() {
  const times = samples.map((sample) => sample.time);
  for (const { lines, plot } of plots) plot.setData([times, ...lines.map(([, name]) => samples.map((s) => s[name]))]);
}

async function showHistory() {
  const since = samples.length ? samples[samples.length - 1].time : 0;
  const found = await getJson(`api/history?since=${since}`);
  samples.push(...found.samples);
  samples.splice(0, samples.length - found.kept);
  if (viewNow() === "overview") drawPlots();
}

// --------------------------------------------------------- tasks, goroutines
let stacks = [];

async function showTasks() {
  const found = await getJson("api/tables");
  stacks = found.stacks;
  const shown = await lazyTable("tasks", () => table("tasks-table", [
    text("Name", "name", { minWidth: 140 }), text("Function", "function", { minWidth: 180, widthGrow: 2 }),
    text("State", "state", { width: 110 }), text("Waits for", "wait", { minWidth: 200, widthGrow: 2 }),
    amount("Since", "age", duration, { width: 100 }), text("Started by", "parent", { minWidth: 130 }),
  ], {
    index: "key", maxHeight: "60vh", rowFormatter: (row) => makeChoosable(row),
    groupStartOpen: (group, count) => count === 1, groupToggleElement: "header",
    groupHeader: (group, count, rows) => groupHeader(count, rows),
  }));
  if (shown.foldsNow === undefined) {
    shown.on("dataFiltered", (filters, rows) => { byId("tasks-count").value = `${whole(rows.length)} shown`; });
    byId("filter").addEventListener("input", () => filterTasks(shown));
    byId("fold").addEventListener("change", () => foldTasks(shown));
  }
  await shown.replaceData(found.rows);
  if (shown.foldsNow === undefined) foldTasks(shown);
  filterTasks(shown);
  if (found.omitted.rows) byId("tasks-count").value += `; ${whole(found.omitted.rows)} more are not in the table`;
  return found.took;
}

function groupHeader(count, rows) {
  const oldest = rows.reduce((a, b) => ((b.age ?? 0) > (a.age ?? 0) ? b : a));
  const ages = rows.map((row) => row.age).filter((age) => age !== null);
  const since = ages.length ? `, ${range(ages)}` : "";
  return el("span", {}, el("b", {}, `${count} ×`), ` ${oldest.kind} ${oldest.function} [${oldest.wait || oldest.state}${since}] ${oldest.place}`);
}

function range(ages) {
  const [low, high] = [duration(ages.reduce((a, b) => Math.min(a, b))), duration(ages.reduce((a, b) => Math.max(a, b)))];
  return low === high ? low : `${low} to ${high}`;
}

function foldTasks(shown) {
  shown.foldsNow = byId("fold").checked;
  shown.setGroupBy(shown.foldsNow ? "group" : false);
}

function filterTasks(shown) {
  const wanted = byId("filter").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (row) => {
    const all = `${row.key} ${row.name} ${row.function} ${row.state} ${row.wait} ${row.place}`.toLowerCase();
    return wanted.every((word) => all.includes(word));
  };
  if (wanted.length) shown.setFilter(matches);
  else shown.clearFilter();
}

// A row that one can choose, with a pointer or the keyboard.
function makeChoosable(row) {
  const element = row.getElement();
  element.tabIndex = 0;
  element.onclick = () => {
    document.querySelector(".chosen")?.classList.remove("chosen");
    element.classList.add("chosen");
    showStack(row.getData());
  };
  element.onkeydown = (event) => { if (event.key === "Enter") element.onclick(); };
}

function showStack(row) {
  const lines = [`${row.name}: ${row.function}`, row.wait || row.state, ...(stacks[row.stack] ?? []).map((line) => `  ${line}`)];
  if ((stacks[row.creator] ?? []).length) lines.push("started at", ...stacks[row.creator].map((line) => `  ${line}`));
  byId("stack").textContent = lines.join("\n");
  byId("stack").hidden = false;
}

// ------------------------------------------------------- who waits for whom
let drawn = null;

async function showWaits() {
  const found = await getJson("api/graph");
  byId("waits-count").value = found.nodes.length
    ? `${found.nodes.length} shown${found.left_out ? `, ${whole(found.left_out)} are left out` : ""}`
    : "Nothing waits for anything that has a name.";
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const cyclic = found.nodes.some((node) => node.circle);
  drawn?.destroy();
  drawn = cytoscape({
    container: byId("graph"),
    elements: [
      ...found.nodes.map((node) => ({ data: { id: node.key, ...node }, classes: `${node.kind} ${node.circle ? "circle" : ""}` })),
      ...found.edges.map((edge) => ({ data: { source: edge.from, target: edge.to }, classes: edge.circle ? "circle" : "" })),
    ],
    style: [
      { selector: "node", style: {
        label: "data(label)", color: color("--text"), "background-color": color("--one"), "font-size": 12,
        "text-valign": "bottom", "text-margin-y": 3, width: 22, height: 22,
      } },
      { selector: "node.lock", style: { shape: "diamond", "background-color": color("--two") } },
      { selector: "node.goroutine", style: { shape: "round-rectangle" } },
      { selector: "edge", style: {
        width: 1.5, "line-color": color("--soft"), "target-arrow-color": color("--soft"),
        "target-arrow-shape": "triangle", "curve-style": "bezier",
      } },
      { selector: "node.circle", style: { "border-width": 3, "border-color": color("--bad") } },
      { selector: "edge.circle", style: { width: 3, "line-color": color("--bad"), "target-arrow-color": color("--bad") } },
      { selector: "node:selected", style: { "border-width": 3, "border-color": color("--accent") } },
    ],
    layout: cyclic && found.nodes.length < 12
      ? { name: "circle", padding: 40 }
      : { name: "cose", animate: false, padding: 40, nodeDimensionsIncludeLabels: true, randomize: false },
    maxZoom: 2,
  });
  drawn.on("select", "node", (event) => {
    const node = event.target.data();
    byId("node").textContent = `${node.kind} ${node.label}: ${node.more}`;
  });
  if (found.deadlocks.length) byId("node").textContent = found.deadlocks.map((words) => `Deadlock: ${words}`).join("\n");
}

// --------------------------------------------------------------------- time
function functionTimes(look) {
  const found = new Map();
  for (const loop of look?.stats.loops ?? []) {
    for (const each of loop.functions) {
      const key = [each.kind, each.name, each.file, each.line].join("\n");
      const sum = found.get(key) ?? { ...each, place: place(each.file, each.line), seconds: 0, calls: 0, samples: 0 };
      for (const name of ["seconds", "calls", "samples"]) sum[name] += each[name];
      sum.longest = Math.max(sum.longest, each.longest);
      found.set(key, sum);
    }
  }
  return found;
}

async function showTime() {
  await showOverview();
  const shown = await lazyTable("time", () => table("time-table", [
    text("Function", "name", { minWidth: 200, widthGrow: 2 }), text("Kind", "kind", { width: 110 }),
    amount("Share", "share", (share) => `${short(100 * share)} %`, { width: 100 }),
    amount("Time", "seconds", duration, { width: 110 }), amount("Calls", "calls", whole, { width: 110 }),
    amount("Longest", "longest", duration, { width: 110 }), amount("Samples", "samples", whole, { width: 110 }),
    text("Where", "place", { minWidth: 200, widthGrow: 2 }),
  ], { maxHeight: "60vh", initialSort: [{ column: "seconds", dir: "desc" }] }));
  const before = byId("recent").checked ? functionTimes(first) : new Map();
  const rows = [...functionTimes(latest)].map(([key, now]) => {
    const was = before.get(key) ?? { seconds: 0, calls: 0, samples: 0 };
    return { ...now, seconds: now.seconds - was.seconds, calls: now.calls - was.calls, samples: now.samples - was.samples };
  });
  const all = rows.reduce((sum, row) => sum + row.seconds, 0) || 1;
  await shown.replaceData(rows.filter((row) => row.calls).map((row) => ({ ...row, share: row.seconds / all })));
}

// -------------------------------------------------------------- connections
async function showConnections() {
  const found = await getJson("api/tables");
  const shown = await lazyTable("connections", () => table("connections-table", [
    text("Peer", "peer", { minWidth: 160, widthGrow: 2 }), text("Local", "local", { minWidth: 160, widthGrow: 2 }),
    text("Kind", "kind", { width: 100 }), text("Protocol", "protocol", { minWidth: 140 }),
    amount("Age", "age", duration, { width: 100 }), amount("Received", "received", bytes, { width: 110 }),
    amount("Sent", "sent", bytes, { width: 100 }), amount("Buffered", "buffered", bytes, { width: 110 }),
    text("State", "state", { minWidth: 120 }),
  ], { maxHeight: "45vh", initialSort: [{ column: "age", dir: "desc" }] }));
  const states = (each) => [
    each.tls && "TLS", each.reading_paused && "not read", each.writing_paused && "peer is slow",
    each.closing && "closing", each.offloaded && "offloaded",
  ].filter(Boolean).join(", ");
  await shown.replaceData(found.connections.map((each) => ({ ...each, state: states(each) })));
  filterConnections(shown);
  const servers = await lazyTable("servers", () => table("servers-table", [
    text("Addresses", "where", { minWidth: 220, widthGrow: 3 }), text("Kind", "kind", { width: 120 }),
    amount("Connections", "connections", (n) => (n === null ? "–" : whole(n))), amount("Accepting", "accepting", whole),
    amount("Backlog", "backlog", whole),
  ]));
  servers.replaceData(found.servers.map((each) => ({ ...each, where: each.addresses.join(", ") })));
}

function filterConnections(shown) {
  const wanted = byId("connections-filter").value.trim().toLowerCase();
  shown.setFilter((row) => `${row.peer} ${row.local} ${row.kind} ${row.protocol} ${row.state}`.toLowerCase().includes(wanted));
  byId("connections-count").value = `${whole(shown.getDataCount("active"))} shown`;
}

// ------------------------------------------------------------- dump and trace
async function showDump() {
  byId("dump-text").textContent = await (await get("dump")).text();
}

async function recordTrace(event) {
  event.preventDefault();
  const seconds = Number(byId("trace-seconds").value);
  const [button, state, file] = [byId("trace-start"), byId("trace-state"), byId("trace-file")];
  button.disabled = true;
  state.value = `recording for ${seconds} s …`;
  try {
    const response = await fetch(`api/trace?seconds=${seconds}`, { method: "POST" });
    if (!response.ok) throw new Error(await response.text());
    const content = await response.blob();
    if (file.href) URL.revokeObjectURL(file.href);
    file.href = URL.createObjectURL(content);
    file.textContent = `Save trace.json (${bytes(content.size)})`;
    file.hidden = false;
    state.value = "recorded";
  } catch (problem) {
    state.value = problem.message;
  } finally {
    button.disabled = false;
  }
}

// --------------------------------------------------------------------- views
const VIEWS = {
  overview: showOverview, tasks: showTasks, waits: showWaits, time: showTime, connections: showConnections,
  dump: showDump, trace: async () => {},
};
const viewNow = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "overview");

function show(view) {
  return VIEWS[view]().catch(() => {}); // get() has said it
}

function turn() {
  const view = viewNow();
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.dataset.view !== view;
  for (const link of byId("tabs").children) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "overview") { fitPlots(); drawPlots(); }
  scrollTo(0, 0);
  return show(view);
}

// Looks again when the last answer is there, and not more often than a fiftieth of the program's time allows.
async function keepLooking() {
  for (;;) {
    let took = 0;
    if (!document.hidden) {
      await showHistory().catch(() => {});
      if (viewNow() === "overview") took = (await show("overview")) ?? 0;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(1000, 50000 * took)));
  }
}

addEventListener("hashchange", turn);
addEventListener("resize", fitPlots);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  makePlots();
  if (viewNow() === "waits") show("waits");
});
for (const button of document.querySelectorAll("[data-refresh]")) {
  button.addEventListener("click", () => show(button.dataset.refresh));
}
for (const form of document.querySelectorAll("form.bar")) form.addEventListener("submit", (event) => event.preventDefault());
byId("recent").addEventListener("change", () => show("time"));
byId("connections-filter").addEventListener("input", async () => filterConnections(await tables.connections));
byId("trace-form").addEventListener("submit", recordTrace);
makePlots();
await turn();
keepLooking();
