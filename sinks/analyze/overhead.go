package analyze

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"strings"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vramsweep/vramsweep/sinks"
)

// OverheadsVersion is the version of the database's format.
const OverheadsVersion = 1

// Overheads is a database of what architecture alone does not give. Its JSON is
// sorted, so that two of them can be compared line by line.
type Overheads struct {
	Version   int        `json:"version"`
	Synthetic bool       `json:"synthetic"`
	Entries   []Overhead `json:"entries"`
	Skipped   []string   `json:"skipped,omitempty"` // what was left out, and why
}

// An OverheadKey is what must agree for runs to share their coefficients.
type OverheadKey struct {
	Model        string `json:"model"`
	Family       string `json:"family"`
	Dtype        string `json:"dtype"`
	Quantization string `json:"quantization"`
	TP           int64  `json:"tensor_parallel_size"`
	GPU          string `json:"gpu"`
	VLLM         string `json:"vllm_version"`
	Runner       string `json:"model_runner"`
	Compile      string `json:"compile"` // eager, or compiled (the cache's state: cold, warm)
}

// A Shape is what the coefficients are scaled by.
type Shape struct {
	HiddenSize int64 `json:"hidden_size"`
	Layers     int64 `json:"num_layers"`
	Vocabulary int64 `json:"vocab_size"`
}

// An Overhead is one component under one key.
type Overhead struct {
	OverheadKey
	Shape     Shape  `json:"shape"`
	Component string `json:"component"`
	// Per is what the coefficient multiplies: see OverheadDrivers.
	Per          string        `json:"per"`
	Coefficient  float64       `json:"coefficient"` // bytes of one rank per unit
	Low          *float64      `json:"low"`         // 95 % interval of the coefficient; null with one run
	High         *float64      `json:"high"`
	Runs         int           `json:"runs"`
	Observations []Observation `json:"observations"`
}

// An Observation is one run.
type Observation struct {
	RunID    string  `json:"run_id"`
	Units    float64 `json:"units"`
	Bytes    float64 `json:"bytes"`    // of one rank
	Residual float64 `json:"residual"` // bytes - coefficient x units
}

// A driver is a component and what it is taken to be proportional to. Within
// one model that changes nothing but the unit; across models it carries the
// coefficient over.
type driver struct {
	component, per string
	bytes          func(*sinks.RunRow) *int64
	units          func(s Shape, tokens int64) float64
}

// drivers: an activation peak is one layer's tensors for all batched tokens,
// graphs are captured layer by layer, the runner's buffers hold a vocabulary per
// sequence; the others depend on the machine.
func drivers() []driver {
	one := func(Shape, int64) float64 { return 1 }
	return []driver{
		{"activations_reserved", "batched token x hidden size", func(r *sinks.RunRow) *int64 { return r.ActivationsReservedBytes },
			func(s Shape, tokens int64) float64 { return float64(tokens) * float64(s.HiddenSize) }},
		{"cuda_graphs", "layer", func(r *sinks.RunRow) *int64 { return r.CUDAGraphsBytes },
			func(s Shape, _ int64) float64 { return float64(s.Layers) }},
		{"non_torch", "rank", func(r *sinks.RunRow) *int64 { return r.NonTorchBytes }, one},
		{"context", "rank", func(r *sinks.RunRow) *int64 { return r.ContextBytes }, one},
		{"buffers", "word of the vocabulary", func(r *sinks.RunRow) *int64 { return r.BuffersBytes },
			func(s Shape, _ int64) float64 { return float64(s.Vocabulary) }},
		{"growth_excess", "rank", func(r *sinks.RunRow) *int64 { return r.GrowthExcessBytes }, one},
	}
}

// keyOf is the key of a run; ok is false where the run does not say enough.
func overheadKey(r *sinks.RunRow) (k OverheadKey, s Shape, reason string) {
	known := func(v *string, name string) string {
		if v == nil || *v == "" {
			reason = name + " is missing"
			return ""
		}
		return *v
	}
	k = OverheadKey{Model: r.Model, Family: deref(r.Family), Quantization: "none", TP: 1,
		GPU: known(r.GPUName, "gpu_name"), VLLM: known(r.VLLMVersion, "vllm_version"), Runner: deref(r.ModelRunner)}
	k.Dtype = deref(r.EffectiveDtype)
	if k.Dtype == "" {
		k.Dtype = deref(r.Dtype)
	}
	if q := deref(r.EffectiveQuantization); q != "" && q != "None" {
		k.Quantization = q
	} else if q := deref(r.Quantization); q != "" {
		k.Quantization = q
	}
	if r.TensorParallelSize != nil {
		k.TP = *r.TensorParallelSize
	}
	k.Compile = "eager"
	if r.EnforceEager == nil || !*r.EnforceEager {
		k.Compile = deref(r.CompileCache)
		if k.Compile == "" {
			k.Compile = "compiled"
		}
	}
	if r.HiddenSize == nil || r.NumLayers == nil || r.VocabSize == nil {
		return k, s, "the architecture is not known"
	}
	return k, Shape{HiddenSize: *r.HiddenSize, Layers: *r.NumLayers, Vocabulary: *r.VocabSize}, reason
}

// BuildOverheads makes a database of the runs that ended well. It fails with
// ErrNoRuns and ErrMixed.
func BuildOverheads(rows []sinks.RunRow) (*Overheads, error) {
	if err := sameKind(rows); err != nil {
		return nil, err
	}
	db := &Overheads{Version: OverheadsVersion}
	skipped := map[string]int{}
	for i := range rows {
		r := &rows[i]
		db.Synthetic = db.Synthetic || r.Synthetic
		if r.Outcome != "ok" {
			skipped["ended as "+r.Outcome]++
			continue
		}
		key, shape, reason := overheadKey(r)
		if reason != "" {
			skipped[reason]++
			continue
		}
		if r.EngineMode == "session" {
			skipped["of a session: its figures are those of the engine's first profile"]++
			continue
		}
		db.observe(r, key, shape)
	}
	for reason, n := range skipped {
		db.Skipped = append(db.Skipped, fmt.Sprintf("%d runs: %s", n, reason))
	}
	sort.Strings(db.Skipped)
	if len(db.Entries) == 0 {
		return nil, fmt.Errorf("overhead build: %w to build on: %s", ErrNoRuns, strings.Join(db.Skipped, "; "))
	}
	db.settle()
	return db, nil
}

// observe adds the components of one run.
func (db *Overheads) observe(r *sinks.RunRow, key OverheadKey, shape Shape) {
	ranks := float64(max(key.TP, 1))
	if r.PipelineParallelSize != nil {
		ranks *= float64(max(*r.PipelineParallelSize, 1))
	}
	var tokens int64
	if r.EffectiveMaxNumBatchedTokens != nil {
		tokens = *r.EffectiveMaxNumBatchedTokens
	}
	for _, d := range drivers() {
		bytes, units := d.bytes(r), d.units(shape, tokens)
		if bytes == nil || units <= 0 {
			continue
		}
		at := slices.IndexFunc(db.Entries, func(e Overhead) bool { return e.OverheadKey == key && e.Component == d.component })
		if at < 0 {
			at = len(db.Entries)
			db.Entries = append(db.Entries, Overhead{OverheadKey: key, Shape: shape, Component: d.component, Per: d.per})
		}
		db.Entries[at].Observations = append(db.Entries[at].Observations, Observation{RunID: r.RunID, Units: units, Bytes: float64(*bytes) / ranks})
	}
}

// settle computes coefficients from observations and puts all in order. A run
// that stands twice (of two databases) counts once.
func (db *Overheads) settle() {
	for i := range db.Entries {
		e := &db.Entries[i]
		slices.SortFunc(e.Observations, func(a, b Observation) int { return strings.Compare(a.RunID, b.RunID) })
		e.Observations = slices.CompactFunc(e.Observations, func(a, b Observation) bool { return a.RunID == b.RunID })
		e.Runs = len(e.Observations)
		per := make([]float64, e.Runs)
		for j, o := range e.Observations {
			per[j] = o.Bytes / o.Units
		}
		g := groupOf("", per)
		e.Coefficient, e.Low, e.High = g.Mean, g.Low, g.High
		for j := range e.Observations {
			o := &e.Observations[j]
			o.Residual = o.Bytes - e.Coefficient*o.Units
		}
	}
	slices.SortFunc(db.Entries, func(a, b Overhead) int { return strings.Compare(a.order(), b.order()) })
}

func (e *Overhead) order() string {
	return fmt.Sprintf("%s|%s|%s|%s|%04d|%s|%s|%s|%s|%s", e.Family, e.Model, e.Dtype, e.Quantization, e.TP, e.GPU, e.VLLM, e.Runner, e.Compile, e.Component)
}

// Merge adds another database; runs that both have count once.
func (db *Overheads) Merge(other *Overheads) error {
	if db.Synthetic != other.Synthetic {
		return fmt.Errorf("overhead merge: %w", ErrMixed)
	}
	for _, e := range other.Entries {
		at := slices.IndexFunc(db.Entries, func(have Overhead) bool { return have.OverheadKey == e.OverheadKey && have.Component == e.Component })
		if at < 0 {
			db.Entries = append(db.Entries, e)
			continue
		}
		db.Entries[at].Observations = append(db.Entries[at].Observations, e.Observations...)
	}
	db.settle()
	return nil
}

// ErrOverheads says that a file is no overhead database of this version.
var ErrOverheads = errors.New("no overhead database")

// ReadOverheads reads a database. It fails with ErrOverheads.
func ReadOverheads(in io.Reader) (*Overheads, error) {
	db := &Overheads{}
	if err := json.NewDecoder(in).Decode(db); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOverheads, err)
	}
	if db.Version != OverheadsVersion {
		return nil, fmt.Errorf("%w of version %d: it says version %d; build it again with `vramsweep overhead build`", ErrOverheads, OverheadsVersion, db.Version)
	}
	for _, e := range db.Entries {
		if len(e.Observations) == 0 || slices.ContainsFunc(e.Observations, func(o Observation) bool { return !(o.Units > 0) }) {
			return nil, fmt.Errorf("%w: %s of %s has no observations, or one without units", ErrOverheads, e.Component, e.Model)
		}
	}
	db.settle()
	return db, nil
}

// Write writes the database as JSON.
func (db *Overheads) Write(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(db); err != nil {
		return fmt.Errorf("writing the overhead database: %w", err)
	}
	return nil
}

// An OverheadQuery asks for a profile. Empty words of the key match any.
type OverheadQuery struct {
	OverheadKey
	Shape         Shape
	BatchedTokens int64 // max_num_batched_tokens; 0: activations cannot be told
}

// A PredictedPart is one component of one rank, in bytes.
type PredictedPart struct {
	Component string   `json:"component"`
	Bytes     *float64 `json:"bytes"`
	Low       *float64 `json:"low"` // 95 % interval of a further run; null where one observation is all there is
	High      *float64 `json:"high"`
	Basis     string   `json:"basis,omitempty"` // what it rests on
	Runs      int      `json:"runs"`
	Models    int      `json:"models"`
	Reason    string   `json:"reason,omitempty"`
}

// A rung is how far from the query observations may be.
type rung struct {
	says string
	same func(q, e OverheadKey) bool
	own  bool // of the model itself
}

// The parts of a key that a rung asks for; an empty word matches any.
func isWord(want, have string) bool     { return want == "" || want == have }
func sameMachine(q, e OverheadKey) bool { return isWord(q.GPU, e.GPU) && q.TP == e.TP }
func sameEngine(q, e OverheadKey) bool  { return isWord(q.VLLM, e.VLLM) && isWord(q.Runner, e.Runner) }
func sameWeights(q, e OverheadKey) bool {
	return isWord(q.Dtype, e.Dtype) && isWord(q.Quantization, e.Quantization)
}

// sameEager tells compiled from eager, whatever the compile cache held.
func sameEager(q, e OverheadKey) bool {
	return q.Compile == "" || (q.Compile == "eager") == (e.Compile == "eager")
}

func sameFamily(q, e OverheadKey) bool  { return q.Family != "" && q.Family == e.Family }
func sameCompile(q, e OverheadKey) bool { return isWord(q.Compile, e.Compile) }

// allOf asks for several at once.
func allOf(asks ...func(q, e OverheadKey) bool) func(q, e OverheadKey) bool {
	return func(q, e OverheadKey) bool {
		for _, ask := range asks {
			if !ask(q, e) {
				return false
			}
		}
		return true
	}
}

func rungs() []rung {
	return []rung{
		{"this model, GPU, TP, version and compile state", allOf(sameMachine, sameEngine, sameCompile, sameWeights), true},
		{"this model, GPU and TP; another version or compile cache", allOf(sameMachine, sameEager, sameWeights), true},
		{"other models of this family on this GPU, TP and version", allOf(sameFamily, sameMachine, sameEngine, sameEager), false},
		{"other models on this GPU, TP and version", allOf(sameMachine, sameEngine, sameEager), false},
		{"other models on this GPU and TP, of other versions", allOf(sameMachine, sameEager), false},
	}
}

// Predict tells the components of a profile from the nearest observations that
// there are: of the model itself, else of its family, else of other models, each
// model with one vote. Where there are none the part is null and says why.
func (db *Overheads) Predict(q OverheadQuery) []PredictedPart {
	q.TP = max(q.TP, 1)
	var out []PredictedPart
	for _, d := range drivers() {
		part := PredictedPart{Component: d.component, Reason: fmt.Sprintf("no run on %s with tensor_parallel_size %d has it", orAny(q.GPU), q.TP)}
		units := d.units(q.Shape, q.BatchedTokens)
		if units <= 0 {
			part.Reason = "needs the model's shape and max_num_batched_tokens: per " + d.per
			out = append(out, part)
			continue
		}
		for _, r := range rungs() {
			if db.climb(&part, d, r, q, units) {
				break
			}
		}
		out = append(out, part)
	}
	return out
}

func orAny(s string) string {
	if s == "" {
		return "any GPU"
	}
	return s
}

// climb predicts from one rung, and tells whether there was anything on it.
func (db *Overheads) climb(part *PredictedPart, d driver, r rung, q OverheadQuery, units float64) bool {
	byModel := map[string][]float64{}
	n := 0
	for _, e := range db.Entries {
		if e.Component != d.component || (e.Model == q.Model) != r.own || !r.same(q.OverheadKey, e.OverheadKey) {
			continue
		}
		for _, o := range e.Observations {
			byModel[e.Model] = append(byModel[e.Model], o.Bytes/o.Units)
			n++
		}
	}
	if n == 0 {
		return false
	}
	var votes []float64
	for _, values := range byModel {
		if r.own {
			votes = values
		} else {
			votes = append(votes, stat.Mean(values, nil))
		}
	}
	sort.Float64s(votes)
	mean := stat.Mean(votes, nil)
	bytes := mean * units
	part.Bytes, part.Basis, part.Runs, part.Models, part.Reason = &bytes, r.says, n, len(byModel), ""
	if len(votes) > 1 {
		m := float64(len(votes))
		half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: m - 1}.Quantile(0.975) * stat.StdDev(votes, nil) * math.Sqrt(1+1/m)
		low, high := (mean-half)*units, (mean+half)*units
		part.Low, part.High = &low, &high
	}
	return true
}
