package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/simulate"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

type planFlags struct {
	json    bool
	limit   int
	profile string
	gpu     string
	mode    string

	overheads overheadsFlag
}

// planVerb shows what a sweep will do and need.
func (w *world) planVerb() *cobra.Command {
	var inputs inputFlags
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan FILE|FOLDER",
		Short: "The profiles in order: memory, fit, expected time",
		Args:  exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w.quick()
			plan, err := w.load(args[0], &inputs, f.json)
			if err == nil {
				err = f.overheads.load()
			}
			if err != nil {
				return err
			}
			if err := setMode(plan, f.mode); err != nil {
				return err
			}
			p, err := w.newPlanner(cmd.Context(), plan, &f)
			if err != nil {
				return err
			}
			switch {
			case f.profile != "":
				return p.one(f.profile, f.json)
			case f.json:
				return p.printJSON()
			}
			return p.table()
		},
	}
	inputs.add(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.json, "json", false, "print JSON")
	flags.IntVar(&f.limit, "limit", 0, "show the first N profiles; the counts are of all")
	flags.StringVar(&f.profile, "profile", "", "show one profile whole, with where each value comes from")
	flags.StringVar(&f.gpu, "gpu", "", "plan for this GPU: a name of the catalogue or of a gpu block")
	flags.StringVar(&f.mode, "mode", "", "latency or session: how the engine would be used")
	flags.StringVar(&f.overheads.file, "overheads", "", "FILE of `vramsweep overhead build`: what was measured stands in for what is computed")
	return cmd
}

// A planner estimates the profiles of a plan for one kind of GPU.
type planner struct {
	w     *world
	plan  *sweep.Plan
	flags *planFlags
	gpu   models.GPU
	known bool   // a GPU is known
	from  string // how
	pace  pace

	engines []sweep.EngineCounter // of each sweep, after count
}

func (w *world) newPlanner(ctx context.Context, plan *sweep.Plan, f *planFlags) (*planner, error) {
	p := &planner{w: w, plan: plan, flags: f, pace: w.paceOf(plan)}
	switch {
	case f.gpu != "":
		g, ok := namedGPU(f.gpu, plan.GPUs)
		if !ok {
			return nil, usageError("", "--gpu %s: no such GPU; there are %s", f.gpu, strings.Join(gpuNames(plan.GPUs), ", "))
		}
		p.gpu, p.known, p.from = g, true, "--gpu"
	case len(plan.GPUs) == 1:
		p.gpu, p.known = namedGPU(plan.GPUs[0].Name, plan.GPUs)
		p.from = "the gpu block"
	default:
		machine := gpu.Detect(ctx, w.machineOptions(nil), false)
		p.gpu, p.known = gpuFor(machine.Found(), plan.GPUs, nil)
		p.from = "this machine"
	}
	if g, ok := simulatedGPU(plan); ok && !p.known {
		p.gpu, p.known, p.from = g, true, "the simulator"
	}
	return p, nil
}

// simulatedGPU is the GPU of a plan's first simulated profile.
func simulatedGPU(plan *sweep.Plan) (models.GPU, bool) {
	for _, s := range plan.Sweeps {
		for _, profile := range s.Profiles {
			if profile.Engine.Kind == "simulator" {
				return gpuFor(nil, plan.GPUs, profile)
			}
		}
	}
	return models.GPU{}, false
}

// gpuFor is the arithmetic's GPU for real devices: their catalogue entry with
// the memory that the driver tells. A simulated profile has its own.
func gpuFor(devices []runner.Device, blocks []sweep.GPU, p *sweep.Profile) (models.GPU, bool) {
	if p != nil && p.Engine.Kind == "simulator" {
		name := simulate.DefaultGPU
		if own := p.Engine.Simulator; own != nil && own.GPU != "" {
			name = own.GPU
		}
		return namedGPU(name, blocks)
	}
	if len(devices) == 0 {
		return models.GPU{}, false
	}
	return models.LookupGPU(devices[0].Name)
}

// namedGPU finds a GPU in the file's blocks, then in the catalogue.
func namedGPU(name string, blocks []sweep.GPU) (models.GPU, bool) {
	for _, b := range blocks {
		if b.Name != name {
			continue
		}
		g, ok := models.LookupGPU(b.Like)
		if !ok && b.TotalMemory == nil {
			return models.GPU{}, false
		}
		g.Name, g.Source = b.Name, "gpu block"
		for _, field := range []struct {
			from *int64
			to   *int64
		}{{b.TotalMemory, &g.TotalBytes}, {b.Reserve, &g.Reserve}, {b.Context, &g.Context}} {
			if field.from != nil {
				*field.to = *field.from
			}
		}
		return g, true
	}
	return models.LookupGPU(name)
}

func gpuNames(blocks []sweep.GPU) []string {
	var names []string
	for _, b := range blocks {
		names = append(names, b.Name)
	}
	for _, g := range models.GPUs() {
		names = append(names, g.Name)
	}
	return names
}

// A plannedProfile is a profile of `plan --json`.
type plannedProfile struct {
	ID              string            `json:"id"`
	Sweep           string            `json:"sweep"`
	Model           string            `json:"model"`
	Settings        sweep.Settings    `json:"settings"`
	Axes            []sweep.AxisValue `json:"axes"`
	Argv            []string          `json:"argv"`
	GPU             *string           `json:"gpu"`
	Estimate        *models.Estimate  `json:"estimate"`
	Overheads       *overheadsOf      `json:"overheads,omitempty"` // with --overheads
	ExpectedSeconds *float64          `json:"expected_seconds"`
	Repeats         int               `json:"repeats"`
	Group           string            `json:"group,omitempty"` // session mode: profiles of one group share an engine
	Origins         map[string]string `json:"origins,omitempty"`
	profile         *sweep.Profile
}

func (p *planner) profileOf(s *sweep.Sweep, profile *sweep.Profile) (*plannedProfile, error) {
	argv, err := vllm.Command(profile)
	if err != nil {
		return nil, usageError("", "profile %s of sweep %q: %w", profile.ID, s.Name, err)
	}
	out := &plannedProfile{
		ID: profile.ID, Sweep: s.Name, Model: profile.Settings.Model, Settings: profile.Settings, Axes: profile.Axes,
		Argv: proc.NewMasker(p.w.env, s.Secrets()...).Argv(argv), Repeats: max(s.Repeats, 1), profile: profile,
	}
	if profile.Engine.Mode == "session" {
		out.Group = profile.EngineKey()
	}
	estimate, overheads := p.estimate(profile)
	out.Estimate, out.Overheads = &estimate, overheads
	if g, known := p.gpuOf(profile); known {
		out.GPU = &g.Name
	}
	if d, ok := p.pace.expect(profile, &estimate); ok {
		seconds := d.total()
		out.ExpectedSeconds = &seconds
	}
	return out, nil
}

func (p *planner) estimate(profile *sweep.Profile) (models.Estimate, *overheadsOf) {
	g, _ := p.gpuOf(profile)
	return p.flags.overheads.estimate(profile.Model, profile.Request(), g)
}

// gpuOf is the GPU that a profile is estimated for: the simulator has its own.
func (p *planner) gpuOf(profile *sweep.Profile) (g models.GPU, known bool) {
	if own, ok := gpuFor(nil, p.plan.GPUs, profile); ok {
		return own, true
	}
	return p.gpu, p.known
}

// totals are of the whole plan, whatever --limit shows.
type totals struct {
	profiles, runs, never, unknown int
	seconds, gpuSeconds            float64
	latency, session               float64 // seconds, if all ran in that mode
	untimed                        int
}

// count estimates every profile and keeps the first limit ones.
func (p *planner) count() ([]*plannedProfile, totals, error) {
	var shown []*plannedProfile
	var t totals
	p.engines = make([]sweep.EngineCounter, len(p.plan.Sweeps))
	for i, s := range p.plan.Sweeps {
		for _, profile := range s.Profiles {
			t.profiles++
			runs := max(s.Repeats, 1)
			t.runs += runs
			estimate, _ := p.estimate(profile)
			switch {
			case estimate.Fits == nil:
				t.unknown++
			case !*estimate.Fits:
				t.never++
			}
			first := p.engines[i].Add(profile)
			p.time(&t, profile, &estimate, runs, first)
			if p.flags.limit > 0 && len(shown) >= p.flags.limit {
				continue
			}
			one, err := p.profileOf(s, profile)
			if err != nil {
				return nil, t, err
			}
			shown = append(shown, one)
		}
	}
	return shown, t, nil
}

// time adds what a profile will take: in session mode the engine's start
// counts once a group.
func (p *planner) time(t *totals, profile *sweep.Profile, estimate *models.Estimate, runs int, first bool) {
	d, ok := p.pace.expect(profile, estimate)
	if !ok {
		t.untimed++
		return
	}
	latency, session := d.total()*float64(runs), d.work*float64(runs)
	if first {
		session += d.startup
	}
	t.latency += latency
	t.session += session
	total := latency
	if profile.Engine.Mode == "session" {
		total = session
	}
	t.seconds += total
	t.gpuSeconds += total * float64(profile.Settings.TensorParallelSize*max(profile.Settings.PipelineParallelSize, 1))
}

func (p *planner) printJSON() error {
	shown, t, err := p.count()
	if err != nil {
		return err
	}
	type sweepJSON struct {
		Name        string       `json:"name"`
		Description string       `json:"description,omitempty"`
		Axes        []sweep.Axis `json:"axes"`
		Repeats     int          `json:"repeats"`
		Profiles    int          `json:"profiles"`
		Excluded    int          `json:"excluded"`
		Groups      int          `json:"groups,omitempty"`
	}
	out := struct {
		Files        []string              `json:"files"`
		Variables    []sweep.VariableValue `json:"variables"`
		OutputDir    string                `json:"output_dir"`
		Sweeps       []sweepJSON           `json:"sweeps"`
		ProfileCount int                   `json:"profile_count"`
		RunCount     int                   `json:"run_count"`
		NeverFits    int                   `json:"never_fits"`
		GPU          *models.GPU           `json:"gpu"`
		Seconds      *float64              `json:"expected_seconds"`
		GPUHours     *float64              `json:"expected_gpu_hours"`
		TimeFrom     string                `json:"expected_time_from"`
		Profiles     []*plannedProfile     `json:"profiles"`
		Warnings     []sweep.Diagnostic    `json:"warnings,omitempty"`
	}{Files: p.plan.Files, Variables: orEmpty(p.plan.Variables), OutputDir: p.plan.OutputDir, ProfileCount: t.profiles, RunCount: t.runs,
		NeverFits: t.never, TimeFrom: p.pace.from(), Profiles: orEmpty(shown), Warnings: p.plan.Warnings}
	if p.known {
		out.GPU = &p.gpu
	}
	if t.untimed == 0 {
		hours := t.gpuSeconds / 3600
		out.Seconds, out.GPUHours = &t.seconds, &hours
	}
	for i, s := range p.plan.Sweeps {
		entry := sweepJSON{Name: s.Name, Description: s.Description, Axes: s.Axes, Repeats: max(s.Repeats, 1), Profiles: len(s.Profiles), Excluded: s.Excluded}
		if usesSession(s) {
			entry.Groups = p.engines[i].Engines()
		}
		out.Sweeps = append(out.Sweeps, entry)
	}
	return printJSON(p.w.stdout, out)
}

func usesSession(s *sweep.Sweep) bool {
	return slices.ContainsFunc(s.Profiles, func(p *sweep.Profile) bool { return p.Engine.Mode == "session" })
}

// table prints the plan for people.
func (p *planner) table() error {
	shown, t, err := p.count()
	if err != nil {
		return err
	}
	out := p.w.stdout
	if p.known {
		fmt.Fprintf(out, "GPU: %s (%s), %s as torch counts it, from %s\n", p.gpu.Name, p.gpu.Product, gibOf(&p.gpu.TotalBytes), p.from)
	} else {
		fmt.Fprintln(out, "GPU: none known; name one with --gpu or a gpu block (vramsweep plan --gpu h100-80gb) to see what fits")
	}
	fmt.Fprintf(out, "GiB per rank (the largest), estimated%s:\n", p.flags.overheads.says())
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "#\tprofile\tmodel\ttp\tin\tout\tbs\tweights\tactiv.\tgraphs\tKV\tKV tokens\trequests\tlongest\tfits\t  ")
	sweepName := ""
	for i, one := range shown {
		if one.Sweep != sweepName {
			sweepName = one.Sweep
			fmt.Fprintf(table, "sweep %s\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\n", sweepName)
		}
		fmt.Fprintln(table, one.row(i+1))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if t.profiles > len(shown) {
		fmt.Fprintf(out, "... and %d more (--limit %d)\n", t.profiles-len(shown), p.flags.limit)
	}
	p.closing(out, t, shown)
	return nil
}

func (one *plannedProfile) row(n int) string {
	e, s := one.Estimate, one.Settings
	fits := "?"
	if e.Fits != nil {
		fits = "yes"
		if e.MayRunOut {
			fits = "starts, may run out"
		}
		if !*e.Fits {
			fits = "NO"
			if e.ShortBy != nil && *e.ShortBy > 0 {
				fits = fmt.Sprintf("NO, %s short", gibOf(e.ShortBy))
			}
		}
	}
	return fmt.Sprintf("%d\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s", n, one.ID[:min(8, len(one.ID))], one.Model, s.TensorParallelSize, s.InputLen, s.OutputLen, s.BatchSize,
		figureGiB(e.Weights), figureGiB(e.Activations), figureGiB(e.CUDAGraphs), figureGiB(e.KVCache), figureCount(e.KVCacheTokens), ratioOf(e.MaxConcurrency), countOr(e.MaxContext), fits, one.Overheads.short()+freeAxes(one.Axes))
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

func figureGiB(f models.Figure) string {
	if f.Value == nil {
		return "?"
	}
	return fmt.Sprintf("%.2f", float64(*f.Value)/runner.GiB)
}

func figureCount(f models.Figure) string { return countOr(f.Value) }

func countOr(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}

func ratioOf(f *float64) string {
	if f == nil {
		return "?"
	}
	return fmt.Sprintf("%.1f", *f)
}

// closing prints counts, times, reasons and hints.
func (p *planner) closing(out io.Writer, t totals, shown []*plannedProfile) {
	fmt.Fprintf(out, "\n%s", countOf(p.plan))
	if t.never > 0 {
		fmt.Fprintf(out, ", %d of them will not fit", t.never)
	}
	fmt.Fprintln(out)
	if t.untimed == 0 && t.profiles > 0 {
		fmt.Fprintf(out, "expected: %s, %.1f GPU-hours (%s)\n", roundTime(t.seconds), t.gpuSeconds/3600, p.pace.from())
		if t.session < 0.99*t.latency {
			fmt.Fprintf(out, "expected in latency mode %s, in session mode %s\n", roundTime(t.latency), roundTime(t.session))
		}
	}
	said := map[string]int{}
	var order []string
	for _, one := range shown {
		notes := append(slices.Clone(one.Estimate.Warnings), one.Estimate.Reason)
		if p.known && one.GPU != nil && *one.GPU != p.gpu.Name {
			notes = append(notes, "estimated for the simulator's own GPU, "+*one.GPU)
		}
		for _, text := range notes {
			if text == "" {
				continue
			}
			if said[text] == 0 {
				order = append(order, text)
			}
			said[text]++
		}
	}
	for _, text := range order {
		fmt.Fprintf(out, "note (%s): %s\n", plural(said[text], "profile"), text)
	}
	for _, text := range lawsOf(shown) {
		fmt.Fprintln(out, text)
	}
	printOverheads(out, shown)
	for i, s := range p.plan.Sweeps {
		p.sessionHint(out, s, &p.engines[i])
	}
}

// lawsOf says what the estimates rest on, a line for each measurement.
func lawsOf(shown []*plannedProfile) []string {
	terms := map[string][]string{}
	var order, lines []string
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
	for _, from := range order {
		lines = append(lines, "terms "+from+": "+strings.Join(terms[from], ", "))
	}
	return lines
}

func roundTime(seconds float64) time.Duration {
	d := time.Duration(seconds * float64(time.Second))
	if d > time.Hour {
		return d.Round(time.Minute)
	}
	return d.Round(time.Second)
}

// sessionHint says what sharing engines would save, or does.
func (p *planner) sessionHint(out io.Writer, s *sweep.Sweep, engines *sweep.EngineCounter) {
	if len(s.Profiles) < 2 || s.Profiles[0].Engine.Kind != "vllm" {
		return
	}
	groups := engines.Engines()
	if usesSession(s) {
		fmt.Fprintf(out, "sweep %s, session mode: %s of %s\n", s.Name, plural(groups, "engine start"), plural(len(s.Profiles), "profile"))
	} else if groups < len(s.Profiles) {
		fmt.Fprintf(out, "hint: the %d profiles of sweep %s need %s: mode = \"session\" would start only that many\n", len(s.Profiles), s.Name, plural(groups, "engine"))
	}
	joined := engines.AnyLength()
	if longest, all := engines.Longest(); all && joined < groups {
		fmt.Fprintf(out, "hint: %s: %s; with max_model_len = %d it would be %s\n", s.Name, groupsText(groups, len(s.Profiles)), longest, groupsText(joined, len(s.Profiles)))
	}
}

func groupsText(groups, profiles int) string {
	return fmt.Sprintf("%s of %g", plural(groups, "group"), math.Round(10*float64(profiles)/float64(groups))/10)
}

// one prints a single profile whole.
func (p *planner) one(id string, asJSON bool) error {
	for _, s := range p.plan.Sweeps {
		for _, profile := range s.Profiles {
			if !strings.HasPrefix(profile.ID, id) {
				continue
			}
			one, err := p.profileOf(s, profile)
			if err != nil {
				return err
			}
			one.Origins = profile.Origins
			if asJSON {
				return printJSON(p.w.stdout, one)
			}
			return p.printOne(one)
		}
	}
	return usageError("vramsweep plan FILE lists them.", "no profile of the plan has an id that begins with %q", id)
}

func (p *planner) printOne(one *plannedProfile) error {
	table := tabwriter.NewWriter(p.w.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(table, "profile\t%s\nsweep\t%s\n\nSETTING\tVALUE\tFROM\n", one.ID, one.Sweep)
	values := settingValues(one.profile)
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, inLine(values[name]), orDash(one.Origins[name]))
	}
	fmt.Fprintln(table, "\nESTIMATE (per rank)\tGiB\tBETWEEN\tBY")
	e := one.Estimate
	for _, row := range []struct {
		name   string
		figure models.Figure
	}{{"weights", e.Weights}, {"activations", e.Activations}, {"non-torch", e.NonTorch}, {"CUDA graphs", e.CUDAGraphs}, {"context", e.Context}, {"buffers", e.Buffers}, {"requested", e.Requested}, {"KV cache", e.KVCache},
		{"growth in service", e.Growth}} {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", row.name, figureGiB(row.figure), between(row.figure), orDash(figureBy(row.figure)))
	}
	one.Overheads.print(table)
	fmt.Fprintf(table, "\nKV tokens\t%s\nrequests at once\t%s\nlongest context\t%s\n", figureCount(e.KVCacheTokens), ratioOf(e.MaxConcurrency), countOr(e.MaxContext))
	fmt.Fprintf(table, "max_num_batched_tokens\t%s\nmax_num_seqs\t%s\nvLLM assumed\t%s, model runner %s\n", countOr(e.MaxNumBatchedTokens), countOr(e.MaxNumSeqs), e.Version, e.ModelRunner)
	for _, text := range lawsOf([]*plannedProfile{one}) {
		fmt.Fprintf(table, "\n%s\n", text)
	}
	fmt.Fprintf(table, "\ncommand\t%s\n", vllm.Paste(one.Argv))
	return table.Flush()
}

func between(f models.Figure) string {
	if f.Low == nil || f.High == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f .. %.2f", float64(*f.Low)/runner.GiB, float64(*f.High)/runner.GiB)
}
