package gpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vramsweep/vramsweep/runner"
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
		t.Skip("no gcc to build the stand-in for libnvidia-ml")
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
	if !exists(lib) {
		return ""
	}
	return lib
}

func nvmlOptions(t testing.TB, lib string, env ...string) Options {
	t.Helper()
	o := fakeTools(t, []string{"nvml-helper"}, env...)
	o.NVMLLibrary = lib
	o.Helper = []string{"nvml-helper"}
	o.Sources = []string{SourceNVML}
	return o
}

func TestNVMLLayouts(t *testing.T) {
	for name, got := range map[string][2]uintptr{
		"nvmlMemory2":    {unsafe.Sizeof(nvmlMemory2{}), 40},
		"nvmlMemory1":    {unsafe.Sizeof(nvmlMemory1{}), 24},
		"nvmlFieldValue": {unsafe.Sizeof(nvmlFieldValue{}), 40},
		"nvmlProcess":    {unsafe.Sizeof(nvmlProcess{}), 24},
		"nvmlPCI":        {unsafe.Sizeof(nvmlPCI{}), 68},
	} {
		if got[0] != got[1] {
			t.Errorf("%s has %d bytes, nvml.h %d", name, got[0], got[1])
		}
	}
}

func TestNVMLWire(t *testing.T) {
	want := runner.Sample{GPU: 3, Has: memoryFields | runner.HasEnergy, Offset: 5, Read: 7, MemoryUsed: 1, MemoryReserved: 2, MemoryTotal: 3, ThrottleReasons: 4,
		Power: 1.5, Energy: 2.5, Temperature: 3.5, MemoryTemp: 4.5, Utilization: 5, MemoryUtil: 6, ClockSM: 7, ClockMem: 8, Source: SourceNVML}
	b := appendSample(nil, &want)
	if len(b) != sampleSize {
		t.Fatalf("%d bytes, want %d", len(b), sampleSize)
	}
	var got runner.Sample
	decodeSample(b, &got)
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
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
	c, rep, err := sampleUntil(t, samplers[0], func(c *collector) bool {
		for _, s := range c.samples {
			energy = energy || s.Has&runner.HasEnergy != 0 && s.Energy > 0
			procs = procs || s.Has&runner.HasProcessMemory != 0 && s.ProcessMemory == 123<<20
		}
		return energy && procs && c.ticks > 10
	})
	if err != nil {
		t.Fatal(err)
	}
	s := c.samples[1]
	if s.GPU != 2 || s.MemoryUsed != 3<<30 || s.MemoryReserved != 480<<20 || s.Power != 310.25 || s.MemoryTemp != 55 || s.Temperature != 40 || s.Utilization != 50 || s.MemoryUtil != 25 ||
		s.ClockSM != 1980 || s.ClockMem != 2619 || s.ThrottleReasons != 4 || s.Read <= 0 || s.Offset <= 0 {
		t.Errorf("sample %+v", s)
	}
	for _, s := range c.samples {
		if s.GPU != 0 && s.GPU != 2 {
			t.Fatalf("a sample of GPU %d", s.GPU)
		}
	}
	if rep.PowerKind != PowerInstant || rep.ToolCPU == nil || len(rep.Missing) != 0 {
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
	c, rep, err := sampleUntil(t, samplers[0], ticks(5))
	if err != nil {
		t.Fatal(err)
	}
	s := c.samples[0]
	if s.Has&runner.HasMemoryReserved != 0 || s.MemoryUsed != 1<<30+480<<20 || s.Power != 300.5 {
		t.Errorf("sample %+v", s)
	}
	if rep.PowerKind != PowerAveraged {
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
		until     func(*collector) bool
		note      string
	}{
		{"GPU lost", "STUB_LOST=5", ticks(80), "GPU 1: GPU is lost (NVML 15)"},
		{"hang", "STUB_HANG=5", ticks(8), "hangs: no row"},
		{"crash", "STUB_CRASH=5", ticks(8), "SIGABRT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := nvmlOptions(t, lib, tt.env).withDefaults()
			r, err := Run{Interval: 10 * time.Millisecond}.check()
			if err != nil {
				t.Fatal(err)
			}
			src := newNVMLSource(o, r, nil, nil)
			src.stale = 3 * time.Second
			_, rep, err := sampleUntil(t, newSampler(r, []source{src}), tt.until)
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
	o.NVMLLibrary, o.Helper, o.Sources = stubNVML(t), []string{"nvml-helper"}, []string{SourceNvidiaSMI, SourceNVML}
	m := Detect(t.Context(), o, false)
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	samplers[0].(*sampler).pauses = []time.Duration{time.Millisecond}
	c, rep, err := sampleUntil(t, samplers[0], func(c *collector) bool {
		return c.samples[len(c.samples)-1].Source == SourceNVML && c.samples[len(c.samples)-1].Offset > 0 && c.ticks > 20
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.samples[0].Source != SourceNvidiaSMI {
		t.Errorf("first source %s", c.samples[0].Source)
	}
	if !strings.Contains(notes(rep), "nvml replaces it") || rep.Name != "nvidia-smi, then nvml" {
		t.Errorf("name %q, notes: %s", rep.Name, notes(rep))
	}
	marked := false
	for _, s := range c.samples {
		marked = marked || s.Gap && s.Source == SourceNVML
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
	o.NVMLLibrary, o.Helper, o.Sources = stubNVML(t), []string{"nvml-helper"}, DefaultSources()
	m := nvmlMachine(t, o)
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	samplers[0].(*sampler).pauses = []time.Duration{time.Millisecond}
	c, rep, err := sampleUntil(t, samplers[0], func(c *collector) bool {
		return c.samples[len(c.samples)-1].Source == SourceNvidiaSMI && c.ticks > 10
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.samples[0].Source != SourceNVML || rep.Name != "nvml, then nvidia-smi" || !strings.Contains(notes(rep), "SIGABRT") || !strings.Contains(notes(rep), "nvidia-smi replaces it") {
		t.Errorf("first %s, name %q, notes: %s", c.samples[0].Source, rep.Name, notes(rep))
	}
	last := map[int32]time.Duration{}
	for _, s := range c.samples {
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
	o := nvmlOptions(t, stubNVML(t), "STUB_GPUS=2", "STUB_SLOW=9000")
	samplers, err := nvmlMachine(t, o).Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c, rep, err := sampleUntil(t, samplers[0], ticks(20))
	if err != nil {
		t.Fatal(err)
	}
	if rep.Missed < 15 || *rep.IntervalMS.P50 < 17 {
		t.Errorf("%d of %d ticks missed, p50 %v ms: 2 x 9 ms do not fit into 10", rep.Missed, rep.Ticks, *rep.IntervalMS.P50)
	}
	last := time.Duration(0)
	for _, s := range c.samples {
		if s.GPU != 0 {
			continue
		}
		if last > 0 && s.Offset-last < 15*time.Millisecond {
			t.Errorf("ticks are bunched: %v apart", s.Offset-last)
		}
		last = s.Offset
	}
}
