package overhead

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/runner/replay"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

var update = flag.Bool("update", false, "write golden files")

// catalogueFind finds architectures as the program does, by name alone; named
// gives folders of models their names in the catalogue.
func catalogueFind(t testing.TB) func(*sinks.RunRow) *models.Architecture {
	t.Helper()
	c, err := models.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{"llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct", "llama-3.2-1b": "meta-llama/Llama-3.2-1B", "gemma-3-1b": "google/gemma-3-1b-it",
		"mistral-7b-v0.3": "mistralai/Mistral-7B-v0.3", "qwen3-0.6b": "Qwen/Qwen3-0.6B", "qwen3-4b": "Qwen/Qwen3-4B", "qwen3-8b": "Qwen/Qwen3-8B",
		"qwen3-32b": "Qwen/Qwen3-32B", "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B", "opt-1.3b": "facebook/opt-1.3b", "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
		"phi-4": "microsoft/phi-4"}
	return func(r *sinks.RunRow) *models.Architecture {
		if a, ok := c.Lookup(r.Model); ok {
			return a
		}
		a, _ := c.Lookup(named[filepath.Base(r.Model)])
		return a
	}
}

// fromFolders reads the folders that docs/measured/h100x2-vllm-0.26 reports on.
func fromFolders(t testing.TB, names ...string) Input {
	t.Helper()
	in := Input{Find: catalogueFind(t)}
	var dirs []string
	measured := recorded.Folder(t, "h100x2-v0.26")
	for _, name := range names {
		dirs = append(dirs, filepath.Join(measured, name))
	}
	all(t, &in.Runs, dirs)
	all(t, &in.Ranks, dirs)
	all(t, &in.Steps, dirs)
	return in
}

func all[T sinks.Row](t testing.TB, rows *[]T, dirs []string) {
	t.Helper()
	for row, err := range sinks.Read[T](sinks.Predicate{}, dirs...) {
		if err != nil {
			t.Fatal(err)
		}
		*rows = append(*rows, row)
	}
}

func built(t testing.TB, in Input) *Database {
	t.Helper()
	db, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func written(t testing.TB, db *Database) string {
	t.Helper()
	var out bytes.Buffer
	if err := db.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./sinks/analyze/overhead -run Entry -update writes it", err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got\n%s", path, got)
	}
}

// asked is a profile that no run of docs/measured is of.
func asked(t testing.TB, model, gpu, version string) Query {
	t.Helper()
	c, err := models.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	a, ok := c.Lookup(model)
	if !ok {
		t.Fatalf("the catalogue lacks %s", model)
	}
	g, _ := models.LookupGPU(gpu)
	length := int64(8192)
	q := Query{Architecture: a, Shape: ShapeOf(a), Device: g, Request: models.Request{Version: version, InputLen: 512, BatchSize: 8, MaxModelLen: &length, TensorParallelSize: 1}}
	q.Key = Key{Model: a.ID, Family: a.Family, Dtype: a.NativeDtype, Quantization: "none", TP: 1, PP: 1, GPU: g.Product, VLLM: version, Runner: "v2", Compile: "cold"}
	return q
}

// TestOverheadGolden: what is built of two of our own campaigns, what it is
// worth, and what it says of a model that it lacks.
func TestOverheadGolden(t *testing.T) {
	db := built(t, fromFolders(t, "tp1-llama-3.1-8b", "tp1-qwen3-4b", "tensor-parallel"))
	var out strings.Builder
	p := db.Predict(asked(t, "Qwen/Qwen3-14B", "h100-80gb", "0.26.0"))
	q := asked(t, "Qwen/Qwen3-14B", "h100-80gb", "0.26.0")
	q.TP, q.Request.TensorParallelSize = 2, 2
	split := db.Predict(q)
	v := db.Validate()
	if err := errors.Join(db.Text(&out), v.Text(&out), v.Outliers(&out, 3, 0.05), p.Text(&out), split.Text(&out)); err != nil {
		t.Fatal(err)
	}
	golden(t, "overheads.txt", out.String())
	golden(t, "overheads.json", written(t, db))
}

// TestOverheadMergeDiff: databases of two machines, joined, are the database of
// both; what differs is told, and whether it is more than noise.
func TestOverheadMergeDiff(t *testing.T) {
	whole := built(t, fromFolders(t, "tp1-llama-3.1-8b", "tp1-qwen3-4b"))
	a, b := built(t, fromFolders(t, "tp1-llama-3.1-8b")), built(t, fromFolders(t, "tp1-qwen3-4b"))
	back, err := Read(strings.NewReader(written(t, a)))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(back.Merge(b), back.Merge(a)); err != nil { // a again: its runs count once
		t.Fatal(err)
	}
	back.Skipped, whole.Skipped = nil, nil
	if written(t, back) != written(t, whole) {
		t.Error("merged, it is another database than built of all")
	}
	for i := range b.Runs { // the same model by another name, which is merged into one
		b.Runs[i].RunID += "-again"
	}
	renamed, _ := Read(strings.NewReader(strings.ReplaceAll(written(t, b), `"Qwen/Qwen3-4B"`, `"mine/Qwen3-4B"`)))
	if err := renamed.Merge(a); err != nil || renamed.Merge(b) != nil || len(renamed.Models) != 2 {
		t.Errorf("one architecture by two names: %d models (%v)", len(renamed.Models), err)
	}
	d, err := whole.Diff(back)
	if err != nil || len(d.Entries) != 0 || d.Same != len(whole.Entries) || d.Moved() {
		t.Errorf("equal databases differ: %+v (%v)", d, err)
	}
	d, err = a.Diff(whole)
	if err != nil || d.Moved() || len(d.Entries) != len(b.Entries) {
		t.Errorf("what came: %d entries, want the %d of the other database (%v)", len(d.Entries), len(b.Entries), err)
	}
	for i := range back.Runs {
		if n := back.Runs[i].Figures["activations_reserved"]; back.Runs[i].Compile == "eager" {
			back.Runs[i].Figures["activations_reserved"] = n + 300*frame.MiB
		} else {
			back.Runs[i].Figures["activations_reserved"] = n + 2*frame.MiB
		}
	}
	back.settle()
	if d, err = whole.Diff(back); err != nil {
		t.Fatal(err)
	}
	what := map[string]int{}
	for _, c := range d.Entries {
		what[c.What+" "+c.Compile]++
	}
	if !d.Moved() || what["moved eager"] != 2 || what["moved cold"] != 0 || what["runs cold"] != 2 {
		t.Errorf("300 MiB more in eager runs, 2 MiB in others: %v", what)
	}
	var out strings.Builder
	if err := d.Text(&out); err != nil || !strings.Contains(out.String(), "+300 MiB") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func partOf(t *testing.T, p Prediction, component string) Part {
	t.Helper()
	i := slices.IndexFunc(p.Parts, func(part Part) bool { return part.Component == component })
	if i < 0 {
		t.Fatalf("no %s in %+v", component, p.Parts)
	}
	return p.Parts[i]
}

// TestOverheadUnmeasured: a GPU, a version or a number of ranks that the
// database lacks is never answered as if it were there.
func TestOverheadUnmeasured(t *testing.T) {
	db := built(t, fromFolders(t, "tp1-llama-3.1-8b", "tp1-qwen3-4b"))
	there := db.Predict(asked(t, "Qwen/Qwen3-14B", "h100-80gb", "0.26.0"))
	other := db.Predict(asked(t, "Qwen/Qwen3-14B", "h100-80gb", "0.31.0"))
	for _, component := range []string{"activations_reserved", "cuda_graphs", "non_torch", "context", "buffers"} {
		a, b := partOf(t, there, component), partOf(t, other, component)
		if a.Bytes == nil || a.Runs == 0 || strings.Contains(a.Basis, "version") && !strings.Contains(a.Basis, "this") && strings.Contains(a.Basis, "another") {
			t.Errorf("%s of the version that is there: %+v", component, a)
		}
		if b.Reason == "" || !strings.Contains(b.Basis, "another version (vLLM 0.26.0)") {
			t.Errorf("%s of a version that is not there says nothing of it: %+v", component, b)
		}
		if b.Low == nil || *b.Low > *a.Low || *b.High < *a.High {
			t.Errorf("%s of another version is surer than of the one that was measured: %v..%v, %v..%v", component, *a.Low, *a.High, b.Low, b.High)
		}
	}
	if b := partOf(t, other, "in_use"); b.Bytes == nil || b.Low != nil || b.Reason == "" || other.Highest.Low != nil || other.Highest.Reason == "" {
		t.Errorf("nothing bounds what another version has in use, yet: %+v, highest %+v", b, other.Highest)
	}
	away := db.Predict(asked(t, "Qwen/Qwen3-14B", "a100-80gb", "0.26.0"))
	for _, part := range away.Parts {
		if part.Bytes != nil || part.Reason == "" || part.Component != "graph_estimate" && part.Component != "weights" && !strings.Contains(part.Reason, "H100") {
			t.Errorf("on a GPU that no run is of: %+v", part)
		}
	}
	if away.Highest.Value != nil || away.Highest.Reason == "" || away.Estimate.Activations.Value == nil || strings.Contains(away.Estimate.Activations.Source, "overheads") {
		t.Errorf("the arithmetic stands, the highest use is not known: %+v %+v", away.Highest, away.Estimate.Activations)
	}
	eager := asked(t, "Qwen/Qwen3-14B", "h100-80gb", "0.26.0")
	eager.Compile, eager.Request.EnforceEager = "eager", true
	if p := partOf(t, db.Predict(eager), "cuda_graphs"); p.Bytes == nil || *p.Bytes != 0 || p.Runs != 0 {
		t.Errorf("an engine that captures no graphs: %+v", p)
	}
	four := asked(t, "Qwen/Qwen3-14B", "h100-80gb", "0.26.0")
	four.TP, four.Request.TensorParallelSize = 4, 4
	p := db.Predict(four)
	if c := partOf(t, p, "context"); c.Bytes != nil || !strings.Contains(c.Reason, "TP 4") {
		t.Errorf("the context of four ranks was not measured: %+v", c)
	}
	if c := partOf(t, p, "activations_reserved"); c.Bytes == nil || !strings.Contains(c.Basis, "number of ranks") || c.Reason == "" {
		t.Errorf("activations of four ranks follow the law, and say so: %+v", c)
	}
}

// TestOverheadOwn: a model of the database is told by its own runs, whatever it
// is called.
func TestOverheadOwn(t *testing.T) {
	db := built(t, fromFolders(t, "tp1-llama-3.1-8b", "tp1-qwen3-4b"))
	q := asked(t, "meta-llama/Llama-3.1-8B-Instruct", "h100-80gb", "0.26.0")
	q.Model = "models/my-finetune" // of the same shape
	p := db.Predict(q)
	act := partOf(t, p, "activations_reserved")
	if !strings.HasPrefix(act.Basis, "this model") || act.Runs != 3 || math.Abs(*act.Bytes-1.77*frame.GiB) > rounding {
		t.Errorf("activations %+v, want 1.77 GiB, cold, of its own runs", act)
	}
	if kv := p.Estimate.KVCache.Value; kv == nil || math.Abs(float64(*kv)-55.85*frame.GiB) > 0.02*frame.GiB {
		t.Errorf("KV cache %v, measured 55.85 GiB", kv)
	}
	const measuredHighest = int64(7397 * frame.GiB / 100)
	if h := p.Highest; h.Value == nil || *h.Low > measuredHighest || *h.High < measuredHighest {
		t.Errorf("highest use %+v, measured 73.97 GiB", h)
	}
}

// TestOverheadOverrun: a budget that fits and a highest use that does not.
func TestOverheadOverrun(t *testing.T) {
	db := built(t, fromFolders(t, "tp1-llama-3.1-8b", "tp1-qwen3-4b"))
	for utilization, want := range map[float64]string{0.5: "", 0.92: "may be more", 0.96: "will be more"} {
		q := asked(t, "Qwen/Qwen3-14B", "h100-80gb", "0.26.0")
		q.Request.GPUMemoryUtilization, q.Request.BatchSize = &utilization, 64
		p := db.Predict(q)
		got := strings.Join(p.Estimate.Warnings, "; ")
		if p.Highest.Value == nil || (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("utilization %g: highest %v..%v, %q, want %q", utilization, *p.Highest.Low, *p.Highest.High, got, want)
		}
	}
}

// stateful are runs of a model whose layers the arithmetic cannot tell.
func stateful(n int) Input {
	var in Input
	gpu, version, v2, warm := "H100", "0.26.0", "v2", "warm"
	hidden, layers, tokens := int64(4096), int64(32), int64(8192)
	for i := range n {
		key := sinks.Key{RunID: fmt.Sprintf("s-%d", i), Execution: "e", Model: "state"}
		activations := 28*tokens*hidden + int64(i)*frame.MiB
		in.Runs = append(in.Runs, sinks.RunRow{Key: key, Outcome: "ok", GPUName: &gpu, VLLMVersion: &version, ModelRunner: &v2, CompileCache: &warm,
			HiddenSize: &hidden, NumLayers: &layers, Effective: runner.Effective{EffectiveMaxNumBatchedTokens: &tokens}})
		in.Ranks = append(in.Ranks, sinks.RankRow{Key: key, RankRow: runner.RankRow{ActivationsReservedBytes: &activations}})
	}
	return in
}

// TestOverheadWithoutArchitecture: where the arithmetic knows nothing, a model's
// own runs scale with what they are known to grow with.
func TestOverheadWithoutArchitecture(t *testing.T) {
	db := built(t, stateful(4))
	q := Query{Key: Key{Model: "state", GPU: "H100", VLLM: "0.26.0", Compile: "warm"}, Shape: Shape{Layers: 32, HiddenSize: 4096}}
	tokens := int64(16384)
	q.Request.MaxNumBatchedTokens = &tokens
	act := partOf(t, db.Predict(q), "activations_reserved")
	if act.Bytes == nil || math.Abs(*act.Bytes/(28*16384*4096)-1) > 0.01 || act.Law != lawWidth || act.Low == nil {
		t.Errorf("twice the tokens: %+v", act)
	}
	if e := db.Entries[0]; e.Low == nil || *e.Low > e.Coefficient || e.Runs != 4 || e.Observed[0].Residual >= 0 {
		t.Errorf("entry %+v", e)
	}
}

func TestOverheadRefusals(t *testing.T) {
	in := stateful(2)
	in.Runs[0].Outcome = "oom"
	in.Runs[1].GPUName = nil
	if _, err := Build(in); !errors.Is(err, frame.ErrNoRuns) || !strings.Contains(err.Error(), "gpu_name") || !strings.Contains(err.Error(), "oom") {
		t.Errorf("nothing to build on: %v", err)
	}
	in.GPU = "h100-80gb"
	if db, err := Build(in); err != nil || db.Runs[0].GPU != "NVIDIA H100 80GB HBM3" {
		t.Errorf("a run whose GPU the caller names: %v", err)
	}
	run := `"run_id":"a","model":"m","gpu":"g","vllm_version":"1","bytes":{"context":5}`
	for text, says := range map[string]string{
		"": "EOF", "{}": "version 0", `{"version":1,"entries":[]}`: "build it again", `{"version":2}`: "no runs",
		`{"version":2,"runs":[{}]}`:                                                   "run 1",
		`{"version":2,"runs":[{` + run + `,"max_num_batched_tokens":-1}]}`:            "max_num_batched_tokens",
		`{"version":2,"runs":[{` + run + `,"gpu_memory_utilization":7}]}`:             "gpu_memory_utilization",
		`{"version":2,"runs":[{` + run + `}],"models":[{"id":"a","hidden_size":-4}]}`: "",
		`{"version":2,"runs":[{` + run + `}],"models":7}`:                             "architectures",
	} {
		_, err := Read(strings.NewReader(text))
		if says == "" {
			continue // only: no panic
		}
		if !errors.Is(err, ErrDatabase) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want ErrDatabase with %q", text, err, says)
		}
	}
	db := built(t, stateful(2))
	if v := db.Validate(); v.Reason == "" {
		t.Error("one model cannot be validated, yet no reason is given")
	}
	if err := db.Merge(&Database{Version: Version, Synthetic: true}); !errors.Is(err, frame.ErrMixed) {
		t.Errorf("synthetic into measured: %v", err)
	}
	if _, err := db.Diff(&Database{Synthetic: true}); !errors.Is(err, frame.ErrMixed) {
		t.Errorf("synthetic against measured: %v", err)
	}
}

// TestOverheadBars holds the database of both corpora and of docs/measured to
// the errors that docs/measured/overheads states for models that it has not
// seen. The fourth bar keeps none of the arithmetic's constants.
func TestOverheadBars(t *testing.T) {
	t.Parallel()
	in := fromFolders(t, "tp1-llama-3.1-8b", "tp1-qwen3-4b", "tensor-parallel", "graphs", "session-as-latency")
	in.GPU = "h100-80gb"
	corpus := "../../../../shared/corpus/"
	logs, _ := filepath.Glob(corpus + "h100-v0.19/*.log")
	if len(logs) == 0 {
		testenv.Skip(t, "no %sh100-v0.19: others' logs are kept outside of the repository", corpus)
	}
	take := func(r *runner.Result) {
		rows := sinks.RowsOf(r)
		in.Runs, in.Ranks, in.Steps = append(in.Runs, rows.Run), append(in.Ranks, rows.Ranks...), append(in.Steps, rows.Steps...)
	}
	store, err := sinks.View(recorded.Folder(t, "h100-v0.26"), sinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c, err := models.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for dir, r := range store.Results(sinks.Predicate{}) {
		measured, err := store.Measured(dir, r, c)
		if err != nil {
			t.Fatal(err)
		}
		(&attribution.Attributor{}).Attribute(r, measured)
		take(r)
	}
	for _, name := range logs {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		log, err := vllmlog.ReadLogs(vllmlog.NamedReader{Name: "stdout", R: f})
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if r, err := replay.LoadLog([]string{name}, log); err == nil { // the logs of failed runs name no model
			take(r.Attribute(&attribution.Attributor{}))
		}
	}
	v := built(t, in).Validate()
	if v.Models < 19 {
		t.Errorf("%d models, want 19", v.Models)
	}
	for _, bar := range []struct {
		component string
		percent   float64
		runs      int
	}{{"weights", 0.3, 60}, {"kv_cache", 1, 60}, {"activations_reserved", 8, 60}, {"highest", 1.5, 35}, {refitted, 8, 40}} {
		i := slices.IndexFunc(v.Components, func(c ComponentError) bool { return c.Component == bar.component })
		if i < 0 {
			t.Errorf("no run with %s", bar.component)
			continue
		}
		c := v.Components[i]
		t.Logf("%s: %.2f %% over %d runs, %.2f %% with one vote a model", c.Component, 100**c.Relative, c.N, 100**c.ByModel)
		if 100**c.Relative > bar.percent || 100**c.ByModel > bar.percent || c.N < bar.runs {
			t.Errorf("%s: %.2f %% of %d runs, %.2f %% with one vote a model; at most %g %% of at least %d", c.Component, 100**c.Relative, c.N, 100**c.ByModel, bar.percent, bar.runs)
		}
		if c.Intervals > 0 && *c.Covered < 0.9 {
			t.Errorf("%s: %.0f %% of the intervals hold, at least 90 are meant to", c.Component, 100**c.Covered)
		}
	}
	for _, r := range v.Runs {
		if r.Predicted != nil && r.Component != refitted && strings.HasPrefix(r.Basis, "this model") {
			t.Errorf("%s of %s was predicted from its own runs: %s", r.Component, r.RunID, r.Basis)
		}
	}
}

// TestOutcomeOfLogs: a log alone is in, a failed benchmark is not.
func TestOutcomeOfLogs(t *testing.T) {
	for _, c := range []struct {
		row  sinks.RunRow
		says string
	}{
		{sinks.RunRow{Outcome: string(runner.OutcomeOK)}, ""},
		{sinks.RunRow{Outcome: string(runner.OutcomeNoResult), Engine: "import"}, ""},
		{sinks.RunRow{Outcome: string(runner.OutcomeNoResult), Engine: "vllm"}, "ended as no_result"},
		{sinks.RunRow{Outcome: string(runner.OutcomeOK), EngineMode: "session"}, "session"},
	} {
		if got := leftOut(&c.row); (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%+v: %q, want %q", c.row.Outcome, got, c.says)
		}
	}
}

func FuzzReadOverheads(f *testing.F) {
	text, err := os.ReadFile("testdata/overheads.json")
	if err != nil {
		f.Fatal(err)
	}
	small := stateful(2)
	db, err := Build(small)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(written(f, db))
	f.Add(string(text[:min(len(text), 1<<12)]))
	f.Add(`{"version":2,"runs":[{"run_id":"a","model":"m","gpu":"h100","vllm_version":"0.26.0","tensor_parallel_size":2,"max_num_batched_tokens":4,"bytes":{"context":5,"in_use":7,"activations_reserved":9}}],"models":[{"id":"m","layout":"decoder","num_layers":2,"hidden_size":8,"num_heads":2,"num_kv_heads":1,"head_dim":4,"vocab_size":16,"intermediate_size":8,"native_dtype":"bfloat16"}]}`)
	c, err := models.Builtin()
	if err != nil {
		f.Fatal(err)
	}
	a, _ := c.Lookup("Qwen/Qwen3-14B")
	g, _ := models.LookupGPU("h100-80gb")
	f.Fuzz(func(t *testing.T, text string) {
		db, err := Read(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrDatabase) {
				t.Fatalf("%v is no ErrDatabase", err)
			}
			return
		}
		var out bytes.Buffer
		if err := db.Write(&out); err != nil {
			t.Fatal(err)
		}
		back, err := Read(bytes.NewReader(out.Bytes()))
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		var again bytes.Buffer
		if err := back.Write(&again); err != nil || again.String() != out.String() {
			t.Fatalf("written again it differs (%v)", err)
		}
		db.Predict(Query{Key: Key{Model: "m", TP: 1, GPU: "h100"}, Architecture: a, Shape: ShapeOf(a), Device: g})
		if len(db.Runs) < 4 {
			db.Validate()
		}
	})
}

// TestOverheadMeasured: the database in docs/measured is what its runs give, and
// its page shows what it is worth.
func TestOverheadMeasured(t *testing.T) {
	const file, page = "../../../docs/measured/overheads/overheads.json", "../../../docs/measured/overheads/README.md"
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	db, err := Read(bytes.NewReader(have))
	if err != nil {
		t.Fatal(err)
	}
	text := written(t, db)
	var worth strings.Builder
	v := db.Validate()
	if err := errors.Join(v.Text(&worth), v.ByModel(&worth)); err != nil {
		t.Fatal(err)
	}
	says, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(says), "-update -->\n```text\n")
	_, tail, closed := strings.Cut(rest, "```\n")
	if !ok || !closed {
		t.Fatalf("%s has no place for the validation", page)
	}
	fresh := head + "-update -->\n```text\n" + worth.String() + "```\n" + tail
	if *update {
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o644), os.WriteFile(page, []byte(fresh), 0o644)); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(have) != text {
		t.Errorf("%s is not what its runs give today; -update writes it", file)
	}
	if string(says) != fresh {
		t.Errorf("%s shows another validation than its database has; -update writes it", page)
	}
}

// BenchmarkOverheadPredict asks for profiles that differ in batch alone, as a
// plan does, from the database in docs/measured.
func BenchmarkOverheadPredict(b *testing.B) {
	text, err := os.ReadFile("../../../docs/measured/overheads/overheads.json")
	if err != nil {
		b.Fatal(err)
	}
	db, err := Read(bytes.NewReader(text))
	if err != nil {
		b.Fatal(err)
	}
	q := asked(b, "Qwen/Qwen3-14B", "h100-80gb", "0.26.0")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		q.Request.BatchSize = int64(i%512 + 1)
		db.Predict(q)
	}
}
