package overhead

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Query asks for a profile. Empty words of the key match any.
type Query struct {
	Key
	Shape        Shape
	Architecture *models.Architecture // nil: not known
	Request      models.Request
	Device       models.GPU // the zero one: not known
}

// A Part is one component of one rank, in bytes.
type Part struct {
	Component string   `json:"component"`
	Bytes     *float64 `json:"bytes"` // null: the database has nothing that fits, and Reason says what is missing
	Low       *float64 `json:"low"`   // 95 % interval of a further run
	High      *float64 `json:"high"`
	Basis     string   `json:"basis,omitempty"` // what it rests on
	Runs      int      `json:"runs"`
	Models    int      `json:"models"`
	Law       Law      `json:"law,omitempty"`
	Factor    *float64 `json:"coefficient,omitempty"`
	Reason    string   `json:"reason,omitempty"` // why there is no figure, or no narrower interval
	// Arithmetic is what sweep/models computes without any measurement; null
	// where it cannot tell.
	Arithmetic *int64 `json:"arithmetic_bytes"`
}

// A Prediction is what a database says of a profile.
type Prediction struct {
	Synthetic bool   `json:"synthetic"` // the database is of simulated runs
	Parts     []Part `json:"parts"`
	// Estimate is the arithmetic's with the parts of the database laid over it.
	Estimate models.Estimate `json:"estimate"`
	// Highest is the highest use of the GPU that the driver will see while the
	// benchmark runs: what gpu_memory_utilization leaves out is in it.
	Highest models.Figure `json:"highest_bytes"`
}

// A rung is how far from the query observations may be: what of their keys has to
// agree. None leaves the GPU: what another GPU does was not measured, and the
// arithmetic knows of it what there is to know.
type rung struct {
	says   string
	own    bool // of the model itself
	at     bool // the peak is of the same moment
	far    bool // another version or number of ranks: the interval spans what was seen and the arithmetic's own
	tp     bool // of other numbers of ranks
	kin    bool // of the family: two of its models at least, where a law carries them over
	mix    bool // of other dtypes or quantizations
	old    bool // of another version: where the arithmetic has no interval there is none
	runner bool // of another model runner
	any    bool // compiled or not: of what depends on the machine alone
}

// rungs go from the model's own runs to those of others, further versions and
// other numbers of ranks.
func rungs() []rung {
	return []rung{
		{says: "this model and version", own: true, at: true},
		{says: "this model and version in another dtype", own: true, at: true, mix: true},
		{says: "other models of this family", at: true, kin: true},
		{says: "other models", at: true},
		{says: "other models, compiled or not", any: true},
		{says: "this model, another version", own: true, far: true, old: true, runner: true},
		{says: "other models, their peak at another moment", far: true},
		{says: "other models on another number of ranks", far: true, tp: true},
		{says: "other models, another version", far: true, old: true},
		{says: "other models, another version and model runner", far: true, old: true, runner: true},
	}
}

// same says that a key agrees with the query's in what the rung asks for.
func (r rung) same(q, e Key) bool {
	return isWord(q.GPU, e.GPU) && (r.tp || q.TP == e.TP && q.PP == e.PP) && r.sameEngine(q, e) &&
		(!r.own || r.mix || isWord(q.Dtype, e.Dtype) && isWord(q.Quantization, e.Quantization)) &&
		(!r.kin || q.Family != "" && q.Family == e.Family)
}

// sameEngine compares version, runner, and compiled with eager. What a warm compile
// cache saves, the law knows.
func (r rung) sameEngine(q, e Key) bool {
	return (r.old || isWord(q.VLLM, e.VLLM)) && (r.runner || isWord(q.Runner, e.Runner)) &&
		(r.any || q.Compile == "" || (q.Compile == eager) == (e.Compile == eager))
}

// isWord compares a word of two keys; an empty one matches any.
func isWord(want, have string) bool { return want == "" || want == have }

// Predict tells the components of a profile from the nearest observations that
// there are: of the model itself, else of its family, else of other models, each
// model with one vote. Where there are none the part is null and says why, and
// Estimate keeps the arithmetic's figure.
func (db *Database) Predict(q Query) Prediction {
	q.TP, q.PP = max(q.TP, 1), max(q.PP, 1)
	if g, ok := models.LookupGPU(q.GPU); ok && q.GPU != "" {
		q.GPU = g.Product
	}
	q.Request.CompileCache = q.Compile
	u := unitsOf(q.Architecture, q.Request, q.Device, q.Shape)
	p := Prediction{Synthetic: db.Synthetic}
	for _, d := range drivers() {
		p.Parts = append(p.Parts, db.part(d, &q, &u))
	}
	q.Request.Given = p.given()
	p.Estimate = models.NewEstimate(q.Architecture, q.Request, q.Device)
	p.Highest = p.highest(&q)
	if warning := p.overrun(q.Device); warning != "" {
		p.Estimate.Warnings = append(p.Estimate.Warnings, warning)
	}
	return p
}

// overrun warns of a highest use that the GPU has not got: vLLM's budget fits,
// and the run ends out of memory all the same.
func (p *Prediction) overrun(g models.GPU) string {
	h := p.Highest
	switch {
	case h.Value == nil || g.TotalBytes == 0:
		return ""
	case *h.Value > g.TotalBytes:
		return "the highest use will be more than the GPU has: expect out of memory while it runs; " +
			"lower gpu_memory_utilization or max_num_batched_tokens"
	case h.High != nil && *h.High > g.TotalBytes:
		return "the highest use may be more than the GPU has: it may run out of memory while it runs; " +
			"gpu_memory_utilization leaves too little for what comes on top"
	}
	return ""
}

// part is one component.
func (db *Database) part(d driver, q *Query, u *units) Part {
	own := u.figure(d.component)
	part := Part{Component: d.component, Arithmetic: own.Value}
	if own.Value != nil && *own.Value == 0 { // graphs of an engine that captures none
		part.Bytes, part.Low, part.High, part.Basis = new(0.0), new(0.0), new(0.0), own.Source
		return part
	}
	if _, _, ok := u.law(d); !ok {
		part.Reason = u.unitless(d)
		return part
	}
	for _, says := range d.laws {
		n, ok := u.of(d.component, says)
		if !ok {
			continue
		}
		if b := db.nearest(d, says, q, u.at(d)); b != nil {
			part.take(b, n)
			part.widen(d, b.rung, own)
			if !b.rung.own {
				part.leave(own, db.arithmeticIsNearer(d.component))
			}
			return part
		}
	}
	part.Reason = db.absent(d, q)
	switch {
	case d.near && part.Arithmetic != nil:
		part.Reason = "no run of this version and model runner"
	case d.own:
		part.Reason = "it follows from the architecture; the database has no run of this model to correct it"
	}
	return part
}

// A basis is what the nearest observations say of a component: a coefficient
// and its interval.
type basis struct {
	rung          rung
	law           Law
	mean          float64
	low, high     float64 // of the coefficient
	sure          bool    // there is an interval
	runs, models  int
	says, because string
}

// A basisKey is all that a basis depends on.
type basisKey struct {
	Key
	shape         Shape
	component, at string
	law           Law
}

// nearest is the basis on the first rung that has observations; nil: none has.
// Profiles of a plan that differ in batch and lengths alone share one.
func (db *Database) nearest(d driver, l Law, q *Query, at string) *basis {
	key := basisKey{q.Key, q.Shape, d.component, at, l}
	db.mu.Lock()
	defer db.mu.Unlock()
	if b, ok := db.bases[key]; ok {
		return b
	}
	var b *basis
	for _, r := range rungs() {
		if !d.climbs(r) {
			continue
		}
		if b = db.climb(d, l, r, q, at); b != nil {
			break
		}
	}
	db.bases[key] = b
	return b
}

// climbs says that a component may be told from a rung.
func (d driver) climbs(r rung) bool {
	switch {
	case d.machine && r.tp, !d.machine && r.any, d.near && r.far, d.own && (r.mix || !r.own):
		return false
	}
	return true
}

// take sets the part to what its basis gives for n units.
func (part *Part) take(b *basis, n float64) {
	part.Bytes, part.Law, part.Factor = new(b.law.bytes(b.mean, n)), b.law, &b.mean
	part.Runs, part.Models, part.Basis, part.Reason = b.runs, b.models, b.says, b.because
	if b.sure { // no component is less than nothing
		part.Low, part.High = new(max(b.law.bytes(b.low, n)-rounding, 0)), new(b.law.bytes(b.high, n)+rounding)
	}
}

// leave the part to the arithmetic, where that is nearer for models that a
// database has not seen: the interval holds both.
func (part *Part) leave(own models.Figure, nearer string) {
	if nearer == "" || own.Value == nil {
		return
	}
	value := float64(*own.Value)
	if part.Low != nil {
		part.Low, part.High = new(min(*part.Low, value)), new(max(*part.High, value))
	}
	part.Bytes, part.Runs, part.Models, part.Law, part.Factor = &value, 0, 0, "", nil
	part.Basis = "the arithmetic: " + nearer
}

// unitless says why a component has no law for a profile.
func (u *units) unitless(d driver) string {
	switch {
	case d.component == "graph_estimate":
		return "vLLM takes no estimate of its graphs off the budget here"
	case !u.measured && u.shapeOf == (Shape{}):
		return "the model's architecture is not known"
	}
	if reason := u.figure(d.component).Reason; reason != "" {
		return reason
	}
	return "the arithmetic has no estimate to scale"
}

// absent says what the database lacks.
func (db *Database) absent(d driver, q *Query) string {
	var gpus, ranks []string
	for _, e := range db.of[d.component] {
		if !slices.Contains(gpus, e.GPU) {
			gpus = append(gpus, e.GPU)
		}
		if n := fmt.Sprintf("TP %d x PP %d", e.TP, e.PP); isWord(q.GPU, e.GPU) && !slices.Contains(ranks, n) {
			ranks = append(ranks, n)
		}
	}
	switch {
	case len(gpus) == 0:
		return "no run of the database has it"
	case len(ranks) == 0:
		return fmt.Sprintf("no run on %s; the database has runs on %s", q.GPU, strings.Join(gpus, ", "))
	}
	slices.Sort(ranks)
	state := "compiled"
	if q.Compile == eager {
		state = eager
	}
	return fmt.Sprintf("no run on %s with TP %d x PP %d that is %s; there are %s",
		cmp.Or(q.GPU, "any GPU"), q.TP, q.PP, state, strings.Join(ranks, ", "))
}

// climb is the basis on one rung; nil: there is nothing on it.
func (db *Database) climb(d driver, l Law, r rung, q *Query, at string) *basis {
	found, nearest := db.onRung(d, l, r, q, at)
	if len(found) == 0 {
		return nil
	}
	near := slices.DeleteFunc(slices.Clone(found), func(e *Entry) bool {
		return versionsApart(q.VLLM, e.VLLM) != nearest
	})
	values, runs, of := votesOf(near, r.own)
	if r.kin && of < 2 && !d.machine { // one knows a machine as well as two
		return nil
	}
	b := &basis{rung: r, law: l, mean: frame.Mean(values), runs: runs, models: of, says: r.says}
	if r.far {
		b.says += " (" + strings.Join(whereSeen(near, q), "; ") + ")"
	}
	half, ok := db.half(d, l, r, values)
	if !ok {
		b.because = "one model alone: how far models differ is not known"
		if r.own {
			b.because = "one run of a kind: how far runs differ is not known"
		}
		return b
	}
	b.low, b.high, b.sure = b.mean, b.mean, true
	for _, e := range found {
		if r.far { // what other versions or ranks did, each as a model apart
			b.low, b.high = min(b.low, e.Coefficient), max(b.high, e.Coefficient)
		}
	}
	b.low, b.high = b.low-half, b.high+half
	return b
}

// onRung are the entries on a rung, and how far the nearest version among them is.
func (db *Database) onRung(d driver, l Law, r rung, q *Query, at string) (found []*Entry, nearest float64) {
	nearest = math.Inf(1)
	for _, e := range db.of[d.component] {
		if e.Law != l || (r.at && e.At != at) || db.isOwn(q, e) != r.own || !r.same(q.Key, e.Key) {
			continue
		}
		found = append(found, e)
		nearest = min(nearest, versionsApart(q.VLLM, e.VLLM))
	}
	return found, nearest
}

// half is half of the interval of a further run beside values: of one model, or
// of a further model and one run of it.
func (db *Database) half(d driver, l Law, r rung, values []float64) (float64, bool) {
	spread := db.spreads[spreadKey{d.component, l, r.own}]
	if !r.own && len(values) >= enough {
		spread = sampleSpread(values)
	}
	half, ok := halfWidth(spread, len(values))
	if within, known := halfWidth(db.spreads[spreadKey{d.component, l, true}], 1); ok && known && !r.own {
		half = math.Hypot(half, within/math.Sqrt2)
	}
	return half, ok
}

// enough models tell how far they spread without what other groups say of it.
const enough = 6

// rounding is half of the last digit that vLLM prints: 0.01 GiB.
const rounding = frame.Rounding

// isOwn says that an entry is of the query's model: of the same shape, whatever
// it is called.
func (db *Database) isOwn(q *Query, e *Entry) bool {
	if q.Model != "" && e.Model == q.Model {
		return true
	}
	a := db.arcs[e.Model]
	return a != nil && q.Shape != (Shape{}) && ShapeOf(a) == q.Shape
}

// votesOf are one value a model, or of the model itself one a run.
func votesOf(found []*Entry, own bool) (values []float64, runs, of int) {
	byModel := map[string][]float64{}
	for _, e := range found {
		byModel[e.Model] = append(byModel[e.Model], e.coefficients()...)
		runs += len(e.Observed)
	}
	for _, name := range frame.SortedKeys(byModel) {
		if own {
			values = append(values, byModel[name]...)
		} else {
			values = append(values, frame.Mean(byModel[name]))
		}
	}
	return values, runs, len(byModel)
}

// whereSeen lists what was seen in place of what was asked.
func whereSeen(found []*Entry, q *Query) []string {
	var out []string
	for _, e := range found {
		s := "vLLM " + e.VLLM
		if e.Runner != q.Runner && q.Runner != "" {
			s += " " + e.Runner
		}
		if e.TP != q.TP || e.PP != q.PP {
			s += fmt.Sprintf(" TP %d x PP %d", e.TP, e.PP)
		}
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// versionsApart is how far two versions lie apart; 0 where one is not given.
func versionsApart(a, b string) float64 {
	if a == "" || b == "" {
		return 0
	}
	number := func(s string) float64 {
		var major, minor, patch float64
		_, _ = fmt.Sscanf(strings.TrimPrefix(s, "v"), "%g.%g.%g", &major, &minor, &patch) // what cannot be read is 0
		return 1e6*major + 1e3*minor + patch
	}
	return math.Abs(number(a) - number(b))
}

// A spreadKey names one spread: of the models, or of the runs of one.
type spreadKey struct {
	component string
	law       Law
	own       bool
}

// spread is how far models differ within one machine, version and compile state
// (own: how far runs of one model differ within one key), pooled over all of
// them: few models say little of their own group, all together say more.
func (db *Database) spread(k spreadKey) spreadOf {
	groups := map[string][]float64{}
	inGroup := map[string]map[string][]float64{}
	for _, e := range db.of[k.component] {
		switch {
		case e.Law != k.law:
			continue
		case k.own:
			groups[e.order()] = append(groups[e.order()], e.coefficients()...)
			continue
		}
		key := fmt.Sprintf("%s|%d|%d|%s|%s|%v|%s", e.GPU, e.TP, e.PP, e.VLLM, e.Runner, e.Compile == eager, e.At)
		if inGroup[key] == nil {
			inGroup[key] = map[string][]float64{}
		}
		inGroup[key][e.Model] = append(inGroup[key][e.Model], e.coefficients()...)
	}
	for key, byModel := range inGroup {
		for _, name := range frame.SortedKeys(byModel) {
			groups[key] = append(groups[key], frame.Mean(byModel[name]))
		}
	}
	var all [][]float64
	for _, key := range frame.SortedKeys(groups) {
		all = append(all, groups[key])
	}
	variance, dof := frame.Pooled(all...)
	return spreadOf{sd: math.Sqrt(variance), dof: dof}
}

// widen spans a figure from afar, one without an interval of its own, and one
// that an unseen model's structure may move, to the arithmetic's interval: it is
// never surer than that.
func (part *Part) widen(d driver, r rung, own models.Figure) {
	structure := d.structure && !r.own
	if !r.far && !structure && part.Low != nil {
		return
	}
	if own.Low == nil || own.High == nil {
		if r.far {
			part.Reason = "not measured under these conditions: the interval spans what was seen under others"
		}
		if r.old {
			part.Low, part.High = nil, nil
			part.Reason = "not measured under these conditions, and the arithmetic has no interval for it"
		}
		return
	}
	low, high := min(float64(*own.Low), *part.Bytes), max(float64(*own.High), *part.Bytes)
	switch {
	case part.Low != nil:
		low, high = min(low, *part.Low), max(high, *part.High)
	case !r.far:
		part.Reason += "; the interval is the arithmetic's"
	}
	part.Low, part.High = &low, &high
	if r.far {
		part.Reason = "not measured under these conditions: the interval spans what was seen and the arithmetic's own"
	}
}

// given are the parts that the arithmetic takes over.
func (p *Prediction) given() *models.Given {
	figure := func(component string) *models.Figure {
		for i := range p.Parts {
			if part := &p.Parts[i]; part.Component == component && part.Bytes != nil && part.Runs > 0 {
				return new(part.Figure())
			}
		}
		return nil
	}
	return &models.Given{Weights: figure("weights"), Activations: figure("activations_reserved"),
		NonTorch: figure("non_torch"), CUDAGraphs: figure("cuda_graphs"), GraphEstimate: figure("graph_estimate"),
		Context: figure("context"), Buffers: figure("buffers")}
}

// Figure is the part as a figure of an estimate.
func (p *Part) Figure() models.Figure {
	f := models.Figure{Value: wholeBytes(p.Bytes), Low: wholeBytes(p.Low), High: wholeBytes(p.High), Reason: p.Reason}
	if p.Bytes != nil {
		f.Source = "overheads: " + p.From()
	}
	return f
}

// From says what the part rests on, in a few words.
func (p *Part) From() string {
	if p.Runs == 0 {
		return p.Basis
	}
	return counted(p.Runs, p.Models) + ": " + p.Basis
}

func counted(runs, models int) string {
	word := func(n int, s string) string {
		if n == 1 {
			return "1 " + s
		}
		return fmt.Sprintf("%d %ss", n, s)
	}
	return word(runs, "run") + " of " + word(models, "model")
}

func wholeBytes(f *float64) *int64 {
	if f == nil || math.IsNaN(*f) || math.Abs(*f) > 1<<62 {
		return nil
	}
	return new(int64(math.Round(*f)))
}

// highest is the highest use: what vLLM requests, less what it sets aside for
// activations and graphs, and with what stands outside its budget or comes back
// into use.
func (p *Prediction) highest(q *Query) models.Figure {
	e := &p.Estimate
	inUse := p.Parts[slices.IndexFunc(p.Parts, func(part Part) bool { return part.Component == "in_use" })]
	used := inUse.Figure()
	graph := models.Figure{Value: e.GraphEstimate, Low: e.GraphEstimate, High: e.GraphEstimate}
	plus := []models.Figure{e.Context, e.CUDAGraphs, e.Buffers, used}
	minus := []models.Figure{e.Activations}
	switch {
	case e.Fits != nil && !*e.Fits:
		return models.Figure{Reason: "the profile does not fit"}
	case q.Request.KVCacheMemoryBytes != nil:
		plus, minus = append(plus, e.Weights, e.NonTorch, e.KVCache), nil
	default:
		plus = append(plus, e.Requested)
		if e.BuffersInBudget {
			plus = slices.DeleteFunc(plus, func(f models.Figure) bool { return f == e.Buffers })
		}
		if graph.Value != nil {
			minus = append(minus, graph)
		}
	}
	var sum, below, above float64
	sure := true
	for i, f := range append(slices.Clone(plus), minus...) {
		if f.Value == nil {
			return models.Figure{Reason: "a part of it is not known: " + f.Reason}
		}
		var down, up float64
		if f.Low != nil && f.High != nil {
			down, up = float64(*f.Value-*f.Low), float64(*f.High-*f.Value)
		} else {
			sure = false
		}
		if i < len(plus) {
			sum += float64(*f.Value)
		} else {
			sum -= float64(*f.Value)
			down, up = up, down
		}
		below, above = below+down*down, above+up*up
	}
	out := models.Figure{Value: wholeBytes(&sum), Source: "requested - reserved activations + context + graphs + " +
		"buffers + what is in use of them at the highest sample (" + inUse.From() + ")"}
	if sure {
		out.Low, out.High = wholeBytes(new(sum-math.Sqrt(below))), wholeBytes(new(sum+math.Sqrt(above)))
	} else {
		out.Reason = "no interval: a part of it has none"
	}
	return out
}
