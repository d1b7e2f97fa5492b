// Package calculator holds memory calculators against measured runs: rules of
// thumb, the product's own arithmetic, files of predictions, and programs.
package calculator

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Predictor predicts the memory of a run: bytes by component, summed over the
// run's GPUs. Components are those of Components; what it does not claim is not
// in the map. reason says why it claims nothing.
type Predictor struct {
	Name    string
	Says    string // what it computes
	Predict func(*sinks.RunRow) (parts map[string]float64, reason string)

	notes func() []string           // asked after all predictions; may be nil
	clash func(*sinks.RunRow) error // two predictions of one run; may be nil
}

// A component is something that a calculator can be right or wrong about, and
// the measurement that it is held against.
type component struct {
	name, column string
	says         string // more on the measurement
}

func components() []component {
	return []component{
		{"weights", "model_weights_bytes", ""},
		{"kv_cache", "kv_cache_bytes", ": as reserved"},
		{"kv_cache_used", "kv_cache_used_bytes", ": what batch and lengths fill"},
		{"activations", "activations_reserved_bytes", ""},
		{"cuda_graphs", "cuda_graphs_bytes", ""},
		{"non_torch", "non_torch_bytes", ""},
		{"context", "context_bytes", ""},
		{"buffers", "buffers_bytes", ""},
		{"total", "net_increase_bytes", ": with the whole KV cache reserved"},
		{needed, "net_increase_bytes", " - kv_cache_bytes + kv_cache_used_bytes: " +
			"without the KV cache that vLLM reserves and the run leaves empty"},
	}
}

const needed = "needed"

// measured are the components of runs; nil where one was not measured.
func measured(rows []*sinks.RunRow) map[string][]*float64 {
	out := map[string][]*float64{}
	for _, c := range components() {
		number := frame.Of(c.column)[0].Number
		for _, r := range rows {
			v := number(r)
			switch {
			case c.name != needed || v == nil:
			case r.KVCacheBytes == nil || r.KVCacheUsedBytes == nil:
				v = nil
			default:
				*v += float64(*r.KVCacheUsedBytes - *r.KVCacheBytes)
			}
			out[c.name] = append(out[c.name], v)
		}
	}
	return out
}

// Components are the names of what can be predicted, sorted.
func Components() []string {
	var names []string
	for _, c := range components() {
		names = append(names, c.name)
	}
	slices.Sort(names)
	return names
}

// Builtin are the rules of thumb and the product's own arithmetic. find gives the
// architecture of a run; nil where it is not known.
func Builtin(find func(*sinks.RunRow) *models.Architecture) []Predictor {
	return []Predictor{
		{Name: "params-x-bytes", Says: "parameters x bytes of the dtype, and nothing else",
			Predict: func(r *sinks.RunRow) (map[string]float64, string) {
				n, reason := plainWeights(r)
				return map[string]float64{"weights": n, needed: n}, reason
			}},
		{Name: "params-x-bytes-x-1.2", Says: "parameters x bytes of the dtype, a fifth more for all else",
			Predict: func(r *sinks.RunRow) (map[string]float64, string) {
				n, reason := plainWeights(r)
				return map[string]float64{needed: 1.2 * n}, reason
			}},
		{Name: "vramsweep", Says: "the arithmetic of `plan`",
			Predict: func(r *sinks.RunRow) (map[string]float64, string) { return arithmetic(r, find(r)) }},
	}
}

// plainWeights is the rule of thumb: 2 bytes a parameter, 4 for float32, 1 for
// 8-bit and half for 4-bit quantization; the parameters are on the GPUs once.
func plainWeights(r *sinks.RunRow) (bytes float64, reason string) {
	if r.Params == nil {
		return 0, "the parameters of the model are not known"
	}
	each := 2.0
	if dtype := frame.Dtype(r); dtype == "float32" || dtype == "float" {
		each = 4
	}
	switch quantization := frame.Quantization(r); quantization {
	case "none":
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
	g, ok := models.LookupGPU(frame.Deref(r.GPUName))
	if !ok {
		return nil, fmt.Sprintf("the catalogue does not know the GPU %q", frame.Deref(r.GPUName))
	}
	request := requestOf(r)
	e := models.NewEstimate(a, request, g)
	if e.Reason != "" && e.Weights.Value == nil {
		return nil, e.Reason
	}
	ranks := float64(request.TensorParallelSize * request.PipelineParallelSize)
	out := map[string]float64{}
	total, whole := 0.0, true
	for _, part := range []struct {
		name   string
		figure models.Figure
	}{{"weights", e.Weights}, {"activations", e.Activations}, {"cuda_graphs", e.CUDAGraphs}, {"non_torch", e.NonTorch},
		{"context", e.Context}, {"buffers", e.Buffers}} {
		if part.figure.Value == nil {
			whole = false
			continue
		}
		out[part.name] = float64(*part.figure.Value) * ranks
		total += out[part.name]
	}
	if e.KVCache.Value != nil {
		out["kv_cache"] = float64(*e.KVCache.Value) * ranks
	}
	if e.KVUsed != nil {
		out["kv_cache_used"] = float64(*e.KVUsed) * ranks
	}
	if kv, ok := out["kv_cache"]; whole && ok {
		out["total"] = total + kv
	}
	if kv, ok := out["kv_cache_used"]; whole && ok {
		out[needed] = total + kv
	}
	return out, ""
}

// requestOf asks the arithmetic what was asked of vLLM. What vLLM said that it
// used stands in for a dtype or token limit that was left to it.
func requestOf(r *sinks.RunRow) models.Request {
	return models.Request{
		Dtype:        cmp.Or(frame.Deref(r.Dtype), frame.Deref(r.EffectiveDtype)),
		KVCacheDtype: frame.Deref(r.KVCacheDtype), Quantization: frame.Deref(r.Quantization),
		TensorParallelSize:   max(r.TensorParallelSize, 1),
		PipelineParallelSize: max(r.PipelineParallelSize, 1),
		InputLen:             r.InputLen, OutputLen: r.OutputLen,
		BatchSize:   r.BatchSize,
		MaxModelLen: r.MaxModelLen, MaxNumSeqs: r.MaxNumSeqs,
		MaxNumBatchedTokens:  cmp.Or(r.MaxNumBatchedTokens, r.EffectiveMaxNumBatchedTokens),
		GPUMemoryUtilization: r.GPUMemoryUtilization, KVCacheMemoryBytes: r.KVCacheMemoryBytes, BlockSize: r.BlockSize,
		EnforceEager: frame.Deref(r.EnforceEager),
		Version:      frame.Deref(r.VLLMVersion), ModelRunner: frame.Deref(r.ModelRunner)}
}

// A Verdict is how calculators fared against measured runs.
type Verdict struct {
	Runs      int  `json:"runs"`
	Failed    int  `json:"failed_or_skipped"`
	Synthetic bool `json:"synthetic"`
	frame.Cover
	Calculators []PredictorVerdict `json:"calculators"`
}

// A PredictorVerdict is one calculator.
type PredictorVerdict struct {
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
	By        []frame.Group `json:"by_model"` // signed error of each model
	Bends     []Bend        `json:"bends"`    // settings that explain the error, the most telling first
}

// A Bend is a setting whose values have different errors.
type Bend struct {
	Setting string        `json:"setting"`
	Share   float64       `json:"share"` // of the error's variance that it explains (eta squared)
	Groups  []frame.Group `json:"groups"`
	Alike   []string      `json:"alike,omitempty"` // settings that part the runs in the same way
}

// Check holds calculators against the runs that ended well. It fails
// with ErrNoRuns, ErrMixed, and ErrPredictions where two of a file are equally about a run.
func Check(rows []sinks.RunRow, predictors []Predictor) (*Verdict, error) {
	if err := frame.SameKind(rows); err != nil {
		return nil, err
	}
	v := &Verdict{}
	f := frame.New(nil, nil)
	var ok []*sinks.RunRow
	for i := range rows {
		v.Synthetic = v.Synthetic || rows[i].Synthetic
		switch {
		case rows[i].Outcome != "ok":
			v.Failed++
		case v.Cover.Add(&rows[i]):
			ok = append(ok, &rows[i])
			f.Add(&rows[i])
		}
	}
	switch v.Runs = len(ok); {
	case v.Runs == 0 && v.Blind > 0:
		return nil, fmt.Errorf("check-calculator: %w: %s", frame.ErrNoRuns, v.Says()[0])
	case v.Runs == 0:
		return nil, fmt.Errorf("check-calculator: %w ended well: %d failed or were skipped", frame.ErrNoRuns, v.Failed)
	}
	truth := measured(ok)
	for _, c := range predictors {
		for _, r := range ok {
			if c.clash == nil {
				break
			}
			if err := c.clash(r); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
		}
		v.Calculators = append(v.Calculators, check(c, ok, truth, f))
	}
	return v, nil
}

// check holds one calculator against runs.
func check(c Predictor, rows []*sinks.RunRow, truth map[string][]*float64, f *frame.Frame) PredictorVerdict {
	out := PredictorVerdict{Name: c.Name, Says: c.Says}
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
	for _, reason := range frame.SortedKeys(reasons) {
		out.Unclaimed = append(out.Unclaimed, fmt.Sprintf("%d runs: %s", reasons[reason], reason))
	}
	if c.notes != nil {
		out.Notes = c.notes()
	}
	for _, p := range components() {
		var of []int
		var errors []float64
		off := &frame.Series{Values: make([]float64, len(rows))}
		verdict := ComponentVerdict{Component: p.name, Measured: p.column + p.says}
		for i, r := range rows {
			said, claimed := predicted[i][p.name]
			measured := truth[p.name][i]
			if !claimed || measured == nil || *measured <= 0 {
				continue
			}
			share := (said - *measured) / *measured
			of, errors, off.Values[i] = append(of, i), append(errors, share), share
			verdict.MeanAbs += math.Abs(share)
			verdict.MeanBytes += math.Abs(said - *measured)
			if math.Abs(share) >= math.Abs(verdict.Worst) {
				verdict.Worst, verdict.WorstRun = share, r.RunID
			}
		}
		if n := float64(len(of)); n > 0 {
			verdict.N, verdict.Bias = len(of), stat.Mean(errors, nil)
			verdict.MeanAbs, verdict.MeanBytes = verdict.MeanAbs/n, verdict.MeanBytes/n
			verdict.explain(of, off, stat.StdDev(errors, nil), f)
			out.Components = append(out.Components, verdict)
		}
	}
	return out
}

// leastBend is the spread of relative errors below which asking for its cause
// is idle: vLLM's log rounds to 0.01 GiB.
const leastBend = 0.005

// explain says which settings explain the errors, that have this deviation.
func (v *ComponentVerdict) explain(rows []int, off *frame.Series, deviation float64, f *frame.Frame) {
	for _, s := range f.Settings {
		switch s.Name {
		case "model":
			v.By = frame.GroupBy(rows, s, nil, off, nil).Groups
		case "execution", "host", "sweep", "params":
			continue
		}
		if len(rows) < 4 || deviation < leastBend { // it is the same everywhere
			continue
		}
		g := frame.GroupBy(rows, s, func(word string) string { return orLeft(s.Name, word) }, off, f.Settings)
		// As many values as runs explain all and tell nothing.
		if g.Eta2 == nil || len(g.Groups) > len(rows)/2 || *g.Eta2 < 0.1 {
			continue
		}
		v.Bends = append(v.Bends, Bend{Setting: s.Name, Share: *g.Eta2, Groups: g.Groups, Alike: g.Alike})
	}
	slices.SortStableFunc(v.Bends, func(a, b Bend) int { return cmp.Compare(b.Share, a.Share) })
	v.Bends = v.Bends[:min(len(v.Bends), 3)]
}

// orLeft says what a missing value means.
func orLeft(name, text string) string {
	switch {
	case text != "":
		return text
	case slices.Contains(frame.Settings(), name):
		return "left to vLLM"
	}
	return "none"
}
