"use strict";
(function () {
  var $ = function (id) { return document.getElementById(id); };
  function failed(message) { $("errors").hidden = false; $("errors").textContent += message + " "; }
  window.addEventListener("error", function (e) { failed("The report's script failed: " + e.message + " (line " + e.lineno + ")"); });
  var D = JSON.parse($("data").textContent);
  // The block holds memory in MiB; people read GiB.
  function toGiB(v) { return v === null || v === undefined ? v : v / 1024; }
  function mapToGiB(o) { for (var k in o) o[k] = toGiB(o[k]); }
  var inMiB = new Set((D.figures || []).filter(function (f) { return f.unit === "MiB"; }).map(function (f) { f.unit = "GiB"; return f.name; }));
  (D.runs || []).forEach(function (r) {
    for (var k in r.figures) if (inMiB.has(k)) r.figures[k] = toGiB(r.figures[k]);
    mapToGiB(r.parts); mapToGiB(r.steps);
    r.baseline = toGiB(r.baseline); r.budget = toGiB(r.budget); r.reserve = toGiB(r.reserve);
  });
  for (var t in D.timelines || {}) D.timelines[t].forEach(function (x) { x.mem = x.mem.map(toGiB); });
  D.settings = D.settings || []; D.short = D.short || {}; D.summaries = D.summaries || []; D.figures = D.figures || []; D.problems = D.problems || []; D.folders = D.folders || []; D.executions = D.executions || [];

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
    if (unit === "GiB") return v.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
    if (unit === "tokens") return v.toLocaleString("en-US", { maximumFractionDigits: 0 });
    return v.toLocaleString("en-US", a && a < 0.01 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: a >= 100 ? 0 : a >= 1 ? 2 : 4 });
  }
  function figure(name) { return D.figures.find(function (f) { return f.name === name; }); }
  function title(f) { return f.label + " (" + f.unit + ")"; }
  // What was asked of a run and varies here tells it from the others.
  var asked = D.settings.filter(function (s) { return D.asked.indexOf(s) >= 0; });
  function shortName(s) { return D.short[s] || s.replace(/^axis_/, ""); }
  function words(s) { return s.replace(/^axis_/, "").replace(/_/g, " "); }
  function leaf(v) { return String(v).replace(/^.*\//, ""); }
  function shortLabel(r, without) {
    var words = [];
    asked.forEach(function (s) {
      var v = r.settings[s];
      if (v === undefined || s === without) return;
      words.push(s === "model" ? leaf(v) : s === "sweep" ? v : shortName(s) + " " + v);
    });
    return words.join(" · ") || leaf(r.settings.model || r.profile);
  }
  D.runs.forEach(function (r) { r.short = shortLabel(r); });
  var shorts = {};
  D.runs.forEach(function (r) { shorts[r.short] = (shorts[r.short] || 0) + 1; });
  D.runs.forEach(function (r) { if (shorts[r.short] > 1) r.short += " · r" + r.repeat + (D.executions.length > 1 ? " of " + r.execution.slice(0, 13) : ""); });
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
  // What a filter may name: columns, their abbreviations, and axes without their prefix.
  var named = {};
  D.settings.forEach(function (s) { named[s] = s; named[shortName(s)] = s; named[s.replace(/^axis_/, "")] = s; });
  D.figures.forEach(function (f) { named[f.name] = f.name; });
  ["outcome", "quality", "execution", "sweep", "repeat", "gpu", "gpus", "vllm", "profile", "id"].forEach(function (n) { named[n] = named[n] || n; });
  function nearest(name) {
    function distance(a, b) {
      var row = [];
      for (var j = 0; j <= b.length; j++) row[j] = j;
      for (var i = 1; i <= a.length; i++) for (var before = row[0], k = (row[0] = i, 1); k <= b.length; k++) {
        var up = row[k];
        row[k] = Math.min(up + 1, row[k - 1] + 1, before + (a[i - 1] === b[k - 1] ? 0 : 1));
        before = up;
      }
      return row[b.length];
    }
    return Object.keys(named).sort(function (a, b) { return distance(name, a) - distance(name, b); })[0];
  }
  function matcher(query) {
    var unknown = [];
    var tests = (query.match(/\S+/g) || []).map(function (word) {
      var m = /^([A-Za-z_][\w-]*)(>=|<=|!=|=|>|<)(.*)$/.exec(word);
      if (!m) { var low = word.toLowerCase(); return function (r) { return r.haystack.indexOf(low) >= 0; }; }
      var name = named[m[1]];
      if (!name) { unknown.push("There is no column " + m[1] + " that varies here: did you mean " + nearest(m[1]) + "?"); return function () { return true; }; }
      return function (r) {
        var v = valueOf(r, name), want = m[3];
        if (m[2] === "=") return v !== undefined && String(v).toLowerCase() === want.toLowerCase();
        if (m[2] === "!=") return v === undefined || String(v).toLowerCase() !== want.toLowerCase();
        if (typeof v !== "number" || isNaN(+want)) return false;
        return m[2] === ">" ? v > +want : m[2] === "<" ? v < +want : m[2] === ">=" ? v >= +want : v <= +want;
      };
    });
    $("unknown").textContent = unknown.join(" ");
    return function (r) { return tests.every(function (t) { return t(r); }); };
  }
  D.runs.forEach(function (r) { r.haystack = (r.id + " " + r.label + " " + r.outcome + " " + Object.values(r.settings).join(" ")).toLowerCase(); });
  var shown = D.runs.slice(), sortBy = null, down = false, all = false, allBars = false, printing = false;


  // --- head
  document.title = D.title;
  $("title").textContent = D.title;
  function plural(n, what) { return n + " " + what + (n === 1 ? "" : "s"); }
  function distinct(get) { return Array.from(new Set(D.runs.map(get).filter(Boolean))).sort(); }
  var facts = [[plural(D.runs.length, "run"), "of " + plural(D.executions.length, "execution") + (D.executions.length > 3 ? ", " + D.executions[0] + " to " + D.executions[D.executions.length - 1] : ": " + D.executions.join(", "))],
    ["GPU", distinct(function (r) { return r.gpu; }).join(", ") || "none"], ["vLLM", distinct(function (r) { return r.vllm; }).join(", ") || "not told"],
    ["From", D.folders.join(", ")], ["Written", D.written.replace("T", " ").replace("Z", " UTC") + " by vramsweep " + D.version]];
  facts.forEach(function (f) { $("facts").append(el("div", {}, [el("dt", {}, f[0]), el("dd", {}, f[1])])); });
  D.summaries.forEach(function (s) {
    $("summary").hidden = $("nav-summary").hidden = false;
    s.head.forEach(function (line, i) { $("sums").append(el("p", {}, i ? line : el("b", {}, line))); });
    s.sections.forEach(function (part) {
      $("sums").append(el("h3", {}, part.title), el("ul", {}, part.items.map(function (item) {
        return el("li", {}, [part.title === "Next" ? el("code", {}, item.text) : item.text].concat((item.lines || []).map(function (l) { return el("div", {}, el("code", {}, l)); })));
      })));
    });
  });
  $("synthetic").hidden = !D.synthetic;
  if (D.problems.length) failed("Not read: " + D.problems.join("; "));
  $("theme").onclick = function () {
    var dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    drawAll();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { drawAll(); });

  // --- runs
  var rest = D.settings.filter(function (s) { return asked.indexOf(s) < 0; });
  function columns() {
    var onPaper = ["peak_memory_bytes", "model_weights_bytes", "kv_cache_bytes", "activations_reserved_bytes", "cuda_graphs_bytes", "growth_excess_bytes", "kv_cache_tokens", "avg_latency_s", "mean_power_w"];
    function setting(s) { return { name: s, head: words(s), get: function (r) { return r.settings[s]; } }; }
    return [{ name: "outcome", get: function (r) { return r.outcome; } }]
      .concat(D.runs.some(function (r) { return r.quality && r.quality !== "full"; }) ? [{ name: "quality", get: function (r) { return r.quality; } }] : [])
      .concat(asked.map(setting))
      .concat(D.figures.map(function (f) { return { name: f.name, head: f.label, unit: f.unit, screen: onPaper.indexOf(f.name) < 0, get: function (r) { return r.figures[f.name]; } }; }))
      .concat(rest.map(setting).map(function (c) { c.screen = true; return c; }))
      .concat([{ name: "id", head: "run", get: function (r) { return r.id; } }]);
  }
  function drawCounts() {
    var box = clear($("counts")), by = {};
    shown.forEach(function (r) { by[r.outcome] = (by[r.outcome] || 0) + 1; });
    function put(n, what) { box.append(el("div", {}, [el("b", {}, String(n)), what])); }
    put(shown.length, shown.length === 1 ? "run" : "runs");
    put(new Set(shown.map(function (r) { return r.profile; })).size, "profiles");
    put(new Set(shown.map(function (r) { return r.settings.model; })).size, "models");
    Object.keys(by).sort(function (a, b) { return (b === "ok") - (a === "ok") || a.localeCompare(b); }).forEach(function (k) {
      put(by[k], (k === "ok" ? "✓ " : k === "skipped" ? "○ " : "✕ ") + k);
      if (k !== "ok" && k !== "skipped") box.lastChild.className = "bad";
    });
    var peaks = shown.filter(function (r) { return r.figures.peak_memory_bytes !== undefined && r.gpus > 0; });
    if (peaks.length) {
      var top = peaks.reduce(function (a, b) { return a.figures.peak_memory_bytes / a.gpus >= b.figures.peak_memory_bytes / b.gpus ? a : b; });
      box.append(el("div", { title: top.id }, [el("b", {}, number(top.figures.peak_memory_bytes / top.gpus, "GiB") + " GiB"), "highest use of a GPU" + (top.gpus > 1 ? " (mean of " + top.gpus + ")" : "") + ": " + top.short]));
    }
  }
  function drawTable() {
    var cols = columns(), head = clear($("table").tHead), body = clear($("table").tBodies[0]);
    head.append(el("tr", {}, cols.map(function (c) {
      var mark = sortBy === c.name ? (down ? " ▼" : " ▲") : "";
      var th = el("th", { scope: "col", class: (c.unit ? "" : "t") + (c.screen ? " screen" : ""), "aria-sort": sortBy === c.name ? (down ? "descending" : "ascending") : "none", tabindex: "0", title: c.name + ": sort by it" }, [c.head || c.name].concat(c.unit ? [el("small", {}, c.unit)] : []).concat(mark));
      th.onclick = function () { down = sortBy === c.name ? !down : false; sortBy = c.name; refresh(); };
      th.onkeydown = function (e) { if (e.key === "Enter") th.onclick(); };
      return th;
    })));
    shown.slice(0, all ? shown.length : 100).forEach(function (r) {
      body.append(el("tr", { "data-run": r.id }, cols.map(function (c) {
        var td = cellOf(c, r);
        if (c.screen) td.classList.add("screen");
        return td;
      })));
    });
    $("shown").textContent = shown.length + " of " + D.runs.length + " runs";
    $("more").hidden = all || shown.length <= 100;
    $("more").textContent = "Show all " + shown.length + " rows";
  }
  function cellOf(c, r) {
    var v = c.get(r);
    if (c.name === "id") {
      var b = el("button", { type: "button" }, r.id);
      b.onclick = function () { $("run").value = r.id; drawLine(); $("timeline").scrollIntoView(); };
      return el("td", { class: "t" }, D.timelines[r.id] ? b : r.id);
    }
    if (c.unit) return el("td", { "data-figure": v === undefined ? null : c.name, "data-v": v }, number(v, c.unit));
    if (c.name === "outcome") return el("td", { class: "t" + (r.failed ? " bad" : "") }, (r.failed ? "✕ " : v === "ok" ? "✓ " : "○ ") + v);
    if (v === undefined) return el("td", { class: "t none" }, "–");
    if (c.name === "params" && typeof v === "number") return el("td", {}, number(v / 1e9, "") + " B");
    if (typeof v === "number") return el("td", {}, String(v));
    return el("td", { class: "t" }, c.name === "model" ? leaf(v) : text(v));
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
        el("path", { d: hatch[hatchOf(name)], stroke: "rgba(255,255,255,.32)", "stroke-width": 1, fill: "none" })]));
    });
    return el("svg", { width: 0, height: 0, style: "position:absolute" }, defs);
  }
  var spoken = { kv_cache: "KV cache", cuda_graphs: "CUDA graphs", non_torch: "non-torch", growth_excess: "growth beyond all", framework_overhead: "framework overhead", nccl: "NCCL", load: "load weights", kv_alloc: "allocate KV cache", capture: "capture graphs", engine_warmup: "engine warm-up", bench_warmup: "benchmark warm-up", measure: "measuring" };
  function say(name) { return spoken[name] || name.replace(/_/g, " "); }
  function swatch(name) {
    return el("span", {}, [el("svg", { width: 18, height: 14 }, el("rect", { width: 18, height: 14, fill: "url(#p-" + name + ")" })), say(name)]);
  }
  // Amber and grey carry dark letters, all others white ones.
  var light = { kv_cache: 1, kv_alloc: 1, baseline: 1 };
  function share(run) { return $("pergpu").checked ? Math.max(run.gpus, 1) : 1; }
  function total(run) { return Math.max(run.figures.peak_memory_bytes || 0, run.budget || 0, sum(run.parts) + (run.baseline || 0)) / share(run); }
  function sum(parts) { return Object.keys(parts).reduce(function (n, k) { return n + Math.max(parts[k], 0); }, 0); }
  function stack(svg, run, list, values, y, scale) {
    var x = leftOf;
    list.forEach(function (name) {
      var v = name === "baseline" ? run.baseline : values[name];
      if (!v || v <= 0) return;
      var w = v * scale;
      var rect = el("rect", { x: x, y: y, width: Math.max(w, 0.3), height: 20, fill: "url(#p-" + name + ")", "data-part": name, "data-gib": v });
      rect.append(el("svgtitle", {}, say(name) + ": " + number(v, "GiB") + " GiB (" + run.id + ")"));
      svg.append(rect);
      var words = say(name) + " " + number(v, "GiB");
      if (w <= words.length * 6.6 + 8) words = number(v, "GiB");
      if (w > words.length * 6.6 + 8) svg.append(el("text", { x: x + 5, y: y + 14, style: "font-weight:600;fill:" + (light[name] ? "#1b1f24" : "#fff") }, words));
      x += w;
    });
    return x;
  }
  var barWidth = 1200, leftOf = 52;
  // ticks are round numbers of GiB.
  function ticks(most) {
    var parts = Math.max(1, Math.min(4, Math.floor(barWidth / 100)));
    var step = Math.pow(10, Math.floor(Math.log10(most / parts))), m = most / parts / step;
    step *= m >= 5 ? 5 : m >= 2 ? 2 : 1;
    var out = [];
    for (var v = 0; v <= most * 1.0001; v += step) out.push(v);
    return out;
  }
  function ruler(most, scale) {
    var svg = el("svg", { viewBox: "0 0 " + barWidth + " 30", class: "ruler", role: "img", "aria-label": "scale of the bars in GiB" });
    ticks(most).forEach(function (v) {
      var x = leftOf + v * scale;
      svg.append(el("line", { x1: x, x2: x, y1: 20, y2: 30, stroke: css("--dim") }), el("text", { x: Math.min(x, barWidth - 40), y: 16, "text-anchor": v ? "middle" : "start" }, number(v, "") + (v ? "" : " GiB")));
    });
    return svg;
  }
  function bar(run, scale, most) {
    var narrow = barWidth < 560; // peak and budget stand below each other
    var svg = el("svg", { viewBox: "0 0 " + barWidth + (narrow ? " 76" : " 62"), role: "img", "aria-label": "memory of " + run.id });
    ticks(most).forEach(function (v) { svg.append(el("line", { x1: leftOf + v * scale, x2: leftOf + v * scale, y1: 0, y2: 48, stroke: css("--line") })); });
    scale /= share(run);
    svg.append(el("text", { x: leftOf - 6, y: 16, "text-anchor": "end", class: "dim" }, "vLLM"), el("text", { x: leftOf - 6, y: 40, "text-anchor": "end", class: "dim" }, "driver"));
    if (Object.keys(run.parts).length) stack(svg, run, names, run.parts, 2, scale);
    else svg.append(el("text", { x: leftOf + 4, y: 16, class: "dim" }, "no account in the log"));
    if (Object.keys(run.steps).length) stack(svg, run, steps, run.steps, 26, scale);
    else svg.append(el("text", { x: leftOf + 4, y: 40, class: "dim" }, "no steps in the samples"));
    if (run.budget !== null) {
      var b = leftOf + run.budget * scale;
      svg.append(el("line", { x1: b, x2: b, y1: 0, y2: 48, stroke: css("--bg"), "stroke-width": 5 }), el("line", { x1: b, x2: b, y1: 0, y2: 48, stroke: css("--fg"), "stroke-width": 2 }));
      svg.append(el("path", { d: "M" + (b - 5) + " 55L" + (b + 5) + " 55L" + b + " 48Z", fill: css("--fg") }));
      svg.append(el("text", { x: b - 9, y: 60, "text-anchor": "end" }, "budget " + number(run.budget / share(run), "GiB") + " GiB"));
    }
    if (run.figures.peak_memory_bytes !== undefined) svg.append(el("text", { x: leftOf, y: narrow ? 73 : 60 }, "peak " + number(run.figures.peak_memory_bytes / share(run), "GiB") + " GiB" + (run.gpus > 1 ? ($("pergpu").checked ? ", mean of " : ", sum of ") + run.gpus + " GPUs" : "")));
    var rows = names.map(function (n) { return [n, n === "baseline" ? run.baseline : run.parts[n], D.steps.indexOf(n) >= 0 ? run.steps[n] : undefined]; });
    D.steps.forEach(function (s) { if (names.indexOf(s) < 0) rows.push([s, undefined, run.steps[s]]); });
    (D.passing || []).forEach(function (s) { if (run.steps[s] !== undefined) rows.push([s + " (in no sum)", undefined, run.steps[s]]); });
    var table = el("table", {}, [el("tr", {}, ["part or step", "vLLM's account (GiB)", "driver's account (GiB)"].map(function (h) { return el("th", {}, h); }))].concat(rows.map(function (r) {
      return el("tr", {}, [el("td", { class: "t" }, say(r[0])), el("td", {}, number(r[1], "GiB")), el("td", {}, number(r[2], "GiB"))]);
    })));
    return el("div", { class: "bar" }, [el("div", { class: "name", title: run.label }, [el("b", {}, run.short), run.failed ? el("span", { class: "flag" }, "✕ " + run.outcome) : "", el("span", { class: "id" }, run.id)]), svg, el("details", {}, [el("summary", {}, "numbers"), el("div", { class: "scroll" }, table)])]);
  }
  function drawBars() {
    var box = clear($("bars")), legend = clear($("legend"));
    legend.append(patterns());
    [["vLLM's account", names], ["The driver's account", ["baseline"].concat(D.steps)]].forEach(function (l) {
      legend.append(el("div", { class: "row" }, [el("b", {}, l[0])].concat(l[1].map(swatch))));
    });
    var list = shown.filter(function (r) { return Object.keys(r.parts).length || Object.keys(r.steps).length; });
    barWidth = Math.max(300, printing ? 1000 : box.clientWidth || 1200); // letters keep their size
    var most = Math.max.apply(null, list.map(total).concat([1])), scale = (barWidth - leftOf - 10) / most;
    if (list.length) box.append(ruler(most, scale));
    list.slice(0, allBars ? list.length : 40).forEach(function (r) { box.append(bar(r, scale, most)); });
    if (!list.length) box.append(el("p", {}, "No run here has an account of its memory."));
    $("morebars").hidden = allBars || list.length <= 40;
    $("morebars").textContent = "Draw all " + list.length + " runs";
  }
  $("pergpu").onchange = drawBars;
  $("morebars").onclick = function () { allBars = true; drawBars(); };

  // --- curves
  function dark() { var t = document.documentElement.dataset.theme; return t ? t === "dark" : matchMedia("(prefers-color-scheme: dark)").matches; }
  function colour(i) { var list = dark() ? bright : palette; return list[i % list.length]; }
  var bright = ["#7ab8ff", "#f0a860", "#6fd19c", "#f08aa0", "#bda0f5", "#a9b7c6", "#77d3df", "#d8c65a", "#e99ad2", "#a3a3ff"];
  var palette = ["#2f6db5", "#d9822b", "#3f9b6c", "#b5556a", "#8a63c2", "#6b7a8a", "#42a5b3", "#a08a2c", "#c05fa8", "#5b5bd6"];
  var lines = [[], [18, 3], [12, 3, 3, 3], [18, 3, 3, 3, 3, 3], [9, 3], [24, 6], [6, 3, 6, 3, 2, 3], [14, 6, 2, 6]]; // of GPUs
  var dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 5], [1, 4], [12, 6], [4, 2, 1, 2]];
  var plots = { line: null, curve: null };
  function axis(label, extra) {
    var a = { label: label, stroke: css("--fg"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line") }, font: "12px system-ui", labelFont: "12px system-ui", size: 70 };
    for (var k in extra || {}) a[k] = extra[k];
    return a;
  }
  // The legend's marks are dashed as the lines are.
  var marked = { markers: { width: 2, dash: function (u, i) { return u.series[i].dash && u.series[i].dash.length ? (u.series[i].dash[0] < 4 ? "dotted" : "dashed") : "solid"; } } };
  function show(slot, box, options, data) {
    if (plots[slot]) plots[slot].destroy();
    plots[slot] = new uPlot(options, data, clear(box));
  }
  function drawLine() {
    var id = $("run").value, series = D.timelines[id], box = $("line");
    if (!series) { if (plots.line) { plots.line.destroy(); plots.line = null; } clear(box).append(el("p", {}, "No run here has a timeline.")); $("samples").textContent = ""; return; }
    $("samples").textContent = series.reduce(function (n, s) { return n + s.samples; }, 0) + " samples, " + series.reduce(function (n, s) { return n + s.t.length; }, 0) + " drawn";
    var tables = [], defs = [{ label: "time (s)", value: function (u, v) { return v === null ? "–" : v.toFixed(2); } }];
    series.forEach(function (s, i) {
      tables.push([s.t, s.mem, s.power]);
      defs.push({ label: "GPU " + s.gpu + " memory", scale: "GiB", stroke: colour(i), width: 2, dash: lines[i % lines.length], spanGaps: true, value: function (u, v) { return number(v, "GiB") + " GiB"; } });
      defs.push({ label: "GPU " + s.gpu + " power", scale: "W", stroke: colour(i), width: 1, dash: [2, 3 + i], spanGaps: true, value: function (u, v) { return number(v, "W") + " W"; } });
    });
    var run = D.runs.find(function (r) { return r.id === id; });
    var bands = D.phases[id] || [];
    $("runname").textContent = run ? run.label : id;
    show("line", box, {
      width: printing ? 1000 : box.clientWidth || 1180, height: 400, padding: [58, null, null, null], series: defs, legend: marked,
      scales: { x: { time: false }, GiB: { range: function (u, lo, hi) { return [0, Math.max(hi || 1, run && run.gpus === 1 && run.budget ? run.budget : 0) * 1.05]; } }, W: { range: function (u, lo, hi) { return [0, (hi || 1) * 1.05]; } } },
      axes: [axis("time since the start of the attempt (s)", { size: 50 }), axis("memory (GiB)", { scale: "GiB" }), axis("power (W)", { scale: "W", side: 1, grid: { show: false } })],
      hooks: {
        drawClear: [function (u) {
          var c = u.ctx;
          bands.forEach(function (b, i) {
            var x = Math.max(u.valToPos(b.from, "x", true), u.bbox.left), to = Math.min(u.valToPos(b.to, "x", true), u.bbox.left + u.bbox.width);
            if (to <= x) return;
            c.save(); c.fillStyle = css(i % 2 ? "--band" : "--bg"); c.fillRect(x, u.bbox.top, to - x, u.bbox.height); c.restore();
          });
        }],
        draw: [function (u) {
          // Names of phases stand above the plot, in as many rows as keep them apart.
          var c = u.ctx, r = devicePixelRatio || 1, ends = [];
          c.save(); c.setLineDash([]); c.font = 11 * r + "px system-ui"; c.textBaseline = "top";
          bands.forEach(function (b) {
            var x = Math.max(u.valToPos(b.from, "x", true), u.bbox.left), to = Math.min(u.valToPos(b.to, "x", true), u.bbox.left + u.bbox.width), name = b.phase.replace(/_/g, " ");
            if (to <= x) return;
            var row = 0;
            while (row < 4 && ends[row] > x) row++;
            if (row === 4) return; // its band is there, and its name when one zooms in
            ends[row] = x + c.measureText(name).width + 10 * r;
            var y = u.bbox.top - (row + 1) * 13 * r - 2 * r;
            c.strokeStyle = css("--dim"); c.beginPath(); c.moveTo(x + 0.5, y + 2 * r); c.lineTo(x + 0.5, u.bbox.top); c.stroke();
            c.fillStyle = css("--fg"); c.fillText(name, x + 4 * r, y);
          });
          c.restore();
        }, function (u) {
          if (!run || run.gpus !== 1 || !run.budget) return;
          var y = u.valToPos(run.budget, "GiB", true), c = u.ctx;
          c.save(); c.strokeStyle = c.fillStyle = css("--fg"); c.setLineDash([12, 4]); c.beginPath(); c.moveTo(u.bbox.left, y); c.lineTo(u.bbox.left + u.bbox.width, y); c.stroke();
          c.font = 11 * (devicePixelRatio || 1) + "px system-ui"; c.textAlign = "right"; c.setLineDash([]); c.textBaseline = "top";
          var words = "budget " + number(run.budget, "GiB") + " GiB", room = c.measureText(words).width + 8;
          c.globalAlpha = 0.8; c.fillStyle = css("--bg"); c.fillRect(u.bbox.left + u.bbox.width - room - 2, y + 2, room, 15 * (devicePixelRatio || 1)); c.globalAlpha = 1; c.fillStyle = css("--fg");
          c.fillText(words, u.bbox.left + u.bbox.width - 6, y + 4); c.restore();
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
  // Runs on more GPUs are never averaged with runs on fewer.
  function ranksOf(r, shownAs) {
    return ["tensor_parallel_size", "pipeline_parallel_size"].filter(function (s) { return D.settings.indexOf(s) >= 0 && shownAs.indexOf(s) < 0; })
      .map(function (s) { return shortName(s) + " " + text(r.settings[s]); }).join(" · ");
  }
  // Settings in which runs of one mean differ, but for those shown.
  function mixed(list, shownAs) {
    return asked.filter(function (s) { return s !== "execution" && shownAs.indexOf(s) < 0 && new Set(list.map(function (r) { return text(r.settings[s]); })).size > 1; });
  }
  function drawCurve() {
    var f = figure($("sy").value), sx = $("sx").value, sg = $("sg").value, box = $("curve");
    if (plots.curve) { plots.curve.destroy(); plots.curve = null; }
    clear(box); clear($("curvetable")); $("curvenote").textContent = "";
    var runs = shown.filter(function (r) { return f && !r.failed && !r.blind && r.figures[f.name] !== undefined && typeof r.settings[sx] === "number"; });
    if (!runs.length) { box.append(el("p", {}, "No run here has both: choose another figure or axis.")); return; }
    var groups = {};
    runs.forEach(function (r) { var ranks = ranksOf(r, [sx, sg]), g = sg === "*" ? shortLabel(r, sx) : [sg === "model" ? leaf(r.settings[sg]) : sg ? text(r.settings[sg]) : "", ranks].filter(Boolean).join(" · ") || "all"; (groups[g] = groups[g] || []).push(r); });
    var order = Object.keys(groups).sort(compare), residue = {}, rows = [];
    var tables = order.map(function (g) {
      var at = {};
      groups[g].forEach(function (r) { (at[r.settings[sx]] = at[r.settings[sx]] || []).push(r); });
      var xs = Object.keys(at).map(Number).sort(function (a, b) { return a - b; });
      return [xs, xs.map(function (x) {
        var list = at[x], values = list.map(function (r) { return r.figures[f.name]; });
        mixed(list, [sx, sg]).forEach(function (s) { residue[s] = true; });
        rows.push([g, x, mean(values), Math.min.apply(null, values), Math.max.apply(null, values), list]);
        return mean(values);
      })];
    });
    var log = $("slog").checked && runs.every(function (r) { return r.settings[sx] > 0; });
    var xs = runs.map(function (r) { return r.settings[sx]; }), lo = Math.min.apply(null, xs), hi = Math.max.apply(null, xs);
    var range = lo === hi ? [lo - 1, hi + 1] : log ? [lo / 1.1, hi * 1.1] : [lo - (hi - lo) * 0.03, hi + (hi - lo) * 0.03];
    if (log && lo === hi) range = [lo / 2, hi * 2];
    show("curve", box, {
      width: printing ? 1000 : box.clientWidth || 1180, height: 360,
      scales: { x: { time: false, distr: log ? 3 : 1, range: range }, y: { range: function (u, least, most) { // 2 % of the size at least: noise shall not look like a slope
        var pad = Math.max((most - least) * 0.08, Math.abs(most) * 0.01, 1e-9);
        return [least - pad < 0 && least >= 0 ? 0 : least - pad, most + pad];
      } } },
      series: [{ label: sx }].concat(order.map(function (g, i) { return { label: (sg && sg !== "*" && sg !== "model" ? shortName(sg) + " " : "") + g, stroke: colour(i), width: 2, dash: dashes[i % dashes.length], spanGaps: true, points: { show: true, size: 8, fill: css("--bg") }, value: function (u, v) { return number(v, f.unit); } }; })),
      legend: marked,
      axes: [axis(words(sx), { size: 50 }), axis(title(f), { size: 84 })]
    }, uPlot.join(tables));
    var more = Object.keys(residue);
    $("curvenote").textContent = "A point is the mean of its runs." + (more.length ? " Points mix runs that differ in " + more.join(", ") + ": filter, or choose it as the curve." : "");
    $("curvetable").append(el("tr", {}, [sg && sg !== "*" ? words(sg) : "curve", words(sx), title(f), "least", "most", "runs", "run ids"].map(function (h) { return el("th", {}, h); })));
    rows.forEach(function (r) {
      $("curvetable").append(el("tr", {}, [el("td", { class: "t" }, r[0]), el("td", {}, String(r[1])), el("td", { "data-v": r[2] }, number(r[2], f.unit)), el("td", {}, number(r[3], f.unit)), el("td", {}, number(r[4], f.unit)), el("td", {}, String(r[5].length)),
        el("td", { class: "t" }, r[5].map(function (x) { return x.id; }).join(" "))]));
    });
  }

  // --- heat map
  function drawMap() {
    var f = figure($("hv").value), hx = $("hx").value, hy = $("hy").value, table = clear($("map"));
    var runs = shown.filter(function (r) { return f && !r.failed && !r.blind && r.figures[f.name] !== undefined; });
    if (!runs.length || !hx || !hy) { table.append(el("tr", {}, el("td", {}, "No run here has this figure, or no two settings vary."))); return; }
    function values(s) { return Array.from(new Map(runs.map(function (r) { return [text(r.settings[s]), r.settings[s]]; })).entries()).sort(function (a, b) { return compare(a[1], b[1]); }).map(function (e) { return e[0]; }); }
    function down(r) { return [hy === "model" ? leaf(r.settings[hy]) : text(r.settings[hy]), ranksOf(r, [hx, hy])].filter(Boolean).join(" · "); }
    var xs = values(hx), ys = Array.from(new Set(runs.map(down))).sort(compare), cells = {}, means = [];
    runs.forEach(function (r) { var k = down(r) + "\u0000" + text(r.settings[hx]); (cells[k] = cells[k] || []).push(r); });
    Object.keys(cells).forEach(function (k) { means.push(mean(cells[k].map(function (r) { return r.figures[f.name]; }))); });
    var lo = Math.min.apply(null, means), hi = Math.max.apply(null, means);
    table.append(el("caption", {}, title(f)));
    table.append(el("tr", {}, [el("th", { class: "t" }, words(hy) + " ↓   " + words(hx) + " →")].concat(xs.map(function (x) { return el("th", {}, x); }))));
    ys.forEach(function (y) {
      table.append(el("tr", {}, [el("th", { class: "t" }, y)].concat(xs.map(function (x) {
        var list = cells[y + "\u0000" + x];
        if (!list) return el("td", {}, "–");
        var v = list.map(function (r) { return r.figures[f.name]; }), m = mean(v), spread = (Math.max.apply(null, v) - Math.min.apply(null, v)) / 2;
        var of = mixed(list, [hx, hy]);
        var share = hi > lo ? (m - lo) / (hi - lo) : 0.5;
        return el("td", { style: "background:rgba(" + css("--heat") + "," + (0.08 + 0.5 * share).toFixed(3) + ")", title: list.map(function (r) { return r.id; }).join("\n"), "data-v": m }, [number(m, f.unit) + (spread ? " ±" + number(spread, f.unit) : ""), el("small", {}, list.length + (list.length === 1 ? " run" : " runs") + (of.length ? " that differ in " + of.map(shortName).join(", ") : ""))]);
      }))));
    });
  }

  // --- failures, comparison
  function drawFailures() {
    var box = clear($("fails")), list = shown.filter(function (r) { return r.failed; });
    if (!list.length) box.append(el("p", {}, "No failed run here."));
    var causes = {};
    list.forEach(function (r) { var k = r.cause || r.outcome + (r.detail ? ": " + r.detail : ""); (causes[k] = causes[k] || []).push(r); });
    Object.keys(causes).sort(function (a, b) { return causes[b].length - causes[a].length; }).forEach(function (k) {
      var of = causes[k], first = of[0];
      var e = el("div", { class: "fail" }, [el("b", {}, "✕ " + of.length + " × " + k)]);
      if (first.detail) e.append(el("p", {}, first.detail));
      if (first.error_line) e.append(el("pre", {}, first.error_line));
      e.append(el("details", {}, [el("summary", {}, plural(of.length, "run"))].concat(of.map(function (r) { return el("div", {}, [r.short + " ", el("code", {}, r.id)]); }))));
      box.append(e);
    });
  }
  function amount(v, unit) { return unit === "bytes" ? number(v / 1073741824, "GiB") + " GiB" : number(v, unit) + " " + unit; }
  function drawComparison() {
    var c = D.comparison;
    if (!c) return;
    $("comparison").hidden = $("nav-comparison").hidden = false;
    var box = clear($("changes"));
    box.append(el("p", {}, c.base.name + " (" + c.base.runs + " runs) against " + c.new.name + " (" + c.new.runs + " runs): " + c.matched_profiles + " profiles on both sides, " + c.tests + " figures compared, false discovery rate " + c.false_discovery_rate + "."));
    [["Worse", c.regressions], ["Better", c.improvements], ["Changed alone: what other figures leave over, and none of them moved; no regression", c.remainders_alone]].forEach(function (part, at) {
      if (!part[1] || !part[1].length) { if (at < 2) box.append(el("p", {}, part[0] + ": none.")); return; }
      box.append(el("h3", {}, part[0]));
      function signed(v, unit) { return (v > 0 ? "+" : "") + amount(v, unit).replace("-", "−"); }
      var t = el("table", {}, el("tr", {}, ["figure", "base", "new", "change", "", "95 % interval", "runs", "profile"].map(function (h, i) { return el("th", { class: i === 0 || i > 5 ? "t" : "" }, h); })));
      part[1].forEach(function (x) {
        var ids = (x.base_runs || []).concat(x.new_runs || []);
        t.append(el("tr", {}, [el("td", { class: "t" }, x.figure + (x.also ? " (" + x.also.join(", ") + ")" : "")), el("td", {}, amount(x.base, x.unit)), el("td", {}, amount(x.new, x.unit)),
          el("td", {}, (part[0] === "Worse" ? "✕ " : "") + signed(x.difference, x.unit)), el("td", {}, x.relative === null ? "" : (x.relative > 0 ? "+" : "−") + Math.abs(100 * x.relative).toFixed(1) + " %"),
          el("td", {}, x.difference_low === null || x.difference_low === undefined ? "–" : signed(x.difference_low, x.unit) + " … " + signed(x.difference_high, x.unit)),
          el("td", { class: "t" }, el("details", {}, [el("summary", {}, (x.base_runs || []).length + " + " + (x.new_runs || []).length)].concat(ids.map(function (id) { return el("div", {}, el("code", {}, id)); })))),
          el("td", { class: "t wrap" }, x.label)]));
      });
      box.append(el("div", { class: "scroll" }, t));
    });
    [["Fail now", c.new_failures], ["Vanished", c.vanished], ["Work again", c.recovered], ["New", c.added], ["Not finished, not compared", c.unfinished]].forEach(function (part) {
      (part[1] || []).forEach(function (o) { box.append(el("p", {}, part[0] + ": " + o.label + " (" + ([o.base, o.new].filter(Boolean).join(" → ") || "not measured yet, or interrupted") + ") " + (o.detail || ""))); });
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
    options("run", shown.filter(function (r) { return D.timelines[r.id]; }).map(function (r) { return [r.id, r.short]; }), keep);
    drawLine(); drawCurve(); drawMap(); drawFailures(); drawComparison();
  }
  var timer;
  $("filter").oninput = function () { clearTimeout(timer); timer = setTimeout(refresh, 150); };
  var numeric = D.settings.filter(function (s) { return D.runs.some(function (r) { return typeof r.settings[s] === "number"; }); });
  function busiest(list) { return list.slice().sort(function (a, b) { return count(b) - count(a); })[0]; }
  function count(s) { return new Set(D.runs.map(function (r) { return text(r.settings[s]); })).size; }
  var figures = D.figures.map(function (f) { return [f.name, title(f)]; });
  var plain = asked.concat(rest.filter(function (s) { return s !== "execution" && s !== "host" && s !== "params"; }));
  var first = ["batch_size", "input_len", "max_model_len"].find(function (s) { return numeric.indexOf(s) >= 0; }) || busiest(numeric);
  var measure = figure("use_beside_kv_per_gpu") ? "use_beside_kv_per_gpu" : "peak_memory_bytes";
  options("sy", figures, measure).onchange = drawCurve;
  options("sx", numeric.map(function (s) { return [s, words(s)]; }), first).onchange = drawCurve;
  // A curve for all that else was asked, where that is no tangle.
  var curves = new Set(D.runs.filter(function (r) { return !r.failed && !r.blind; }).map(function (r) { return shortLabel(r, first); })).size;
  options("sg", [["*", "everything else asked"], ["", "nothing"]].concat(plain.map(function (s) { return [s, words(s)]; })), curves <= 12 ? "*" : "model").onchange = drawCurve;
  $("slog").onchange = drawCurve;
  options("hv", figures, measure).onchange = drawMap;
  options("hy", plain.map(function (s) { return [s, words(s)]; }), "model").onchange = drawMap;
  options("hx", plain.map(function (s) { return [s, words(s)]; }), first || plain[1] || "model").onchange = drawMap;
  $("footer").textContent = "Memory in GiB (2^30 bytes), sums over the GPUs of a run unless it says mean. Charts: uPlot 1.6.32, MIT licence, embedded with its text.";
  var query = new URLSearchParams(location.hash.slice(1)).get("filter");
  if (query) $("filter").value = query;
  refresh();
  var resized;
  window.addEventListener("resize", function () { clearTimeout(resized); resized = setTimeout(function () { if (!printing) { drawBars(); drawLine(); drawCurve(); } }, 200); });
  // Paper is white and has its own width.
  var before;
  function redraw(on) {
    if (on === printing) return;
    printing = on;
    if (on) { before = document.documentElement.dataset.theme; document.documentElement.dataset.theme = "light"; }
    else if (before) document.documentElement.dataset.theme = before;
    else delete document.documentElement.dataset.theme;
    drawBars(); drawLine(); drawCurve(); drawMap();
  }
  window.addEventListener("beforeprint", function () { redraw(true); });
  window.addEventListener("afterprint", function () { redraw(false); });
  document.documentElement.dataset.ready = "1";
})();
