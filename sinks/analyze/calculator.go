package analyze

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Calculator predicts the memory of a run: bytes by component, summed over
// the run's GPUs. Components are those of CalculatorComponents; what it does not
// claim is not in the map. reason says why it claims nothing.
type Calculator struct {
	Name    string
	Says    string // what it computes
	Predict func(*sinks.RunRow) (parts map[string]float64, reason string)

	notes func() []string // asked after all predictions; may be nil
}

// A measuredPart is a component that a calculator can be right or wrong about.
type measuredPart struct {
	name, says string
	value      func(*sinks.RunRow) *float64
}

func parts() []measuredPart {
	column := func(name, says string, get func(*sinks.RunRow) *int64) measuredPart {
		return measuredPart{name, says, whole(get)}
	}
	return []measuredPart{
		column("weights", "model_weights_bytes", func(r *sinks.RunRow) *int64 { return r.ModelWeightsBytes }),
		column("kv_cache", "kv_cache_bytes: as reserved", func(r *sinks.RunRow) *int64 { return r.KVCacheBytes }),
		column("kv_cache_used", "kv_cache_used_bytes: what batch and lengths fill", func(r *sinks.RunRow) *int64 { return r.KVCacheUsedBytes }),
		column("activations", "activations_reserved_bytes", func(r *sinks.RunRow) *int64 { return r.ActivationsReservedBytes }),
		column("cuda_graphs", "cuda_graphs_bytes", func(r *sinks.RunRow) *int64 { return r.CUDAGraphsBytes }),
		column("non_torch", "non_torch_bytes", func(r *sinks.RunRow) *int64 { return r.NonTorchBytes }),
		column("context", "context_bytes", func(r *sinks.RunRow) *int64 { return r.ContextBytes }),
		column("buffers", "buffers_bytes", func(r *sinks.RunRow) *int64 { return r.BuffersBytes }),
		column("total", "net_increase_bytes: with the whole KV cache reserved", func(r *sinks.RunRow) *int64 { return r.NetIncreaseBytes }),
		{"needed", "net_increase_bytes - kv_cache_bytes + kv_cache_used_bytes: without the KV cache that vLLM reserves and the run leaves empty", needed},
	}
}

// CalculatorComponents are the names of what can be predicted, and the measured
// columns that they are held against.
func CalculatorComponents() map[string]string {
	out := map[string]string{}
	for _, p := range parts() {
		out[p.name] = p.says
	}
	return out
}

func needed(r *sinks.RunRow) *float64 {
	if r.NetIncreaseBytes == nil || r.KVCacheBytes == nil || r.KVCacheUsedBytes == nil {
		return nil
	}
	v := float64(*r.NetIncreaseBytes - *r.KVCacheBytes + *r.KVCacheUsedBytes)
	return &v
}

// BuiltinCalculators are the rules of thumb and the product's own arithmetic.
// find gives the architecture of a run; nil where it is not known.
func BuiltinCalculators(find func(*sinks.RunRow) *models.Architecture) []Calculator {
	return []Calculator{
		{Name: "params-x-bytes", Says: "parameters x bytes of the dtype, and nothing else", Predict: func(r *sinks.RunRow) (map[string]float64, string) {
			n, reason := plainWeights(r)
			return map[string]float64{"weights": n, "needed": n}, reason
		}},
		{Name: "params-x-bytes-x-1.2", Says: "parameters x bytes of the dtype, a fifth more for all else", Predict: func(r *sinks.RunRow) (map[string]float64, string) {
			n, reason := plainWeights(r)
			return map[string]float64{"needed": 1.2 * n}, reason
		}},
		{Name: "vramsweep", Says: "the arithmetic of `plan`", Predict: func(r *sinks.RunRow) (map[string]float64, string) { return arithmetic(r, find(r)) }},
	}
}

// plainWeights is the rule of thumb: 2 bytes a parameter, 4 for float32, 1 for
// 8-bit and half for 4-bit quantization; the parameters are on the GPUs once.
func plainWeights(r *sinks.RunRow) (bytes float64, reason string) {
	if r.Params == nil {
		return 0, "the parameters of the model are not known"
	}
	each := 2.0
	dtype := deref(r.EffectiveDtype)
	if dtype == "" {
		dtype = deref(r.Dtype)
	}
	if dtype == "float32" || dtype == "float" {
		each = 4
	}
	quantization := deref(r.EffectiveQuantization)
	if quantization == "" {
		quantization = deref(r.Quantization)
	}
	switch quantization {
	case "", "None", "none":
	case "awq", "awq_marlin", "gptq", "gptq_marlin", "mxfp4", "bitsandbytes":
		each = 0.5
	case "fp8", "compressed-tensors", "modelopt", "fbgemm_fp8", "quark":
		each = 1
	default:
		return 0, "bytes of a parameter under quantization " + quantization + " are not known"
	}
	return each * float64(*r.Params), ""
}

// arithmetic is what plan would have said.
func arithmetic(r *sinks.RunRow, a *models.Architecture) (map[string]float64, string) {
	if a == nil {
		return nil, "the catalogue does not know the architecture of " + r.Model
	}
	g, ok := models.LookupGPU(deref(r.GPUName))
	if !ok {
		return nil, fmt.Sprintf("the catalogue does not know the GPU %q", deref(r.GPUName))
	}
	request := requestOf(r)
	e := models.NewEstimate(a, request, g)
	if e.Reason != "" && e.Weights.Value == nil {
		return nil, e.Reason
	}
	ranks := float64(max(request.TensorParallelSize, 1) * max(request.PipelineParallelSize, 1))
	out := map[string]float64{}
	total, whole := 0.0, true
	for _, part := range []struct {
		name   string
		figure models.Figure
		inSum  bool
	}{{"weights", e.Weights, true}, {"activations", e.Activations, true}, {"cuda_graphs", e.CUDAGraphs, true}, {"non_torch", e.NonTorch, true},
		{"context", e.Context, true}, {"buffers", e.Buffers, true}, {"kv_cache", e.KVCache, false}} {
		if part.figure.Value == nil {
			whole = whole && !part.inSum
			continue
		}
		out[part.name] = float64(*part.figure.Value) * ranks
		if part.inSum {
			total += out[part.name]
		}
	}
	if e.KVUsed != nil {
		out["kv_cache_used"] = float64(*e.KVUsed) * ranks
	}
	if kv, ok := out["kv_cache"]; whole && ok {
		out["total"] = total + kv
	}
	if kv, ok := out["kv_cache_used"]; whole && ok {
		out["needed"] = total + kv
	}
	return out, ""
}

// requestOf asks the arithmetic what was asked of vLLM. What vLLM said that it
// used stands in for a dtype or token limit that was left to it.
func requestOf(r *sinks.RunRow) models.Request {
	q := models.Request{Dtype: deref(r.Dtype), KVCacheDtype: deref(r.KVCacheDtype), Quantization: deref(r.Quantization),
		TensorParallelSize: max(r.TensorParallelSize, 1), PipelineParallelSize: max(r.PipelineParallelSize, 1),
		InputLen: r.InputLen, OutputLen: r.OutputLen, BatchSize: r.BatchSize, MaxModelLen: r.MaxModelLen,
		MaxNumSeqs: r.MaxNumSeqs, MaxNumBatchedTokens: r.MaxNumBatchedTokens, GPUMemoryUtilization: r.GPUMemoryUtilization,
		KVCacheMemoryBytes: r.KVCacheMemoryBytes, BlockSize: r.BlockSize, Version: deref(r.VLLMVersion), ModelRunner: deref(r.ModelRunner)}
	if r.EnforceEager != nil {
		q.EnforceEager = *r.EnforceEager
	}
	if q.Dtype == "" {
		q.Dtype = deref(r.EffectiveDtype)
	}
	if q.MaxNumBatchedTokens == nil {
		q.MaxNumBatchedTokens = r.EffectiveMaxNumBatchedTokens
	}
	return q
}

// A Verdict is how calculators fared against measured runs.
type Verdict struct {
	Runs        int                 `json:"runs"`
	Failed      int                 `json:"failed_or_skipped"`
	Synthetic   bool                `json:"synthetic"`
	Calculators []CalculatorVerdict `json:"calculators"`
}

// A CalculatorVerdict is one calculator.
type CalculatorVerdict struct {
	Name       string             `json:"name"`
	Says       string             `json:"says,omitempty"`
	Components []ComponentVerdict `json:"components"`
	Unclaimed  []string           `json:"unclaimed,omitempty"` // why runs have no prediction
	Notes      []string           `json:"notes,omitempty"`
}

// A ComponentVerdict is the error of one component: predicted - measured.
type ComponentVerdict struct {
	Component string        `json:"component"`
	Measured  string        `json:"measured"` // the column it is held against
	N         int           `json:"n"`
	Bias      float64       `json:"mean_error"`     // of the measured, signed
	MeanAbs   float64       `json:"mean_abs_error"` // of the measured
	MeanBytes float64       `json:"mean_abs_error_bytes"`
	Worst     float64       `json:"worst"` // of the measured, signed
	WorstRun  string        `json:"worst_run"`
	By        []Group       `json:"by_model"` // signed error of each model
	Bends     []BendSetting `json:"bends"`    // settings that explain the error, the most telling first
}

// A BendSetting is a setting whose values have different errors.
type BendSetting struct {
	Setting string  `json:"setting"`
	Share   float64 `json:"share"` // of the error's variance that it explains (eta squared)
	Groups  []Group `json:"groups"`
}

// CheckCalculators holds calculators against the runs that ended well. It fails
// with ErrNoRuns and ErrMixed.
func CheckCalculators(rows []sinks.RunRow, calculators []Calculator) (*Verdict, error) {
	if err := sameKind(rows); err != nil {
		return nil, err
	}
	v := &Verdict{}
	var ok []*sinks.RunRow
	for i := range rows {
		v.Synthetic = v.Synthetic || rows[i].Synthetic
		if rows[i].Outcome == "ok" {
			ok = append(ok, &rows[i])
		} else {
			v.Failed++
		}
	}
	if v.Runs = len(ok); v.Runs == 0 {
		return nil, fmt.Errorf("check-calculator: %w ended well: %d failed or were skipped", ErrNoRuns, v.Failed)
	}
	f := newFrame(nil, nil)
	for _, r := range ok {
		f.add(r)
	}
	for _, c := range calculators {
		v.Calculators = append(v.Calculators, check(c, ok, f))
	}
	return v, nil
}

// check holds one calculator against runs.
func check(c Calculator, rows []*sinks.RunRow, f *frame) CalculatorVerdict {
	out := CalculatorVerdict{Name: c.Name, Says: c.Says}
	predicted := make([]map[string]float64, len(rows))
	reasons := map[string]int{}
	for i, r := range rows {
		var reason string
		predicted[i], reason = c.Predict(r)
		if reason != "" {
			predicted[i] = nil
			reasons[reason]++
		}
	}
	for _, reason := range sortedKeys(reasons) {
		out.Unclaimed = append(out.Unclaimed, fmt.Sprintf("%d runs: %s", reasons[reason], reason))
	}
	if c.notes != nil {
		out.Notes = c.notes()
	}
	for _, p := range parts() {
		var of []int
		errors := &series{quantity: quantity{name: "error"}, values: nans(len(rows))}
		verdict := ComponentVerdict{Component: p.name, Measured: p.says}
		for i, r := range rows {
			said, claimed := predicted[i][p.name]
			measured := p.value(r)
			if !claimed || measured == nil || *measured <= 0 {
				continue
			}
			off := (said - *measured) / *measured
			of, errors.values[i] = append(of, i), off
			verdict.MeanAbs += math.Abs(off)
			verdict.MeanBytes += math.Abs(said - *measured)
			if math.Abs(off) >= math.Abs(verdict.Worst) {
				verdict.Worst, verdict.WorstRun = off, r.RunID
			}
		}
		if len(of) == 0 {
			continue
		}
		verdict.finish(of, errors, f)
		out.Components = append(out.Components, verdict)
	}
	return out
}

// leastBend is the spread of relative errors below which asking for its cause
// is idle: vLLM's log rounds to 0.01 GiB.
const leastBend = 0.005

// finish averages the errors and says what explains them.
func (v *ComponentVerdict) finish(rows []int, off *series, f *frame) {
	errors := make([]float64, len(rows))
	for i, at := range rows {
		errors[i] = off.values[at]
	}
	n := float64(len(errors))
	v.N, v.Bias, v.MeanAbs, v.MeanBytes = len(errors), stat.Mean(errors, nil), v.MeanAbs/n, v.MeanBytes/n
	bends := len(errors) >= 4 && stat.StdDev(errors, nil) >= leastBend // else it is the same everywhere
	for _, s := range f.settings {
		switch s.Name {
		case "model":
			v.By = groupBy(rows, s, nil, off).Groups
		case "execution", "host", "sweep", "params":
			continue
		}
		if !bends {
			continue
		}
		g := groupBy(rows, s, func(word string) string { return orLeft(s.Name, word) }, off)
		// As many values as runs explain all and tell nothing.
		if g.Eta2 == nil || len(g.Groups) > len(errors)/2 || *g.Eta2 < 0.1 {
			continue
		}
		v.Bends = append(v.Bends, BendSetting{Setting: s.Name, Share: *g.Eta2, Groups: g.Groups})
	}
	slices.SortStableFunc(v.Bends, func(a, b BendSetting) int {
		switch {
		case a.Share > b.Share:
			return -1
		case a.Share < b.Share:
			return 1
		}
		return 0
	})
	v.Bends = v.Bends[:min(len(v.Bends), 3)]
}

// orLeft says what a missing value means.
func orLeft(name, text string) string {
	switch {
	case text != "":
		return text
	case slices.Contains(settingNames(), name):
		return "left to vLLM"
	}
	return "none"
}
