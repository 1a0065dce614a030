// The page of a report: draws the figures that came with it. Everything it needs is in the file.
"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const root = document.documentElement;
  const data = JSON.parse(await unpack("data"));
  const load = async () => {
    const url = URL.createObjectURL(new Blob([await unpack("library")], { type: "text/javascript" }));
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = url; script.onload = done; script.onerror = failed;
      document.head.append(script);
    });
    URL.revokeObjectURL(url);
  };
  const ready = new Promise((done) => requestAnimationFrame(() => setTimeout(() => load().then(done), 0)));

  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const themed = (layout) => {
    const ink = style("--ink"), line = style("--line");
    const dressed = (one) => ({ gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, ...one,
      title: { standoff: 10, ...(one && one.title) } });
    const out = { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 13 }, xaxis: dressed(layout.xaxis), yaxis: dressed(layout.yaxis),
      hoverlabel: { align: "left" }, autosize: true };
    if (layout.shapes) out.shapes = layout.shapes.map((one) => ({ ...one, line: { color: ink, width: 1, dash: "dash" } }));
    return out;
  };
  const inked = (trace) => trace.line && trace.line.color === "#000000"
    ? { ...trace, line: { ...trace.line, color: style("--ink") } } : trace;
  const config = { responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d"], toImageButtonOptions: { format: "svg" } };
  const drawn = new Map();
  let rowsDrawn = false, liveDrawn = false;
  const draw = async (name) => {
    await ready;
    if (drawn.has(name)) return drawn.get(name);
    const figure = data.figures[name];
    const made = Plotly.newPlot(`plot-${name}`, figure.data.map(inked), themed(figure.layout), config);
    drawn.set(name, made);
    await made;
    if (name === "schedule") {
      $("plot-schedule").on("plotly_click", (event) => {
        const call = event.points[0].customdata;
        if (call !== undefined) { $("call").value = String(call); rows(); $("rows-controls").scrollIntoView(); }
      });
    }
    document.body.dataset.drawn = [...drawn.keys()].join(" ");
    return made;
  };
  const names = Object.keys(data.figures);
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      const name = entry.target.dataset.figure;
      if (name === "live") live();
      else if (name !== "rows") draw(name);
      else if (!rowsDrawn) rows();
    }
  }, { rootMargin: "300px" });
  for (const plot of document.querySelectorAll(".plot[data-figure]")) seen.observe(plot);
  const every = async () => { for (const name of names) await draw(name); await rows(); await live(); };
  addEventListener("beforeprint", every);

  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    for (const name of drawn.keys()) Plotly.react(`plot-${name}`, data.figures[name].data.map(inked), themed(data.figures[name].layout), config);
    if (rowsDrawn) rows();
    if (liveDrawn) live();
  });

  const metric = $("metric");
  if (metric) {
    for (const trace of data.figures.rack.data) if (trace.meta) metric.add(new Option(trace.meta, trace.meta));
    metric.addEventListener("change", async () => {
      await draw("rack");
      for (const trace of data.figures.rack.data) if (trace.meta) trace.visible = trace.meta === metric.value;
      Plotly.react("plot-rack", data.figures.rack.data.map(inked), themed(data.figures.rack.layout), config);
    });
  }

  // The rows of one block, as a call places them.
  const detail = data.rows;
  const blocks = new Map((detail ? detail.blocks : []).map((one) => [one.index, one]));
  const tints = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442", "#999999",
    "#882255", "#44AA99", "#DDCC77", "#AA4499", "#117733", "#6699CC", "#661100",
    "#999933", "#88CCEE", "#332288", "#CC6677", "#B2DF8A"];
  const present = [...new Set((detail ? detail.blocks : []).flatMap((one) => one.op))].sort((a, b) => a - b);
  // An opcode has one colour on the whole page; on a dark page dark ones are lightened.
  const tintOf = (op) => {
    const parts = tints[present.indexOf(op) % tints.length].match(/[0-9A-F]{2}/gi).map((pair) => parseInt(pair, 16));
    const light = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2], mix = isDark() && light < 93 ? 0.45 : 0;
    return `rgb(${parts.map((part) => Math.round(part + mix * (255 - part))).join(",")})`;
  };
  const number = (value) => value.toLocaleString("en-US");
  const unitOf = (block, i) => {
    const unit = block.unit[i], P = detail.planes, V = detail.chains;
    if (block.peer[i] >= 0) return ["links", `link to ${"CHIP" + block.peer[i]}`, 4000 + block.peer[i]];
    if (unit < P) return ["planes", `plane ${unit}`, unit];
    if (unit < 2 * P) return ["drains", `drain ${unit - P}`, unit];
    if (unit < 2 * P + V) return ["chains", `chain ${unit - 2 * P}`, unit];
    return ["host lanes", unit === 2 * P + V ? "host in" : "host out", unit];
  };
  const name = (call, text) => text.replace(/CHIP(\d+)/, (_, rank) => call.chips[+rank]);
  async function rows() {
    if (!detail) return;
    await ready;
    const call = detail.calls[+$("call").value], block = blocks.get(call.block);
    const rank = $("chip").value, only = $("unit").value;
    const critical = new Map(block.chain.map(([row], at) => [row, at]));
    const lines = new Map(), kept = [];
    for (let i = 0; i < block.op.length; i++) {
      const [kind, text, order] = unitOf(block, i);
      if (rank !== "all" && block.chip[i] !== +rank) continue;
      if (only === "critical" ? !critical.has(i) : only === "lanes" ? kind !== "links" : only !== "all" && kind !== only) continue;
      const lanes = only === "lanes" ? Array.from({ length: block.lanes[i] }, (_, j) => block.lane[i] + j) : [-1];
      for (const lane of lanes) {
        const key = (block.chip[i] * 10000 + order) * 1000 + lane + 1;
        if (!lines.has(key)) lines.set(key, `chip ${call.chips[block.chip[i]]} ${name(call, text)}` + (lane < 0 ? "" : ` lane ${lane}`));
        kept.push([i, key]);
      }
    }
    const keys = [...lines.keys()].sort((a, b) => a - b), at = new Map(keys.map((key, i) => [key, i]));
    const place = new Map(kept.map(([i, key]) => [i, at.get(key)]));
    const height = Math.min(1600, 160 + 14 * Math.max(keys.length, 6));
    const width = Math.max(2, Math.min(11, 0.7 * (height - 100) / Math.max(keys.length, 1)));
    const byOp = new Map();
    for (const [i, key] of kept) {
      const op = block.op[i];
      if (!byOp.has(op)) byOp.set(op, { x: [], y: [], text: [] });
      const trace = byOp.get(op), begin = call.base + block.t0[i], end = begin + block.hold[i];
      const where = lines.get(key);
      const text = `${detail.ops[op]} n ${block.n[i]}, ${where}`
        + (block.lanes[i] ? `, lanes ${block.lane[i]} to ${block.lane[i] + block.lanes[i] - 1}` : "")
        + `<br>cycles ${number(begin)} to ${number(end)}, result at ${number(call.base + block.t1[i])}`
        + `<br>row ${block.row[i]} of the block` + (critical.has(i) ? "<br>on the critical path" : "");
      trace.x.push(begin, (begin + end) / 2, end, null);
      trace.y.push(...Array(3).fill(at.get(key)), null);
      trace.text.push(text, text, text, null);
    }
    const traces = [...byOp.entries()].sort((a, b) => a[0] - b[0]).map(([op, one]) => ({
      ...one, type: "scatter", mode: "lines", name: detail.ops[op], hoverinfo: "text",
      line: { width, color: tintOf(op), simplify: false } }));
    const path = { x: [], y: [] }, waits = { x: [], y: [], text: [] };
    for (const [row, wait, unit] of block.chain) {
      const line = place.get(row), begin = call.base + block.t0[row];
      if (line === undefined) continue;
      path.x.push(begin, call.base + block.t1[row]); path.y.push(line, line);
      if (wait > 0) {
        const text = `waits ${number(wait)} cycles for ${waiting(unit)}`;
        waits.x.push(begin - wait, begin, null); waits.y.push(line, line, null); waits.text.push(text, text, null);
      }
    }
    traces.push({ ...path, type: "scatter", mode: "lines+markers", name: "critical path", hoverinfo: "skip",
      line: { color: style("--ink"), width: 1.5 }, marker: { size: 4 } });
    traces.push({ ...waits, type: "scatter", mode: "lines", name: "waits", hoverinfo: "text",
      line: { color: "#D55E00", width: 4, dash: "dot" } });
    $("plot-rows").style.height = `${height}px`;
    const few = keys.length <= 80, chipOf = (key) => Math.floor(key / 10000000);
    const ticks = few ? keys : keys.filter((key, i) => !i || chipOf(key) !== chipOf(keys[i - 1]));
    const told = few ? (key) => lines.get(key) : (key) => `chip ${call.chips[chipOf(key)]}`;
    await Plotly.react("plot-rows", traces, themed({ height, hovermode: "closest", legend: { orientation: "h", y: 1, yanchor: "bottom" },
      margin: { l: 150, r: 10, t: 60, b: 40 },
      xaxis: { title: { text: "cycle of the step" }, range: [call.base, call.base + block.cycles] },
      yaxis: { autorange: "reversed", tickvals: ticks.map((key) => at.get(key)), ticktext: ticks.map(told), zeroline: false } }), config);
    rowsDrawn = true;
    $("rows-said").textContent = `${call.name}: ${number(place.size)} rows on ${number(keys.length)} ${only === "lanes" ? "lanes" : "units and links"}, `
      + `${number(block.cycles)} cycles from cycle ${number(call.base)}`
      + (block.left_out ? `; ${number(block.left_out)} short rows off the critical path are left out` : "") + ".";
    chain(call, block);
    document.body.dataset.rows = call.name;
  }
  // Transients of every chip: the curves of each block, where its calls are.
  const BINS = 300, KB = 320 / 1000;
  const curvesOf = (chip) => detail.calls.flatMap((call) => (detail.live[call.block] || [])
    .filter(([rank]) => call.chips[rank] === chip).map(([, at, words]) => [call, at, words]));
  async function live() {
    if (!detail) return;
    await ready;
    const chips = [...new Set(detail.calls.flatMap((call) => detail.live[call.block] ? call.chips : []))].sort((a, b) => a - b);
    const line = new Map(chips.map((chip, i) => [chip, i]));
    const end = Math.max(...detail.calls.map((call) => call.base + (blocks.has(call.block) ? blocks.get(call.block).cycles : 0)), 1);
    const z = chips.map(() => new Array(BINS).fill(0)), bin = (cycle) => Math.min(BINS - 1, Math.floor(cycle / end * BINS));
    for (const call of detail.calls) for (const [rank, at, words] of detail.live[call.block] || []) {
      const row = z[line.get(call.chips[rank])];
      for (let i = 0; i < at.length; i++) {
        const last = bin(call.base + (i + 1 < at.length ? at[i + 1] : at[i]));
        for (let b = bin(call.base + at[i]); b <= last; b++) row[b] = Math.max(row[b], words[i] * KB);
      }
    }
    const height = Math.min(900, Math.max(320, 120 + 4 * chips.length));
    $("plot-live").style.height = `${height}px`;
    await Plotly.react("plot-live", [{ type: "heatmap", z, x: z[0] && z[0].map((_, i) => (i + 0.5) * end / BINS), y: chips.map((chip) => `chip ${chip}`),
      colorscale: "Viridis", colorbar: { title: { text: "kB" }, thickness: 12 }, hovertemplate: "%{y}, cycle %{x:,.0f}: at most %{z:,.1f} kB<extra></extra>" }],
      themed({ height, margin: { l: 80, r: 10, t: 20, b: 40 }, xaxis: { title: { text: "cycle of the step" } }, yaxis: { autorange: "reversed", type: "category" } }), config);
    const choice = $("live-chip");
    if (!choice.options.length) {
      for (const chip of chips) choice.add(new Option(`chip ${chip}`, chip));
      choice.value = String(chips[z.reduce((best, row, i) => Math.max(...row) > Math.max(...z[best]) ? i : best, 0)]);
      choice.addEventListener("change", oneChip);
      $("plot-live").on("plotly_click", (event) => { choice.value = event.points[0].y.slice(5); oneChip(); });
    }
    liveDrawn = true;
    fill("live-chips", chips.map((chip, i) => {
      const [transient, kv, weights] = detail.regions[chip].map((bytes) => number(bytes / 1000));
      return [`chip ${chip}`, weights, kv, number(Math.max(...z[i])), transient];
    }));
    await oneChip();
  }
  const fill = (id, lines) => $(id).tBodies[0].replaceChildren(...lines.map((cells) => {
    const line = document.createElement("tr");
    for (const cell of cells) line.insertCell().textContent = cell;
    return line;
  }));
  async function oneChip() {
    const chip = +$("live-chip").value, x = [], y = [];
    for (const [call, at, words] of curvesOf(chip)) {
      x.push(...at.map((cycle) => call.base + cycle), null); y.push(...words.map((count) => count * KB), null);
    }
    const from = x.find((cycle) => cycle !== null) || 0, to = x.reduce((most, cycle) => Math.max(most, cycle || 0), from + 1);
    const pad = 0.02 * (to - from), busy = [from - pad, to + pad];  // while it works; a double click shows the whole step
    const [transient, kv, weights] = detail.regions[chip], size = (bytes) => `${number(Math.round(bytes / 1000))} kB`;
    await Plotly.react("plot-one-chip", [{ type: "scatter", mode: "lines", name: `chip ${chip}`, x, y, line: { shape: "hv", color: "#0072B2", width: 1.5 },
      hovertemplate: "cycle %{x:,}: %{y:,.1f} kB<extra></extra>" }], themed({ height: 300, margin: { l: 70, r: 10, t: 20, b: 40 },
      xaxis: { title: { text: "cycle of the step" }, range: busy }, yaxis: { title: { text: "kB of transients" }, rangemode: "tozero" } }), config);
    const most = y.reduce((a, b) => Math.max(a, b || 0), 0);
    $("live-said").textContent = `Chip ${chip}: weights ${size(weights)}, KV ${size(kv)}; transients at most ${number(Math.round(most * 10) / 10)} kB at once, in a region of ${size(transient)}.`;
    fill("live-table", x.flatMap((cycle, i) => cycle === null ? [] : [[number(cycle), number(y[i])]]));
    document.body.dataset.chip = String(chip);
  }
  const waiting = (unit) => detail.waits_by_unit[String(unit)];
  const chain = (call, block) => {
    const body = $("chain").tBodies[0];
    body.replaceChildren(...block.chain.map(([row, wait, unit]) => {
      const [, text] = unitOf(block, row), line = document.createElement("tr");
      for (const cell of [detail.ops[block.op[row]], call.chips[block.chip[row]], name(call, text),
        number(call.base + block.t0[row]), wait ? `${number(wait)} for ${waiting(unit)}` : "",
        number(block.hold[row]), number(block.t1[row] - block.t0[row] - block.hold[row])])
        line.insertCell().textContent = cell;
      return line;
    }));
  };
  if (detail) {
    const call = $("call"), chip = $("chip");
    detail.calls.forEach((one, i) => { if (blocks.has(one.block)) call.add(new Option(`${one.name} at ${number(one.base)}`, i)); });
    const longest = [...blocks.values()].reduce((a, b) => (b.cycles > a.cycles ? b : a));
    call.value = String(detail.calls.findIndex((one) => one.block === longest.index));
    const chips = () => {
      const now = detail.calls[+call.value];
      chip.replaceChildren(new Option("all chips of the block", "all"), ...now.chips.map((one, i) => new Option(`chip ${one}`, i)));
    };
    chips();
    call.addEventListener("change", () => { chips(); rows(); });
    for (const id of ["chip", "unit"]) $(id).addEventListener("change", rows);
    const zoom = (change) => () => {
      if (!rowsDrawn) return;
      const plot = $("plot-rows"), [a, b] = plot.layout.xaxis.range.map(Number), now = detail.calls[+call.value];
      const [from, to] = change(a, b, now.base, now.base + blocks.get(now.block).cycles);
      Plotly.relayout(plot, { "xaxis.range": [from, to] });
    };
    $("zoom-in").addEventListener("click", zoom((a, b) => [a + (b - a) / 4, b - (b - a) / 4]));
    $("zoom-out").addEventListener("click", zoom((a, b) => [a - (b - a) / 2, b + (b - a) / 2]));
    $("left").addEventListener("click", zoom((a, b) => [a - (b - a) / 3, b - (b - a) / 3]));
    $("right").addEventListener("click", zoom((a, b) => [a + (b - a) / 3, b + (b - a) / 3]));
    $("whole").addEventListener("click", zoom((a, b, from, to) => [from, to]));
  }
  globalThis.lpu = { data, draw, rows, every };
  document.body.dataset.ready = "yes";
})();
