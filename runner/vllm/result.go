package vllm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/vramsweep/vramsweep/runner"
)

// maxResult bounds a result file: a million iterations take 20 MB.
const maxResult = 64 << 20

// latencyFile is what `vllm bench latency --output-json` writes, unchanged from
// 0.4.3 on. Seconds; the keys of percentiles are per cents.
type latencyFile struct {
	AvgLatency  *float64           `json:"avg_latency"`
	Latencies   []float64          `json:"latencies"`
	Percentiles map[string]float64 `json:"percentiles"`
}

var errNoLatency = errors.New("it has no avg_latency or no latencies; expected " +
	`{"avg_latency": s, "latencies": [s, ...], "percentiles": {...}}`)

// ReadLatency reads the benchmark's result file. An iteration makes batch x
// outputLen tokens. A file that is missing, empty or broken is an error that
// says which.
func ReadLatency(path string, batch, outputLen int64) (*runner.LatencyStats, error) {
	file, err := runner.OpenFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the benchmark left no result file at %s: it ended before its last iteration, "+
			"or this vLLM (before 0.4.3) has no --output-json", path)
	case err != nil:
		return nil, fmt.Errorf("the benchmark's result file: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	raw, err := io.ReadAll(io.LimitReader(file, maxResult+1))
	if err != nil {
		return nil, fmt.Errorf("the benchmark's result file: %w", err)
	}
	if len(raw) > maxResult {
		return nil, fmt.Errorf("the benchmark's result file %s has over %d bytes: is it one?", path, maxResult)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, fmt.Errorf("the benchmark's result file %s is empty: the disk may be full, "+
			"or the benchmark was killed while it wrote", path)
	}
	var f latencyFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("the benchmark's result file %s: not the JSON of `vllm bench latency` (%d bytes): %w",
			path, len(raw), err)
	}
	stats, err := f.stats(batch, outputLen)
	if err != nil {
		return nil, fmt.Errorf("the benchmark's result file %s: %w", path, err)
	}
	return stats, nil
}

// stats turns what the benchmark or the session driver measured into a result.
func (f *latencyFile) stats(batch, outputLen int64) (*runner.LatencyStats, error) {
	if f.AvgLatency == nil || len(f.Latencies) == 0 {
		return nil, errNoLatency
	}
	for i, l := range append([]float64{*f.AvgLatency}, f.Latencies...) {
		if !(l > 0) || math.IsInf(l, 0) {
			return nil, fmt.Errorf("latency %d is %v s; expected more than 0", i, l)
		}
	}
	const slack = 1e-6 // of rounding
	if least, most := slices.Min(f.Latencies), slices.Max(f.Latencies); *f.AvgLatency < least*(1-slack) ||
		*f.AvgLatency > most*(1+slack) {
		return nil, fmt.Errorf("avg_latency is %v s, and its latencies lie between %v and %v s", *f.AvgLatency, least, most)
	}
	for k, v := range f.Percentiles {
		if !(v > 0) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("percentile %s is %v s; expected more than 0", k, v)
		}
	}
	stats := &runner.LatencyStats{
		AvgS: *f.AvgLatency, LatenciesS: f.Latencies, NIters: len(f.Latencies),
		Percentiles: make(map[string]float64, len(f.Percentiles)),
	}
	for k, v := range f.Percentiles {
		if k != "99" || stats.NIters >= runner.LeastForP99 {
			stats.Percentiles["p"+k] = v
		}
	}
	if batch > 0 && outputLen > 0 {
		rate := float64(batch) * float64(outputLen) / *f.AvgLatency
		stats.OutputTokensPerS = &rate
	}
	return stats, nil
}
