//go:build linux

package gpu

import (
	"context"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// The bars of a sampler: 8 GPUs at 100 Hz for one per cent of a core of
// vramsweep itself, one tick in a thousand missed, nothing allocated a tick.
// Each iteration samples for benchSeconds of real time:
//
//	go test -run xxx -bench 100Hz -benchtime 1x ./runner/gpu
const benchSeconds = 10

func benchSampler(b *testing.B, s runner.Sampler) {
	b.Helper()
	for range b.N {
		ctx, cancel := context.WithCancel(b.Context())
		var ticks, samples atomic.Int64
		var before, after runtime.MemStats
		var cpu0, cpu1 time.Duration
		var t0, t1 int64
		go func() {
			time.Sleep(2 * time.Second) // start-up, growing buffers
			runtime.ReadMemStats(&before)
			cpu0, t0 = sampling.ProcessCPU(), ticks.Load()
			time.Sleep(benchSeconds * time.Second)
			cpu1, t1 = sampling.ProcessCPU(), ticks.Load()
			runtime.ReadMemStats(&after)
			cancel()
		}()
		rep, err := s.Sample(ctx, func(s []runner.Sample) {
			ticks.Add(1)
			samples.Add(int64(len(s)))
		})
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		if len(rep.Notes) > 0 {
			b.Log(rep.Notes)
		}
		b.ReportMetric(100*(cpu1-cpu0).Seconds()/benchSeconds, "%core")
		if rep.ToolCPU != nil {
			b.ReportMetric(100**rep.ToolCPU/(benchSeconds+2), "%core-tool")
		}
		b.ReportMetric(100*float64(rep.Missed)/float64(rep.Ticks+rep.Missed), "%missed")
		b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(t1-t0), "allocs/tick")
		b.ReportMetric(float64(samples.Load())/float64(ticks.Load()), "GPUs/tick")
		b.ReportMetric(*rep.IntervalMS.P50, "p50-ms")
		b.ReportMetric(*rep.IntervalMS.P99, "p99-ms")
	}
}

func benchMachine(b *testing.B, o Options, r Run) runner.Sampler {
	b.Helper()
	samplers, err := Detect(b.Context(), o, false).Samplers(r)
	if err != nil || len(samplers) == 0 {
		b.Fatalf("no sampler: %v", err)
	}
	return samplers[0]
}

func BenchmarkNvidiaSMI100Hz8GPUs(b *testing.B) {
	o := fakeTools(b, []string{"nvidia-smi"}, "FAKE_GPUS=8")
	benchSampler(b, benchMachine(b, o, Run{Interval: 10 * time.Millisecond}))
}

func BenchmarkNVML100Hz8GPUs(b *testing.B) {
	o := nvmlOptions(b, stubNVML(b), "STUB_GPUS=8")
	benchSampler(b, benchMachine(b, o, Run{Interval: 10 * time.Millisecond}))
}

func BenchmarkAMDSysfs100Hz8GPUs(b *testing.B) {
	benchSampler(b, benchMachine(b, fakeSys(b, 8), Run{Interval: 10 * time.Millisecond}))
}

// BenchmarkAMDSysfsInProcess100Hz8GPUs is the same without the helper: what it
// costs where this process itself wakes up at each tick.
func BenchmarkAMDSysfsInProcess100Hz8GPUs(b *testing.B) {
	benchSampler(b, benchMachine(b, fakeSys(b, 8), Run{Interval: 10 * time.Millisecond}))
}

func BenchmarkProcTree100Hz(b *testing.B) {
	pid := os.Getpid()
	o := Options{Sys: b.TempDir(), Dev: b.TempDir(), Env: []string{"PATH=" + b.TempDir()}}
	benchSampler(b, benchMachine(b, o, Run{Interval: 10 * time.Millisecond, PIDs: func() []int { return []int{pid} }}))
}
