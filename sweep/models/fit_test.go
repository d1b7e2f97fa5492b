package models

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"gonum.org/v1/gonum/mat"
)

// output names a folder of results to fit, in place of the recording:
// make laws FOLDER=DIR CONFIGS=DIR.
var (
	output  = flag.String("output", "", "fit the runs of this output folder")
	configs = flag.String("configs", "testdata/h200-v0.33", "MODEL.json for each model of the folder")
)

// A fitRun is one run that laws are fitted to: what was asked, and what vLLM and
// the driver said, in bytes.
type fitRun struct {
	id, model                                string
	arch                                     *Architecture
	request                                  Request
	gpu                                      GPU
	context, weights, consumed, act, kv, use float64
	graphs, estimate                         float64 // 0: none captured
	tokens, growth                           float64
}

// A runFile is run.json, as far as fitting needs it.
type runFile struct {
	Run struct {
		RunID     string `json:"run_id"`
		Outcome   string `json:"outcome"`
		Synthetic bool   `json:"synthetic"`
	} `json:"run"`
	Model struct {
		Model string `json:"model"`
	} `json:"model_info"`
	Asked struct {
		Dtype, Engine string
		KVDtype       *string  `json:"kv_cache_dtype"`
		TP            int64    `json:"tensor_parallel_size"`
		Input         int64    `json:"input_len"`
		Output        int64    `json:"output_len"`
		Batch         int64    `json:"batch_size"`
		Length        *int64   `json:"max_model_len"`
		Seqs          *int64   `json:"max_num_seqs"`
		Tokens        *int64   `json:"max_num_batched_tokens"`
		Eager         *bool    `json:"enforce_eager"`
		Utilization   *float64 `json:"gpu_memory_utilization"`
	} `json:"benchmark_parameters"`
	VLLM struct {
		Version string  `json:"vllm_version"`
		Compile *string `json:"compile_cache"`
		Tokens  float64 `json:"total_gpu_kv_cache_tokens"`
		Ranks   []struct {
			Weights  float64  `json:"model_weights_gb"`
			KV       float64  `json:"available_kv_cache_gb"`
			Act      float64  `json:"activations_gb"`
			Graphs   *float64 `json:"graph_capture_gb"`
			Estimate *float64 `json:"graph_estimate_gb"`
			Consumed *float64 `json:"consumed_gb"`
			Total    float64  `json:"total_gpu_memory_gb"`
			Free     float64  `json:"free_memory_gb"`
		} `json:"ranks"`
	} `json:"vllm_internal_metrics"`
	Beyond []struct {
		Unused float64 `json:"headroom_unused_bytes"`
		Excess float64 `json:"growth_excess_bytes"`
	} `json:"beyond_budget"`
	GPUs []struct {
		Name string `json:"name"`
	} `json:"gpu_info"`
}

// unpackRecording writes a recording of the runner's below a folder of the test:
// package recorded, which does the same, is to the right of this one.
func unpackRecording(t testing.TB, name string) string {
	t.Helper()
	f, err := os.Open("../../runner/recorded/testdata/" + name + ".tar.zst")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	dir := t.TempDir()
	for archive := tar.NewReader(z); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(dir, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(head.Name) != "run.json" {
			continue
		}
		path := filepath.Join(dir, filepath.Clean(head.Name))
		data, err := io.ReadAll(archive)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fitRuns reads the runs of an output folder that ended well, on one rank.
func fitRuns(t testing.TB, folder, configs string) []fitRun {
	t.Helper()
	files, _ := filepath.Glob(folder + "/runs/*/*/run.json")
	var out []fitRun
	for _, file := range files {
		var p runFile
		readJSON(t, file, &p)
		if p.Run.Outcome != "ok" || p.Run.Synthetic || len(p.VLLM.Ranks) != 1 || p.VLLM.Ranks[0].Consumed == nil {
			continue
		}
		name := filepath.Base(p.Model.Model)
		config, err := os.Open(filepath.Join(configs, name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := FromConfig(config, name)
		config.Close()
		if err != nil {
			t.Fatal(err)
		}
		q, k := p.Asked, p.VLLM.Ranks[0]
		r := fitRun{id: p.Run.RunID, model: name, arch: a, request: Request{
			Dtype: q.Dtype, KVCacheDtype: str(q.KVDtype), TensorParallelSize: q.TP, InputLen: q.Input, OutputLen: q.Output,
			BatchSize: q.Batch, MaxModelLen: q.Length, MaxNumSeqs: q.Seqs, MaxNumBatchedTokens: q.Tokens,
			GPUMemoryUtilization: q.Utilization, EnforceEager: q.Eager != nil && *q.Eager, Version: p.VLLM.Version,
			CompileCache: str(p.VLLM.Compile),
		}}
		r.gpu, _ = LookupGPU(p.GPUs[0].Name)
		scale := func(gb float64) float64 { return gb * float64(gib) }
		r.context, r.weights, r.consumed = scale(k.Total-k.Free), scale(k.Weights), scale(*k.Consumed)
		r.act, r.kv, r.tokens = scale(k.Act), scale(k.KV), p.VLLM.Tokens
		if k.Graphs != nil && k.Estimate != nil {
			r.graphs, r.estimate = scale(*k.Graphs), scale(*k.Estimate)
		}
		if len(p.Beyond) > 0 {
			r.growth = p.Beyond[0].Excess
			r.use = r.act - p.Beyond[0].Unused + r.growth
		}
		out = append(out, r)
	}
	return out
}

func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// equations collects linear equations of coefficients, for least squares.
type equations struct {
	cols int
	list []equation
}

// An equation is y = sum of x times coefficients, within error.
type equation struct {
	model     string
	y, within float64
	x         []float64
}

func (l *equations) add(r *fitRun, y, within float64, x ...float64) {
	l.cols = len(x)
	l.list = append(l.list, equation{r.model, y, within, x})
}

// solve returns the coefficients, those of a model left out.
func (l *equations) solve(t testing.TB, without string) []float64 {
	t.Helper()
	var a, y []float64
	for _, e := range l.list {
		if e.model == without {
			continue
		}
		y = append(y, e.y/e.within)
		for _, x := range e.x {
			a = append(a, x/e.within)
		}
	}
	var x mat.VecDense
	if err := x.SolveVec(mat.NewDense(len(y), l.cols, a), mat.NewVecDense(len(y), y)); err != nil {
		t.Fatalf("%d equations of %d coefficients, %s left out: %v", len(y), l.cols, without, err)
	}
	return x.RawVector().Data
}

// missed is by how much, in units of the equations' error, nine of ten of them
// are missed at most when their model is left out.
func (l *equations) missed(t testing.TB) float64 {
	t.Helper()
	var off []float64
	for _, e := range l.list {
		rest := e.y
		for i, c := range l.solve(t, e.model) {
			rest -= c * e.x[i]
		}
		off = append(off, math.Abs(rest/e.within))
	}
	slices.Sort(off)
	return off[len(off)-1-len(off)/10]
}

// fixed is a coefficient that follows from a formula's structure.
func fixed(n float64) Coefficient { return Coefficient{n, n, n} }

// inMiB is a coefficient in MiB that no run says anything of.
func inMiB(value, low, high float64) Coefficient {
	return Coefficient{value * float64(mib), low * float64(mib), high * float64(mib)}
}

// digits keeps so many significant digits: a fit has no more.
func digits(n float64, many int) float64 {
	if n == 0 {
		return 0
	}
	scale := math.Floor(math.Log10(math.Abs(n))) - float64(many-1)
	if scale > 0 {
		return math.Round(n/math.Pow(10, scale)) * math.Pow(10, scale)
	}
	return math.Round(n*math.Pow(10, -scale)) / math.Pow(10, -scale)
}

// around is a coefficient with what is off on either side.
func around(value, off float64) Coefficient {
	v, off := digits(value, 4), math.Abs(off)
	return Coefficient{v, digits(v-off, 4), digits(v+off, 4)}
}

const rounding = float64(gib) / 200 // of what vLLM prints

// A fitter fits the laws of one vLLM on one GPU to runs of one rank. Of runs that
// start alike all but growth has one.
type fitter struct {
	t    testing.TB
	all  []fitRun
	runs []fitRun
}

// starts are the runs that start in another way than each one before.
func starts(runs []fitRun) []fitRun {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(runs), func(r fitRun) bool {
		s, _ := r.shape()
		key := fmt.Sprint(r.model, s.tokens, s.seqs, s.maxLen, s.kvWidth, s.utilization, s.r.EnforceEager, s.r.CompileCache)
		defer func() { seen[key] = true }()
		return seen[key]
	})
}

// shape is a run's defaults and what follows from its shape.
func (r *fitRun) shape() (s setup, e Estimate) {
	s = newSetup(r.arch, r.request, r.gpu, mustRelease(r.request.Version), &e)
	s.limits(&e)
	return s, NewEstimate(r.arch, r.request, r.gpu)
}

func mustRelease(version string) Release {
	v, _ := ParseRelease(version)
	return v
}

func (s *setup) logits() float64 { return float64(s.seqs * s.a.VocabSize) }

// fitLaws is the file of laws for a set of runs. Which moment a run's peak is
// of follows from the laws, so that they are fitted a few times over, at first by
// the structure that the formulas have.
func fitLaws(t testing.TB, runs []fitRun) *LawFile {
	base := &LawFile{
		Schema: LawSchema, VLLM: runs[0].request.Version, From: "0.30.0", GPU: runs[0].gpu.Product, Arch: runs[0].gpu.Arch,
		Torch: "2.11.0", By: "vramsweep", Source: "runner/recorded, h200-v0.33, fitted by sweep/models/fit_test.go",
		Runs: len(runs), Ranks: 1,
	}
	for _, r := range runs {
		base.RunList = append(base.RunList, r.id)
	}
	head := Law{Form: "head_copy", Coefficients: map[string]Coefficient{"head": fixed(1), "hidden": fixed(1)},
		Elsewhere: Range{0.3, 1.2}, Runs: 2, Source: "Llama 8B at T 4,096 and S 64, and Gemma 2 9B, to the last digit"}
	seed := *base
	seed.Terms = map[string]Law{
		termHead: head, termActivations: withoutWorkspaces(),
		termSamplerV2: {Form: "logit_copies", Coefficients: map[string]Coefficient{"copies": fixed(3)}, Elsewhere: Range{1, 1}},
		termState: {Form: "in_projection", Elsewhere: Range{1, 1}, Coefficients: map[string]Coefficient{
			"hidden": fixed(2), "projection": fixed(3)}},
	}
	file := &seed
	for range 3 {
		f := fitter{t: t, all: slices.Clone(runs)}
		set := withLaws(t, file)
		for i := range f.all {
			f.all[i].request.Laws = set
		}
		f.runs = starts(f.all)
		next := *base
		next.Terms = map[string]Law{
			termContext: f.context(), termNonTorch: f.nonTorch(), termSamplerV2: f.sampler(), termGraphs: f.graphs(),
			termGraphEstimate: f.graphEstimate(), termGrowth: f.growth(), termHead: head,
		}
		if law, ok := f.state(); ok {
			next.Terms[termState] = law
		}
		next.Terms[termActivations] = f.activations(&next)
		file = &next
	}
	return file
}

// withoutWorkspaces is the activation law of 0.26 without what 0.33 does not have.
func withoutWorkspaces() Law {
	old, _ := builtinLaws().find(termActivations, rel26, GPU{Product: "NVIDIA H100 80GB HBM3"})
	law := *old.Law
	law.Coefficients = maps.Clone(old.Coefficients)
	for _, name := range []string{"cublas_workspaces", "latent_context", "four_norms"} {
		law.Coefficients[name] = fixed(0)
	}
	return law
}

func (f fitter) context() Law {
	var l equations
	for _, r := range f.runs {
		l.add(&r, r.context, 2*rounding, 1)
	}
	return Law{Form: "per_rank", Coefficients: map[string]Coefficient{
		"one_bytes":  around(l.solve(f.t, "")[0], 4*rounding), // total and free are printed to 0.1 GiB here
		"nccl_bytes": inMiB(990, 0, 2048), "peer_bytes": inMiB(10, 0, 20),
	}, Elsewhere: Range{0.5, 1.5}, Runs: len(f.runs),
		Source: "total less free memory at start; NCCL and peers, which no run had, as in 0.26, in a wide interval"}
}

func (f fitter) nonTorch() Law {
	var l equations
	for _, r := range f.runs {
		s, e := r.shape()
		if s.mxfp4() {
			continue
		}
		rest := r.consumed - r.weights - float64(*e.Buffers.Value) - float64(peak{setup: &s}.expertWorkspace())
		l.add(&r, rest, rounding, 1, s.logits())
	}
	c := l.solve(f.t, "")
	return Law{Form: "by_ranks", Coefficients: map[string]Coefficient{
		"one_bytes": around(c[0], 1.3*l.missed(f.t)*rounding), "per_logit_bytes": fixed(digits(c[1], 3)),
		"tensor_parallel_bytes": inMiB(200, 50, 2400), "pipeline_bytes": inMiB(70, 20, 360),
	}, Elsewhere: Range{0.2, 2.6}, Runs: len(l.list),
		Source: "consumed less weights, buffers and experts' workspace; with several ranks, which no run had, as in 0.19 and 0.26"}
}

// sampler fits the copies of the logits to runs whose peak is sampling: those
// of large vocabularies and small layers.
func (f fitter) sampler() Law {
	var l equations
	for _, r := range f.runs {
		s, e := r.shape()
		if e.ActivationsAt != "sampler" {
			continue
		}
		rest := r.act - float64((s.tokens+s.seqs)*s.a.HiddenSize*s.width+s.seqs*ceilDiv(s.a.VocabSize, 1024)*12)
		l.add(&r, rest, rounding, s.logits()*float64(s.width), 1)
	}
	c := l.solve(f.t, "")
	return Law{Form: "logit_copies", Coefficients: map[string]Coefficient{
		"copies": fixed(digits(c[0], 3)), "base_bytes": fixed(digits(c[1], 3)),
	}, Elsewhere: Range{0.3, 1.3}, Runs: len(l.list), Source: "least squares over the runs whose peak is sampling"}
}

// state fits what layers with a state have alive.
func (f fitter) state() (Law, bool) {
	var l equations
	for _, r := range f.runs {
		s, e := r.shape()
		if e.ActivationsAt != "state" {
			continue
		}
		rest := r.act - f.tuner(&s) + 0.5*s.logits() - float64(2*s.tokens*s.width*s.a.HiddenSize)
		l.add(&r, rest, rest, float64(s.tokens*s.width*s.a.stateProjection()))
	}
	if len(l.list) == 0 {
		return Law{}, false
	}
	return Law{Form: "in_projection", Coefficients: map[string]Coefficient{
		"hidden": fixed(2), "projection": fixed(digits(l.solve(f.t, "")[0], 3)), "spread": {0, 0, 0.3},
	}, Elsewhere: Range{0.4, 2}, Runs: len(l.list),
		Source: fmt.Sprintf("%d runs of models with Mamba 2 or delta net layers", len(l.list))}, true
}

// tuner is the buffer that triton clears, where kernels are tuned.
func (f fitter) tuner(s *setup) float64 {
	if s.r.EnforceEager || s.r.CompileCache == "warm" {
		return 0
	}
	return float64(peak{setup: s}.l2())
}

// activations fits what of the structure's formula runs of dense models do not
// have, and the hidden states of a layer with experts.
func (f fitter) activations(file *LawFile) Law {
	law := withoutWorkspaces()
	c := law.Coefficients
	var dense, experts equations
	for _, r := range f.runs {
		s, e := r.shape()
		p := peak{setup: &s, law: found{Law: &law}}
		switch e.ActivationsAt {
		case "forward":
			rest := r.act - f.tuner(&s) - float64(p.dense(s.a.IntermediateSize))
			dense.add(&r, rest, rounding, s.logits())
		case "experts":
			shared := float64(s.tokens * (3*s.a.MoE.SharedIntermediate*s.width + 4*s.a.MoE.Experts))
			rest := r.act - f.tuner(&s) + 0.5*s.logits() - shared
			experts.add(&r, rest, rounding, float64(s.tokens*s.a.HiddenSize*s.width))
		}
	}
	c["per_logit_bytes"] = fixed(digits(dense.solve(f.t, "")[0], 3))
	source := fmt.Sprintf("structure as in 0.26; S·V from %d runs of dense models", len(dense.list))
	c["experts_slack"] = fixed(0.6)
	if len(experts.list) > 0 {
		c["experts_hidden"], c["experts_slack"] = fixed(digits(experts.solve(f.t, "")[0], 3)), fixed(0.3)
		source += fmt.Sprintf(", hidden states of layers with experts from %d", len(experts.list))
	}
	law.Elsewhere, law.Runs, law.Source = Range{0.35, 2.6}, len(f.runs), source
	file.Terms[termActivations] = law
	c["spread"] = f.spread(file)
	return law
}

// spread is how far the runs lie from the law, and half of it more.
func (f fitter) spread(file *LawFile) Coefficient {
	set := withLaws(f.t, file)
	off := 0.02
	for _, r := range f.runs {
		r.request.Laws = set
		off = max(off, math.Abs(r.act/float64(*NewEstimate(r.arch, r.request, r.gpu).Activations.Value)-1))
	}
	return around(0, 1.5*off)
}

// graphs fits the pool: what it takes at all, each layer of each further graph,
// and FlashAttention's partial sums.
func (f fitter) graphs() Law {
	var l equations
	for _, r := range f.runs {
		if r.graphs > 0 {
			_, further, split := f.poolOf(&r)
			l.add(&r, r.graphs, r.graphs, 1, further, split)
		}
	}
	c, spread := l.solve(f.t, ""), around(0, max(0.3, 1.5*l.missed(f.t))) // a dozen models say no less
	layer := fixed(digits(c[1], 3))
	return Law{Form: "first_and_further", Coefficients: map[string]Coefficient{
		"first_piecewise_bytes": fixed(digits(c[0], 3)), "piecewise_layer_bytes": layer, "full_layer_bytes": layer,
		"splits": around(c[2], c[2]*spread.High), "splits_sinks": fixed(1), "first_spread": spread, "further_spread": spread,
	}, Elsewhere: Range{0.35, 2.7}, Attention: "FLASH_ATTN, FLASH_ATTN_MLA", Runs: len(l.list),
		Source: "least squares of the relative error over the captures; piecewise and full graphs are not told apart"}
}

// poolOf are the units of the pool's law.
func (f fitter) poolOf(r *fitRun) (c captured, further, split float64) {
	s, _ := r.shape()
	law := found{Law: &Law{Coefficients: map[string]Coefficient{"splits_sinks": fixed(1)}}}
	x := graphs{setup: &s, layers: s.a.NumLayers, law: law}
	c = x.captures()
	return c, float64(s.a.NumLayers * (c.piecewise - 1 + c.full - 1)), float64(x.splitBuffer(c.seqs))
}

func (f fitter) graphEstimate() Law {
	var l equations
	for _, r := range f.runs {
		if r.estimate > 0 {
			c, _, _ := f.poolOf(&r)
			s, _ := r.shape()
			x := graphs{setup: &s}
			l.add(&r, r.estimate, rounding, 1, float64(c.full*s.a.NumLayers*x.splitWidth()))
		}
	}
	c := l.solve(f.t, "")
	return Law{Form: "full_graphs_width", Coefficients: map[string]Coefficient{
		"base_bytes": around(c[0], 1.3*l.missed(f.t)*rounding), "width_bytes": fixed(digits(c[1], 3)),
	}, Elsewhere: Range{0.3, 2}, Runs: len(l.list), Source: "least squares over vLLM's own estimates"}
}

// growth fits what comes into use of the reserved activation and beyond it, by
// the prompt tokens of a batch.
func (f fitter) growth() Law {
	var l, states equations
	tokens := func(r *fitRun) float64 {
		s, _ := r.shape()
		return float64(min(r.request.InputLen*r.request.BatchSize, s.tokens))
	}
	for _, r := range f.all {
		if r.use > 0 && !r.arch.stateLayers() {
			l.add(&r, r.use, rounding, 1, tokens(&r))
		}
	}
	c := l.solve(f.t, "")
	out := Law{Form: "in_use", Coefficients: map[string]Coefficient{
		"base_bytes": around(c[0], 1.3*l.missed(f.t)*rounding), "token_bytes": fixed(digits(c[1], 3)),
	}, Elsewhere: Range{0, 1.3}, Runs: len(l.list),
		Source: "the driver's highest use beyond requested + context + graphs outside the budget + what was reserved"}
	most := 0.0
	for _, r := range f.all {
		if r.use > 0 && r.arch.stateLayers() {
			states.add(&r, r.use-c[0]-c[1]*tokens(&r), rounding, 1)
			most = max(most, r.use)
		}
	}
	if len(states.list) > 0 { // two kinds, far apart
		x := states.solve(f.t, "")[0]
		out.Coefficients["state_bytes"] = around(x, 1.3*(most-c[0]-x))
	}
	return out
}

// withLaws are the shipped laws of other versions and a file.
func withLaws(t testing.TB, files ...*LawFile) *Laws {
	t.Helper()
	var all [][]byte
	for _, f := range files {
		data, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	for _, f := range builtinLaws().files {
		if f.VLLM != files[0].VLLM {
			data, _ := json.Marshal(f)
			all = append(all, data)
		}
	}
	set, err := ParseLaws(all...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const recordedLaws = "laws/h200-v0.33.json"

// TestLawsAreFitted holds the shipped laws of 0.33 to the recording that they are
// of; with -update it writes them. `make laws` does.
func TestLawsAreFitted(t *testing.T) {
	folder := *output
	if folder == "" {
		folder = unpackRecording(t, "h200-v0.33")
	}
	data, err := json.MarshalIndent(fitLaws(t, fitRuns(t, folder, *configs)), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, '\n')
	if *update {
		if err := os.WriteFile(recordedLaws, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if *output != "" {
		t.Logf("%s", data)
		return
	}
	if have, err := os.ReadFile(recordedLaws); err != nil || string(have) != string(data) {
		t.Errorf("%s is not what the recording gives (%v): make laws", recordedLaws, err)
	}
}

// TestLawFiles: each shipped file is read, and is refused when something is wrong in it.
func TestLawFiles(t *testing.T) {
	set, err := shippedLaws()
	if err != nil || len(set.files) != 4 {
		t.Fatalf("%v, %v", set, err)
	}
	good, err := lawFiles.ReadFile("laws/h100-v0.26.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, says string }{
		{LawSchema, "other", `schema is "other"`},
		{`"0.26.0"`, `"newest"`, "vllm_version"},
		{`"form": "per_rank"`, `"form": "x"`, `no formula has the name "x"`},
		{`"one_bytes"`, `"two_bytes"`, `takes no "two_bytes"`},
		{`"elsewhere"`, `"there"`, "there"},
		{`"value": 12`, `"value": 13`, "low <= value <= high"},
	} {
		bad := strings.Replace(string(good), c.from, c.to, 1)
		if _, err := ParseLaws([]byte(bad)); !errors.Is(err, ErrLaws) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s for %s: %v", c.to, c.from, err)
		}
	}
}
