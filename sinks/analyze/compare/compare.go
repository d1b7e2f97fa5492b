// Package compare says what changed from one set of runs to another: figures
// beyond their thresholds and beyond noise, outcomes, profiles that came and
// went. It also keeps what a comparison needs of runs as a baseline file.
package compare

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// Options say how two sides are compared.
type Options struct {
	// Across names columns in which the sides are meant to differ
	// (vllm_version, gpu, dtype ...). Empty: profiles are matched by id.
	Across []string
	// Thresholds replace a figure's default: its absolute threshold in the
	// figure's unit, its relative one, or how many standard errors it asks.
	Thresholds map[string]Threshold
	// FDR is the share of false alarms among the changes called; default 0.001.
	FDR float64
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
	Profile    string     `json:"profile"`
	Label      string     `json:"label"` // model and settings, for people
	Figure     string     `json:"figure"`
	Unit       frame.Unit `json:"unit"`
	Base       float64    `json:"base"` // mean over the runs
	New        float64    `json:"new"`
	Difference float64    `json:"difference"`
	Relative   *float64   `json:"relative"`       // of base; null where base is 0
	Low        *float64   `json:"difference_low"` // 95 % interval; null with one run a side and no other to learn from
	High       *float64   `json:"difference_high"`
	Q          *float64   `json:"q"` // false discovery rate at which it would just count
	BaseRuns   []string   `json:"base_runs"`
	NewRuns    []string   `json:"new_runs"`
	Note       string     `json:"note,omitempty"`
	Regression bool       `json:"regression"`
}

// ErrNothing says that no profile stands on both sides.
var ErrNothing = errors.New("no profile stands on both sides")

// Regressed tells whether anything got worse: a figure, a new failure or a
// profile that vanished.
func (c *Comparison) Regressed() bool {
	return len(c.Regressions)+len(c.NewFailures)+len(c.Vanished) > 0
}

// Run compares two sets of runs. It fails with frame.ErrMixed or ErrNothing.
func Run(baseName string, base []sinks.RunRow, newName string, fresh []sinks.RunRow, o Options) (*Comparison, error) {
	if o.FDR == 0 {
		o.FDR = 0.001
	}
	if err := frame.SameKind(base, fresh); err != nil {
		return nil, err
	}
	c := &Comparison{Base: SideOf(baseName, base), New: SideOf(newName, fresh), Across: o.Across, FDR: o.FDR,
		Regressions: []Change{}, Gains: []Change{},
		NewFailures: []Outcome{}, Recovered: []Outcome{}, Vanished: []Outcome{}, Added: []Outcome{}}
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
		return nil, fmt.Errorf("%w: %d in %s, %d in %s",
			ErrNothing, countProfiles(base), baseName, countProfiles(fresh), newName)
	}
	c.profiles = pairs
	c.figures(pairs, o)
	c.surroundings(base, fresh)
	return c, nil
}

// SideOf sums up one side.
func SideOf(name string, rows []sinks.RunRow) Side {
	side := Side{Name: name, Runs: len(rows)}
	for i := range rows {
		if !slices.Contains(side.Executions, rows[i].Execution) {
			side.Executions = append(side.Executions, rows[i].Execution)
		}
		if frame.Failed(&rows[i]) {
			side.Failed++
		}
	}
	slices.Sort(side.Executions)
	return side
}

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
	of := func(row *sinks.RunRow) *pair {
		key := keyOf(row)
		if byKey[key] == nil {
			byKey[key] = &pair{key: key, label: frame.Label(row), sweep: row.Sweep}
			pairs = append(pairs, byKey[key])
		}
		return byKey[key]
	}
	for i := range base {
		p := of(&base[i])
		p.base = append(p.base, &base[i])
	}
	for i := range fresh {
		p := of(&fresh[i])
		p.new = append(p.new, &fresh[i])
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
	known := append(frame.Settings(), frame.Context()...)
	for _, name := range across {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--across %s: no such setting; there are %s", name, strings.Join(known, ", "))
		}
	}
	settings := frame.Of(without(frame.Settings(), across)...)
	return func(r *sinks.RunRow) string {
		var key strings.Builder
		for _, s := range settings {
			fmt.Fprintf(&key, "%s=%s;", s.Name, s.Text(r))
		}
		for _, name := range frame.SortedKeys(r.Axes) {
			fmt.Fprintf(&key, "axis_%s=%v;", name, r.Axes[name])
		}
		return key.String()
	}, nil
}

func without(names, less []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(less, name) })
}

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
		out.Detail = frame.Deref(fresh.OutcomeDetail)
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
	ok := 0
	for _, r := range rows {
		if r.Outcome == "ok" {
			ok++
		}
	}
	return float64(ok) / float64(max(len(rows), 1))
}

// worst is a failed run if there is one, else a skipped one, else the first.
func worst(rows []*sinks.RunRow) *sinks.RunRow {
	at := rows[0]
	for _, row := range rows {
		if frame.Failed(row) {
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
	for _, s := range frame.Of(without(frame.Context(), c.Across)...) {
		was, is := valuesSeen(base, s), valuesSeen(fresh, s)
		if !slices.Equal(was, is) {
			c.note("the sides differ in %s too: %s, now %s", s.Name, wordsOf(was), wordsOf(is))
		}
	}
}

func (c *Comparison) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// valuesSeen are the values of a setting in runs that ended well, sorted.
func valuesSeen(rows []sinks.RunRow, s frame.Column) []string {
	seen := map[string]bool{}
	for i := range rows {
		if v := s.Text(&rows[i]); v != "" && rows[i].Outcome == "ok" {
			seen[v] = true
		}
	}
	return frame.SortedKeys(seen)
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
func (c *Comparison) figures(pairs []*pair, o Options) {
	var tests []*test
	var p []float64
	dummies, unassessed := 0, 0
	var gone []string // what one side alone lacks
	figures := frame.Figures()
	for i := range figures {
		figure := &figures[i]
		of, lacks := testsOf(figure, pairs)
		dummies += lacks.weights
		for side, n := range map[string]int{c.Base.Name: lacks.base, c.New.Name: lacks.new} {
			if n > 0 {
				gone = append(gone, fmt.Sprintf("%s: %d profiles in %s", figure.Name, n, side))
			}
		}
		before := priorOf(of)
		for _, t := range of {
			t.d = t.differ(before)
			p = append(p, t.d.p)
			if !t.d.assessed {
				unassessed++
			}
		}
		tests = append(tests, of...)
	}
	c.Tests = len(tests)
	for i, q := range adjust(p) {
		c.judge(tests[i], q, o)
	}
	order := frame.FigureNames()
	bySize := func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Figure), slices.Index(order, b.Figure)),
			cmp.Compare(math.Abs(b.Difference), math.Abs(a.Difference)), strings.Compare(a.Label, b.Label))
	}
	slices.SortStableFunc(c.Regressions, bySize)
	slices.SortStableFunc(c.Gains, bySize)
	if unassessed > 0 {
		c.note("%d of %d figures have one run a side and no repeats to learn noise from: judged by the threshold alone",
			unassessed, len(tests))
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		c.note("not compared, because one side alone lacks it: %s", strings.Join(gone, "; "))
	}
	if dummies > 0 {
		c.note("%d figures of latency, power or energy left out: "+
			"some runs had random weights (load_format dummy), others real ones", dummies)
	}
}

// A test is one figure of one profile on both sides.
type test struct {
	figure    *frame.Figure
	pair      *pair
	base, new []float64 // on the figure's scale
	d         difference
}

// lost counts the profiles that a figure cannot be compared of.
type lost struct{ weights, base, new int }

// testsOf collects the values of one figure. Runs that failed have none.
func testsOf(figure *frame.Figure, pairs []*pair) (tests []*test, lacks lost) {
	for _, p := range pairs {
		t := &test{figure: figure, pair: p, base: valuesOf(figure, p.base), new: valuesOf(figure, p.new)}
		switch {
		case len(t.base) == 0 && len(t.new) == 0:
		case len(t.base) == 0 && shareOK(p.base) > 0:
			lacks.base++
		case len(t.new) == 0 && shareOK(p.new) > 0:
			lacks.new++
		case len(t.base) == 0, len(t.new) == 0: // no run ended well: that is an outcome
		case figure.Ratio && mixedWeights(p):
			lacks.weights++
		default:
			tests = append(tests, t)
		}
	}
	return tests, lacks
}

// mixedWeights tells whether some runs of a profile had random weights and
// others real ones, on whichever side.
func mixedWeights(p *pair) bool {
	all := slices.Concat(p.base, p.new)
	return slices.ContainsFunc(all, func(r *sinks.RunRow) bool {
		return frame.RandomWeights(r) != frame.RandomWeights(all[0])
	})
}

// valuesOf are the values of a figure, on its scale.
func valuesOf(figure *frame.Figure, rows []*sinks.RunRow) []float64 {
	var out []float64
	for _, row := range rows {
		v := figure.Number(row)
		switch {
		case v == nil, row.Outcome != "ok", figure.Ratio && *v <= 0:
		case figure.Ratio:
			out = append(out, math.Log(*v))
		default:
			out = append(out, *v)
		}
	}
	return out
}

// judge turns a test into a change, if it is one.
func (c *Comparison) judge(t *test, q float64, o Options) {
	if t.d.assessed && q > o.FDR {
		return
	}
	change := t.change(q)
	if !t.beyond(change, o) {
		return
	}
	bad := t.figure.Bad
	change.Regression = bad == frame.BadBoth || (bad == frame.BadUp) == (change.Difference > 0)
	if change.Regression {
		c.Regressions = append(c.Regressions, change)
	} else {
		c.Gains = append(c.Gains, change)
	}
}

// beyond tells whether a change exceeds the figure's thresholds.
func (t *test) beyond(change Change, o Options) bool {
	absolute, relative := t.figure.Absolute, t.figure.Relative
	own := o.Thresholds[t.figure.Name]
	if own.Absolute != nil {
		absolute = *own.Absolute
	}
	if own.Relative != nil {
		relative = *own.Relative
	}
	if own.Noise != nil && t.d.assessed && math.Abs(t.d.mean) < *own.Noise*t.d.noise {
		return false
	}
	size := math.Abs(change.Difference)
	return size > 0 && size >= absolute && size >= relative*math.Abs(change.Base)
}

// change puts a test into the figure's own unit.
func (t *test) change(q float64) Change {
	c := Change{Profile: t.pair.key, Label: t.pair.label, Figure: t.figure.Name, Unit: t.figure.Unit,
		Base: frame.Mean(t.base), BaseRuns: runIDs(t.pair.base), NewRuns: runIDs(t.pair.new)}
	scale := func(x float64) float64 { return x }
	if t.figure.Ratio {
		c.Base = math.Exp(c.Base)
		scale = func(x float64) float64 { return c.Base * (math.Exp(x) - 1) }
	}
	c.Difference = scale(t.d.mean)
	c.New = c.Base + c.Difference
	if c.Base != 0 {
		c.Relative = new(c.Difference / math.Abs(c.Base))
	}
	if t.d.assessed {
		low, high := t.d.interval()
		c.Low, c.High, c.Q = new(scale(low)), new(scale(high)), &q
	} else {
		c.Note = "one run a side: judged by the threshold alone"
	}
	return c
}

func runIDs(rows []*sinks.RunRow) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		out[i] = row.RunID
	}
	return out
}
