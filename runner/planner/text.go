package planner

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

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
	labels := sweep.LabelsOf(p.Plan)
	for _, s := range p.Plan.Sweeps {
		of := slices.DeleteFunc(slices.Clone(shown), func(one *Profile) bool { return one.Sweep != s.Name })
		if len(of) > 0 {
			newGrid(s, labels[s.Name], of).render(out, p.Width)
		}
	}
	fmt.Fprint(out, legend)
	if t.profiles > len(shown) {
		fmt.Fprintf(out, "... and %d more (--limit %d)\n", t.profiles-len(shown), p.Limit)
	}
	var closing strings.Builder
	p.closing(&closing, t, shown)
	text := closing.String()
	if p.Width > 0 { // in a pipe lines stay whole, for those who search them
		text = Fold(text, p.Width)
	}
	_, err = io.WriteString(out, text)
	return err
}

// Fold breaks lines at blanks so that they take at most width columns; what goes on
// is indented.
func Fold(text string, width int) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		column := 0
		for i, word := range strings.SplitAfter(line, " ") {
			if n := utf8.RuneCountInString(strings.TrimRight(word, " \n")); i > 0 && column > 4 && column+n > width {
				out.WriteString("\n    ")
				column = 4
			}
			out.WriteString(word)
			column += utf8.RuneCountInString(word)
		}
	}
	return regexp.MustCompile(` +\n`).ReplaceAllString(out.String(), "\n")
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
			notes.add(text, one.ID)
		}
		notes.add(one.Estimate.Reason, one.ID)
		if p.GPU != nil && one.GPU != nil && *one.GPU != p.GPU.Name {
			notes.add("estimated for the simulator's own GPU, "+*one.GPU, one.ID)
		}
		if one.Overheads != nil {
			for _, text := range one.Overheads.Notes() {
				overheads.add(text, one.ID)
			}
		}
	}
	notes.print(out, "note", len(shown))
	fmt.Fprint(out, lawsOf(shown...))
	overheads.print(out, "overheads", len(shown))
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
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, sweep.Show(values[name]), cmp.Or(one.Origins[name], "-"))
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
