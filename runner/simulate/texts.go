package simulate

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// pyRound2 is str(round(x, 2)) of Python.
func pyRound2(x float64) string {
	return pyFloat(math.Round(x*100)/100 + 0) // + 0: no "-0.0"
}

// pyFloat is str(x) of Python for the numbers that occur here.
func pyFloat(x float64) string {
	s := strconv.FormatFloat(x, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// thousands writes 457504 as 457,504.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// pyBool is True or False.
func pyBool(b bool) string {
	return map[bool]string{true: "True", false: "False"}[b]
}

// gibText writes bytes as vLLM writes GiB: round(x, 2), whose trailing zeros
// vanish ("15.0", "7.8", "0.0").
func gibText(bytes int64) string { return pyRound2(gib(bytes)) }

// gib is bytes in GiB.
func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// twoDigits writes "%.2f".
func twoDigits(v float64) string { return fmt.Sprintf("%.2f", v) }

// fill puts the figures of the run and of a rank, and more of the moment, into
// a wording.
func (b *builder) fill(text string, rank int, more ...string) string {
	f, r := b.figures, b.request
	if f == nil {
		return strings.NewReplacer(more...).Replace(text)
	}
	values := slices.Concat(more, f.engineValues(r), f.timeValues(), f.rankValues(rank))
	return strings.NewReplacer(values...).Replace(text)
}

// engineValues are what the engine was asked for and has chosen.
func (f *figures) engineValues(r *request) []string {
	backend, quantization, graphs := "FLASH_ATTN", "None", "<CUDAGraphMode.FULL_AND_PIECEWISE: (2, 1)>"
	if f.gpu.Vendor == "amd" {
		backend = "TRITON_ATTN"
	}
	if r.quantization != "" {
		quantization = r.quantization
	}
	if r.eager {
		graphs = "<CUDAGraphMode.NONE: 0>"
	}
	sizes, largest := make([]string, len(f.captureSizes)), "0"
	for i, n := range f.captureSizes {
		sizes[i], largest = itoa(n), itoa(n)
	}
	return []string{
		"{version}", f.words.version, "{args}", r.nonDefault(), "{architecture}", f.arch.Architecture,
		"{model}", r.model, "{model_repr}", pyString(r.model), "{dtype}", f.dtype(r), "{kv_dtype}", r.kvDtype,
		"{load_format}", r.loadFormat, "{quantization}", quantization, "{backend}", backend,
		"{skip_tokenizer}", pyBool(r.skipTok), "{trust}", pyBool(r.flag("trust-remote-code") == "True"),
		"{eager}", pyBool(r.eager), "{prefix_caching}", pyBool(r.flag("enable-prefix-caching") == "True"),
		"{ranks}", itoa(f.ranks), "{tp}", fmt.Sprint(r.tp), "{pp}", fmt.Sprint(r.pp),
		"{max_len}", fmt.Sprint(f.maxLen), "{max_len_commas}", thousands(f.maxLen), "{max_tokens}", fmt.Sprint(f.maxTokens),
		"{graph_mode}", graphs, "{sizes}", strings.Join(sizes, ", "), "{captures}", itoa(len(sizes)), "{largest}", largest,
		"{kv_tokens}", thousands(f.kvTokens), "{concurrency}", twoDigits(f.concurrency),
		"{util}", pyFloat(f.util), "{util_4f}", fmt.Sprintf("%.4f", f.util),
		"{requested}", gibText(f.requested), "{total}", gibText(f.gpu.TotalBytes),
	}
}

// timeValues are how long the parts of the start-up took.
func (f *figures) timeValues() []string {
	t, compilation := f.times, ""
	if t.compile > 0 {
		compilation = fmt.Sprintf(" (compilation: %.2f s)", t.compile)
	}
	return []string{
		"{load_s}", fmt.Sprintf("%.6f", t.load), "{read_s}", twoDigits(t.load * 0.97), "{compile_s}", twoDigits(t.compile),
		"{dynamo_s}", twoDigits(t.compile * 0.29), "{range_s}", twoDigits(t.compile * 0.42),
		"{profile_s}", twoDigits(t.profile), "{first_run_s}", twoDigits(t.profile * 0.3),
		"{estimate_s}", fmt.Sprintf("%.0f", t.capture*estimateTime), "{capture_s}", fmt.Sprintf("%.0f", t.capture),
		"{warm_up_s}", twoDigits(t.warmup), "{compilation}", compilation,
	}
}

// rankValues are the memory of a rank as vLLM accounts for it.
func (f *figures) rankValues(rank int) []string {
	m, tp := &f.memory[rank], f.tp
	free, off := f.free(m), float64(m.graphEst)/float64(f.gpu.TotalBytes)
	fit := m.available + m.graphEst - m.graphs - 150<<20
	full := free - m.weights - m.activation - m.beside() - m.graphs - 150<<20
	difference := m.graphs - m.graphEst
	if f.words.v33 { // 0.45 GiB of 0.92 estimated: "difference: 0.46 GiB (102.6%)"
		difference = max(difference, -difference)
	}
	return []string{
		"{rank}", itoa(rank), "{tp_rank}", itoa(rank % tp), "{pp_rank}", itoa(rank / tp),
		"{free}", gibText(free), "{weights}", gibText(m.weights), "{activation}", gibText(m.activation),
		"{non_torch}", gibText(m.nonTorch), "{consumed}", gibText(m.weights + m.beside()),
		"{peak}", gibText(m.activation + m.graphEst), "{non_kv}", gibText(m.weights + m.activation + m.beside()),
		"{available}", gibText(m.available), "{kv}", gibText(m.kv),
		"{graphs}", gibText(m.graphs), "{graphs_2f}", twoDigits(gib(m.graphs)),
		"{first_graphs}", twoDigits(gib(m.graphs) * firstCapture),
		"{estimate}", gibText(m.graphEst), "{estimate_2f}", twoDigits(gib(m.graphEst)), "{difference}", gibText(difference),
		"{difference_percent}", fmt.Sprintf("%.1f", 100*float64(difference)/float64(max(m.graphs, 1))),
		"{util_without}", fmt.Sprintf("%.4f", f.util-off), "{util_with}", fmt.Sprintf("%.4f", f.util+off),
		"{fit_bytes}", fmt.Sprint(fit), "{fit}", gibText(fit), "{full_bytes}", fmt.Sprint(full), "{full}", gibText(full),
	}
}

// dtype is what "auto" becomes.
func (f *figures) dtype(r *request) string {
	switch r.dtype {
	case "half":
		return "float16"
	case "float":
		return "float32"
	case "auto":
		switch f.arch.NativeDtype {
		case "", "float32":
			return "bfloat16"
		}
		return f.arch.NativeDtype
	}
	return r.dtype
}

// flag is a flag as it was given, or "".
func (r *request) flag(name string) string {
	for _, g := range r.given {
		if g.name == name {
			return g.value
		}
	}
	return ""
}

// nonDefault is the Python dict of the flags that were given.
func (r *request) nonDefault() string {
	own := map[string]bool{
		"input-len": true, "output-len": true, "batch-size": true, "n": true, "use-beam-search": true, "num-iters": true,
		"num-iters-warmup": true, "profile": true, "output-json": true, "disable-detokenize": true,
	}
	table := flagTable()
	var parts []string
	for _, g := range r.given {
		if own[g.name] || g.name == "model" {
			continue
		}
		value := g.value
		switch table[g.name] {
		case flagText:
			value = pyString(value)
		case flagMany:
			value = "[" + pyString(strings.Join(strings.Fields(value), "', '")) + "]"
		}
		parts = append(parts, pyString(strings.ReplaceAll(g.name, "-", "_"))+": "+value)
	}
	if r.flag("enable-prefix-caching") == "" {
		parts = append(parts, "'enable_prefix_caching': False")
	}
	return "{" + strings.Join(append(parts, "'model': "+pyString(r.model)), ", ") + "}"
}
