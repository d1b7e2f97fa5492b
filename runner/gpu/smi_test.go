package gpu

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/runnertest"
)

// sampleSMI samples the fake of nvidia-smi until a condition holds.
func sampleSMI(
	t *testing.T, o Options, r Run, until func(*runnertest.Collector) bool,
) (*runnertest.Collector, *runner.SamplerReport, error) {
	t.Helper()
	if r.Interval == 0 {
		r.Interval = 10 * time.Millisecond
	}
	samplers, err := Detect(t.Context(), o, false).Samplers(r)
	if err != nil {
		t.Fatal(err)
	}
	return runnertest.Collect(t, samplers[0], until)
}

func notes(r *runner.SamplerReport) string { return strings.Join(r.Notes, "\n") }

func TestSMISampler(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=8")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(20))
	if err != nil {
		t.Fatal(err)
	}
	first := c.Samples[0]
	want := runner.Sample{
		GPU: 0, Source: sampling.SourceNvidiaSMI, MemoryUsed: 101 << 20, MemoryReserved: 480 << 20, MemoryTotal: 81559 << 20,
		Power: 71.24, Temperature: 37, MemoryTemp: 37, Utilization: 12, MemoryUtil: 12, ClockSM: 1980, ClockMem: 1980, ThrottleReasons: 4,
		Has: runner.HasMemoryUsed | runner.HasMemoryReserved | runner.HasMemoryTotal | runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp |
			runner.HasUtilization | runner.HasMemoryUtil | runner.HasClockSM | runner.HasClockMem | runner.HasThrottleReasons,
	}
	want.TS, want.Offset, want.Read = first.TS, first.Offset, first.Read
	if first != want {
		t.Errorf("first sample\n got %+v\nwant %+v", first, want)
	}
	for i, s := range c.Samples {
		if int(s.GPU) != i%8 {
			t.Fatalf("sample %d is of GPU %d: the rows of a tick are not together", i, s.GPU)
		}
		if s.MemoryUsed != int64(100*(i%8+1)+i/8+1)<<20 {
			t.Fatalf("sample %d of GPU %d: %d bytes", i, s.GPU, s.MemoryUsed)
		}
	}
	if rep.PowerKind != sampling.PowerInstant || rep.Name != sampling.SourceNvidiaSMI || rep.Ticks < 20 || rep.ToolCPU == nil || rep.IntervalMS.P50 == nil {
		t.Errorf("report: %+v", rep)
	}
	if rep.Missing["energy_j"] == "" {
		t.Error("no reason for the missing energy")
	}
}

func TestSMIOnlyTheRunsGPUs(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=4")
	c, _, err := sampleSMI(t, o, Run{GPUs: []int{2}}, runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Samples {
		if s.GPU != 2 {
			t.Fatalf("sample of GPU %d", s.GPU)
		}
	}
}

func TestSMIProcessMemory(t *testing.T) {
	t.Parallel()
	pid := os.Getpid()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=2", "FAKE_PIDS=1,"+strconv.Itoa(pid))
	seen := map[int32]int64{}
	_, rep, err := sampleSMI(t, o, Run{PIDs: func() []int { return []int{pid} }}, func(c *runnertest.Collector) bool {
		for _, s := range c.Samples[max(0, len(c.Samples)-2):] {
			if s.Has&runner.HasProcessMemory != 0 {
				seen[s.GPU] = s.ProcessMemory
			}
		}
		return len(seen) == 2
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen[0] != 1001<<20 || seen[1] != 2001<<20 {
		t.Errorf("process memory %v, want that of pid %d only", seen, pid)
	}
	if why, ok := rep.Missing["process_bytes"]; ok {
		t.Errorf("process_bytes missing: %s", why)
	}
}

func TestSMIFaults(t *testing.T) {
	t.Parallel()
	gap := func(c *runnertest.Collector) bool {
		for _, s := range c.Samples {
			if s.Gap {
				return c.Ticks >= 12
			}
		}
		return false
	}
	tests := []struct {
		mode  string
		env   []string
		until func(*runnertest.Collector) bool
		notes []string // each must be in the report
		gaps  bool
	}{
		{mode: "hang", until: gap, notes: []string{"hangs: no row for 2s", "started again"}, gaps: true},
		{mode: "silent", until: runnertest.Ticks(5), notes: []string{"no row within", "started again"}},
		{mode: "die", until: gap, notes: []string{"exit code 139", "Segmentation fault", "started again"}},
		{mode: "half", until: gap, notes: []string{"1 lines were no rows", "started again"}},
		{mode: "xid", until: runnertest.Ticks(10), notes: []string{"1 lines were no rows", "XID 63"}},
		{mode: "text-exit-0", until: gap, notes: []string{"exit code 0: Failed to initialize NVML: Unknown Error", "started again"}},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			o := fakeTools(t, []string{"nvidia-smi"}, append(tt.env, "FAKE_MODE="+tt.mode)...)
			_, rep, err := sampleSMI(t, o, Run{}, tt.until)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.notes {
				if !strings.Contains(notes(rep), want) {
					t.Errorf("notes lack %q:\n%s", want, notes(rep))
				}
			}
			if tt.gaps && (len(rep.Gaps) == 0 || rep.Gaps[0].Reason == "") {
				t.Errorf("no gap with a reason: %+v", rep.Gaps)
			}
		})
	}
}

func TestSMIRefusedFields(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_REFUSE=power.draw.instant,memory.reserved,clocks_event_reasons.active")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Samples[0]
	if s.Power != 70.5 || rep.PowerKind != sampling.PowerAveraged {
		t.Errorf("power %v of kind %q, want 70.5 averaged_1s", s.Power, rep.PowerKind)
	}
	if s.ThrottleReasons != 4 {
		t.Error("the older name of the throttle reasons was not tried")
	}
	if s.Has&runner.HasMemoryReserved != 0 || !strings.Contains(rep.Missing["memory_reserved_bytes"], "memory.reserved") {
		t.Errorf("memory.reserved: %v, %q", s.Has, rep.Missing["memory_reserved_bytes"])
	}
}

func TestSMINoDriver(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"no-driver", "no-driver-exit-0"} {
		o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE="+mode)
		m := Detect(t.Context(), o, false)
		if len(m.Found()) != 0 {
			t.Fatalf("%s: devices %v", mode, m.Found())
		}
		if st := m.Sources()[0]; st.Works || !strings.Contains(st.Reason, "couldn't communicate with the NVIDIA driver") {
			t.Errorf("%s: %+v", mode, st)
		}
	}
}

func TestSMINotAvailableEverywhere(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=na")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Samples {
		if s.Has != 0 {
			t.Fatalf("a figure came from [N/A]: %+v", s)
		}
	}
	for _, name := range sampling.FieldNames(sampling.MemoryFields | runner.HasPower | runner.HasUtilization) {
		if !strings.Contains(rep.Missing[name], "[N/A]") {
			t.Errorf("%s: reason %q", name, rep.Missing[name])
		}
	}
}

func TestSMIUnitsChange(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=units", "FAKE_TICKS=3")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(8))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range c.Samples {
		if got, want := s.Has&runner.HasMemoryUsed != 0, i/2 < 2; got != want {
			t.Fatalf("tick %d: memory told %v, want %v (%d bytes)", i/2, got, want, s.MemoryUsed)
		}
	}
	if !strings.Contains(notes(rep), "changed its units") {
		t.Errorf("notes: %s", notes(rep))
	}
}

func TestSMIGPUFallsOffTheBus(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=off-the-bus", "FAKE_GPUS=3")
	after := 0
	c, rep, err := sampleSMI(t, o, Run{}, func(c *runnertest.Collector) bool {
		if c.Ticks > 7 {
			after++
		}
		return after > 100 // long enough for the lost GPU's gap
	})
	if err != nil {
		t.Fatal(err)
	}
	tail := c.Samples[len(c.Samples)-6:]
	for _, s := range tail {
		if s.GPU != 0 && s.GPU != 2 {
			t.Errorf("a sample of GPU %d, want 0 and 2", s.GPU)
		}
	}
	if !strings.Contains(notes(rep), "GPU 0000:01:00.0 cannot be opened any more") {
		t.Errorf("notes: %s", notes(rep))
	}
	found := false
	for _, g := range rep.Gaps {
		found = found || g.GPU == 1
	}
	if !found {
		t.Errorf("no gap of GPU 1: %+v", rep.Gaps)
	}
}

func TestSMISlowerThanItsInterval(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=slow")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(10))
	if err != nil {
		t.Fatal(err)
	}
	if rep.Missed == 0 {
		t.Error("no tick is missed at a third of the rate")
	}
	for i := 2; i < len(c.Samples); i++ { // two GPUs: the fake counts its ticks in memory.used
		if d := c.Samples[i].MemoryUsed - c.Samples[i-2].MemoryUsed; d != 1<<20 {
			t.Errorf("sample %d is %d MiB after the one before: a tick was made up or lost", i, d>>20)
		}
	}
}

func TestSMIClockJumps(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=clock-jumps", "FAKE_TICKS=3")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(20))
	if err != nil {
		t.Fatal(err)
	}
	last := map[int32]time.Duration{}
	for _, s := range c.Samples { // the clock jumped by an hour: that rows keep apart is TestSMIDatesBatches'
		if s.Offset <= last[s.GPU] || s.Offset-last[s.GPU] > 30*time.Minute {
			t.Fatalf("offset %v after %v: the jump shows", s.Offset, last[s.GPU])
		}
		last[s.GPU] = s.Offset
	}
	if !strings.Contains(notes(rep), "rows are dated by their arrival") {
		t.Errorf("notes: %s", notes(rep))
	}
}

// TestMemoryToldByOneGPU has two GPUs, of which one does not report its memory:
// each is judged by itself.
func TestMemoryToldByOneGPU(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=2", "FAKE_MODE=no-memory")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Samples {
		if got := s.Has&runner.HasMemoryUsed != 0; got != (s.GPU == 1) || s.Has&runner.HasTemperature == 0 {
			t.Fatalf("sample %+v", s)
		}
	}
	if !strings.Contains(notes(rep), "memory_used_bytes is missing in") {
		t.Errorf("notes %s", notes(rep))
	}
}
