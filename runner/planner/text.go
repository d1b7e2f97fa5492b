package planner

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Text prints the plan for people.
func (p *Planner) Text(out io.Writer) error {
	shown, t, err := p.count()
	if err != nil {
		return err
	}
	if g, from := p.gpu(); g != nil {
		fmt.Fprintf(out, "GPU: %s (%s), %.2f GiB as torch counts it, from %s\n", g.Name, g.Product, gib(g.TotalBytes), from)
	} else {
		fmt.Fprintln(out, "GPU: none known; name one with --gpu or a gpu block "+
			"(vramsweep plan --gpu h100-80gb) to see what fits")
	}
	fmt.Fprintf(out, "GiB per rank (the largest), estimated%s:\n", p.Basis)
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "#\tprofile\tmodel\ttp\tin\tout\tbs\tweights\tactiv.\tgraphs\tKV\tKV tokens\t"+
		"requests\tlongest\tfits\t  ")
	sweepName := ""
	for i, one := range shown {
		if one.Sweep != sweepName {
			sweepName = one.Sweep
			fmt.Fprintf(table, "sweep %s\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\n", sweepName)
		}
		one.row(table, i+1)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if t.profiles > len(shown) {
		fmt.Fprintf(out, "... and %d more (--limit %d)\n", t.profiles-len(shown), p.Limit)
	}
	p.closing(out, t, shown)
	return nil
}

func (one *Profile) row(out io.Writer, n int) {
	e, s := one.Estimate, &one.Settings
	fits := "?"
	if e.Fits != nil {
		fits = "yes"
		if e.MayRunOut {
			fits = "starts, may run out"
		}
		if !*e.Fits {
			fits = "NO"
			if e.ShortBy != nil && *e.ShortBy > 0 {
				fits = fmt.Sprintf("NO, %.2f GiB short", gib(*e.ShortBy))
			}
		}
	}
	fmt.Fprintf(out, "%d\t%s\t%s\t%d\t%d\t%d\t%d\t", n, one.ID[:min(8, len(one.ID))], one.Model,
		s.TensorParallelSize, s.InputLen, s.OutputLen, s.BatchSize)
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\t", inGiB(e.Weights), inGiB(e.Activations), inGiB(e.CUDAGraphs), inGiB(e.KVCache))
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\t", count(e.KVCacheTokens.Value), ratio(e.MaxConcurrency), count(e.MaxContext), fits)
	fmt.Fprintf(out, "  %s%s\n", one.highest(), freeAxes(one.Axes))
}

// highest is the highest use, where a database knows it.
func (one *Profile) highest() string {
	if one.Overheads == nil {
		return ""
	}
	switch f := one.Overheads.HighestUse(); {
	case f.Value == nil:
		return ""
	case f.Low == nil:
		return fmt.Sprintf("highest %s  ", inGiB(f))
	default:
		return fmt.Sprintf("highest %s (%s)  ", inGiB(f), between(f))
	}
}

// freeAxes names what the columns do not show.
func freeAxes(axes []sweep.AxisValue) string {
	var parts []string
	for _, a := range axes {
		switch a.Axis {
		case "model", "tensor_parallel_size", "input_len", "output_len", "batch_size":
			continue
		}
		parts = append(parts, a.Axis+"="+inLine(a.Value))
	}
	return strings.Join(parts, " ")
}

// inLine writes a value so that it stays on its line of a table.
func inLine(v any) string {
	text := fmt.Sprint(v)
	if quoted := strconv.Quote(text); quoted != `"`+text+`"` || text == "" {
		return quoted
	}
	return text
}

func gib(n int64) float64 { return float64(n) / runner.GiB }

func inGiB(f models.Figure) string {
	if f.Value == nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", gib(*f.Value))
}

func count(n *int64) string { return known("%d", n) }

func ratio(f *float64) string { return known("%.1f", f) }

func known[T any](format string, v *T) string {
	if v == nil {
		return "?"
	}
	return fmt.Sprintf(format, *v)
}

func between(f models.Figure) string {
	if f.Low == nil || f.High == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f .. %.2f", gib(*f.Low), gib(*f.High))
}

// Plural counts things by their noun.
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Counts says how much a plan holds.
func Counts(plan *sweep.Plan) string {
	profiles, runs := 0, 0
	for _, s := range plan.Sweeps {
		profiles += len(s.Profiles)
		runs += len(s.Profiles) * s.Repeats
	}
	return fmt.Sprintf("%s, %s, %s", Plural(len(plan.Sweeps), "sweep"), Plural(profiles, "profile"), Plural(runs, "run"))
}

// closing prints counts, times, reasons and hints.
func (p *Planner) closing(out io.Writer, t *totals, shown []*Profile) {
	fmt.Fprintf(out, "\n%s", Counts(p.Plan))
	if t.never > 0 {
		fmt.Fprintf(out, ", %d of them will not fit", t.never)
	}
	fmt.Fprintln(out)
	if t.untimed == 0 && t.profiles > 0 {
		fmt.Fprintf(out, "expected: %s, %.1f GPU-hours (%s)\n", rounded(t.seconds), t.gpuSeconds/3600, p.Times.from())
		if t.saved > 0 {
			fmt.Fprintf(out, "warm starts save %s of %s, where vllm is a Python script at hand (docs/starts.md)\n",
				rounded(t.saved), rounded(t.seconds+t.saved))
		}
		if t.session < 0.99*t.latency {
			fmt.Fprintf(out, "expected in latency mode %s, in session mode %s\n", rounded(t.latency), rounded(t.session))
		}
	}
	var notes, overheads tally
	for _, one := range shown {
		for _, text := range one.Estimate.Warnings {
			notes.add(text)
		}
		notes.add(one.Estimate.Reason)
		if p.GPU != nil && one.GPU != nil && *one.GPU != p.GPU.Name {
			notes.add("estimated for the simulator's own GPU, " + *one.GPU)
		}
		if one.Overheads != nil {
			for _, text := range one.Overheads.Notes() {
				overheads.add(text)
			}
		}
	}
	notes.print(out, "note")
	fmt.Fprint(out, lawsOf(shown...))
	overheads.print(out, "overheads")
	for i, s := range p.Plan.Sweeps {
		sessionHint(out, s, &p.engines[i])
	}
}

// lawsOf says what the estimates rest on, a line for each measurement.
func lawsOf(shown ...*Profile) string {
	terms := map[string][]string{}
	var order []string
	for _, one := range shown {
		for _, law := range one.Estimate.Laws {
			if terms[law.From] == nil {
				order = append(order, law.From)
			}
			for _, term := range law.Terms {
				if !slices.Contains(terms[law.From], term) {
					terms[law.From] = append(terms[law.From], term)
				}
			}
		}
	}
	var lines strings.Builder
	for _, from := range order {
		fmt.Fprintf(&lines, "terms %s: %s\n", from, strings.Join(terms[from], ", "))
	}
	return lines.String()
}

// A tally says equal things once, with how many profiles each is of.
type tally struct {
	order []string
	count map[string]int
}

func (t *tally) add(text string) {
	if text == "" {
		return
	}
	if t.count == nil {
		t.count = map[string]int{}
	}
	if t.count[text]++; t.count[text] == 1 {
		t.order = append(t.order, text)
	}
}

func (t *tally) print(out io.Writer, what string) {
	for _, text := range t.order {
		fmt.Fprintf(out, "%s (%s): %s\n", what, Plural(t.count[text], "profile"), text)
	}
}

func rounded(seconds float64) time.Duration {
	d := time.Duration(seconds * float64(time.Second))
	if d > time.Hour {
		return d.Round(time.Minute)
	}
	return d.Round(time.Second)
}

// sessionHint says what sharing engines would save, or does.
func sessionHint(out io.Writer, s *sweep.Sweep, engines *sweep.EngineCounter) {
	if len(s.Profiles) < 2 || s.Profiles[0].Engine.Kind != "vllm" {
		return
	}
	n, groups := len(s.Profiles), engines.Engines()
	if usesSession(s) {
		fmt.Fprintf(out, "sweep %s, session mode: %s of %s\n", s.Name, Plural(groups, "engine start"), Plural(n, "profile"))
	} else if groups < n {
		fmt.Fprintf(out, "hint: the %d profiles of sweep %s need %s: mode = \"session\" would start only that many\n",
			n, s.Name, Plural(groups, "engine"))
	}
	joined := engines.AnyLength()
	if longest, all := engines.Longest(); all && joined < groups {
		fmt.Fprintf(out, "hint: %s: %s; with max_model_len = %d it would be %s\n",
			s.Name, groupsText(groups, n), longest, groupsText(joined, n))
	}
}

func groupsText(groups, profiles int) string {
	return fmt.Sprintf("%s of %g", Plural(groups, "group"), math.Round(10*float64(profiles)/float64(groups))/10)
}

// Text prints a single profile whole.
func (one *Profile) Text(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(table, "profile\t%s\nsweep\t%s\n\nSETTING\tVALUE\tFROM\n", one.ID, one.Sweep)
	values := one.profile.SettingValues()
	values["hf_model_id"] = one.profile.Settings.HFModelID
	for _, flag := range one.profile.Engine.Flags {
		values[flag.Name] = flag.Value
	}
	maps.DeleteFunc(values, func(_ string, v any) bool { return v == nil })
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, inLine(values[name]), cmp.Or(one.Origins[name], "-"))
	}
	fmt.Fprintln(table, "\nESTIMATE (per rank)\tGiB\tBETWEEN\tBY")
	e := one.Estimate
	figure := func(name string, f models.Figure) {
		by := f.Source + f.Reason
		if f.Source != "" && f.Reason != "" {
			by = f.Source + " (" + f.Reason + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, inGiB(f), between(f), cmp.Or(by, "-"))
	}
	figure("weights", e.Weights)
	figure("activations", e.Activations)
	figure("non-torch", e.NonTorch)
	figure("CUDA graphs", e.CUDAGraphs)
	figure("context", e.Context)
	figure("buffers", e.Buffers)
	figure("requested", e.Requested)
	figure("KV cache", e.KVCache)
	figure("growth in service", e.Growth)
	if one.Overheads != nil {
		figure("highest use", one.Overheads.HighestUse())
	}
	fmt.Fprintf(table, "\nKV tokens\t%s\nrequests at once\t%s\nlongest context\t%s\n",
		count(e.KVCacheTokens.Value), ratio(e.MaxConcurrency), count(e.MaxContext))
	fmt.Fprintf(table, "max_num_batched_tokens\t%s\nmax_num_seqs\t%s\nvLLM assumed\t%s, model runner %s\n",
		count(e.MaxNumBatchedTokens), count(e.MaxNumSeqs), e.Version, e.ModelRunner)
	fmt.Fprintf(table, "\n%s", lawsOf(one))
	fmt.Fprintf(table, "\ncommand\t%s\n", vllm.Paste(one.Argv))
	return table.Flush()
}
