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

	"gonum.org/v1/gonum/stat/distuv"

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
	// History are runs of earlier executions: with one execution a side they say
	// how far executions drift. Those of the sides themselves, and of other versions
	// or machines than the sides', are left out.
	History []sinks.RunRow
	// Unfinished are the executions that still run, or were stopped.
	Unfinished []string
	// All keeps every test.
	All bool
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
	Vanished    []Outcome `json:"vanished"`   // in base alone
	Added       []Outcome `json:"added"`      // in new alone
	Unfinished  []Outcome `json:"unfinished"` // a side has not got to them yet
	Notes       []string  `json:"notes,omitempty"`
	FDR         float64   `json:"false_discovery_rate"`
	// Alone are remainders that changed while nothing that was measured did: no regressions.
	Alone []Change `json:"remainders_alone"`
	// Noise is where it was learnt; "": nowhere, thresholds decide alone.
	Noise Noise `json:"noise"`
	// Findable is the smallest change of each figure that would have been found.
	Findable []Findable `json:"findable"`
	All      []Change   `json:"all,omitempty"` // every test

	profiles []*pair // on either side, for a test report
}

// Noise says where the noise of a comparison was learnt.
type Noise string

// The sources of noise.
const (
	NoiseNone       Noise = ""
	NoiseRepeats    Noise = "repeats"    // drift between executions is not known
	NoiseExecutions Noise = "executions" // of the sides, or earlier ones
)

// A Findable is the change of a figure that would be found in 80 of 100
// comparisons such as this one: the median over profiles.
type Findable struct {
	Figure   string     `json:"figure"`
	Unit     frame.Unit `json:"unit"`
	Profiles int        `json:"profiles"`
	Change   float64    `json:"change"`   // in the unit
	Relative *float64   `json:"relative"` // of base, for figures that are compared by ratio
}

// A Side is what one side of a comparison rests on.
type Side struct {
	Name       string   `json:"name"`
	Executions []string `json:"executions"`
	Runs       int      `json:"runs"`
	Failed     int      `json:"failed"`
	Synthetic  bool     `json:"synthetic"`
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
	Also       []string   `json:"also,omitempty"` // figures that say the same
	Note       string     `json:"note,omitempty"`
	Regression bool       `json:"regression"`
	Called     bool       `json:"called"` // beyond threshold and noise

	remainder bool
}

// ErrNothing says that no profile stands on both sides.
var ErrNothing = errors.New("no profile stands on both sides")

// ErrSame says that both sides are the same runs.
var ErrSame = errors.New("both sides are the same runs, and an execution says nothing about itself")

// ErrBlind says that no run's samples show its memory, so that no figure was compared.
var ErrBlind = errors.New("no figure can be compared")

// Regressed tells whether anything got worse: a figure, a new failure or a
// profile that vanished.
func (c *Comparison) Regressed() bool {
	return len(c.Regressions)+len(c.NewFailures)+len(c.Vanished) > 0
}

// Run compares two sets of runs. What stands on both sides counts as new. It
// fails with frame.ErrMixed, ErrNothing, ErrSame or ErrBlind.
func Run(baseName string, base []sinks.RunRow, newName string, fresh []sinks.RunRow, o Options) (*Comparison, error) {
	if o.FDR == 0 {
		o.FDR = 0.001
	}
	if err := frame.SameKind(base, fresh); err != nil {
		return nil, err
	}
	keyOf, err := matcher(o.Across)
	if err != nil {
		return nil, err
	}
	c := &Comparison{Across: o.Across, FDR: o.FDR, Regressions: []Change{}, Gains: []Change{}, Alone: []Change{},
		NewFailures: []Outcome{}, Recovered: []Outcome{}, Vanished: []Outcome{}, Added: []Outcome{},
		Unfinished: []Outcome{}, Findable: []Findable{}}
	if base, err = c.apart(base, fresh); err != nil {
		return nil, err
	}
	c.Base, c.New = SideOf(baseName, base), SideOf(newName, fresh)
	if c.New.Synthetic {
		c.note("all figures are synthetic: the simulator made them")
	}
	c.match(base, fresh, keyOf, o)
	for _, p := range c.profiles {
		if len(p.base) > 0 && len(p.new) > 0 {
			c.Matched++
		}
		c.outcomes(p, o)
	}
	if c.Matched == 0 {
		return nil, fmt.Errorf("%w: %d in %s, %d in %s",
			ErrNothing, countProfiles(base), baseName, countProfiles(fresh), newName)
	}
	if n := len(c.Unfinished); n > 0 {
		c.note("%s not compared: a side is not finished (%s)", profiles(n),
			cmp.Or(strings.Join(o.Unfinished, ", "), "runs were interrupted"))
	}
	c.figures(o)
	if blind := c.covered(); blind > 0 && c.Tests == 0 {
		return nil, fmt.Errorf("%w: %s", ErrBlind, c.Notes[len(c.Notes)-1])
	}
	c.surroundings(base, fresh)
	return c, nil
}

// apart takes out of base what stands in new too: a folder against its own last execution.
func (c *Comparison) apart(base, fresh []sinks.RunRow) ([]sinks.RunRow, error) {
	ids := map[string]bool{}
	for i := range fresh {
		ids[fresh[i].RunID] = true
	}
	var rest []sinks.RunRow
	for i := range base {
		if !ids[base[i].RunID] {
			rest = append(rest, base[i])
		}
	}
	switch n := len(base) - len(rest); {
	case n == 0:
		return base, nil
	case len(rest) == 0:
		return nil, fmt.Errorf("%w: all %d of base are in new", ErrSame, n)
	default:
		c.note("%d runs stand on both sides and count as new", n)
	}
	return rest, nil
}

// SideOf sums up one side.
func SideOf(name string, rows []sinks.RunRow) Side {
	side := Side{Name: name, Runs: len(rows)}
	for i := range rows {
		if !slices.Contains(side.Executions, rows[i].Execution) {
			side.Executions = append(side.Executions, rows[i].Execution)
		}
		side.Synthetic = side.Synthetic || rows[i].Synthetic
		if frame.Failed(&rows[i]) {
			side.Failed++
		}
	}
	slices.Sort(side.Executions)
	return side
}

func profiles(n int) string {
	if n == 1 {
		return "1 profile"
	}
	return fmt.Sprintf("%d profiles", n)
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
	base, new, past   []*sinks.RunRow
	stopped           bool // runs of it were interrupted: they measured nothing
}

// match puts the runs of both sides together by profile, in order of first
// appearance.
func (c *Comparison) match(base, fresh []sinks.RunRow, keyOf func(*sinks.RunRow) string, o Options) {
	byKey := map[string]*pair{}
	add := func(rows []sinks.RunRow, side func(*pair) *[]*sinks.RunRow) {
		for i := range rows {
			key := keyOf(&rows[i])
			p := byKey[key]
			if p == nil {
				p = &pair{key: key, label: frame.Label(&rows[i]), sweep: rows[i].Sweep}
				byKey[key], c.profiles = p, append(c.profiles, p)
			}
			if rows[i].Outcome == "interrupted" {
				p.stopped = true
				continue
			}
			*side(p) = append(*side(p), &rows[i])
		}
	}
	add(base, func(p *pair) *[]*sinks.RunRow { return &p.base })
	add(fresh, func(p *pair) *[]*sinks.RunRow { return &p.new })
	seen, sides := map[string]bool{}, slices.Concat(c.Base.Executions, c.New.Executions)
	for i := range o.History {
		r := &o.History[i]
		p := byKey[keyOf(r)]
		if p != nil && !seen[r.RunID] && !slices.Contains(sides, r.Execution) && r.Synthetic == fresh[0].Synthetic {
			p.past = append(p.past, r)
			seen[r.RunID] = true
		}
	}
	// Whatever order the rows came in (tables, folders, a baseline file), sums
	// and lists of runs are the same.
	byRun := func(a, b *sinks.RunRow) int { return strings.Compare(a.RunID, b.RunID) }
	for _, p := range c.profiles {
		slices.SortStableFunc(p.base, byRun)
		slices.SortStableFunc(p.new, byRun)
		slices.SortStableFunc(p.past, byRun)
	}
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
func (c *Comparison) outcomes(p *pair, o Options) {
	out := Outcome{Profile: p.key, Label: p.label}
	waits := func(side Side) bool {
		return p.stopped || slices.ContainsFunc(side.Executions,
			func(e string) bool { return slices.Contains(o.Unfinished, e) })
	}
	switch {
	case len(p.base)+len(p.new) == 0, len(p.new) == 0 && waits(c.New), len(p.base) == 0 && waits(c.Base):
		c.Unfinished = append(c.Unfinished, out)
		return
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
		return "not reported"
	case len(values) > 4:
		return fmt.Sprintf("%s and %d more", strings.Join(values[:4], ", "), len(values)-4)
	}
	return strings.Join(values, ", ")
}

// figures compares every figure over all profiles.
func (c *Comparison) figures(o Options) {
	var tests []*test
	var p []float64
	dummies, beside, unassessed := 0, 0, 0
	var gone []string // what one side alone lacks
	homes := c.homes(o)
	figures := frame.Figures()
	for i := range figures {
		figure := &figures[i]
		of, lacks := testsOf(figure, c.profiles, homes, o.Across)
		dummies += lacks.weights
		beside += lacks.turns
		for side, n := range map[string]int{c.Base.Name: lacks.base, c.New.Name: lacks.new} {
			if n > 0 {
				gone = append(gone, fmt.Sprintf("%s: %s in %s", figure.Name, profiles(n), side))
			}
		}
		noise := learn(of)
		for _, t := range of {
			t.differ(&noise, len(of))
		}
		if all := together(of, &noise); all != nil {
			of = append(of, all)
		}
		for _, t := range of {
			p = append(p, t.d.p)
			switch {
			case !t.d.assessed:
				unassessed++
			case noise.common.dof > 0:
				c.Noise = NoiseExecutions
			case c.Noise == NoiseNone:
				c.Noise = NoiseRepeats
			}
		}
		tests = append(tests, of...)
	}
	c.Tests = len(tests)
	for i, q := range adjust(p) {
		c.judge(tests[i], q, o)
	}
	c.settle()
	c.findable(tests, o)
	switch {
	case unassessed > 0:
		c.note("%d of %d figures have one run a side and no repeats to learn noise from: judged by the threshold alone",
			unassessed, len(tests))
	case c.Noise == NoiseRepeats:
		c.note("noise is that of repeats: one execution a side and no earlier ones with these profiles, " +
			"so a change cannot be distinguished from drift between executions")
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		c.note("not compared, because one side alone lacks it: %s", strings.Join(gone, "; "))
	}
	if dummies > 0 {
		c.note("%d figures of latency, power or energy left out: "+
			"some runs had random weights (load_format dummy), others real ones", dummies)
	}
	if beside > 0 {
		c.note("%d figures of latency, power or energy left out: some runs measured alone, others beside others "+
			"(measured_alone); --across measured_alone compares them", beside)
	}
}

// covered notes the runs whose figures are not compared, or not all; their outcomes are.
func (c *Comparison) covered() (blind int) {
	var cover frame.Cover
	for _, p := range c.profiles {
		for _, r := range slices.Concat(p.base, p.new) {
			cover.Add(r)
		}
	}
	c.Notes = append(c.Notes, cover.Says()...)
	return cover.Blind
}

// homes are the sides that earlier executions may stand by, by what surrounds a
// run: with another version or machine they say nothing about noise.
func (c *Comparison) homes(o Options) func(*sinks.RunRow) string {
	if len(o.History) == 0 {
		return func(*sinks.RunRow) string { return "" }
	}
	context := frame.Of(without(frame.Context(), []string{"compile_cache"})...) // cold once, warm ever after
	of := func(r *sinks.RunRow) string {
		var b strings.Builder
		for _, s := range context {
			b.WriteString(s.Text(r) + ";")
		}
		return b.String()
	}
	home := map[string]string{}
	for _, p := range c.profiles {
		for _, r := range p.new {
			home[of(r)] = "new"
		}
	}
	for _, p := range c.profiles {
		for _, r := range p.base {
			home[of(r)] = "base"
		}
	}
	return func(r *sinks.RunRow) string { return home[of(r)] }
}

// settle puts changes in order; figures that say the same stand once, and
// remainders that changed alone stand apart.
func (c *Comparison) settle() {
	order := frame.FigureNames()
	like := map[string]string{}
	for _, f := range frame.Figures() {
		like[f.Name] = f.Like
	}
	bySize := func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Figure), slices.Index(order, b.Figure)),
			cmp.Compare(math.Abs(b.Difference), math.Abs(a.Difference)), strings.Compare(a.Label, b.Label))
	}
	once := func(all []Change) []Change {
		moved := map[string]bool{} // profiles of which memory that was measured moved the same way
		for _, change := range all {
			moved[change.Profile] = moved[change.Profile] || change.Unit == frame.UnitBytes && !change.remainder
		}
		slices.SortStableFunc(all, bySize)
		kept := []Change{}
		for _, change := range all {
			at := slices.IndexFunc(kept, func(k Change) bool {
				return k.Profile == change.Profile && k.Figure == like[change.Figure]
			})
			switch {
			case at >= 0:
				kept[at].Also = append(kept[at].Also, change.Figure)
			case change.remainder && !moved[change.Profile]:
				c.Alone = append(c.Alone, change)
			default:
				kept = append(kept, change)
			}
		}
		return kept
	}
	c.Regressions, c.Gains = once(c.Regressions), once(c.Gains)
	slices.SortStableFunc(c.Alone, bySize)
	slices.SortStableFunc(c.All, bySize)
}

// findable is what each figure's tests could have found: beyond the threshold,
// and beyond the noise at the rate that a single change among all tests would need.
// Without noise there is no saying.
func (c *Comparison) findable(tests []*test, o Options) {
	byFigure := map[string][]*test{}
	assessed := 0.0
	for _, t := range tests {
		if t.d.assessed {
			assessed++
			if t.of == nil { // not all profiles together
				byFigure[t.figure.Name] = append(byFigure[t.figure.Name], t)
			}
		}
	}
	reach := map[float64]float64{} // standard errors that a call asks for, by degrees of freedom
	for _, name := range frame.FigureNames() {
		var changes, relative []float64
		for _, t := range byFigure[name] {
			if reach[t.d.dof] == 0 {
				reach[t.d.dof] = -t.d.distribution().Quantile(o.FDR / (2 * assessed))
			}
			base := t.scale(t.base.mean())
			change := t.findable(reach[t.d.dof], base, o)
			changes, relative = append(changes, change), append(relative, change/base)
		}
		if len(changes) == 0 {
			continue
		}
		one := Findable{Figure: name, Unit: byFigure[name][0].figure.Unit, Profiles: len(changes), Change: median(changes)}
		if byFigure[name][0].figure.Ratio {
			one.Relative = new(median(relative))
		}
		c.Findable = append(c.Findable, one)
	}
}

// findable is the change of one test, in its unit, that is found in 80 of 100.
func (t *test) findable(reach, base float64, o Options) float64 {
	power := distuv.UnitNormal.Quantile(0.8) * t.d.noise
	least := max(t.base.off+t.new.off, reach*t.d.noise)
	if !t.figure.Ratio {
		return max(least, t.least(base, o)) + power
	}
	return base * math.Expm1(max(least, math.Log1p(t.least(base, o)/base))+power)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// A test is one figure of one profile on both sides.
type test struct {
	figure    *frame.Figure
	pair      *pair
	base, new side
	past      []night // earlier executions that noise is learnt from
	repeats   spread  // within executions
	own       spread  // between them
	d         difference
	called    bool
	of        []*test // of all profiles together: each
}

// A value is one run's, on the figure's scale.
type value struct {
	v                float64
	execution, group string
}

// A side is one side's values.
type side struct {
	runs   int
	nights []night
	off    float64 // how far the mean may be off by itself
}

// mean is that of the executions; each is the share of a run's noise that is in it.
func (s side) mean() float64 { return meanOf(s.nights) }

func meanOf(nights []night) (mean float64) {
	for _, n := range nights {
		mean += n.mean / float64(len(nights))
	}
	return mean
}

func (s side) each() (share float64) {
	n := float64(len(s.nights))
	for _, at := range s.nights {
		share += 1 / (n * n * float64(len(at.values)))
	}
	return share
}

// lost counts the profiles that a figure cannot be compared of.
type lost struct{ weights, turns, base, new int }

// testsOf collects the values of one figure. Runs that failed have none.
func testsOf(
	figure *frame.Figure, pairs []*pair, home func(*sinks.RunRow) string, across []string,
) (tests []*test, lacks lost) {
	fixed := func(name string) func(*sinks.RunRow) string { return func(*sinks.RunRow) string { return name } }
	for _, p := range pairs {
		t := &test{figure: figure, pair: p,
			base: sideOf(figure, p.base, fixed("base")), new: sideOf(figure, p.new, fixed("new"))}
		switch {
		case t.base.runs == 0 && t.new.runs == 0:
		case t.base.runs == 0 && shareOK(p.base) > 0:
			lacks.base++
		case t.new.runs == 0 && shareOK(p.new) > 0:
			lacks.new++
		case t.base.runs == 0, t.new.runs == 0: // no run ended well: that is an outcome
		case figure.Ratio && p.mixed(frame.RandomWeights):
			lacks.weights++
		case figure.Ratio && !slices.Contains(across, "measured_alone") && p.mixed(besideOthers):
			lacks.turns++
		default:
			t.past = sideOf(figure, p.past, home).nights
			tests = append(tests, t)
		}
	}
	return tests, lacks
}

// mixed tells whether some runs of a profile are so and others are not, on
// whichever side.
func (p *pair) mixed(so func(*sinks.RunRow) bool) bool {
	all := slices.Concat(p.base, p.new)
	return slices.ContainsFunc(all, func(r *sinks.RunRow) bool { return so(r) != so(all[0]) })
}

// besideOthers tells a run that measured while others did: they share the host's CPUs.
func besideOthers(r *sinks.RunRow) bool { return r.MeasuredAlone != nil && !*r.MeasuredAlone }

// sideOf are the values of a figure, on its scale; runs without a home are left out.
func sideOf(figure *frame.Figure, rows []*sinks.RunRow, home func(*sinks.RunRow) string) (s side) {
	var values []value
	for _, row := range rows {
		v, group := figure.Number(row), home(row)
		if v == nil || row.Outcome != "ok" || frame.Blind(row) || group == "" || figure.Ratio && *v <= 0 {
			continue
		}
		off := figure.Uncertainty(row)
		if figure.Ratio {
			*v, off = math.Log(*v), off / *v
		}
		values = append(values, value{*v, row.Execution, group})
		s.off += off
	}
	s.runs, s.nights = len(values), nightsOf(values)
	s.off /= float64(max(s.runs, 1))
	return s
}

// judge turns a test into a change, if it is one.
func (c *Comparison) judge(t *test, q float64, o Options) {
	t.called = (!t.d.assessed || q <= o.FDR) && t.beyond(o) && !t.byFew()
	if !t.called && !o.All {
		return
	}
	change, bad := t.change(q), t.figure.Bad
	change.Called = t.called
	change.Regression = t.called && (bad == frame.BadBoth || (bad == frame.BadUp) == (change.Difference > 0))
	switch {
	case change.Regression:
		c.Regressions = append(c.Regressions, change)
	case t.called:
		c.Gains = append(c.Gains, change)
	}
	if o.All {
		c.All = append(c.All, change)
	}
}

// beyond tells whether a change exceeds the figure's thresholds, and by how much
// both sides may be off by themselves.
func (t *test) beyond(o Options) bool {
	own := o.Thresholds[t.figure.Name]
	if own.Noise != nil && t.d.assessed && math.Abs(t.d.mean) < *own.Noise*t.d.noise {
		return false
	}
	base := t.scale(t.base.mean())
	size := math.Abs(t.scale(t.base.mean()+t.d.mean) - base)
	return size > 0 && size >= t.least(base, o) && math.Abs(t.d.mean) > t.base.off+t.new.off
}

// byFew says of all profiles together that those which were called by themselves
// make the difference: without them it is within the noise.
func (t *test) byFew() bool {
	sum, rest := 0.0, 0.0
	for _, one := range t.of {
		if one.d.assessed && !one.called {
			sum, rest = sum+one.d.mean, rest+1
		}
	}
	return rest > 0 && math.Abs(sum/rest) <= 2*t.d.noise*math.Sqrt(float64(len(t.of))/rest)
}

// scale takes a value from the figure's scale into its unit.
func (t *test) scale(x float64) float64 {
	if t.figure.Ratio {
		return math.Exp(x)
	}
	return x
}

// least is the threshold of a figure, in its unit.
func (t *test) least(base float64, o Options) float64 {
	absolute, relative := t.figure.Absolute, t.figure.Relative
	if !t.d.assessed {
		relative = max(relative, t.figure.Blind)
	}
	own := o.Thresholds[t.figure.Name]
	if own.Absolute != nil {
		absolute = *own.Absolute
	}
	if own.Relative != nil {
		relative = *own.Relative
	}
	return max(absolute, relative*math.Abs(base))
}

// change puts a test into the figure's own unit.
func (t *test) change(q float64) Change {
	mean := t.base.mean()
	c := Change{Profile: t.pair.key, Label: t.pair.label, Figure: t.figure.Name, Unit: t.figure.Unit,
		Base: t.scale(mean), New: t.scale(mean + t.d.mean), remainder: t.figure.Remainder,
		BaseRuns: runIDs(t.pair.base), NewRuns: runIDs(t.pair.new)}
	c.Difference = c.New - c.Base
	if c.Base != 0 {
		c.Relative = new(c.Difference / math.Abs(c.Base))
	}
	if t.d.assessed {
		low, high := t.d.interval()
		c.Low, c.High, c.Q = new(t.scale(mean+low)-c.Base), new(t.scale(mean+high)-c.Base), &q
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
