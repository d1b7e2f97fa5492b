package vllm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"github.com/vramsweep/vramsweep/runner"
)

// maxResult bounds a result file: a million iterations take 20 MB.
const maxResult = 256 << 20

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
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the benchmark left no result file at %s: it ended before its last iteration, "+
			"or this vLLM (before 0.4.3) has no --output-json", path)
	case err != nil:
		return nil, fmt.Errorf("the benchmark's result file: %w", err)
	case !info.Mode().IsRegular(): // reading a FIFO would wait for ever
		return nil, fmt.Errorf("the benchmark's result file %s is no regular file (%v)", path, info.Mode().Type())
	case info.Size() > maxResult:
		return nil, fmt.Errorf("the benchmark's result file %s has %d bytes, at most %d are read: is it one?",
			path, info.Size(), int64(maxResult))
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the benchmark's result file: %w", err)
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
