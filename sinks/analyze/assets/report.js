"use strict";
(function () {
  var $ = function (id) { return document.getElementById(id); };
  function failed(message) { $("errors").hidden = false; $("errors").textContent += message + " "; }
  window.addEventListener("error", function (e) { failed("The report's script failed: " + e.message + " (line " + e.lineno + ")"); });
  var D = JSON.parse($("data").textContent);
  D.settings = D.settings || []; D.figures = D.figures || []; D.problems = D.problems || []; D.folders = D.folders || []; D.executions = D.executions || [];

  // --- small helpers
  function el(name, attrs, children) {
    var svg = /^(svg|rect|line|text|path|g|defs|pattern|title)$/.test(name) && name !== "title";
    var e = name === "svgtitle" ? document.createElementNS("http://www.w3.org/2000/svg", "title")
      : svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (var k in attrs || {}) if (attrs[k] !== undefined && attrs[k] !== null) e.setAttribute(k, attrs[k]);
    [].concat(children === undefined ? [] : children).forEach(function (c) { e.append(c); });
    return e;
  }
  function clear(e) { while (e.firstChild) e.firstChild.remove(); return e; }
  function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function number(v, unit) {
    if (v === undefined || v === null) return "–";
    var a = Math.abs(v);
    if (unit === "MiB") return v.toLocaleString("en-US", { maximumFractionDigits: 0 });
    if (unit === "tokens") return v.toLocaleString("en-US", { maximumFractionDigits: 0 });
    return v.toLocaleString("en-US", a && a < 0.01 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: a >= 100 ? 0 : a >= 1 ? 2 : 4 });
  }
  function figure(name) { return D.figures.find(function (f) { return f.name === name; }); }
  function title(f) { return f.label + " (" + f.unit + ")"; }
  function text(v) { return v === undefined || v === null ? "left to vLLM" : String(v); }
  function compare(a, b) {
    var m = a === undefined || a === null, n = b === undefined || b === null;
    if (m || n) return m - n;
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  function mean(list) { return list.reduce(function (s, v) { return s + v; }, 0) / list.length; }

  // --- filter: words, and NAME=VALUE, NAME!=VALUE, NAME<VALUE, NAME>VALUE
  function valueOf(run, name) {
    if (name in run.settings) return run.settings[name];
    if (name in run.figures) return run.figures[name];
    return run[name];
  }
  function matcher(query) {
    var tests = (query.match(/\S+/g) || []).map(function (word) {
      var m = /^([A-Za-z_][\w-]*)(>=|<=|!=|=|>|<)(.*)$/.exec(word);
      if (!m) { var low = word.toLowerCase(); return function (r) { return r.haystack.indexOf(low) >= 0; }; }
      return function (r) {
        var v = valueOf(r, m[1]), want = m[3];
        if (m[2] === "=") return v !== undefined && String(v).toLowerCase() === want.toLowerCase();
        if (m[2] === "!=") return v === undefined || String(v).toLowerCase() !== want.toLowerCase();
        if (typeof v !== "number" || isNaN(+want)) return false;
        return m[2] === ">" ? v > +want : m[2] === "<" ? v < +want : m[2] === ">=" ? v >= +want : v <= +want;
      };
    });
    return function (r) { return tests.every(function (t) { return t(r); }); };
  }
  D.runs.forEach(function (r) { r.haystack = (r.id + " " + r.label + " " + r.outcome + " " + Object.values(r.settings).join(" ")).toLowerCase(); });
  var shown = D.runs.slice(), sortBy = null, down = false, all = false, allBars = false;

  // --- head
  document.title = D.title;
  $("title").textContent = D.title;
  $("subtitle").textContent = D.runs.length + " runs of " + D.executions.length + " execution(s): " + D.executions.join(", ") + "; folders: " + D.folders.join(", ") + "; written " + D.written + " by vramsweep " + D.version;
  $("synthetic").hidden = !D.synthetic;
  if (D.problems.length) failed("Not read: " + D.problems.join("; "));
  $("theme").onclick = function () {
    var dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    drawAll();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { drawAll(); });

  // --- runs
  function columns() {
    return [{ name: "outcome", head: "outcome", get: function (r) { return r.outcome; } }]
      .concat(D.settings.map(function (s) { return { name: s, head: s, get: function (r) { return r.settings[s]; } }; }))
      .concat(D.figures.map(function (f) { return { name: f.name, head: title(f), unit: f.unit, get: function (r) { return r.figures[f.name]; } }; }))
      .concat([{ name: "id", head: "run", get: function (r) { return r.id; } }]);
  }
  function drawCounts() {
    var box = clear($("counts")), by = {};
    shown.forEach(function (r) { by[r.outcome] = (by[r.outcome] || 0) + 1; });
    function put(n, what) { box.append(el("div", {}, [el("b", {}, String(n)), what])); }
    put(shown.length, "runs");
    put(new Set(shown.map(function (r) { return r.profile; })).size, "profiles");
    put(new Set(shown.map(function (r) { return r.settings.model; })).size, "models");
    Object.keys(by).sort().forEach(function (k) { put(by[k], k); });
    var peaks = shown.filter(function (r) { return r.figures.peak_memory_bytes !== undefined; });
    if (peaks.length) {
      var top = peaks.reduce(function (a, b) { return a.figures.peak_memory_bytes >= b.figures.peak_memory_bytes ? a : b; });
      var d = el("div", { title: top.id }, [el("b", {}, number(top.figures.peak_memory_bytes, "MiB") + " MiB"), "highest use: " + top.label]);
      box.append(d);
    }
  }
  function drawTable() {
    var cols = columns(), head = clear($("table").tHead), body = clear($("table").tBodies[0]);
    head.append(el("tr", {}, cols.map(function (c) {
      var mark = sortBy === c.name ? (down ? " ▼" : " ▲") : "";
      var th = el("th", { scope: "col", class: c.unit ? "" : "t", "aria-sort": sortBy === c.name ? (down ? "descending" : "ascending") : "none", tabindex: "0" }, c.head + mark);
      th.onclick = function () { down = sortBy === c.name ? !down : false; sortBy = c.name; refresh(); };
      th.onkeydown = function (e) { if (e.key === "Enter") th.onclick(); };
      return th;
    })));
    shown.slice(0, all ? shown.length : 100).forEach(function (r) {
      body.append(el("tr", {}, cols.map(function (c) {
        var v = c.get(r);
        if (c.name === "id") {
          var b = el("button", { type: "button" }, r.id);
          b.onclick = function () { $("run").value = r.id; drawLine(); $("timeline").scrollIntoView(); };
          return el("td", { class: "t" }, D.timelines[r.id] ? b : r.id);
        }
        if (c.unit) return el("td", {}, number(v, c.unit));
        return el("td", { class: "t" + (c.name === "outcome" && r.failed ? " bad" : "") }, text(v));
      })));
    });
    $("shown").textContent = shown.length + " of " + D.runs.length + " runs";
    $("more").hidden = all || shown.length <= 100;
  }
  $("more").onclick = function () { all = true; drawTable(); };

  // --- stacked memory
  var colours = { weights: "#2f6db5", kv_cache: "#e0a030", activations: "#3f9b6c", cuda_graphs: "#9463c2", non_torch: "#b5556a", context: "#6b7a8a", buffers: "#42a5b3", growth_excess: "#c8553d", framework_overhead: "#9a8c6c", baseline: "#b8bec6",
    nccl: "#b5556a", load: "#2f6db5", kv_alloc: "#e0a030", capture: "#9463c2", engine_warmup: "#3f9b6c", bench_warmup: "#c8553d", measure: "#42a5b3" };
  // Each part has its own hatching: colour alone tells nothing.
  var hatch = ["", "M0 8L8 0", "M0 0L8 8", "M0 4H8", "M4 0V8", "M0 0L8 8M0 8L8 0", "M0 4H8M4 0V8", "M0 2H8M0 6H8", "M2 0V8M6 0V8", "M0 8L4 0L8 8", "M0 0L4 8L8 0"];
  var names = ["baseline"].concat(D.parts), steps = ["baseline"].concat(D.steps);
  function hatchOf(name) {
    var i = names.indexOf(name);
    if (i < 0) i = { nccl: 5, load: 1, kv_alloc: 2, capture: 4, engine_warmup: 3, bench_warmup: 8, measure: 10 }[name] || 0;
    return i % hatch.length;
  }
  function patterns() {
    var defs = el("defs");
    names.concat(steps).forEach(function (name) {
      defs.append(el("pattern", { id: "p-" + name, width: 8, height: 8, patternUnits: "userSpaceOnUse" }, [
        el("rect", { width: 8, height: 8, fill: colours[name] || "#888" }),
        el("path", { d: hatch[hatchOf(name)], stroke: "rgba(255,255,255,.55)", "stroke-width": 1, fill: "none" })]));
    });
    return el("svg", { width: 0, height: 0, style: "position:absolute" }, defs);
  }
  function swatch(name) {
    return el("span", {}, [el("svg", { width: 18, height: 14 }, el("rect", { width: 18, height: 14, fill: "url(#p-" + name + ")" })), name]);
  }
  function total(run) { return Math.max(run.figures.peak_memory_bytes || 0, run.budget || 0); }
  function stack(svg, run, list, values, y, scale) {
    var x = 0;
    list.forEach(function (name) {
      var v = name === "baseline" ? run.baseline : values[name];
      if (!v || v <= 0) return;
      var w = v * scale;
      var rect = el("rect", { x: x, y: y, width: Math.max(w, 0.3), height: 20, fill: "url(#p-" + name + ")", "data-part": name, "data-mib": v });
      rect.append(el("svgtitle", {}, name + ": " + number(v, "MiB") + " MiB (" + run.id + ")"));
      svg.append(rect);
      if (w > 84) {
        var label = el("text", { x: x + 4, y: y + 14, style: "fill:#fff;paint-order:stroke;stroke:rgba(0,0,0,.55);stroke-width:2px;font-weight:600" }, name + " " + number(v, "MiB"));
        svg.append(label);
      }
      x += w;
    });
    return x;
  }
  function bar(run, scale) {
    var width = 1200, svg = el("svg", { viewBox: "0 0 " + width + " 62", role: "img", "aria-label": "memory of " + run.id });
    if (Object.keys(run.parts).length) stack(svg, run, names, run.parts, 2, scale);
    else svg.append(el("text", { x: 2, y: 16 }, "vLLM's account: none"));
    if (Object.keys(run.steps).length) stack(svg, run, steps, run.steps, 26, scale);
    else svg.append(el("text", { x: 2, y: 40 }, "the driver's account: none"));
    if (run.budget !== null) {
      var b = run.budget * scale;
      svg.append(el("line", { x1: b, x2: b, y1: 0, y2: 48, stroke: css("--fg"), "stroke-width": 2 }));
      svg.append(el("path", { d: "M" + (b - 5) + " 54L" + (b + 5) + " 54L" + b + " 47Z", fill: css("--fg") }));
      svg.append(el("text", { x: b - 8, y: 60, "text-anchor": "end" }, "budget " + number(run.budget, "MiB") + " MiB"));
    }
    if (run.figures.peak_memory_bytes !== undefined) svg.append(el("text", { x: 2, y: 60 }, "peak " + number(run.figures.peak_memory_bytes, "MiB") + " MiB on " + run.gpus + " GPU(s)"));
    var rows = names.map(function (n) { return [n, n === "baseline" ? run.baseline : run.parts[n], D.steps.indexOf(n) >= 0 ? run.steps[n] : undefined]; });
    D.steps.forEach(function (s) { if (names.indexOf(s) < 0) rows.push([s, undefined, run.steps[s]]); });
    var table = el("table", {}, [el("tr", {}, ["part or step", "vLLM's account (MiB)", "driver's account (MiB)"].map(function (h) { return el("th", {}, h); }))].concat(rows.map(function (r) {
      return el("tr", {}, [el("td", { class: "t" }, r[0]), el("td", {}, number(r[1], "MiB")), el("td", {}, number(r[2], "MiB"))]);
    })));
    return el("div", { class: "bar" }, [el("div", { class: "name" }, run.label), el("div", { class: "id" }, run.id), svg, el("details", {}, [el("summary", {}, "numbers"), table])]);
  }
  function drawBars() {
    var box = clear($("bars")), legend = clear($("legend"));
    legend.append(patterns());
    names.concat(D.steps.filter(function (s) { return names.indexOf(s) < 0; })).forEach(function (n) { legend.append(swatch(n)); });
    var list = shown.filter(function (r) { return Object.keys(r.parts).length || Object.keys(r.steps).length; });
    var most = Math.max.apply(null, list.map(total).concat([1]));
    list.slice(0, allBars ? list.length : 40).forEach(function (r) { box.append(bar(r, 1190 / most)); });
    if (!list.length) box.append(el("p", {}, "No run here has an account of its memory."));
    $("morebars").hidden = allBars || list.length <= 40;
    $("morebars").textContent = "Draw all " + list.length + " runs";
  }
  $("morebars").onclick = function () { allBars = true; drawBars(); };

  // --- curves
  var palette = ["#2f6db5", "#d9822b", "#3f9b6c", "#b5556a", "#8a63c2", "#6b7a8a", "#42a5b3", "#a08a2c", "#c05fa8", "#5b5bd6"];
  var dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 4], [12, 6], [4, 2, 1, 2]];
  var plots = { line: null, curve: null };
  function axis(label, extra) {
    var a = { label: label, stroke: css("--fg"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") }, font: "12px system-ui", labelFont: "12px system-ui", size: 70 };
    for (var k in extra || {}) a[k] = extra[k];
    return a;
  }
  function show(slot, box, options, data) {
    if (plots[slot]) plots[slot].destroy();
    plots[slot] = new uPlot(options, data, clear(box));
  }
  function drawLine() {
    var id = $("run").value, series = D.timelines[id], box = $("line");
    if (!series) { if (plots.line) { plots.line.destroy(); plots.line = null; } clear(box).append(el("p", {}, "No run here has a timeline.")); $("samples").textContent = ""; return; }
    $("samples").textContent = series.reduce(function (n, s) { return n + s.samples; }, 0) + " samples, " + series.reduce(function (n, s) { return n + s.t.length; }, 0) + " drawn";
    var tables = [], defs = [{ label: "s" }];
    series.forEach(function (s, i) {
      tables.push([s.t, s.mem, s.power]);
      defs.push({ label: "GPU " + s.gpu + " memory", scale: "MiB", stroke: palette[i % palette.length], width: 2, spanGaps: true, value: function (u, v) { return number(v, "MiB") + " MiB"; } });
      defs.push({ label: "GPU " + s.gpu + " power", scale: "W", stroke: palette[i % palette.length], width: 1, dash: [4, 4], spanGaps: true, value: function (u, v) { return number(v, "W") + " W"; } });
    });
    var run = D.runs.find(function (r) { return r.id === id; });
    var bands = D.phases[id] || [];
    show("line", box, {
      width: box.clientWidth || 1180, height: 380, title: run ? run.label : id, series: defs,
      scales: { x: { time: false }, MiB: { range: function (u, lo, hi) { return [0, Math.max(hi || 1, run && run.gpus === 1 && run.budget ? run.budget : 0) * 1.05]; } }, W: { range: function (u, lo, hi) { return [0, (hi || 1) * 1.05]; } } },
      axes: [axis("time since the start of the attempt (s)", { size: 50 }), axis("memory (MiB)", { scale: "MiB" }), axis("power (W)", { scale: "W", side: 1, grid: { show: false } })],
      hooks: {
        drawClear: [function (u) {
          var c = u.ctx, r = devicePixelRatio || 1;
          c.save(); c.font = 11 * r + "px system-ui"; c.textBaseline = "top";
          bands.forEach(function (b, i) {
            var x = Math.max(u.valToPos(b.from, "x", true), u.bbox.left), to = Math.min(u.valToPos(b.to, "x", true), u.bbox.left + u.bbox.width);
            if (to <= x) return;
            c.fillStyle = i % 2 ? css("--soft") : css("--bg");
            c.fillRect(x, u.bbox.top, to - x, u.bbox.height);
            c.fillStyle = css("--dim");
            if (c.measureText(b.phase).width + 4 < to - x) c.fillText(b.phase, x + 3, u.bbox.top + 3);
            else { c.save(); c.translate(x + 2, u.bbox.top + u.bbox.height - 4); c.rotate(-Math.PI / 2); if (to - x > 12 * r) c.fillText(b.phase, 0, 0); c.restore(); }
          });
          c.restore();
        }],
        draw: [function (u) {
          if (!run || run.gpus !== 1 || !run.budget) return;
          var y = u.valToPos(run.budget, "MiB", true), c = u.ctx;
          c.save(); c.strokeStyle = c.fillStyle = css("--fg"); c.setLineDash([12, 4]); c.beginPath(); c.moveTo(u.bbox.left, y); c.lineTo(u.bbox.left + u.bbox.width, y); c.stroke();
          c.font = 11 * (devicePixelRatio || 1) + "px system-ui"; c.textAlign = "right"; c.fillText("budget", u.bbox.left + u.bbox.width - 4, y + 14); c.restore();
        }]
      }
    }, uPlot.join(tables));
  }
  $("run").onchange = drawLine;

  function options(id, list, chosen) {
    var s = clear($(id));
    list.forEach(function (o) { s.append(el("option", { value: o[0] }, o[1])); });
    if (list.some(function (o) { return o[0] === chosen; })) s.value = chosen;
    return s;
  }
  function drawCurve() {
    var f = figure($("sy").value), sx = $("sx").value, sg = $("sg").value, box = $("curve");
    if (plots.curve) { plots.curve.destroy(); plots.curve = null; }
    clear(box); clear($("curvetable")); $("curvenote").textContent = "";
    var runs = shown.filter(function (r) { return f && !r.failed && r.figures[f.name] !== undefined && typeof r.settings[sx] === "number"; });
    if (!runs.length) { box.append(el("p", {}, "No run here has both: choose another figure or axis.")); return; }
    var groups = {};
    runs.forEach(function (r) { var g = sg ? text(r.settings[sg]) : "all"; (groups[g] = groups[g] || []).push(r); });
    var order = Object.keys(groups).sort(compare), residue = {}, rows = [];
    var tables = order.map(function (g) {
      var at = {};
      groups[g].forEach(function (r) { (at[r.settings[sx]] = at[r.settings[sx]] || []).push(r); });
      var xs = Object.keys(at).map(Number).sort(function (a, b) { return a - b; });
      return [xs, xs.map(function (x) {
        var list = at[x], values = list.map(function (r) { return r.figures[f.name]; });
        D.settings.forEach(function (s) {
          if (s !== sx && s !== sg && s !== "execution" && new Set(list.map(function (r) { return text(r.settings[s]); })).size > 1) residue[s] = true;
        });
        rows.push([g, x, mean(values), Math.min.apply(null, values), Math.max.apply(null, values), list]);
        return mean(values);
      })];
    });
    var log = $("slog").checked && runs.every(function (r) { return r.settings[sx] > 0; });
    var xs = runs.map(function (r) { return r.settings[sx]; }), lo = Math.min.apply(null, xs), hi = Math.max.apply(null, xs);
    var range = lo === hi ? [lo - 1, hi + 1] : log ? [lo / 1.1, hi * 1.1] : [lo - (hi - lo) * 0.03, hi + (hi - lo) * 0.03];
    if (log && lo === hi) range = [lo / 2, hi * 2];
    show("curve", box, {
      width: box.clientWidth || 1180, height: 360,
      scales: { x: { time: false, distr: log ? 3 : 1, range: range } },
      series: [{ label: sx }].concat(order.map(function (g, i) { return { label: (sg ? sg + " " : "") + g, stroke: palette[i % palette.length], width: 2, dash: dashes[i % dashes.length], spanGaps: true, points: { show: true, size: 8 }, value: function (u, v) { return number(v, f.unit); } }; })),
      axes: [axis(sx, { size: 50 }), axis(title(f), { size: 84 })]
    }, uPlot.join(tables));
    var more = Object.keys(residue);
    $("curvenote").textContent = "A point is the mean of its runs." + (more.length ? " Points mix runs that differ in " + more.join(", ") + ": filter, or choose it as the curve." : "");
    $("curvetable").append(el("tr", {}, [sg || "curve", sx, title(f), "least", "most", "runs", "run ids"].map(function (h) { return el("th", {}, h); })));
    rows.forEach(function (r) {
      $("curvetable").append(el("tr", {}, [el("td", { class: "t" }, r[0]), el("td", {}, String(r[1])), el("td", { "data-v": r[2] }, number(r[2], f.unit)), el("td", {}, number(r[3], f.unit)), el("td", {}, number(r[4], f.unit)), el("td", {}, String(r[5].length)),
        el("td", { class: "t" }, r[5].map(function (x) { return x.id; }).join(" "))]));
    });
  }

  // --- heat map
  function drawMap() {
    var f = figure($("hv").value), hx = $("hx").value, hy = $("hy").value, table = clear($("map"));
    var runs = shown.filter(function (r) { return f && !r.failed && r.figures[f.name] !== undefined; });
    if (!runs.length || !hx || !hy) { table.append(el("tr", {}, el("td", {}, "No run here has this figure, or no two settings vary."))); return; }
    function values(s) { return Array.from(new Map(runs.map(function (r) { return [text(r.settings[s]), r.settings[s]]; })).entries()).sort(function (a, b) { return compare(a[1], b[1]); }).map(function (e) { return e[0]; }); }
    var xs = values(hx), ys = values(hy), cells = {}, means = [];
    runs.forEach(function (r) { var k = text(r.settings[hy]) + "\u0000" + text(r.settings[hx]); (cells[k] = cells[k] || []).push(r); });
    Object.keys(cells).forEach(function (k) { means.push(mean(cells[k].map(function (r) { return r.figures[f.name]; }))); });
    var lo = Math.min.apply(null, means), hi = Math.max.apply(null, means);
    table.append(el("caption", {}, title(f)));
    table.append(el("tr", {}, [el("th", { class: "t" }, hy + " \\ " + hx)].concat(xs.map(function (x) { return el("th", {}, x); }))));
    ys.forEach(function (y) {
      table.append(el("tr", {}, [el("th", { class: "t" }, y)].concat(xs.map(function (x) {
        var list = cells[y + "\u0000" + x];
        if (!list) return el("td", {}, "–");
        var v = list.map(function (r) { return r.figures[f.name]; }), m = mean(v), spread = (Math.max.apply(null, v) - Math.min.apply(null, v)) / 2;
        var share = hi > lo ? (m - lo) / (hi - lo) : 0.5;
        return el("td", { style: "background:rgba(" + css("--heat") + "," + (0.08 + 0.5 * share).toFixed(3) + ")", title: list.map(function (r) { return r.id; }).join("\n"), "data-v": m }, [number(m, f.unit) + (spread ? " ±" + number(spread, f.unit) : ""), el("small", {}, list.length + (list.length === 1 ? " run" : " runs"))]);
      }))));
    });
  }

  // --- failures, comparison
  function drawFailures() {
    var box = clear($("fails")), list = shown.filter(function (r) { return r.failed; });
    if (!list.length) box.append(el("p", {}, "No failed run here."));
    list.forEach(function (r) {
      var e = el("div", { class: "fail" }, [el("b", {}, r.outcome), " " + r.label, el("div", {}, el("code", {}, r.id))]);
      if (r.detail) e.append(el("p", {}, r.detail));
      if (r.error_line) e.append(el("pre", {}, r.error_line));
      box.append(e);
    });
  }
  function amount(v, unit) { return unit === "bytes" ? number(v / 1048576, "MiB") + " MiB" : number(v, unit) + " " + unit; }
  function drawComparison() {
    var c = D.comparison;
    if (!c) return;
    $("comparison").hidden = $("nav-comparison").hidden = false;
    var box = clear($("changes"));
    box.append(el("p", {}, c.base.name + " (" + c.base.runs + " runs) against " + c.new.name + " (" + c.new.runs + " runs): " + c.matched_profiles + " profiles on both sides, " + c.tests + " figures compared, false discovery rate " + c.false_discovery_rate + "."));
    [["Worse", c.regressions], ["Better", c.improvements]].forEach(function (part) {
      if (!part[1] || !part[1].length) { box.append(el("p", {}, part[0] + ": none.")); return; }
      box.append(el("h3", {}, part[0]));
      var t = el("table", {}, el("tr", {}, ["figure", "base", "new", "change", "95 % interval", "runs", "profile"].map(function (h) { return el("th", {}, h); })));
      part[1].forEach(function (x) {
        t.append(el("tr", { title: (x.base_runs || []).concat(x.new_runs || []).join("\n") }, [x.figure, amount(x.base, x.unit), amount(x.new, x.unit), amount(x.difference, x.unit), x.difference_low === null ? "–" : amount(x.difference_low, x.unit) + " … " + amount(x.difference_high, x.unit), (x.base_runs || []).length + " + " + (x.new_runs || []).length, x.label].map(function (v) { return el("td", {}, v); })));
      });
      box.append(el("div", { class: "scroll" }, t));
    });
    [["Fail now", c.new_failures], ["Vanished", c.vanished], ["Work again", c.recovered], ["New", c.added]].forEach(function (part) {
      (part[1] || []).forEach(function (o) { box.append(el("p", {}, part[0] + ": " + o.label + " (" + [o.base, o.new].filter(Boolean).join(" → ") + ") " + (o.detail || ""))); });
    });
    (c.notes || []).forEach(function (n) { box.append(el("p", { class: "hint" }, n)); });
  }

  // --- all
  function refresh() {
    shown = D.runs.filter(matcher($("filter").value));
    if (sortBy) {
      var c = columns().find(function (x) { return x.name === sortBy; });
      shown.sort(function (a, b) {
        var x = c.get(a), y = c.get(b), missing = (x === undefined) - (y === undefined);
        return missing || (down ? -compare(x, y) : compare(x, y));
      });
    }
    drawAll();
  }
  function drawAll() {
    drawCounts(); drawTable(); drawBars();
    var keep = $("run").value;
    options("run", shown.filter(function (r) { return D.timelines[r.id]; }).map(function (r) { return [r.id, r.label + " · " + r.id]; }), keep);
    drawLine(); drawCurve(); drawMap(); drawFailures(); drawComparison();
  }
  var timer;
  $("filter").oninput = function () { clearTimeout(timer); timer = setTimeout(refresh, 150); };
  var numeric = D.settings.filter(function (s) { return D.runs.some(function (r) { return typeof r.settings[s] === "number"; }); });
  function busiest(list) { return list.slice().sort(function (a, b) { return count(b) - count(a); })[0]; }
  function count(s) { return new Set(D.runs.map(function (r) { return text(r.settings[s]); })).size; }
  var figures = D.figures.map(function (f) { return [f.name, title(f)]; });
  var plain = D.settings.filter(function (s) { return s !== "execution" && s !== "host"; });
  var first = ["batch_size", "input_len", "max_model_len"].find(function (s) { return numeric.indexOf(s) >= 0; }) || busiest(numeric);
  options("sy", figures, "peak_memory_bytes").onchange = drawCurve;
  options("sx", numeric.map(function (s) { return [s, s]; }), first).onchange = drawCurve;
  options("sg", [["", "nothing"]].concat(plain.map(function (s) { return [s, s]; })), "model").onchange = drawCurve;
  $("slog").onchange = drawCurve;
  options("hv", figures, "peak_memory_bytes").onchange = drawMap;
  options("hy", plain.map(function (s) { return [s, s]; }), "model").onchange = drawMap;
  options("hx", plain.map(function (s) { return [s, s]; }), first || plain[1] || "model").onchange = drawMap;
  $("footer").textContent = "Memory in MiB (2^20 bytes), sums over the GPUs of a run. Charts: uPlot 1.6.32, MIT licence, embedded with its text.";
  var query = new URLSearchParams(location.hash.slice(1)).get("filter");
  if (query) $("filter").value = query;
  refresh();
  var resized;
  window.addEventListener("resize", function () { clearTimeout(resized); resized = setTimeout(function () { drawLine(); drawCurve(); }, 200); });
  document.documentElement.dataset.ready = "1";
})();
