package gpu

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/runnertest"
)

// nvmlMachine is a machine whose GPUs the stub tells; its helper ends with the
// test.
func nvmlMachine(t testing.TB, o Options) *Machine {
	t.Helper()
	m := Detect(t.Context(), o, false)
	t.Cleanup(m.Close)
	return m
}

// TestNVMLInspect reads in full without starting a program for it.
func TestNVMLInspect(t *testing.T) {
	t.Parallel()
	o := nvmlOptions(t, stubNVML(t), "STUB_GPUS=3")
	started := 0
	o.Start = countingStart(&started)
	m := nvmlMachine(t, o)
	for range 3 {
		d, err := m.Inspect(t.Context(), []int{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		if d.Tool != sampling.SourceNVML || len(d.GPUs) != 2 || d.GPUs[0].GPUID != 1 {
			t.Fatalf("%+v", d)
		}
		g := d.GPUs[1]
		if *g.VRAMUsedMB != 3<<10 || *g.VRAMTotalMB != 80<<10 || *g.VRAMReservedMB != 480 || *g.VRAMFreeMB != 77<<10-480 || *g.PowerWatts != 310.25 ||
			*g.ClockGfxMHz != 1980 || *g.MemoryTempC != 55 || *g.ECCUncorrected != 2 || g.ThrottleReasons[0] != "sw_power_cap" {
			t.Errorf("%+v", g)
		}
		if len(g.Processes) != 2 || g.Processes[0].ProcessInfo != "/usr/bin/stub-1 (PID: 1)" || g.Processes[0].MemoryUsage.Value != 123 {
			t.Errorf("%+v", g.Processes)
		}
	}
	if started != 1 {
		t.Errorf("%d programs were started for a look and three readings, want one that stays", started)
	}
}

// TestNVMLReaderComesBack kills the helper between two readings.
func TestNVMLReaderComesBack(t *testing.T) {
	t.Parallel()
	o := nvmlOptions(t, stubNVML(t))
	var helpers []proc.Process
	o.Start = func(ctx context.Context, spec proc.Spec) (proc.Process, error) {
		p, err := proc.Start(ctx, spec)
		helpers = append(helpers, p)
		return p, err
	}
	m := nvmlMachine(t, o)
	helpers[0].Kill("test")
	if _, err := helpers[0].Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Inspect(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if len(helpers) != 2 {
		t.Errorf("%d helpers: the one that was killed is said to have answered", len(helpers))
	}
}

// TestNVMLReaderHangs has the driver hang in a reading: nvidia-smi answers.
func TestNVMLReaderHangs(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi", "nvml-helper"}, "STUB_HANG=4")
	o.NVMLLibrary, o.Helper, o.Sources = stubNVML(t), []string{"nvml-helper"}, []string{sampling.SourceNVML, sampling.SourceNvidiaSMI}
	o.ToolTimeout = 3 * time.Second
	m := nvmlMachine(t, o)
	if st := m.Sources(); !st[0].Used || st[1].Works || !st[1].Standby {
		t.Fatalf("sources %+v", st)
	}
	var tools []string
	for range 3 {
		d, err := m.Inspect(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		tools = append(tools, d.Tool)
	}
	if !strings.Contains(fmt.Sprint(tools), sampling.SourceNvidiaSMI) {
		t.Errorf("read by %v: the hang did not come, or was not left for nvidia-smi", tools)
	}
}

// TestNVMLMIG runs in the second of two MIG instances: its memory counts, power
// and utilization of the GPU that it shares do not.
func TestNVMLMIG(t *testing.T) {
	t.Parallel()
	o := nvmlOptions(t, stubNVML(t), "STUB_GPUS=2", "STUB_MIG=2", "CUDA_VISIBLE_DEVICES=MIG-00000002")
	m := nvmlMachine(t, o)
	if d := m.Found(); len(d) != 4 || d[3].UUID != "MIG-00000002-stub" || d[3].Parent != "GPU-00000000-stub" || d[3].Index != 0 || *d[3].TotalBytes != 10<<30 || d[3].Name != "NVIDIA STUB MIG 1g.10gb" {
		t.Fatalf("devices %+v", d)
	}
	visible, err := m.Inspector().Devices(t.Context())
	if err != nil || len(visible) != 1 || *visible[0].UsedBytes != 512<<20 {
		t.Fatalf("visible %+v, %v", visible, err)
	}
	detail, err := m.Inspector().Inspect(t.Context(), []int{0})
	if err != nil {
		t.Fatal(err)
	}
	g := detail.GPUs[0]
	if *g.VRAMUsedMB != 512 || *g.VRAMTotalMB != 10<<10 || g.PowerWatts != nil || len(g.Processes) != 1 || g.Processes[0].PID != 102 {
		t.Errorf("%+v", g)
	}
	if why := detail.Missing["gpus[0].power_w"]; why != sampling.MIGPower {
		t.Errorf("missing %v", detail.Missing)
	}
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond, GPUs: []int{0}, PIDs: func() []int { return []int{102} }})
	if err != nil {
		t.Fatal(err)
	}
	held := false
	c, rep, err := runnertest.Collect(t, samplers[0], func(c *runnertest.Collector) bool {
		for _, s := range c.Samples {
			held = held || s.Has&runner.HasProcessMemory != 0 && s.ProcessMemory == 256<<20
		}
		return held
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Samples {
		if s.MemoryUsed != 512<<20 || s.MemoryTotal != 10<<30 || s.MemoryReserved != 16<<20 || s.Has&(runner.HasPower|runner.HasEnergy|runner.HasUtilization) != 0 || s.Temperature != 40 {
			t.Fatalf("sample %+v", s)
		}
	}
	if rep.Missing["power_w"] != sampling.MIGPower || rep.Missing["energy_j"] != sampling.MIGPower || rep.Missing["utilization_pct"] == "" {
		t.Errorf("missing %v", rep.Missing)
	}
}

// TestSMIMIG has only nvidia-smi: it tells the whole GPU's memory, so there is
// none of the instance.
func TestSMIMIG(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MIG=1", "CUDA_VISIBLE_DEVICES=MIG-aaaa")
	m := Detect(t.Context(), o, false)
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond, GPUs: []int{0}})
	if err != nil || len(samplers) != 1 {
		t.Fatalf("%d samplers, %v; devices %+v", len(samplers), err, m.Found())
	}
	c, rep, err := runnertest.Collect(t, samplers[0], runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Samples[0]; s.Has&(sampling.MemoryFields|runner.HasPower) != 0 || s.Has&runner.HasTemperature == 0 {
		t.Errorf("sample %+v", s)
	}
	if rep.Missing["memory_used_bytes"] != sampling.MIGMemory || rep.Missing["power_w"] != sampling.MIGPower {
		t.Errorf("missing %v", rep.Missing)
	}
	d, err := m.Inspector().Inspect(t.Context(), []int{0})
	if err != nil || d.GPUs[0].VRAMUsedMB != nil || d.Missing["gpus[0].memory_used_bytes"] != sampling.MIGMemory {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestNVMLDoctor judges a GPU's health where nvidia-smi is not installed.
func TestNVMLDoctor(t *testing.T) {
	t.Parallel()
	o := nvmlOptions(t, stubNVML(t), "STUB_GPUS=2")
	m := Detect(t.Context(), o, true)
	t.Cleanup(m.Close)
	got := m.checkGPUs()
	if f := finding(got, "GPU 1 persistence"); f.Status != StatusWarn {
		t.Errorf("%+v", f)
	}
	if f := finding(got, "GPU 1 ECC"); f.Status != StatusFail || !strings.HasPrefix(f.Found, "1 ") {
		t.Errorf("%+v", f)
	}
}

// BenchmarkFullReading is what a run waits for three times: through NVML.
func BenchmarkFullReading(b *testing.B) {
	m := nvmlMachine(b, nvmlOptions(b, stubNVML(b), "STUB_GPUS=8"))
	for b.Loop() {
		if _, err := m.Inspect(context.Background(), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// countingStart starts programs and counts them.
func countingStart(n *int) sampling.StartFunc {
	return func(ctx context.Context, spec proc.Spec) (proc.Process, error) {
		*n++
		return proc.Start(ctx, spec)
	}
}
