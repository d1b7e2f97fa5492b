package gpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/runnertest"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// stubNVML builds the stand-in library; the test is skipped without gcc. The
// whole one may have been built before, for a machine without gcc and sources: it
// is what VRAMSWEEP_NVML_STUB names, or nvml_stub.so beside the test's binary.
func stubNVML(t testing.TB, flags ...string) string {
	t.Helper()
	if lib := prebuiltStub(t); lib != "" && len(flags) == 0 {
		return lib
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		testenv.Skip(t, "no gcc to build the stand-in for libnvidia-ml")
	}
	lib := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	args := append([]string{"-shared", "-fPIC", "-O1", "-o", lib, filepath.Join("testdata", "nvml_stub.c")}, flags...)
	if out, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return lib
}

func prebuiltStub(t testing.TB) string {
	t.Helper()
	if lib := os.Getenv("VRAMSWEEP_NVML_STUB"); lib != "" {
		return lib
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(filepath.Dir(self), "nvml_stub.so")
	if !sampling.Exists(lib) {
		return ""
	}
	return lib
}

func nvmlOptions(t testing.TB, lib string, env ...string) Options {
	t.Helper()
	o := fakeTools(t, []string{"nvml-helper"}, env...)
	o.NVMLLibrary = lib
	o.Helper = []string{"nvml-helper"}
	o.Sources = []string{sampling.SourceNVML}
	return o
}

func TestNVMLSampler(t *testing.T) {
	t.Parallel()
	pid := os.Getpid()
	o := nvmlOptions(t, stubNVML(t), "STUB_GPUS=8", "STUB_PID="+strconv.Itoa(pid))
	m := Detect(t.Context(), o, false)
	if len(m.Found()) != 8 {
		t.Fatalf("%d devices; sources %+v", len(m.Found()), m.Sources())
	}
	if d := m.Found()[1]; d.UUID != "GPU-00000001-stub" || d.PCIBusID != "00000000:01:00.0" || *d.TotalBytes != 80<<30 || *d.ReservedBytes != 480<<20 || d.DriverVersion != "580.00.stub" {
		t.Errorf("device %+v", d)
	}
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond, GPUs: []int{0, 2}, PIDs: func() []int { return []int{pid} }})
	if err != nil {
		t.Fatal(err)
	}
	var energy, procs bool
	c, rep, err := runnertest.Collect(t, samplers[0], func(c *runnertest.Collector) bool {
		for _, s := range c.Samples {
			energy = energy || s.Has&runner.HasEnergy != 0 && s.Energy > 0
			procs = procs || s.Has&runner.HasProcessMemory != 0 && s.ProcessMemory == 123<<20
		}
		return energy && procs && c.Ticks > 10
	})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Samples[1]
	if s.GPU != 2 || s.MemoryUsed != 3<<30 || s.MemoryReserved != 480<<20 || s.Power != 310.25 || s.MemoryTemp != 55 || s.Temperature != 40 || s.Utilization != 50 || s.MemoryUtil != 25 ||
		s.ClockSM != 1980 || s.ClockMem != 2619 || s.ThrottleReasons != 4 || s.Read <= 0 || s.Offset <= 0 {
		t.Errorf("sample %+v", s)
	}
	for _, s := range c.Samples {
		if s.GPU != 0 && s.GPU != 2 {
			t.Fatalf("a sample of GPU %d", s.GPU)
		}
	}
	if rep.PowerKind != sampling.PowerInstant || rep.ToolCPU == nil || len(rep.Missing) != 0 {
		t.Errorf("report %+v", rep)
	}
}

func TestNVMLWithoutSymbols(t *testing.T) {
	t.Parallel()
	o := nvmlOptions(t, stubNVML(t, "-DNO_V2", "-DNO_FIELDS"))
	m := Detect(t.Context(), o, false)
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c, rep, err := runnertest.Collect(t, samplers[0], runnertest.Ticks(5))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Samples[0]
	if s.Has&runner.HasMemoryReserved != 0 || s.MemoryUsed != 1<<30+480<<20 || s.Power != 300.5 {
		t.Errorf("sample %+v", s)
	}
	if rep.PowerKind != sampling.PowerAveraged {
		t.Errorf("power kind %q of the averaged call", rep.PowerKind)
	}
	if !strings.Contains(notes(rep), "nvmlDeviceGetMemoryInfo_v2, nvmlDeviceGetFieldValues") || !strings.Contains(notes(rep), "reserve counts as used") {
		t.Errorf("notes: %s", notes(rep))
	}
	if rep.Missing["memory_reserved_bytes"] == "" || rep.Missing["memory_temperature_c"] == "" {
		t.Errorf("missing: %v", rep.Missing)
	}
}

func TestNVMLFaults(t *testing.T) {
	t.Parallel()
	lib := stubNVML(t)
	for _, tt := range []struct {
		name, env string
		until     func(*runnertest.Collector) bool
		note      string
	}{
		{"GPU lost", "STUB_LOST=5", runnertest.Ticks(80), "GPU 1: GPU is lost (NVML 15)"},
		{"hang", "STUB_HANG=5", runnertest.Ticks(8), "hangs: no row"},
		{"crash", "STUB_CRASH=5", runnertest.Ticks(8), "SIGABRT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			samplers, err := nvmlMachine(t, nvmlOptions(t, lib, tt.env)).Samplers(Run{Interval: 10 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			_, rep, err := runnertest.Collect(t, samplers[0], tt.until)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(notes(rep), tt.note) {
				t.Errorf("notes lack %q:\n%s", tt.note, notes(rep))
			}
		})
	}
}

func TestNVMLNoLibrary(t *testing.T) {
	t.Parallel()
	o := nvmlOptions(t, filepath.Join(t.TempDir(), "libnvidia-ml.so.1"))
	m := Detect(t.Context(), o, false)
	if st := m.Sources()[0]; st.Works || !strings.Contains(st.Reason, "cannot open shared object file") {
		t.Errorf("%+v", st)
	}
}

// TestFallback lets nvidia-smi fail for good: NVML takes over, the gap is
// marked and the report says so.
func TestFallback(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi", "nvml-helper"}, "FAKE_MODE=die", "FAKE_STARTS=1000", "STUB_GPUS=2")
	o.NVMLLibrary, o.Helper, o.Sources = stubNVML(t), []string{"nvml-helper"}, []string{sampling.SourceNvidiaSMI, sampling.SourceNVML}
	m := Detect(t.Context(), o, false)
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	samplers[0].(*sampling.Sampler).Pauses = []time.Duration{time.Millisecond}
	c, rep, err := runnertest.Collect(t, samplers[0], func(c *runnertest.Collector) bool {
		return c.Samples[len(c.Samples)-1].Source == sampling.SourceNVML && c.Samples[len(c.Samples)-1].Offset > 0 && c.Ticks > 20
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Samples[0].Source != sampling.SourceNvidiaSMI {
		t.Errorf("first source %s", c.Samples[0].Source)
	}
	if !strings.Contains(notes(rep), "nvml replaces it") || rep.Name != "nvidia-smi, then nvml" {
		t.Errorf("name %q, notes: %s", rep.Name, notes(rep))
	}
	marked := false
	for _, s := range c.Samples {
		marked = marked || s.Gap && s.Source == sampling.SourceNVML
	}
	if !marked {
		t.Error("no gap is marked where NVML took over")
	}
}

// TestFallbackToSMI has the library crash its process each time: nvidia-smi, which
// was not even tried at the start, takes over.
func TestFallbackToSMI(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi", "nvml-helper"}, "STUB_CRASH=6", "STUB_GPUS=2", "FAKE_GPUS=2")
	o.NVMLLibrary, o.Helper, o.Sources = stubNVML(t), []string{"nvml-helper"}, sampling.DefaultSources()
	m := nvmlMachine(t, o)
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	samplers[0].(*sampling.Sampler).Pauses = []time.Duration{time.Millisecond}
	c, rep, err := runnertest.Collect(t, samplers[0], func(c *runnertest.Collector) bool {
		return c.Samples[len(c.Samples)-1].Source == sampling.SourceNvidiaSMI && c.Ticks > 10
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Samples[0].Source != sampling.SourceNVML || rep.Name != "nvml, then nvidia-smi" || !strings.Contains(notes(rep), "SIGABRT") || !strings.Contains(notes(rep), "nvidia-smi replaces it") {
		t.Errorf("first %s, name %q, notes: %s", c.Samples[0].Source, rep.Name, notes(rep))
	}
	last := map[int32]time.Duration{}
	for _, s := range c.Samples {
		if s.Offset <= last[s.GPU] {
			t.Fatalf("GPU %d: %v after %v", s.GPU, s.Offset, last[s.GPU])
		}
		last[s.GPU] = s.Offset
	}
}

// TestNVMLSlowerThanItsInterval reads GPUs that take longer than the interval:
// ticks are missed and counted, and none is made up for.
func TestNVMLSlowerThanItsInterval(t *testing.T) {
	t.Parallel()
	o := nvmlOptions(t, stubNVML(t), "STUB_GPUS=2", "STUB_SLOW=15000")
	samplers, err := nvmlMachine(t, o).Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c, rep, err := runnertest.Collect(t, samplers[0], runnertest.Ticks(20))
	if err != nil {
		t.Fatal(err)
	}
	if rep.Missed < rep.Ticks-1 {
		t.Errorf("%d ticks missed beside %d: 2 x 15 ms do not fit into 10", rep.Missed, rep.Ticks)
	}
	for i := 2; i < len(c.Samples); i++ {
		s, was := c.Samples[i], c.Samples[i-2]
		if s.GPU != was.GPU || s.Offset < was.Offset+was.Read {
			t.Errorf("GPU %d is read at %v, before the reading of %v has ended", s.GPU, s.Offset, was.Offset)
		}
	}
}
