package sweep

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// A sweepBuild is a sweep while it is being expanded.
type sweepBuild struct {
	l        *loader
	block    *block
	out      *Sweep
	axes     []*axis
	excludes []*exclude
	includes []include
	fields   []*field // sorted by name once all are known
	byName   map[string]*field
	labels   []AxisValue
	broken   bool // something is at fault: no points are built, the rest is still checked

	declared   []string // the names of all axes, also of those at fault
	engineKind string
	points     int
	folds      map[foldKey]*fold
	foldOrder  []*fold
}

// fieldRole says what becomes of a field's value.
type fieldRole byte

// The roles; the letter is part of what ids are computed over.
const (
	roleSetting fieldRole = 's'
	roleFlag    fieldRole = 'f'
	roleFree    fieldRole = 'a'
	roleOwn     fieldRole = 'o'
)

// A field is one thing that a point decides: a setting, a flag, a free axis or
// an attribute of the engine, and where its value comes from.
type field struct {
	name    string
	role    fieldRole
	setting *setting
	own     *ownAttr
	axis    int // -1: not from an axis
	key     int // of an axis of objects
	expr    *pointExpr
	fixed   *cell // neither: a default
	unset   *cell // what null stands for: the default of a setting that has one
	origin  string
	rng     hcl.Range
	axes    []*axis
}

// at is the field's value at a point.
func (f *field) at(pt []int32) *cell {
	switch {
	case f.axis >= 0:
		return f.axes[f.axis].vals[pt[f.axis]].cells[f.key]
	case f.expr != nil:
		c := f.expr.value(pt)
		if c.v == nil && !c.bad && f.unset != nil {
			return f.unset
		}
		return c
	}
	return f.fixed
}

// identifies says whether the field is part of the profile's id: what was
// asked, never how or where it is run.
func (f *field) identifies() bool {
	return f.role != roleOwn || f.name == "defaults"
}

// scope is what an expression of the sweep sees that is the same at all points.
func (s *sweepBuild) scope(where string) *scope {
	return &scope{
		where: where, names: map[string][]string{"sweep": {"name"}},
		values: func() map[string]cty.Value { return map[string]cty.Value{"sweep": s.object()} },
	}
}

func (s *sweepBuild) object() cty.Value {
	return cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(s.block.label)})
}

// pointScope is what an expression sees that is evaluated at every point.
func (s *sweepBuild) pointScope(where string, profile bool) *scope {
	sc := s.scope(where)
	sc.names["matrix"] = s.declared
	sc.names["model"] = architectureNames()
	if profile {
		sc.names["profile"] = SettingNames()
	}
	return sc
}

func (l *loader) newSweep(b *block) *sweepBuild {
	return &sweepBuild{l: l, block: b, folds: map[foldKey]*fold{}, byName: map[string]*field{}}
}

// sweep reads and expands one sweep block.
func (l *loader) sweep(b *block) *Sweep {
	s := l.newSweep(b)
	if !isName(b.label) {
		l.diags.errorAt(codeName, b.labelRng, "%s", nameRule("sweep", b.label))
	}
	sc := s.scope("a sweep block")
	s.out = &Sweep{
		Name: b.label, Sample: defaultSample(), Limits: defaultLimits(), Lanes: defaultLanes(),
		Description: l.stringAttr(b.body, "description", "", sc),
		Repeats:     int(l.intAttr(b.body, "repeats", 1, 1, 1000, sc)),
		GPUs:        l.gpuList(b.body, sc),
	}
	if attrOf(l, b.body, "order", "starts", sc, oneOf("starts", "matrix")) == "matrix" {
		s.out.Order = "matrix"
	}
	if m := b.body.block("matrix"); m != nil {
		s.readAxes(m.body)
	} else {
		s.broken = true
	}
	for _, x := range b.body.blocks {
		if x.name == "include" {
			s.readInclude(x)
		}
	}
	for _, x := range b.body.blocks {
		if x.name == "exclude" {
			s.readExclude(x)
		}
	}
	s.readEngine(b.body.block("engine"))
	if e := b.body.block("labels"); e != nil {
		s.readLabels(e.body)
	}
	if e := b.body.block("env"); e != nil {
		s.out.Env = l.env(e.body, s.scope("an env block"))
	}
	if e := b.body.block("sample"); e != nil {
		s.out.Sample = l.sample(e.body, s.scope("a sample block"))
	}
	if e := b.body.block("limits"); e != nil {
		s.out.Limits = l.limits(e.body, s.scope("a limits block"))
	}
	if e := b.body.block("lanes"); e != nil {
		s.out.Lanes = l.lanes(e.body, s.scope("a lanes block"))
	}
	pick := s.readPick(b.body.block("pick"))
	if s.broken {
		s.constants()
		s.flush()
		return s.out
	}
	s.gatherFields()
	if !s.broken && s.bindAll() {
		s.build(pick)
	}
	s.flush()
	return s.out
}

// constants evaluates what is the same at all points where no point is built, so
// that its mistakes are not first seen when the others are corrected.
func (s *sweepBuild) constants() {
	for _, f := range s.fields {
		if e := f.expr; e != nil && len(e.matrix)+len(e.profile) == 0 && !e.model {
			_ = e.eval(nil)
		}
	}
}

// gatherFields lists everything that a point decides.
func (s *sweepBuild) gatherFields() {
	for i, a := range s.axes {
		s.out.Axes = append(s.out.Axes, s.planAxis(a))
		for k, st := range a.set {
			f := &field{name: a.name, role: roleFree, axis: i, key: k, axes: s.axes, setting: st, rng: a.attr.nameRng}
			if a.isObject() {
				f.name = a.keys[k]
			}
			f.origin = "matrix at " + at2(a)
			if st != nil {
				f.role = roleSetting
			} else if a.isObject() {
				f.name = a.name + "." + f.name
			}
			s.fields = append(s.fields, f)
		}
	}
	s.checkKeys()
	for _, f := range s.fields {
		if f.role != roleSetting {
			continue
		}
		if other := s.byName[f.name]; other != nil {
			s.l.diags.errorAt(codeSetTwice, f.rng, "%q is set by two axes; the other is at %s.", f.name, at(other.rng))
			s.broken = true
		}
		s.byName[f.name] = f
	}
	for name, st := range s.l.settings {
		if st.preset == 0 {
			continue
		}
		c := &cell{v: st.preset, whole: &st.preset}
		if f := s.byName[name]; f != nil {
			f.unset = c
			continue
		}
		f := &field{name: name, role: roleSetting, setting: st, axis: -1, origin: "default", fixed: c}
		s.fields = append(s.fields, f)
		s.byName[name] = f
	}
	sortFields(s.fields)
	s.checkCells()
	if s.byName["model"] == nil {
		s.l.diags.errorAt(codeNoModel, s.block.rng,
			"The sweep names no model. Give it an axis, as in: model = [\"Qwen/Qwen3-0.6B\"], or set model in the engine block.")
		s.broken = true
	}
}

func sortFields(fields []*field) {
	slices.SortFunc(fields, func(a, b *field) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.role, b.role))
	})
}

// checkKeys reports keys of objects that are called like another axis: both
// would be the same column.
func (s *sweepBuild) checkKeys() {
	names := map[string]*axis{}
	for _, a := range s.axes {
		names[a.name] = a
	}
	for _, a := range s.axes {
		for _, k := range a.freeKeys() {
			if other := names[a.keys[k]]; other != nil {
				s.l.diags.errorAt(codeSetTwice, a.attr.nameRng,
					"The key %q of the objects is the name of another axis as well, at %s.", a.keys[k], at2(other))
				s.broken = true
			}
			names[a.keys[k]] = a
		}
	}
}

// checkCells bounds what the plan will hold, before it is built.
func (s *sweepBuild) checkCells() {
	n := s.included() + s.matrixSize()
	if s.l.profiles += n; n*len(s.fields) > maxCells || s.l.profiles > maxProfiles {
		s.l.diags.errorAt(codeTooMany, s.block.rng, "The sweep has %d points with %d settings, flags and free axes each. "+
			"That is more than a plan can hold: %d points and %d values at most.", n, len(s.fields), maxProfiles, maxCells)
		s.broken = true
	}
}

func (s *sweepBuild) planAxis(a *axis) Axis {
	out := Axis{Name: a.name, Free: a.free()}
	for _, v := range a.vals[:a.n] {
		out.Values = append(out.Values, v.v)
	}
	return out
}

func (s *sweepBuild) bindAll() bool {
	ok := true
	for _, x := range s.excludes {
		if x.when != nil {
			ok = x.when.bind() && ok
		}
	}
	for _, f := range s.fields {
		if f.expr != nil {
			ok = f.expr.bind() && ok
		}
	}
	s.broken = s.broken || !ok
	return ok
}

// pick is what a pick block asks for.
type pick struct {
	block *block
	n     int
	seed  int64
}

func (s *sweepBuild) readPick(b *block) *pick {
	if b == nil {
		return nil
	}
	sc := s.scope("a pick block")
	p := &pick{block: b, seed: s.l.intAttr(b.body, "seed", 0, -1<<53, 1<<53, sc)}
	before := s.l.diags.errors
	p.n = int(s.l.intAttr(b.body, "n", 1, 1, maxPoints, sc))
	if s.l.diags.errors > before || b.body.attr("n") == nil {
		s.broken = true
	}
	return p
}

// build makes the points and their profiles.
func (s *sweepBuild) build(p *pick) {
	pts := s.matrixPoints()
	kept := pts[:0:0]
	for i, pt := range pts {
		out := false
		for _, x := range s.excludes {
			if x.matches(pt) {
				x.hits++
				out = true
			}
		}
		if !out {
			kept = append(kept, pts[i])
		}
	}
	s.out.Excluded = len(pts) - len(kept)
	s.points = len(pts)
	if len(s.foldOrder) > 0 {
		return // a condition failed: which points are left is not known
	}
	for _, x := range s.excludes {
		if x.hits == 0 {
			s.l.diags.errorAt(codeNoEffect, x.block.rng, "No point of the matrix matches this exclude. Delete it, or correct it.")
		}
	}
	if p != nil {
		kept = s.choose(kept, p)
	}
	if s.points = len(kept) + s.included(); s.points == 0 {
		s.l.diags.errorAt(codeNoPoints, s.block.rng, "The excludes take all %d points of the matrix away.", s.out.Excluded)
		return
	}
	hash, ids := newIdentity(s.out.Name), map[string][]int32{}
	s.profiles(kept, nil, hash, ids)
	for _, inc := range s.includes {
		s.profiles(inc.points, inc.block, hash, ids)
	}
	s.warnings()
}

// matrixSize is the number of points of the matrix.
func (s *sweepBuild) matrixSize() int {
	n := 1
	for _, a := range s.axes {
		n *= a.n
	}
	return n
}

// matrixPoints lists the points of the matrix in run order.
func (s *sweepBuild) matrixPoints() [][]int32 {
	choices := make([][]int32, len(s.axes))
	for j, a := range s.axes {
		for i := range a.n {
			choices[j] = append(choices[j], int32(i)) //nolint:gosec // at most maxPoints values
		}
	}
	return product(choices)
}

// choose keeps p.n points: those whose hashes with the seed are smallest, in
// run order. The choice depends on nothing but the seed and the points' values,
// so it is the same on every machine and mostly stays when an axis grows.
func (s *sweepBuild) choose(pts [][]int32, p *pick) [][]int32 {
	if p.n >= len(pts) {
		s.l.diags.warnAt(codePickLarge, p.block.rng,
			"pick asks for %d points and the matrix has %d, so all are run.", p.n, len(pts))
		return pts
	}
	type ranked struct {
		hash [sha256.Size]byte
		i    int
	}
	order := make([]ranked, len(pts))
	axes := s.axesByName()
	var buf []byte
	for i, pt := range pts {
		buf = append(buf[:0], "vramsweep-pick/1\n"...)
		buf = strconv.AppendInt(buf, p.seed, 10)
		for _, j := range axes {
			a := s.axes[j]
			buf = append(append(append(buf, '\n'), a.name...), '=')
			buf = encode(buf, a.vals[pt[j]].v)
		}
		order[i] = ranked{sha256.Sum256(buf), i}
	}
	slices.SortFunc(order, func(a, b ranked) int {
		return cmp.Or(slices.Compare(a.hash[:], b.hash[:]), cmp.Compare(a.i, b.i))
	})
	keep := make([]bool, len(pts))
	for _, r := range order[:p.n] {
		keep[r.i] = true
	}
	out := make([][]int32, 0, p.n)
	for i, pt := range pts {
		if keep[i] {
			out = append(out, pt)
		}
	}
	return out
}

func (s *sweepBuild) axesByName() []int {
	idx := make([]int, len(s.axes))
	for i := range idx {
		idx[i] = i
	}
	slices.SortFunc(idx, func(a, b int) int { return cmp.Compare(s.axes[a].name, s.axes[b].name) })
	return idx
}

// profiles resolves points, those of an include or, where it is nil, of the
// matrix. What profiles share (values, origins, models) is shared in memory as well;
// a plan is never written to.
func (s *sweepBuild) profiles(pts [][]int32, include *block, hash *identity, ids map[string][]int32) {
	origins := s.origins(include)
	for _, pt := range pts {
		p := &Profile{
			Sweep: s.out.Name, Index: len(s.out.Profiles), Origins: origins,
			Axes: s.axisValues(pt), Engine: newEngine(s.engineKind),
		}
		s.out.Profiles = append(s.out.Profiles, p)
		sum, whole := s.resolve(p, pt, hash)
		if !whole { // what is at fault was reported; nothing follows from the rest
			continue
		}
		p.ID = hex.EncodeToString(sum[:8])
		switch first, dup := ids[p.ID]; {
		case !dup:
			ids[p.ID] = pt
		case include != nil:
			s.foldOnce(codeRepeatedPt, include.rng,
				"This include adds a point that is there already: %s.", s.describePoint(pt))
		default:
			s.foldOnce(codeTwins, s.block.rng,
				"Two points ask for the same: %s, and %s.", s.describePoint(first), s.describePoint(pt))
		}
		s.checkProfile(p, pt)
	}
}

// axisValues are the values of the axes at a point.
func (s *sweepBuild) axisValues(pt []int32) []AxisValue {
	list := make([]AxisValue, 0, len(s.axes)+len(s.labels))
	for j, a := range s.axes {
		v := &a.vals[pt[j]]
		list = append(list, AxisValue{Axis: a.name, Value: v.v, Free: a.free() && !a.isObject()})
		for _, k := range a.freeKeys() {
			list = append(list, AxisValue{Axis: a.keys[k], Value: v.cells[k].v, Free: true})
		}
	}
	return append(list, s.labels...)
}

// newEngine is an engine with its defaults.
func newEngine(kind string) Engine {
	e := Engine{Kind: kind, Mode: "latency"}
	if kind == "simulator" {
		e.Simulator = &Simulator{GPU: "h100-80gb", Noise: 0.01}
	}
	return e
}

// resolve fills in a profile and returns the hash that its id is cut from. It
// is whole if none of its values is at fault.
func (s *sweepBuild) resolve(p *Profile, pt []int32, hash *identity) (sum [sha256.Size]byte, whole bool) {
	hash.reset()
	whole = true
	for _, f := range s.fields {
		c := f.at(pt)
		if c.bad || c.v == nil {
			c.count()
			whole = whole && !c.bad
			continue
		}
		switch f.role {
		case roleSetting:
			f.setting.set(&p.Settings, c)
			if c.model != nil {
				p.Model = c.model.arch
				hash.add(f, c.model.id)
				continue
			}
		case roleFlag:
			p.Engine.Flags = append(p.Engine.Flags, Flag{f.name, c.v})
		case roleOwn:
			f.own.set(&p.Engine, c)
		case roleFree:
		}
		if f.identifies() {
			hash.add(f, c.v)
		}
	}
	if whole && p.Settings.Model == "" {
		s.pointFault(codeNoModel, "model", pt, false, "model is null, so there is nothing to run.")
		whole = false
	}
	return hash.sum(), whole
}

// origins says where each setting came from.
func (s *sweepBuild) origins(include *block) map[string]string {
	m := make(map[string]string, len(s.fields))
	for _, f := range s.fields {
		m[f.name] = f.origin
		if include != nil && f.axis >= 0 {
			m[f.name] = "include at " + at(include.rng)
		}
	}
	return m
}

// identity computes ids: over the sweep's name and what was asked of vLLM, by
// name, so that the order of axes and blocks does not matter.
type identity struct {
	buf    []byte
	prefix int
}

func newIdentity(sweep string) *identity {
	b := append([]byte(nil), "vramsweep-profile/1\n"...)
	b = strconv.AppendQuoteToASCII(b, sweep)
	return &identity{buf: b, prefix: len(b)}
}

func (h *identity) reset() { h.buf = h.buf[:h.prefix] }

func (h *identity) add(f *field, v any) {
	h.buf = append(h.buf, '\n', byte(f.role), ':')
	h.buf = append(append(h.buf, f.name...), '=')
	h.buf = encode(h.buf, v)
}

func (h *identity) sum() [sha256.Size]byte { return sha256.Sum256(h.buf) }

func (s *sweepBuild) foldOnce(c code, rng hcl.Range, format string, args ...any) {
	s.fold(fault{code: c, rng: rng}, fmt.Sprintf(format, args...)).whole = true
}

func (s *sweepBuild) describePoint(pt []int32) string {
	out := ""
	for j, a := range s.axes {
		if j > 0 {
			out += ", "
		}
		out += a.name + " = " + show(a.vals[pt[j]].v)
	}
	return out
}

// checkProfile refuses what vLLM would refuse for certain, and warns of what it
// is likely to refuse.
func (s *sweepBuild) checkProfile(p *Profile, pt []int32) {
	st := &p.Settings
	if n := st.TensorParallelSize * st.PipelineParallelSize; s.out.GPUs != nil && n > int64(len(s.out.GPUs)) {
		s.foldOnce(codeFewGPUs, s.gpusRange(),
			"A profile needs %d GPUs (tensor_parallel_size times pipeline_parallel_size); gpus lists %d.", n, len(s.out.GPUs))
	}
	length := st.InputLen + st.OutputLen
	if st.MaxModelLen != nil {
		if length > *st.MaxModelLen {
			s.pointFault(codeTooLong, "max_model_len", pt, false,
				"input_len + output_len is %d and max_model_len is %d; vLLM would refuse the run.", length, *st.MaxModelLen)
		}
	} else if p.Model != nil && p.Model.MaxPosition > 0 && length > p.Model.MaxPosition {
		s.pointFault(codeContext, "input_len", pt, true,
			"input_len + output_len is %d and the model's context %d; vLLM may refuse the run.", length, p.Model.MaxPosition)
	}
	if p.Model != nil && p.Model.MaxPosition > 0 && st.MaxModelLen != nil && *st.MaxModelLen > p.Model.MaxPosition {
		s.pointFault(codeContext, "max_model_len", pt, true, "max_model_len is %d and the model's context %d; vLLM will "+
			"refuse the run, unless the model's configuration or the environment allows more.", *st.MaxModelLen,
			p.Model.MaxPosition)
	}
	if p.Model != nil && p.Model.NumHeads%st.TensorParallelSize != 0 {
		s.pointFault(codeHeads, "tensor_parallel_size", pt, true, "%q has %d attention heads, which %d GPUs cannot share "+
			"evenly; vLLM will refuse the run.", st.Model, p.Model.NumHeads, st.TensorParallelSize)
	}
}

func (s *sweepBuild) gpusRange() hcl.Range {
	if s.block.body == nil {
		return hcl.Range{} // made from flags
	}
	if a := s.block.body.attr("gpus"); a != nil {
		return a.expr.Range()
	}
	return s.block.rng
}

// pointFault folds a fault about a setting, at the place that gave its value.
func (s *sweepBuild) pointFault(c code, name string, pt []int32, warn bool, format string, args ...any) {
	rng := s.block.rng
	if f := s.byName[name]; f != nil {
		switch {
		case f.axis >= 0:
			rng = s.axes[f.axis].vals[pt[f.axis]].rng
		case f.expr != nil:
			rng = f.expr.attr.expr.Range()
		}
	}
	if old, ok := s.folds[foldKey{c, rng}]; ok {
		old.count++
		return
	}
	f := fault{code: c, rng: rng, warn: warn}
	if len(s.axes) > 0 {
		f.values = []string{s.describePoint(pt)}
	}
	s.fold(f, fmt.Sprintf(format, args...)).count++
}

// warnings says what looks wrong about the sweep as a whole.
func (s *sweepBuild) warnings() {
	for _, a := range s.axes {
		if a.free() && !a.used && !slices.Contains(SettingNames(), a.name) {
			detail := "matrix.%s names no setting and no expression uses it, so nothing would follow from its values."
			switch {
			case s.l.flags[a.name]:
				detail += fmt.Sprintf(" vLLM's flag is set in the engine block: %s = matrix.%s.", a.name, a.name)
			case s.ownAttr(a.name) != nil:
				detail += fmt.Sprintf(" To vary it, write in the engine block: %s = matrix.%s.", a.name, a.name)
			case meantSetting(a.name) != "":
				detail += meantSetting(a.name)
			default:
				if near := didYouMean(a.name, slices.Sorted(maps.Keys(s.l.flags))); near != "" {
					detail += fmt.Sprintf("%s That is a flag of vLLM's; it is set in the engine block.", near)
				}
				detail += fmt.Sprintf(" A column that nothing depends on is a label: labels { %s = ... }. "+
					"To repeat runs, use repeats.", a.name)
			}
			s.l.diags.errorAt(codeUnusedAxis, a.attr.nameRng, detail, a.name)
		}
	}
	s.warnOddValues()
}

// warnNearModel says that an id which nothing is known of differs by a letter or
// two from one that is: it is run all the same, but it may be a slip.
func (s *sweepBuild) warnNearModel(ref *modelRef, rng hcl.Range) {
	if ref == nil || ref.arch != nil || s.l.modelBlocks[ref.name] != nil {
		return
	}
	near, best := "", 3
	for _, name := range s.l.catalogue.Names() {
		if d := levenshtein(strings.ToLower(ref.name), strings.ToLower(name)); d < best {
			near, best = name, d
		}
	}
	if near != "" {
		s.l.diags.warnAt(codeNearModel, rng,
			"The catalogue lacks %q, so its estimates are null. Did you mean %q?", ref.name, near)
	}
}

// warnOddValues says which values vLLM is not known to take.
func (s *sweepBuild) warnOddValues() {
	for _, f := range s.fields {
		switch {
		case f.setting == nil:
		case f.axis >= 0:
			for _, v := range s.axes[f.axis].vals {
				c := v.cells[f.key]
				s.warnNearModel(c.model, v.rng)
				if odd := f.setting.oddValue(c); odd != "" {
					s.l.diags.warnAt(codeOddValue, v.rng, "%s", odd)
				}
			}
		case f.expr != nil:
			var odd []string
			for _, c := range f.expr.memo {
				odd = append(odd, f.setting.oddValue(c))
			}
			slices.Sort(odd)
			odd = slices.DeleteFunc(odd, func(s string) bool { return s == "" })
			if len(odd) > 0 {
				s.l.diags.warnAt(codeOddValue, f.expr.attr.expr.Range(), "%s", odd[0])
			}
		}
	}
}
