package log

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/vramsweep/vramsweep/runner"
)

// RenderText prints an account for people: where the memory of each rank went in
// GiB and as a share of what was requested, what lies beyond that, what failed,
// and what would gain KV cache. The log's name is its title, "" for none; lines
// adds the lines that each figure was read from.
func RenderText(w io.Writer, n NamedAccount, lines bool) error {
	var b bytes.Buffer
	if title := strings.TrimSpace(n.Log + " " + n.Account.Label); title != "" {
		fmt.Fprintf(&b, "== %s\n", title)
	}
	for _, render := range []func(*bytes.Buffer, *runner.Account){
		renderHead, renderRanks, renderBudget, renderBeyond, renderKV, renderFailure, renderUnread,
	} {
		render(&b, n.Account)
	}
	if lines {
		renderLines(&b, n.Account)
	}
	var out bytes.Buffer
	for line := range bytes.Lines(b.Bytes()) {
		out.Write(bytes.TrimRight(line, " \n"))
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}

func renderHead(b *bytes.Buffer, a *runner.Account) {
	values := make(map[string]string)
	for _, c := range Columns(a) {
		values[c.Name] = c.text()
	}
	list := func(texts []string, fields [][2]string) {
		for _, f := range fields {
			if v := values[f[0]]; v != "" {
				texts = append(texts, strings.Replace(f[1], "*", v, 1))
			}
		}
		if len(texts) > 0 {
			fmt.Fprintln(b, strings.Join(texts, ", "))
		}
	}
	list([]string{"vLLM " + cmp.Or(values["vllm_version"], "unknown version")}, [][2]string{
		{"engine", "* engine"}, {"model_runner", "model runner *"}, {"platform", "*"},
		{"attention_backend", "attention *"}, {"compile_cache", "compile cache *"},
	})
	list(nil, [][2]string{
		{"model", "model *"}, {"dtype", "dtype *"}, {"kv_cache_dtype", "KV *"}, {"quantization", "quantization *"},
		{"max_model_len", "max_model_len *"}, {"max_num_batched_tokens", "max_num_batched_tokens *"},
		{"max_num_seqs", "max_num_seqs *"}, {"tensor_parallel_size", "TP *"}, {"pipeline_parallel_size", "PP *"},
		{"gpu_memory_utilization", "utilization *"}, {"init_engine_seconds", "start * s"},
	})
}

// A part is one row of the table of ranks: its name and its field.
type part struct {
	name, field string
	noShare     bool
}

func (p part) of(r runner.AccountRank) *float64 { return *figureOf(&r, p.field) }

func parts() []part {
	return []part{
		{name: "weights", field: "model_weights_gb"}, {name: "weights + non-torch", field: "consumed_gb"},
		{name: "non-torch", field: "non_torch_gb"}, {name: "activations, reserved", field: "activations_gb"},
		{name: "CUDA graphs, estimated", field: "graph_estimate_gb"}, {name: "KV cache", field: "available_kv_cache_gb"},
		{name: "requested", field: "requested_memory_gb"}, {name: "CUDA graphs, captured", field: "graph_capture_gb"},
		{name: "GPU total", field: "total_gpu_memory_gb", noShare: true},
		{name: "free at start", field: "free_memory_gb", noShare: true},
	}
}

// maxColumns is how many ranks stand beside each other; more stand below.
const maxColumns = 4

func renderRanks(b *bytes.Buffer, a *runner.Account) {
	if len(a.Ranks) == 0 {
		fmt.Fprintln(b, "\nNo rank printed a memory figure.")
		return
	}
	var speaking []runner.AccountRank
	var silent []int
	for _, r := range a.Ranks {
		if slices.ContainsFunc(parts(), func(p part) bool { return p.of(r) != nil }) {
			speaking = append(speaking, r)
		} else {
			silent = append(silent, r.Rank)
		}
	}
	for from := 0; from < len(speaking); from += maxColumns {
		fmt.Fprintln(b)
		renderColumns(b, a, speaking[from:min(from+maxColumns, len(speaking))])
	}
	switch {
	case len(speaking) == 0:
		fmt.Fprintln(b, "\nNo rank printed a memory figure.")
	case len(silent) > 0:
		fmt.Fprintf(b, "rank %s printed none of it: vLLM prints most of these lines once per node\n", numbers(silent))
	}
	for _, field := range []string{
		"model_weights_gb", "activations_gb", "non_torch_gb", "available_kv_cache_gb", "requested_memory_gb",
	} {
		if why := a.Missing[field]; why != "" {
			fmt.Fprintf(b, "not in the log: %s: %s\n", field, why)
		}
	}
}

// renderColumns prints a few ranks beside each other.
func renderColumns(b *bytes.Buffer, a *runner.Account, ranks []runner.AccountRank) {
	shares := slices.ContainsFunc(a.Ranks, func(r runner.AccountRank) bool { return r.RequestedMemoryGB != nil })
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cells func(r runner.AccountRank) (gib, share string)) {
		fmt.Fprintf(tw, "%s\t", name)
		for _, r := range ranks {
			g, s := cells(r)
			fmt.Fprintf(tw, "%s\t", g)
			if shares {
				fmt.Fprintf(tw, "%s\t", s)
			}
		}
		fmt.Fprintln(tw)
	}
	row("GiB", func(r runner.AccountRank) (string, string) {
		if r.Rank < 0 {
			return "rank ?", "share"
		}
		return fmt.Sprintf("rank %d", r.Rank), "share"
	})
	for _, p := range parts() {
		if !anyHas(a.Ranks, p) || p.name == "weights + non-torch" && a.NonTorchGB != nil {
			continue
		}
		row(p.name, func(r runner.AccountRank) (string, string) {
			if p.noShare {
				return gib(p.of(r)), ""
			}
			return gib(p.of(r)), share(p.of(r), r.RequestedMemoryGB)
		})
	}
	_ = tw.Flush() // into a buffer
}

// numbers prints ascending numbers as people write them: 0, 2-7.
func numbers(ns []int) string {
	var out []string
	for i := 0; i < len(ns); {
		j := i
		for j+1 < len(ns) && ns[j+1] == ns[j]+1 {
			j++
		}
		switch {
		case j > i+1:
			out = append(out, fmt.Sprintf("%d-%d", ns[i], ns[j]))
		case j > i:
			out = append(out, strconv.Itoa(ns[i]), strconv.Itoa(ns[j]))
		default:
			out = append(out, strconv.Itoa(ns[i]))
		}
		i = j + 1
	}
	return strings.Join(out, ", ")
}

func anyHas(ranks []runner.AccountRank, p part) bool {
	return slices.ContainsFunc(ranks, func(r runner.AccountRank) bool { return p.of(r) != nil })
}

func gib(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', 2, 64)
}

func share(v, of *float64) string {
	if v == nil || of == nil || *of <= 0 || *v > *of {
		return "" // weights that are larger than the budget are no share of it
	}
	return strconv.FormatFloat(*v / *of * 100, 'f', 1, 64) + " %"
}

// sayings are sentences about ranks; those of which the same is said share one.
type sayings struct {
	texts []string // with %s in the place of the ranks
	ranks map[string][]int
}

func (s *sayings) add(text string, rank int) {
	if s.ranks == nil {
		s.ranks = make(map[string][]int)
	}
	if s.ranks[text] == nil {
		s.texts = append(s.texts, text)
	}
	s.ranks[text] = append(s.ranks[text], rank)
}

func (s *sayings) render(b *bytes.Buffer) {
	for _, text := range s.texts {
		fmt.Fprintln(b, strings.Replace(text, "%s", numbers(s.ranks[text]), 1))
	}
}

func renderBudget(b *bytes.Buffer, a *runner.Account) {
	var all sayings
	for _, x := range a.Budget {
		note := x.Note
		if x.Closes != nil && *x.Closes {
			note = "requested = weights + non-torch + activations + KV closes"
			if e := x.GraphEstimate; e != nil && *e != 0 {
				note = "requested = weights + non-torch + activations + graph estimate + KV closes"
			}
		}
		if note != "" && note != noBudget {
			all.add("budget of rank %s: "+note, x.Rank)
		}
	}
	all.render(b)
}

// beyond is what of a rank lies outside of the requested memory: the context
// (what was in use before vLLM's first look), and the captured graphs, less
// what was taken off for them.
func beyond(a *runner.Account, i int) (context, graphs float64, ok bool) {
	r := a.Ranks[i]
	if r.RequestedMemoryGB == nil || r.TotalGPUMemoryGB == nil || r.FreeMemoryGB == nil {
		return 0, 0, false
	}
	context = *r.TotalGPUMemoryGB - *r.FreeMemoryGB
	if r.GraphCaptureGB != nil {
		graphs = *r.GraphCaptureGB
	}
	if i < len(a.Budget) && a.Budget[i].GraphEstimate != nil {
		graphs -= *a.Budget[i].GraphEstimate
	}
	return context, max(graphs, 0), true
}

func renderBeyond(b *bytes.Buffer, a *runner.Account) {
	var all sayings
	for i, r := range a.Ranks {
		context, graphs, ok := beyond(a, i)
		if !ok || a.Error != nil && a.GraphCaptureGB == nil {
			continue
		}
		text := fmt.Sprintf("%.2f in use before vLLM looked (its context, if the GPU was idle)", context)
		if graphs > 0 {
			text += fmt.Sprintf(" and %.2f of CUDA graphs", graphs)
		}
		all.add(fmt.Sprintf("beyond the %.2f GiB requested on rank %%s: %s: %.2f of %.2f GiB, and what grows while it serves",
			*r.RequestedMemoryGB, text, *r.RequestedMemoryGB+context+graphs, *r.TotalGPUMemoryGB), r.Rank)
	}
	all.render(b)
}

func renderKV(b *bytes.Buffer, a *runner.Account) {
	var kv []string
	if a.TotalGPUKVCacheTokens != nil {
		kv = append(kv, thousands(*a.TotalGPUKVCacheTokens)+" tokens")
	}
	if a.NumGPUBlocks != nil {
		kv = append(kv, thousands(*a.NumGPUBlocks)+" blocks")
	}
	if a.MaxConcurrency != nil && a.MaxModelLen != nil {
		kv = append(kv, fmt.Sprintf("%.2f requests of %s tokens at once", *a.MaxConcurrency, thousands(*a.MaxModelLen)))
	}
	if len(kv) > 0 {
		fmt.Fprintf(b, "KV cache: %s\n", strings.Join(kv, ", "))
	}
	if gains := Gains(a); len(gains) > 0 {
		fmt.Fprintln(b, "\nFor more KV cache:")
		for _, g := range gains {
			fmt.Fprintf(b, "  - %s%s\n", g.Text, by(a.Sources[g.RestsOn].Line))
		}
	}
}

// by names the line that an advice rests on.
func by(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf(" (by line %d)", line)
}

// A Gain is a change that would give the engine more KV cache: a sentence with
// this run's figures, and the field whose line it rests on.
type Gain struct{ Text, RestsOn string }

// Gains are what this log shows to give more KV cache; nothing where a line that
// may be of the account was not understood.
func Gains(a *runner.Account) []Gain {
	if len(a.Ranks) == 0 || a.UnreadCount > 0 || a.Platform != nil && (*a.Platform == "cpu" || *a.Platform == "tpu") {
		return nil
	}
	tokens := func(float64) string { return "" }
	if n, g := a.TotalGPUKVCacheTokens, a.TotalGPUKVCacheGB; n != nil && g != nil && *g > 0 {
		perGiB := float64(*n) / *g
		tokens = func(g float64) string { return fmt.Sprintf(", %s tokens", thousands(int64(g*perGiB))) }
	}
	return slices.Concat(utilizationGain(a, tokens), activationGain(a, tokens), graphGain(a, tokens), dtypeGain(a))
}

func activationGain(a *runner.Account, tokens func(float64) string) []Gain {
	g := a.ActivationsGB
	if g == nil || a.RequestedMemoryGB == nil || *g <= 0.02**a.RequestedMemoryGB || a.MaxNumBatchedTokens == nil {
		return nil
	}
	text := fmt.Sprintf("%.2f GiB are reserved for activations: max_num_batched_tokens below %d reserves less "+
		"(half of it would give at most %.2f GiB%s)", *g, *a.MaxNumBatchedTokens, *g/2, tokens(*g/2))
	return []Gain{{text, "activations_gb"}}
}

func graphGain(a *runner.Account, tokens func(float64) string) []Gain {
	g := a.GraphEstimateGB
	if g == nil || *g <= 0 || len(a.Budget) == 0 || a.VLLMVersion == nil ||
		a.Budget[0].GraphEstimate == nil || *a.Budget[0].GraphEstimate <= 0 {
		return nil
	}
	c := a.GraphCaptureGB
	if c == nil {
		return nil // the log ends before it shows whether they are used
	}
	text := fmt.Sprintf("%.2f GiB are held back for CUDA graphs%s, which took %.2f", *g, tokens(*g), *c)
	return []Gain{{text + ": fewer capture sizes (max_cudagraph_capture_size) hold back less", "graph_estimate_gb"}}
}

func dtypeGain(a *runner.Account) []Gain {
	if a.KVCacheDtype == nil || a.Dtype == nil || a.TotalGPUKVCacheTokens == nil || *a.KVCacheDtype != "auto" ||
		*a.Dtype != "bfloat16" && *a.Dtype != "float16" {
		return nil
	}
	text := fmt.Sprintf("kv_cache_dtype = \"fp8\" holds up to twice the tokens in the same memory, %s, "+
		"where the attention backend has it; layers that keep a state and no KV gain nothing",
		thousands(2**a.TotalGPUKVCacheTokens))
	return []Gain{{text, "kv_cache_dtype"}}
}

// utilizationGain is what a higher gpu_memory_utilization gives, and how high
// the log lets it be.
func utilizationGain(a *runner.Account, tokens func(float64) string) []Gain {
	if a.GPUMemoryUtilization == nil || a.TotalGPUMemoryGB == nil || *a.TotalGPUMemoryGB <= 0 || a.NoHigherShare != "" ||
		a.TensorParallelSize == nil { // without the engine's banner there may be more ranks
		return nil
	}
	step := 0.01 * *a.TotalGPUMemoryGB
	highest := 1.0
	for i, r := range a.Ranks {
		context, graphs, ok := beyond(a, i)
		eager := a.CUDAGraphsEnabled != nil && !*a.CUDAGraphsEnabled
		if !ok || r.GraphCaptureGB == nil && !eager || r.AvailableKVCacheGB == nil {
			return nil // how high it may go this log does not tell
		}
		highest = min(highest, (*r.TotalGPUMemoryGB-context-graphs) / *r.TotalGPUMemoryGB)
	}
	highest = math.Floor(highest*100+1e-9) / 100
	const rests = "free_memory_gb"
	if highest <= *a.GPUMemoryUtilization {
		return []Gain{{fmt.Sprintf("gpu_memory_utilization: each 0.01 is %.2f GiB%s; this log leaves no room above %v",
			step, tokens(step), *a.GPUMemoryUtilization), rests}}
	}
	gain := (highest - *a.GPUMemoryUtilization) * *a.TotalGPUMemoryGB
	return []Gain{{fmt.Sprintf("gpu_memory_utilization: each 0.01 is %.2f GiB%s; up to %.2f fits by this log "+
		"(%.2f GiB%s), less what grows while it serves, which only a measured run shows",
		step, tokens(step), highest, gain, tokens(gain)), rests}}
}

func renderFailure(b *bytes.Buffer, a *runner.Account) {
	e := a.Error
	if e == nil {
		return
	}
	where := fmt.Sprintf("line %d", e.Line)
	if e.File != "" {
		where = e.File + ":" + strconv.Itoa(e.Line)
	}
	fmt.Fprintf(b, "\nfailed: %s (%s)\n", e.Kind, where)
	for i, line := range strings.Split(e.Message, "\n") {
		if i == 3 {
			break
		}
		fmt.Fprintf(b, "  %s\n", line)
	}
	if e.Advice != "" {
		line := 0
		if e.RestsOn != nil {
			line = e.RestsOn.Line
		}
		fmt.Fprintf(b, "  %s%s\n", e.Advice, by(line))
	}
}

func renderUnread(b *bytes.Buffer, a *runner.Account) {
	if a.UnreadCount == 0 {
		return
	}
	if a.UnreadCount == 1 {
		fmt.Fprintln(b, "\n1 line looks like a memory figure and was not understood:")
	} else {
		fmt.Fprintf(b, "\n%d lines look like memory figures and were not understood:\n", a.UnreadCount)
	}
	for _, l := range a.UnreadLines {
		fmt.Fprintf(b, "  %s:%d: %s\n", l.File, l.Line, l.Text)
	}
	if n := a.UnreadCount - int64(len(a.UnreadLines)); n > 0 {
		fmt.Fprintf(b, "  and %d more\n", n)
	}
}

// renderLines prints the evidence: each figure, where it stands, how it was
// worked out, and the line.
func renderLines(b *bytes.Buffer, a *runner.Account) {
	fmt.Fprintln(b, "\nRead from:")
	for _, c := range Columns(a) {
		s, ok := a.Sources[c.Name]
		if c.Value == nil || !ok {
			continue
		}
		fmt.Fprintf(b, "  %s = %v\n", c.Name, c.Value)
		if how := a.Derived[c.Name]; how != "" {
			fmt.Fprintf(b, "      %s\n", how)
		}
		if s.Line > 0 {
			fmt.Fprintf(b, "      %s:%d: %s\n", s.File, s.Line, s.Text)
		}
	}
	var ranks []string
	for name := range a.Sources {
		if strings.HasPrefix(name, "ranks[") {
			ranks = append(ranks, name)
		}
	}
	slices.Sort(ranks)
	for _, name := range ranks {
		s := a.Sources[name]
		fmt.Fprintf(b, "  %s\n      %s:%d: %s\n", name, s.File, s.Line, s.Text)
	}
}

// A Column is one scalar of an account by its JSON name. Value is a string,
// int64, float64 or bool; nil where the log does not tell.
type Column struct {
	Name  string
	Value any
}

// text is the value for people and CSV, "" where it is nil.
func (c Column) text() string {
	switch v := c.Value.(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// Columns are the scalars of an account in their order, then the number of
// ranks, the failure and the count of lines that were not understood: one row
// of a table over many logs.
func Columns(a *runner.Account) []Column {
	var out []Column
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Pointer || f.Type().Elem().Kind() == reflect.Struct {
			continue
		}
		c := Column{Name: jsonName(v.Type().Field(i))}
		if !f.IsNil() {
			c.Value = f.Elem().Interface()
		}
		out = append(out, c)
	}
	closes := Column{Name: "budget_closes"}
	for _, x := range a.Budget {
		if x.Closes != nil && (closes.Value == nil || !*x.Closes) {
			closes.Value = *x.Closes
		}
	}
	out = append(out, Column{Name: "num_ranks", Value: int64(len(a.Ranks))}, closes)
	kind, message, line := Column{Name: "error_kind"}, Column{Name: "error_message"}, Column{Name: "error_line"}
	if a.Error != nil {
		first, _, _ := strings.Cut(a.Error.Message, "\n")
		kind.Value, message.Value, line.Value = a.Error.Kind, first, int64(a.Error.Line)
	}
	return append(out, kind, message, line, Column{Name: "unread_count", Value: a.UnreadCount})
}

// A NamedAccount is an account and the log that it comes from.
type NamedAccount struct {
	Log     string
	Account *runner.Account
}

// RenderCSV writes one row an account; an empty cell is null.
func RenderCSV(w io.Writer, accounts []NamedAccount) error {
	cw := csv.NewWriter(w)
	header := []string{"log"}
	for _, c := range Columns(&runner.Account{}) {
		header = append(header, c.Name)
	}
	rows := [][]string{header}
	for _, n := range accounts {
		row := []string{n.Log}
		for _, c := range Columns(n.Account) {
			row = append(row, c.text())
		}
		rows = append(rows, row)
	}
	if err := cw.WriteAll(rows); err != nil {
		return fmt.Errorf("writing CSV: %w", err)
	}
	return nil
}

// thousands prints a count as people read it.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
