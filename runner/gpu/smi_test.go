package gpu

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// sampleSMI runs the nvidia-smi sampler against the fake until a condition
// holds, and gives it a generous time for that.
func sampleSMI(t *testing.T, o Options, r Run, until func(*collector) bool) (*collector, *runner.SamplerReport, error) {
	t.Helper()
	m := Detect(t.Context(), o, false)
	if r.Interval == 0 {
		r.Interval = 10 * time.Millisecond
	}
	r, err := r.check()
	if err != nil {
		t.Fatal(err)
	}
	src := newSMISource(m.o, r, m.smi)
	src.stale, src.firstRow = 3*time.Second, 2*time.Second
	if r.PIDs != nil {
		src.apps = newProcessTable(newTree("/proc", r.PIDs))
	}
	return sampleUntil(t, newSampler(r, []source{src}), until)
}

func sampleUntil(t testing.TB, s runner.Sampler, until func(*collector) bool) (*collector, *runner.SamplerReport, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := newCollector(until)
	go func() {
		select {
		case <-c.done:
		case <-ctx.Done():
			t.Error("the condition did not come about in 30 s")
		}
		cancel()
	}()
	rep, err := s.Sample(ctx, c.emit)
	return c, rep, err
}

func ticks(n int) func(*collector) bool { return func(c *collector) bool { return c.ticks >= n } }

func notes(r *runner.SamplerReport) string { return strings.Join(r.Notes, "\n") }

func TestSMISampler(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=8")
	c, rep, err := sampleSMI(t, o, Run{}, ticks(20))
	if err != nil {
		t.Fatal(err)
	}
	first := c.samples[0]
	want := runner.Sample{
		GPU: 0, Source: SourceNvidiaSMI, MemoryUsed: 101 << 20, MemoryReserved: 480 << 20, MemoryTotal: 81559 << 20,
		Power: 71.24, Temperature: 37, MemoryTemp: 37, Utilization: 12, MemoryUtil: 12, ClockSM: 1980, ClockMem: 1980, ThrottleReasons: 4,
		Has: runner.HasMemoryUsed | runner.HasMemoryReserved | runner.HasMemoryTotal | runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp |
			runner.HasUtilization | runner.HasMemoryUtil | runner.HasClockSM | runner.HasClockMem | runner.HasThrottleReasons,
	}
	want.TS, want.Offset, want.Read = first.TS, first.Offset, first.Read
	if first != want {
		t.Errorf("first sample\n got %+v\nwant %+v", first, want)
	}
	for i, s := range c.samples {
		if int(s.GPU) != i%8 {
			t.Fatalf("sample %d is of GPU %d: the rows of a tick are not together", i, s.GPU)
		}
		if s.MemoryUsed != int64(100*(i%8+1)+i/8+1)<<20 {
			t.Fatalf("sample %d of GPU %d: %d bytes", i, s.GPU, s.MemoryUsed)
		}
	}
	if rep.PowerKind != PowerInstant || rep.Name != SourceNvidiaSMI || rep.Ticks < 20 || rep.ToolCPU == nil || rep.IntervalMS.P50 == nil {
		t.Errorf("report: %+v", rep)
	}
	if rep.Missing["energy_j"] == "" {
		t.Error("no reason for the missing energy")
	}
}

func TestSMIOnlyTheRunsGPUs(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=4")
	c, _, err := sampleSMI(t, o, Run{GPUs: []int{2}}, ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.samples {
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
	_, rep, err := sampleSMI(t, o, Run{PIDs: func() []int { return []int{pid} }}, func(c *collector) bool {
		for _, s := range c.samples[max(0, len(c.samples)-2):] {
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
	gap := func(c *collector) bool {
		for _, s := range c.samples {
			if s.Gap {
				return c.ticks >= 12
			}
		}
		return false
	}
	tests := []struct {
		mode  string
		env   []string
		until func(*collector) bool
		notes []string // each must be in the report
		gaps  bool
	}{
		{mode: "hang", until: gap, notes: []string{"hangs: no row for 3s", "started again"}, gaps: true},
		{mode: "silent", until: ticks(5), notes: []string{"no row within", "started again"}},
		{mode: "die", until: gap, notes: []string{"exit code 139", "Segmentation fault", "started again"}},
		{mode: "half", until: gap, notes: []string{"1 lines were no rows", "started again"}},
		{mode: "xid", until: ticks(10), notes: []string{"1 lines were no rows", "XID 63"}},
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
	c, rep, err := sampleSMI(t, o, Run{}, ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	s := c.samples[0]
	if s.Power != 70.5 || rep.PowerKind != PowerAveraged {
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
	c, rep, err := sampleSMI(t, o, Run{}, ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.samples {
		if s.Has != 0 {
			t.Fatalf("a figure came from [N/A]: %+v", s)
		}
	}
	for _, name := range FieldNames(memoryFields | runner.HasPower | runner.HasUtilization) {
		if !strings.Contains(rep.Missing[name], "[N/A]") {
			t.Errorf("%s: reason %q", name, rep.Missing[name])
		}
	}
}

func TestSMIUnitsChange(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=units", "FAKE_TICKS=3")
	c, rep, err := sampleSMI(t, o, Run{}, ticks(8))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range c.samples {
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
	c, rep, err := sampleSMI(t, o, Run{}, func(c *collector) bool {
		if c.ticks > 7 {
			after++
		}
		return after > 100 // long enough for the lost GPU's gap
	})
	if err != nil {
		t.Fatal(err)
	}
	tail := c.samples[len(c.samples)-6:]
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
	_, rep, err := sampleSMI(t, o, Run{}, ticks(10))
	if err != nil {
		t.Fatal(err)
	}
	if rep.Missed < 9 {
		t.Errorf("%d ticks missed at a third of the rate, want about 18", rep.Missed)
	}
	if *rep.IntervalMS.P50 < 20 {
		t.Errorf("p50 %v ms", *rep.IntervalMS.P50)
	}
}

func TestSMIClockJumps(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=clock-jumps", "FAKE_TICKS=3")
	c, rep, err := sampleSMI(t, o, Run{}, ticks(20))
	if err != nil {
		t.Fatal(err)
	}
	last := map[int32]time.Duration{}
	together := 0
	for _, s := range c.samples {
		if s.Offset <= last[s.GPU] || s.Offset-last[s.GPU] > time.Minute {
			t.Fatalf("offset %v after %v: the jump shows", s.Offset, last[s.GPU])
		}
		if s.GPU == 0 && s.Offset-last[0] < time.Millisecond {
			together++
		}
		last[s.GPU] = s.Offset
	}
	if together > len(c.samples)/8 { // this process may be late now and then
		t.Errorf("%d of %d ticks are bunched", together, len(c.samples)/2)
	}
	if !strings.Contains(notes(rep), "rows are dated by their arrival") {
		t.Errorf("notes: %s", notes(rep))
	}
}

// TestSMIDatesBatches feeds rows that waited in the pipe: they are dated by the
// tool's stamps; rows with no stamp to believe are spread over the wait.
func TestSMIDatesBatches(t *testing.T) {
	r, err := Run{Interval: 10 * time.Millisecond}.check()
	if err != nil {
		t.Fatal(err)
	}
	var got []time.Duration
	src := newSMISource(Options{}, r, []smiDevice{{index: 0}})
	src.cols = pick("timestamp", "index", "memory.used")
	st := newSMIStream(src, newMeter(r.Interval, r.Epoch, func(s []runner.Sample) { got = append(got, s[0].Offset) }))
	batch := func(now time.Time, shift time.Duration, ages ...time.Duration) {
		got = nil
		for _, age := range ages {
			st.line([]byte(now.Add(-age-shift).UTC().Format("2006/01/02 15:04:05.000")+", 0, 100"), now)
		}
		st.drained(now)
	}
	now := r.Epoch.Add(time.Second)
	batch(now, 0, 45*time.Millisecond, 35*time.Millisecond, 25*time.Millisecond, 15*time.Millisecond, 5*time.Millisecond)
	for i, off := range got {
		if want := time.Second - time.Duration(45-10*i)*time.Millisecond; off < want-2*time.Millisecond || off > want+2*time.Millisecond {
			t.Errorf("row %d is dated %v, want %v", i, off, want)
		}
	}
	if !st.patient() {
		t.Fatal("stamps that agree are not believed")
	}
	now = now.Add(50 * time.Millisecond)
	batch(now, time.Hour, 45*time.Millisecond, 35*time.Millisecond, 25*time.Millisecond) // the clock was set an hour back
	if st.patient() {
		t.Error("a clock that was set is believed")
	}
	for i := 1; i < len(got); i++ {
		if d := got[i] - got[i-1]; d < 9*time.Millisecond || d > 11*time.Millisecond {
			t.Errorf("rows that waited together are %v apart", d)
		}
	}
	now = now.Add(10 * time.Millisecond)
	batch(now, time.Hour, 0)
	if got[0] != now.Sub(r.Epoch) {
		t.Errorf("dated %v, want its arrival %v", got[0], now.Sub(r.Epoch))
	}
}

// TestSMIRecordedStream feeds what a real nvidia-smi -lms 10 wrote on two H100s
// through the stream, in pieces of several sizes.
func TestSMIRecordedStream(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "nvidia-smi_query-gpu-lms10_H100x2_580.csv"))
	if err != nil {
		t.Fatal(err)
	}
	cols := pick("timestamp", "index", "memory.used", "utilization.gpu", "power.draw.instant", "temperature.gpu")
	for _, piece := range []int{1, 7, 100, 4096, len(data)} {
		r, err := Run{Interval: 10 * time.Millisecond}.check()
		if err != nil {
			t.Fatal(err)
		}
		src := newSMISource(Options{}, r, []smiDevice{{index: 0}, {index: 1}})
		src.cols = cols
		var got []runner.Sample
		ticks := 0
		st := newSMIStream(src, newMeter(r.Interval, r.Epoch, func(s []runner.Sample) { got = append(got, s...); ticks++ }))
		for b := data; len(b) > 0; {
			n := min(piece, len(b))
			if _, err := st.Write(b[:n]); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		st.close()
		if len(got) != 200 || ticks != 100 {
			t.Fatalf("pieces of %d: %d samples in %d ticks, want 200 in 100", piece, len(got), ticks)
		}
		if s := got[0]; s.Power != 71.24 || s.Temperature != 37 || s.MemoryUsed != 0 || s.Has&runner.HasMemoryUsed == 0 {
			t.Errorf("first sample %+v", s)
		}
		peak := int64(0)
		for _, s := range got {
			peak = max(peak, s.MemoryUsed)
		}
		if want := recordedPeak(data); peak != want<<20 {
			t.Errorf("peak %d MiB, want %d", peak>>20, want)
		}
	}
}

// recordedPeak is the highest memory.used, found without the code under test.
func recordedPeak(data []byte) int64 {
	peak := int64(0)
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		v, err := strconv.ParseInt(strings.Split(line, ", ")[2], 10, 64)
		if err == nil {
			peak = max(peak, v)
		}
	}
	return peak
}

func pick(names ...string) []smiColumn {
	var out []smiColumn
	for _, n := range names {
		for _, c := range smiColumns() {
			if c.name == n {
				out = append(out, c)
			}
		}
	}
	return out
}

func FuzzSMIRow(f *testing.F) {
	f.Add("2026/11/23 18:55:49.600, 0, 00000000:00:06.0, 0, 480, 81559, 71.24, 71.22, 37, 39, 0, 0, 345, 2619, 0x0000000000000001")
	f.Add("2026/11/23 18:55:49.600, 0, x, [N/A], [GPU requires reset], 81559 MiB, ERR!, -1, 37, 39, 0 %, 0, 345, 2619, 1")
	f.Fuzz(func(t *testing.T, line string) {
		var row smiRow
		if !parseSMIRow([]byte(line), smiColumns(), &row, func(runner.Fields, []byte) {}) {
			return
		}
		s := row.sample
		if s.Has&runner.HasMemoryUsed == 0 && s.MemoryUsed != 0 {
			t.Errorf("%q: memory without its bit", line)
		}
		if s.Has&memoryFields == memoryFields && s.MemoryUsed > s.MemoryTotal+s.MemoryTotal/64 {
			t.Errorf("%q: more in use than there is", line)
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"{}", "[]", `[{"gpu":0,"power_usage":{"value":1,"unit":"W"}}]`, `{"card0":{"GPU use (%)":"1"}}`, "GPU POWER\n0 1 W\n",
		"timestamp,gpu,power_usage\n1,0,2\n", "# gpu pwr\n 0 1\n", "GPU 0: X (UUID: Y)\n", "<nvidia_smi_log><gpu id='1'>", "==> nodes/1/gpu_id <==\n1\n", "pid, used_gpu_memory [MiB]\n1, 2 MiB\n"} {
		f.Add([]byte(s))
	}
	if files, err := filepath.Glob(filepath.Join(corpusDir(), "*")); err == nil {
		for _, name := range files {
			if b, err := os.ReadFile(name); err == nil && len(b) < 8000 {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(b)
		if err == nil && r == nil {
			t.Error("neither a reading nor an error")
		}
	})
}
