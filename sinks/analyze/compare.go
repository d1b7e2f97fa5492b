package analyze

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
)

// CompareOptions say how two sides are compared.
type CompareOptions struct {
	// Across names columns in which the sides are meant to differ
	// (vllm_version, gpu, dtype ...). Empty: profiles are matched by id.
	Across []string
	// Thresholds replace a figure's default: its absolute threshold in the
	// figure's unit, its relative one, or how many standard errors it asks.
	Thresholds map[string]Threshold
	// FDR is the share of false alarms among the changes called; default 0.001.
	FDR float64
}

// A Threshold is what a change has to exceed to count. nil keeps the default.
type Threshold struct {
	Absolute *float64
	Relative *float64
	Noise    *float64 // in standard errors of the difference
}

// A Comparison is what changed from one side to the other.
type Comparison struct {
	Base        Side      `json:"base"`
	New         Side      `json:"new"`
	Across      []string  `json:"across,omitempty"`
	Matched     int       `json:"matched_profiles"`
	Tests       int       `json:"tests"` // figures of profiles that were compared
	Regressions []Change  `json:"regressions"`
	Gains       []Change  `json:"improvements"`
	NewFailures []Outcome `json:"new_failures"`
	Recovered   []Outcome `json:"recovered"`
	Vanished    []Outcome `json:"vanished"` // in base alone
	Added       []Outcome `json:"added"`    // in new alone
	Notes       []string  `json:"notes,omitempty"`
	FDR         float64   `json:"false_discovery_rate"`

	profiles []*pair // on either side, for a test report
}

// A Side is what one side of a comparison rests on.
type Side struct {
	Name       string   `json:"name"`
	Executions []string `json:"executions"`
	Runs       int      `json:"runs"`
	Failed     int      `json:"failed"`
}

// An Outcome is a profile whose outcome changed, or that one side lacks.
type Outcome struct {
	Profile string `json:"profile"`
	Label   string `json:"label"`
	Base    string `json:"base,omitempty"`
	New     string `json:"new,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// A Change is one figure of one profile that changed beyond its threshold.
type Change struct {
	Profile    string   `json:"profile"`
	Label      string   `json:"label"` // model and settings, for people
	Figure     string   `json:"figure"`
	Unit       Unit     `json:"unit"`
	Base       float64  `json:"base"` // mean over the runs
	New        float64  `json:"new"`
	Difference float64  `json:"difference"`
	Relative   *float64 `json:"relative"`       // of base; null where base is 0
	Low        *float64 `json:"difference_low"` // 95 % interval; null with one run a side and no other to learn from
	High       *float64 `json:"difference_high"`
	Q          *float64 `json:"q"` // false discovery rate at which it would just count
	BaseRuns   []string `json:"base_runs"`
	NewRuns    []string `json:"new_runs"`
	Note       string   `json:"note,omitempty"`
	Regression bool     `json:"regression"`
}

// ErrNothingToCompare says that no profile stands on both sides.
var ErrNothingToCompare = errors.New("no profile stands on both sides")

// ErrMixed says that synthetic and measured rows would be mixed.
var ErrMixed = errors.New("synthetic and measured runs are never mixed")

// Regressed tells whether anything got worse: a figure, a new failure or a
// profile that vanished.
func (c *Comparison) Regressed() bool {
	return len(c.Regressions)+len(c.NewFailures)+len(c.Vanished) > 0
}

// Compare compares two sets of runs. It fails with ErrMixed or
// ErrNothingToCompare.
func Compare(baseName string, base []sinks.RunRow, newName string, fresh []sinks.RunRow, o CompareOptions) (*Comparison, error) {
	if o.FDR == 0 {
		o.FDR = 0.001
	}
	if err := sameKind(base, fresh); err != nil {
		return nil, err
	}
	c := &Comparison{Base: sideOf(baseName, base), New: sideOf(newName, fresh), Across: o.Across, FDR: o.FDR,
		Regressions: []Change{}, Gains: []Change{}, NewFailures: []Outcome{}, Recovered: []Outcome{}, Vanished: []Outcome{}, Added: []Outcome{}}
	pairs, err := match(base, fresh, o.Across)
	if err != nil {
		return nil, err
	}
	for _, p := range pairs {
		if len(p.base) > 0 && len(p.new) > 0 {
			c.Matched++
		}
		c.outcomes(p)
	}
	if c.Matched == 0 {
		return nil, fmt.Errorf("%w: %d in %s, %d in %s", ErrNothingToCompare, countProfiles(base), baseName, countProfiles(fresh), newName)
	}
	c.profiles = pairs
	c.figures(pairs, o)
	c.surroundings(base, fresh)
	return c, nil
}

// sameKind refuses synthetic beside measured rows.
func sameKind(sides ...[]sinks.RunRow) error {
	synthetic, measured := "", ""
	for _, rows := range sides {
		for i := range rows {
			if rows[i].Synthetic {
				synthetic = rows[i].RunID
			} else {
				measured = rows[i].RunID
			}
		}
	}
	if synthetic != "" && measured != "" {
		return mixed(synthetic, measured)
	}
	return nil
}

func mixed(synthetic, measured string) error {
	return fmt.Errorf("%w: %s is synthetic, %s is measured", ErrMixed, synthetic, measured)
}

func sideOf(name string, rows []sinks.RunRow) Side {
	side := Side{Name: name, Runs: len(rows)}
	for i := range rows {
		if !slices.Contains(side.Executions, rows[i].Execution) {
			side.Executions = append(side.Executions, rows[i].Execution)
		}
		if failed(&rows[i]) {
			side.Failed++
		}
	}
	sort.Strings(side.Executions)
	return side
}

func failed(row *sinks.RunRow) bool { return row.Outcome != "ok" && row.Outcome != "skipped" }

func countProfiles(rows []sinks.RunRow) int {
	seen := map[string]bool{}
	for i := range rows {
		seen[rows[i].ProfileID] = true
	}
	return len(seen)
}

// A pair is one profile on both sides.
type pair struct {
	key, label, sweep string
	base, new         []*sinks.RunRow
}

// match puts the runs of both sides together by profile, in order of first
// appearance.
func match(base, fresh []sinks.RunRow, across []string) ([]*pair, error) {
	keyOf, err := matcher(across)
	if err != nil {
		return nil, err
	}
	byKey := map[string]*pair{}
	var pairs []*pair
	put := func(row *sinks.RunRow, isNew bool) {
		key := keyOf(row)
		p := byKey[key]
		if p == nil {
			p = &pair{key: key, label: labelOf(row), sweep: row.Sweep}
			byKey[key] = p
			pairs = append(pairs, p)
		}
		if isNew {
			p.new = append(p.new, row)
		} else {
			p.base = append(p.base, row)
		}
	}
	for i := range base {
		put(&base[i], false)
	}
	for i := range fresh {
		put(&fresh[i], true)
	}
	// Whatever order the rows came in (tables, folders, a baseline file), sums
	// and lists of runs are the same.
	byRun := func(a, b *sinks.RunRow) int { return strings.Compare(a.RunID, b.RunID) }
	for _, p := range pairs {
		slices.SortStableFunc(p.base, byRun)
		slices.SortStableFunc(p.new, byRun)
	}
	return pairs, nil
}

// matcher returns what two runs must have in common.
func matcher(across []string) (func(*sinks.RunRow) string, error) {
	if len(across) == 0 {
		return func(r *sinks.RunRow) string { return r.ProfileID }, nil
	}
	settings := Settings()
	for _, name := range across {
		if !slices.ContainsFunc(settings, func(s Setting) bool { return s.Name == name }) && !isContext(name) {
			return nil, fmt.Errorf("--across %s: no such setting; there are %s", name, strings.Join(append(settingNames(), contextColumns()...), ", "))
		}
	}
	return func(r *sinks.RunRow) string {
		var key strings.Builder
		for _, s := range settings {
			if !slices.Contains(across, s.Name) {
				fmt.Fprintf(&key, "%s=%s;", s.Name, s.Text(r))
			}
		}
		axes := make([]string, 0, len(r.Axes))
		for name := range r.Axes {
			axes = append(axes, name)
		}
		sort.Strings(axes)
		for _, name := range axes {
			fmt.Fprintf(&key, "axis_%s=%v;", name, r.Axes[name])
		}
		return key.String()
	}, nil
}

// contextSettings are what runs differ in without being asked to: naming one in
// Across says that the difference is meant.
func contextSettings() []Setting {
	return []Setting{
		word("vllm_version", func(r *sinks.RunRow) *string { return r.VLLMVersion }),
		word("torch_version", func(r *sinks.RunRow) *string { return r.TorchVersion }),
		word("driver_version", func(r *sinks.RunRow) *string { return r.DriverVersion }),
		word("gpu", func(r *sinks.RunRow) *string { return r.GPUName }),
		word("host", func(r *sinks.RunRow) *string { return r.Host }),
		word("compile_cache", func(r *sinks.RunRow) *string { return r.CompileCache }),
		word("model_runner", func(r *sinks.RunRow) *string { return r.ModelRunner }),
		word("attention_backend", func(r *sinks.RunRow) *string { return r.AttentionBackend }),
		word("engine_mode", func(r *sinks.RunRow) *string { return &r.EngineMode }),
	}
}

func contextColumns() []string {
	var names []string
	for _, s := range contextSettings() {
		names = append(names, s.Name)
	}
	return names
}

func isContext(name string) bool { return slices.Contains(contextColumns(), name) }

// outcomes notes how the outcome of a profile changed. A profile fails now
// where all of its runs ended well and one does not, or some did and none does.
// A run that is skipped measures nothing and counts as one that failed.
func (c *Comparison) outcomes(p *pair) {
	out := Outcome{Profile: p.key, Label: p.label}
	switch {
	case len(p.base) == 0:
		out.New = worst(p.new).Outcome
		c.Added = append(c.Added, out)
		return
	case len(p.new) == 0:
		out.Base = worst(p.base).Outcome
		c.Vanished = append(c.Vanished, out)
		return
	}
	before, after := shareOK(p.base), shareOK(p.new)
	base, fresh := worst(p.base), worst(p.new)
	out.Base, out.New = base.Outcome, fresh.Outcome
	switch {
	case after < before && (before == 1 || after == 0):
		if before < 1 { // it failed now and then, and does so always now
			out.Base = fmt.Sprintf("ok in %.0f %% of its runs", 100*before)
		}
		out.Detail = deref(fresh.OutcomeDetail)
		c.NewFailures = append(c.NewFailures, out)
	case after > before && (after == 1 || before == 0):
		if after < 1 {
			out.New = fmt.Sprintf("ok in %.0f %% of its runs", 100*after)
		}
		c.Recovered = append(c.Recovered, out)
	}
}

// shareOK is the share of runs that ended well.
func shareOK(rows []*sinks.RunRow) float64 {
	if len(rows) == 0 {
		return 0
	}
	ok := 0
	for _, r := range rows {
		if r.Outcome == "ok" {
			ok++
		}
	}
	return float64(ok) / float64(len(rows))
}

// worst is a failed run if there is one, else a skipped one, else the first.
func worst(rows []*sinks.RunRow) *sinks.RunRow {
	at := rows[0]
	for _, row := range rows {
		if failed(row) {
			return row
		}
		if row.Outcome != "ok" && at.Outcome == "ok" {
			at = row
		}
	}
	return at
}

// surroundings notes in what else the sides differ: a driver, a version. What
// moved may be due to it.
func (c *Comparison) surroundings(base, fresh []sinks.RunRow) {
	for _, s := range contextSettings() {
		if slices.Contains(c.Across, s.Name) {
			continue
		}
		was, is := valuesSeen(base, s), valuesSeen(fresh, s)
		if !slices.Equal(was, is) {
			c.Notes = append(c.Notes, fmt.Sprintf("the sides differ in %s too: %s, now %s", s.Name, wordsOf(was), wordsOf(is)))
		}
	}
}

// valuesSeen are the values of a setting in runs that ended well, sorted.
func valuesSeen(rows []sinks.RunRow, s Setting) []string {
	seen := map[string]bool{}
	for i := range rows {
		if v := s.Text(&rows[i]); v != "" && rows[i].Outcome == "ok" {
			seen[v] = true
		}
	}
	return sortedKeys(seen)
}

func wordsOf(values []string) string {
	switch {
	case len(values) == 0:
		return "not told"
	case len(values) > 4:
		return fmt.Sprintf("%s and %d more", strings.Join(values[:4], ", "), len(values)-4)
	}
	return strings.Join(values, ", ")
}

// figures compares every figure over all profiles.
func (c *Comparison) figures(pairs []*pair, o CompareOptions) {
	var tests []*test
	dummies := 0
	var gone []string // what one side alone lacks
	for _, figure := range Figures() {
		of, without := testsOf(&figure, pairs)
		dummies += without.weights
		for side, n := range map[string]int{c.Base.Name: without.base, c.New.Name: without.new} {
			if n > 0 {
				gone = append(gone, fmt.Sprintf("%s: %d profiles in %s", figure.Name, n, side))
			}
		}
		sets := make([]sampleSet, len(of))
		for i, t := range of {
			sets[i] = t.set
		}
		before := priorOf(sets)
		for _, t := range of {
			t.d = t.set.differ(before)
		}
		tests = append(tests, of...)
	}
	c.Tests = len(tests)
	p := make([]float64, len(tests))
	unassessed := 0
	for i, t := range tests {
		p[i] = t.d.p
		if !t.d.assessed {
			unassessed++
		}
	}
	for i, q := range adjust(p) {
		c.judge(tests[i], q, o)
	}
	order := figureNames()
	bySize := func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Figure), slices.Index(order, b.Figure)),
			-cmp.Compare(math.Abs(a.Difference), math.Abs(b.Difference)), strings.Compare(a.Label, b.Label))
	}
	slices.SortStableFunc(c.Regressions, bySize)
	slices.SortStableFunc(c.Gains, bySize)
	if unassessed > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("%d of %d figures have one run a side and no repeats to learn noise from: judged by the threshold alone", unassessed, len(tests)))
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		c.Notes = append(c.Notes, "not compared, because one side alone lacks it: "+strings.Join(gone, "; "))
	}
	if dummies > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("%d figures of latency, power or energy left out: some runs had random weights (load_format dummy), others real ones", dummies))
	}
}

// A test is one figure of one profile on both sides.
type test struct {
	figure *Figure
	pair   *pair
	set    sampleSet
	d      difference
}

// lost counts the profiles that a figure cannot be compared of.
type lost struct{ weights, base, new int }

// testsOf collects the values of one figure. Runs that failed have none.
func testsOf(figure *Figure, pairs []*pair) (tests []*test, without lost) {
	for _, p := range pairs {
		set := sampleSet{base: valuesOf(figure, p.base), new: valuesOf(figure, p.new)}
		switch {
		case len(set.base) == 0 && len(set.new) == 0:
		case len(set.base) == 0 && shareOK(p.base) > 0:
			without.base++
		case len(set.new) == 0 && shareOK(p.new) > 0:
			without.new++
		case len(set.base) == 0, len(set.new) == 0: // no run ended well: that is an outcome
		case figure.RealWeights && mixedWeights(p):
			without.weights++
		default:
			tests = append(tests, &test{figure: figure, pair: p, set: set})
		}
	}
	return tests, without
}

// mixedWeights tells whether some runs of a profile had random weights and
// others real ones, on whichever side.
func mixedWeights(p *pair) bool {
	random, all := 0, len(p.base)+len(p.new)
	for _, rows := range [][]*sinks.RunRow{p.base, p.new} {
		for _, r := range rows {
			if deref(r.LoadFormat) == "dummy" {
				random++
			}
		}
	}
	return random > 0 && random < all
}

// valuesOf are the values of a figure, on its scale.
func valuesOf(figure *Figure, rows []*sinks.RunRow) []float64 {
	var out []float64
	for _, row := range rows {
		v := figure.Value(row)
		if v == nil || row.Outcome != "ok" || figure.Ratio && *v <= 0 {
			continue
		}
		if figure.Ratio {
			out = append(out, math.Log(*v))
		} else {
			out = append(out, *v)
		}
	}
	return out
}

// judge turns a test into a change, if it is one.
func (c *Comparison) judge(t *test, q float64, o CompareOptions) {
	if t.d.assessed && q > o.FDR {
		return
	}
	change := t.change(q)
	if !t.beyond(change, o) {
		return
	}
	worse := t.figure.Bad == BadBoth || (t.figure.Bad == BadUp) == (change.Difference > 0)
	change.Regression = worse
	if worse {
		c.Regressions = append(c.Regressions, change)
	} else {
		c.Gains = append(c.Gains, change)
	}
}

// beyond tells whether a change exceeds the figure's thresholds.
func (t *test) beyond(change Change, o CompareOptions) bool {
	absolute, relative := t.figure.Absolute, t.figure.Relative
	if own, ok := o.Thresholds[t.figure.Name]; ok {
		if own.Absolute != nil {
			absolute = *own.Absolute
		}
		if own.Relative != nil {
			relative = *own.Relative
		}
		if own.Noise != nil && t.d.assessed && math.Abs(t.d.mean) < *own.Noise*t.d.noise {
			return false
		}
	}
	size := math.Abs(change.Difference)
	return size > 0 && size >= absolute && size >= relative*math.Abs(change.Base)
}

// change puts a test into the figure's own unit.
func (t *test) change(q float64) Change {
	c := Change{Profile: t.pair.key, Label: t.pair.label, Figure: t.figure.Name, Unit: t.figure.Unit,
		BaseRuns: runIDs(t.pair.base), NewRuns: runIDs(t.pair.new)}
	base, d := meanOf(t.set.base), t.d
	scale := func(x float64) float64 { return x }
	if t.figure.Ratio {
		c.Base = math.Exp(base)
		scale = func(x float64) float64 { return c.Base * (math.Exp(x) - 1) }
	} else {
		c.Base = base
	}
	c.Difference = scale(d.mean)
	c.New = c.Base + c.Difference
	if c.Base != 0 {
		relative := c.Difference / math.Abs(c.Base)
		c.Relative = &relative
	}
	if d.assessed {
		low, high := d.interval()
		low, high = scale(low), scale(high)
		c.Low, c.High, c.Q = &low, &high, &q
	} else {
		c.Note = "one run a side: judged by the threshold alone"
	}
	return c
}

func meanOf(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

func runIDs(rows []*sinks.RunRow) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = row.RunID
	}
	return out
}
