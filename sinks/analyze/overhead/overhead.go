// Package overhead keeps what architecture alone does not give, measured run by
// run, as a database, and tells from it what a profile that was not run will take.
package overhead

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Version is the version of the database's format.
const Version = 2

// Database is a database of what architecture alone does not give: facts of
// runs, the architectures that they are of, and what follows from both. Entries
// are never read from a file: they are computed from Runs and the arithmetic of
// this program, so that a database stays right when the arithmetic changes.
// Its JSON is sorted, so that two of them can be compared line by line.
type Database struct {
	Version   int                    `json:"version"`
	Synthetic bool                   `json:"synthetic"`
	Entries   []Entry                `json:"entries"`
	Runs      []Run                  `json:"runs"`
	Skipped   []string               `json:"skipped,omitempty"` // what was left out, and why
	Models    []*models.Architecture `json:"models"`            // the architectures that Runs name

	arcs    map[string]*models.Architecture
	of      map[string][]*Entry // entries by component
	spreads map[spreadKey]spreadOf

	choice sync.Once
	nearer map[string]string // see chosen

	mu    sync.Mutex // of bases
	bases map[basisKey]*basis
}

// A Key is what must agree for runs to share their coefficients.
type Key struct {
	Model        string `json:"model"` // the architecture's name in the catalogue, else the run's
	Family       string `json:"family"`
	Dtype        string `json:"dtype"`
	Quantization string `json:"quantization"`
	TP           int64  `json:"tensor_parallel_size"`
	PP           int64  `json:"pipeline_parallel_size"`
	GPU          string `json:"gpu"`
	VLLM         string `json:"vllm_version"`
	Runner       string `json:"model_runner"`
	Compile      string `json:"compile"` // eager, or compiled (the cache's state: cold, warm)
}

// A Shape tells one architecture from another, whatever it is called.
type Shape struct {
	Class      string `json:"architecture,omitempty"`
	Layers     int64  `json:"num_layers"`
	HiddenSize int64  `json:"hidden_size"`
	Heads      int64  `json:"num_heads,omitempty"`
	KVHeads    int64  `json:"num_kv_heads,omitempty"`
	HeadDim    int64  `json:"head_dim,omitempty"`
	Vocabulary int64  `json:"vocab_size"`
}

// ShapeOf is the shape of an architecture.
func ShapeOf(a *models.Architecture) Shape {
	return Shape{Class: a.Architecture, Layers: a.NumLayers, HiddenSize: a.HiddenSize, Heads: a.NumHeads,
		KVHeads: a.NumKVHeads, HeadDim: a.HeadDim, Vocabulary: a.VocabSize}
}

// A Run is the facts of one run: its settings as vLLM used them, and
// what was measured of one rank (the first that said it), in bytes.
type Run struct {
	RunID string `json:"run_id"`
	Named string `json:"named,omitempty"` // the model as the sweep file or the log names it
	Key
	Shape Shape `json:"shape"`

	Tokens      *int64   `json:"max_num_batched_tokens"`
	Seqs        *int64   `json:"max_num_seqs"` // null: vLLM's default
	MaxModelLen *int64   `json:"max_model_len"`
	BlockSize   *int64   `json:"block_size"`
	Utilization *float64 `json:"gpu_memory_utilization"` // null: vLLM's default, or kv_cache_memory_bytes is set
	KVBytes     *int64   `json:"kv_cache_memory_bytes"`
	KVDtype     string   `json:"kv_cache_dtype,omitempty"`
	AskedQuant  string   `json:"asked_quantization,omitempty"` // what vLLM converted to while loading
	InputLen    int64    `json:"input_len"`                    // 0: not given
	BatchSize   int64    `json:"batch_size"`

	// Figures are the measured bytes by component; see Components.
	Figures map[string]int64 `json:"bytes"`
	// Graph estimate, KV cache and highest use are no overheads; they are what
	// predictions of the whole are checked by.
	Check map[string]int64 `json:"check,omitempty"`
}

// An Entry is one component under one key.
type Entry struct {
	Key
	Component string `json:"component"`
	// Law says what the coefficient does to what; see docs/analysis.md.
	Law         Law           `json:"law"`
	At          string        `json:"at,omitempty"` // activations: the moment of the peak
	Coefficient float64       `json:"coefficient"`
	Low         *float64      `json:"low"` // 95 % interval of the coefficient; null with one run
	High        *float64      `json:"high"`
	Runs        int           `json:"runs"`
	Observed    []Observation `json:"observations"`
}

// An Observation is one run.
type Observation struct {
	RunID    string  `json:"run_id"`
	Units    float64 `json:"units"`    // what the law computes for the run
	Bytes    float64 `json:"bytes"`    // of one rank
	Residual float64 `json:"residual"` // bytes - what the coefficient gives
}

// Input is what a database is built from.
type Input struct {
	Runs  []sinks.RunRow
	Ranks []sinks.RankRow
	Steps []sinks.StepRow
	// Find gives the architecture of a run; nil from it: not known.
	Find func(*sinks.RunRow) *models.Architecture
	// GPU is the name of the device of runs that do not name theirs; "": such
	// runs are left out.
	GPU string
}

// Build makes a database of the runs that ended well, and of imported
// logs, which tell no outcome. It fails with ErrNoRuns and ErrMixed.
func Build(in Input) (*Database, error) {
	if err := frame.SameKind(in.Runs); err != nil {
		return nil, err
	}
	db := &Database{Version: Version, arcs: map[string]*models.Architecture{}}
	ranks, loads := firstRanks(in.Ranks), loadSteps(in.Steps)
	skipped := map[string]int{}
	for i := range in.Runs {
		r := &in.Runs[i]
		db.Synthetic = db.Synthetic || r.Synthetic
		run, a, reason := runOf(r, ranks[r.RunID], loads[r.RunID], &in)
		if reason != "" {
			skipped[reason]++
			continue
		}
		if a != nil {
			db.arcs[run.Model] = a
		}
		db.Runs = append(db.Runs, run)
	}
	for reason, n := range skipped {
		db.Skipped = append(db.Skipped, fmt.Sprintf("%d runs: %s", n, reason))
	}
	slices.Sort(db.Skipped)
	if len(db.Runs) == 0 {
		return nil, fmt.Errorf("overhead build: %w to build on: %s", frame.ErrNoRuns, strings.Join(db.Skipped, "; "))
	}
	db.canonical()
	db.settle()
	return db, nil
}

// canonical gives architectures of one shape and quantization one name: that by
// which a run called it, else the first.
func (db *Database) canonical() {
	asked := map[string]bool{}
	for i := range db.Runs {
		asked[strings.ToLower(db.Runs[i].Named)] = true
	}
	names := map[string]string{}
	same := func(a *models.Architecture) string { return fmt.Sprintf("%+v %+v", ShapeOf(a), a.Quantization) }
	for _, name := range frame.SortedKeys(db.arcs) {
		key := same(db.arcs[name])
		if have := names[key]; have == "" || asked[strings.ToLower(name)] && !asked[strings.ToLower(have)] {
			names[key] = name
		}
	}
	for i := range db.Runs {
		if a := db.arcs[db.Runs[i].Model]; a != nil {
			name := names[same(a)]
			db.Runs[i].Model, db.Runs[i].Family = name, db.arcs[name].Family
		}
	}
	used := map[string]*models.Architecture{}
	for _, name := range names {
		used[name] = db.arcs[name]
	}
	db.arcs = used
}

// leftOut says why a run is not in the database; "": it is.
func leftOut(r *sinks.RunRow) string {
	switch {
	case r.EngineMode == "session":
		return "of a session: its figures are those of the engine's first profile"
	case frame.Blind(r):
		return "blind: no sample shows their memory where it is used"
	case r.Outcome == "ok", r.Outcome == "no_result" && r.Engine == "import":
		return ""
	}
	return "ended as " + r.Outcome
}

// firstRanks keeps of each run the first rank that says anything.
func firstRanks(rows []sinks.RankRow) map[string]*sinks.RankRow {
	first := map[string]*sinks.RankRow{}
	for i := range rows {
		r := &rows[i]
		if have := first[r.RunID]; r.ActivationsReservedBytes != nil && (have == nil || r.Rank < have.Rank) {
			first[r.RunID] = r
		}
	}
	return first
}

// loadSteps is what the driver saw the load of the weights take beyond the
// weights, by run: the runner's persistent buffers.
func loadSteps(rows []sinks.StepRow) map[string]*int64 {
	loads := map[string]*int64{}
	for i := range rows {
		if r := &rows[i]; r.Step == "load" && r.DifferenceBytes != nil && loads[r.RunID] == nil {
			loads[r.RunID] = r.DifferenceBytes
		}
	}
	return loads
}

// runOf are the facts of a run; why says why they are not enough.
func runOf(r *sinks.RunRow, rank *sinks.RankRow, load *int64, in *Input) (run Run, a *models.Architecture, why string) {
	if why := leftOut(r); why != "" {
		return run, nil, why
	}
	gpu := cmp.Or(frame.Deref(r.GPUName), in.GPU)
	if g, ok := models.LookupGPU(gpu); ok && gpu != "" {
		gpu = g.Product // one name, however the run or the caller writes it
	}
	switch {
	case gpu == "":
		return run, nil, "gpu_name is missing (--gpu NAME says which it was)"
	case frame.Deref(r.VLLMVersion) == "":
		return run, nil, "vllm_version is missing"
	case rank == nil:
		return run, nil, "no rank reports its memory"
	}
	if in.Find != nil {
		a = in.Find(r)
	}
	run = Run{RunID: r.RunID, Named: r.Model, Key: keyOfRun(r, gpu), Tokens: r.EffectiveMaxNumBatchedTokens,
		Seqs: cmp.Or(r.EffectiveMaxNumSeqs, r.MaxNumSeqs), MaxModelLen: cmp.Or(r.EffectiveMaxModelLen, r.MaxModelLen),
		BlockSize:   cmp.Or(r.EffectiveBlockSize, r.BlockSize),
		Utilization: cmp.Or(r.EffectiveGPUMemoryUtilization, r.GPUMemoryUtilization),
		KVBytes:     r.KVCacheMemoryBytes, KVDtype: frame.Deref(r.KVCacheDtype),
		InputLen: r.InputLen, BatchSize: r.BatchSize}
	if a != nil {
		run.Model, run.Family, run.Shape = a.ID, a.Family, ShapeOf(a)
	} else {
		run.Shape = Shape{Class: frame.Deref(r.Architecture), Layers: frame.Deref(r.NumLayers),
			HiddenSize: frame.Deref(r.HiddenSize), Heads: frame.Deref(r.NumHeads), KVHeads: frame.Deref(r.NumKVHeads),
			HeadDim: frame.Deref(r.HeadDim), Vocabulary: frame.Deref(r.VocabSize)}
	}
	if a == nil || a.Quantization == nil {
		run.AskedQuant = strings.TrimPrefix(run.Quantization, "none")
	}
	run.measure(r, rank, load)
	if len(run.Figures) == 0 {
		return run, nil, "no figure of its memory is known"
	}
	return run, a, ""
}

func keyOfRun(r *sinks.RunRow, gpu string) Key {
	k := Key{Model: r.Model, Family: frame.Deref(r.Family), Dtype: frame.Dtype(r), Quantization: frame.Quantization(r),
		TP: max(r.TensorParallelSize, 1), PP: max(r.PipelineParallelSize, 1), GPU: gpu,
		VLLM: frame.Deref(r.VLLMVersion), Runner: frame.Deref(r.ModelRunner), Compile: frame.Deref(r.CompileCache)}
	if k.Compile == "off" || frame.Deref(r.EnforceEager) {
		k.Compile = eager
	}
	k.Compile = cmp.Or(k.Compile, "compiled")
	return k
}

// eager is the compile state of an engine that compiles nothing.
const eager = "eager"

// measure notes what the run's first rank took.
func (run *Run) measure(r *sinks.RunRow, rank *sinks.RankRow, load *int64) {
	run.Figures, run.Check = map[string]int64{}, map[string]int64{}
	note := func(to map[string]int64, name string, n *int64) {
		if n != nil {
			to[name] = *n
		}
	}
	note(run.Figures, "weights", rank.ModelWeightsBytes)
	note(run.Figures, "activations_reserved", rank.ActivationsReservedBytes)
	if run.Compile != eager {
		note(run.Figures, "cuda_graphs", rank.CUDAGraphsBytes)
		note(run.Figures, "graph_estimate", rank.GraphEstimateBytes)
	}
	note(run.Figures, "non_torch", rank.NonTorchBytes)
	note(run.Figures, "context", rank.ContextBytes)
	note(run.Figures, "buffers", load)
	note(run.Check, "kv_cache", rank.KVCacheBytes)
	note(run.Check, "requested", rank.RequestedBytes)
	ranks := run.TP * run.PP
	if r.GrowthExcessBytes != nil {
		run.Figures["growth_excess"] = *r.GrowthExcessBytes / ranks
	}
	if r.PeakMemoryMaxGPUBytes == nil || r.Outcome != "ok" {
		return
	}
	highest := *r.PeakMemoryMaxGPUBytes - frame.Deref(r.BaselineMemoryBytes)/ranks
	run.Check["highest"] = highest
	for _, part := range []*int64{rank.ModelWeightsBytes, rank.KVCacheBytes, rank.NonTorchBytes, rank.ContextBytes} {
		if part == nil {
			return
		}
		highest -= *part
	}
	highest -= run.Figures["cuda_graphs"]
	if load == nil {
		return
	}
	run.Figures["in_use"] = highest - *load
}

// request is the run as the arithmetic is asked for it.
func (run *Run) request() models.Request {
	return models.Request{Dtype: run.Dtype, KVCacheDtype: run.KVDtype, Quantization: run.AskedQuant,
		TensorParallelSize: run.TP, PipelineParallelSize: run.PP, InputLen: run.InputLen, BatchSize: run.BatchSize,
		MaxModelLen: run.MaxModelLen, MaxNumSeqs: run.Seqs, MaxNumBatchedTokens: run.Tokens,
		GPUMemoryUtilization: run.Utilization, KVCacheMemoryBytes: run.KVBytes, BlockSize: run.BlockSize,
		EnforceEager: run.Compile == eager, CompileCache: run.Compile, Version: run.VLLM, ModelRunner: run.Runner}
}

// settle computes entries from runs and puts all in order. A run that stands
// twice (of two databases) counts once.
func (db *Database) settle() {
	slices.SortFunc(db.Runs, func(a, b Run) int { return strings.Compare(a.RunID, b.RunID) })
	db.Runs = slices.CompactFunc(db.Runs, func(a, b Run) bool { return a.RunID == b.RunID })
	db.Entries = nil
	at := map[string]int{}
	for i := range db.Runs {
		run := &db.Runs[i]
		units := unitsOf(db.arcs[run.Model], run.request(), run.device(), run.Shape)
		for _, d := range drivers() {
			bytes, ok := run.Figures[d.component]
			if !ok {
				continue
			}
			law, n, ok := units.law(d)
			if !ok {
				continue
			}
			e := Entry{Key: run.Key, Component: d.component, Law: law, At: units.at(d)}
			key := e.order()
			if _, have := at[key]; !have {
				at[key] = len(db.Entries)
				db.Entries = append(db.Entries, e)
			}
			entry := &db.Entries[at[key]]
			entry.Observed = append(entry.Observed, Observation{RunID: run.RunID, Units: n, Bytes: float64(bytes)})
		}
	}
	for i := range db.Entries {
		db.Entries[i].settle()
	}
	slices.SortFunc(db.Entries, func(a, b Entry) int { return strings.Compare(a.order(), b.order()) })
	db.index()
	db.Models = nil
	for _, name := range frame.SortedKeys(db.arcs) {
		db.Models = append(db.Models, db.arcs[name])
	}
}

// index is what predictions look up: entries by component, and how far they
// spread.
func (db *Database) index() {
	db.of, db.spreads, db.bases = map[string][]*Entry{}, map[spreadKey]spreadOf{}, map[basisKey]*basis{}
	for i := range db.Entries {
		e := &db.Entries[i]
		db.of[e.Component] = append(db.of[e.Component], e)
	}
	for i := range db.Entries {
		for _, own := range []bool{true, false} {
			key := spreadKey{db.Entries[i].Component, db.Entries[i].Law, own}
			if _, have := db.spreads[key]; !have {
				db.spreads[key] = db.spread(key)
			}
		}
	}
}

// settle computes the coefficient of one entry, its interval and residuals.
func (e *Entry) settle() {
	values := e.coefficients()
	e.Runs = len(values)
	e.Coefficient = frame.Mean(values)
	if half, ok := halfWidth(sampleSpread(values), len(values)); ok {
		e.Low, e.High = frame.Around(e.Coefficient, half/math.Sqrt(float64(len(values)+1)))
	}
	for i := range e.Observed {
		o := &e.Observed[i]
		o.Residual = o.Bytes - e.Law.bytes(e.Coefficient, o.Units)
	}
}

// coefficients are those of each run.
func (e *Entry) coefficients() []float64 {
	values := make([]float64, len(e.Observed))
	for i, o := range e.Observed {
		values[i] = e.Law.coefficient(o.Bytes, o.Units)
	}
	return values
}

func (e *Entry) order() string {
	return fmt.Sprintf("%s|%s|%s|%s|%04d|%04d|%s|%s|%s|%s|%s|%s|%s", e.Family, e.Model, e.Dtype, e.Quantization,
		e.TP, e.PP, e.GPU, e.VLLM, e.Runner, e.Compile, e.Component, e.At, e.Law)
}

// device is the arithmetic's entry for the run's GPU; the zero one where it has
// none.
func (run *Run) device() models.GPU {
	g, _ := models.LookupGPU(run.GPU)
	return g
}

// Merge adds another database; runs that both have count once. Of architectures
// of one name the receiver's stays; where they differ it fails.
func (db *Database) Merge(other *Database) error {
	if db.Synthetic != other.Synthetic {
		return fmt.Errorf("overhead merge: %w", frame.ErrMixed)
	}
	for name, a := range other.arcs {
		if have := db.arcs[name]; have != nil && ShapeOf(have) != ShapeOf(a) {
			return fmt.Errorf("overhead merge: %s is one architecture here (%+v) and another there (%+v); "+
				"rename one of them in its model block", name, ShapeOf(have), ShapeOf(a))
		} else if have == nil {
			db.arcs[name] = a
		}
	}
	db.Runs = append(db.Runs, other.Runs...)
	db.Skipped = append(db.Skipped, other.Skipped...)
	slices.Sort(db.Skipped)
	db.Skipped = slices.Compact(db.Skipped)
	db.canonical()
	db.settle()
	return nil
}
