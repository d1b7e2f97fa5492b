package gpu

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/runner/runnertest"
)

// put writes a file of a fake /sys, /proc or /dev.
func put(t testing.TB, text string, elem ...string) {
	t.Helper()
	name := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fakeSys makes n MI300X as sysfs shows them. Card numbers are not in the order
// of the bus, as on real machines, and exceed 9.
func fakeSys(t testing.TB, n int) Options {
	t.Helper()
	sys, dev, proc := t.TempDir(), t.TempDir(), t.TempDir()
	for i := range n {
		card := "card" + strconv.Itoa(20-i)
		dir := filepath.Join(sys, "class", "drm", card, "device")
		put(t, "0x1002\n", dir, "vendor")
		put(t, "0x74a1\n", dir, "device")
		put(t, fmt.Sprintf("DRIVER=amdgpu\nPCI_SLOT_NAME=0000:%02X:00.0\n", 0x10+i), dir, "uevent")
		put(t, "206158430208\n", dir, "mem_info_vram_total")
		put(t, strconv.FormatInt(int64(i+1)<<30, 10)+"\n", dir, "mem_info_vram_used")
		put(t, fmt.Sprintf("8d1457e2c20f59%02x\n", i), dir, "unique_id")
		put(t, "97\n", dir, "gpu_busy_percent")
		put(t, "44\n", dir, "mem_busy_percent")
		put(t, "active\n", dir, "power", "runtime_status")
		put(t, "6.12.12\n", dir, "driver", "module", "version")
		put(t, "", dir, "drm", "renderD"+strconv.Itoa(128+i), "dev")
		hw := filepath.Join(dir, "hwmon", "hwmon7")
		put(t, "612000000\n", hw, "power1_input")
		for j, l := range []string{"", "", "junction", "mem"} {
			if l != "" {
				put(t, l+"\n", hw, fmt.Sprintf("temp%d_label", j))
				put(t, strconv.Itoa(40000+1000*j)+"\n", hw, fmt.Sprintf("temp%d_input", j))
			}
		}
		put(t, "sclk\n", hw, "freq1_label")
		put(t, "1987000000\n", hw, "freq1_input")
		put(t, "mclk\n", hw, "freq2_label")
		put(t, "1300000000\n", hw, "freq2_input")
		put(t, string(fakeMetrics(1, 3, 120, 1_000_000)), dir, "gpu_metrics")
		node := filepath.Join(sys, "class", "kfd", "kfd", "topology", "nodes", strconv.Itoa(2+(i+1)%n))
		put(t, strconv.Itoa(1000+i)+"\n", node, "gpu_id")
		put(t, fmt.Sprintf("location_id %d\ndomain 0\ndrm_render_minor %d\ngfx_target_version 90402\nunique_id 5\n", (0x10+i)<<8, 128+i), node, "properties")
		put(t, "", dev, "dri", "renderD"+strconv.Itoa(128+i))
	}
	put(t, "connector", sys, "class", "drm", "card20-DP-1", "status")
	put(t, "0\n", sys, "class", "kfd", "kfd", "topology", "nodes", "0", "gpu_id")
	return Options{
		Sys: sys, Dev: dev, Proc: proc, Env: fakeTools(t, []string{"nvml-helper"}).Env, Helper: []string{"nvml-helper"},
		Sources: []string{sampling.SourceAMDGPU, sampling.SourceAMDSMI, sampling.SourceROCmSMI},
	}
}

func fakeMetrics(format, content byte, size int, energy uint64) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint16(b, uint16(size))
	b[2], b[3] = format, content
	binary.LittleEndian.PutUint64(b[24:], energy)
	return b
}

func amdDir(o Options, i int, elem ...string) string {
	return filepath.Join(append([]string{o.Sys, "class", "drm", "card" + strconv.Itoa(20-i), "device"}, elem...)...)
}

func sampleAMD(t testing.TB, o Options, r Run, until func(*runnertest.Collector) bool) (*Machine, *runnertest.Collector, *runner.SamplerReport) {
	t.Helper()
	m := Detect(t.Context(), o, false)
	samplers, err := m.Samplers(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(samplers) == 0 {
		t.Fatalf("no sampler; sources %+v", m.Sources())
	}
	c, rep, err := runnertest.Collect(t, samplers[0], until)
	if err != nil {
		t.Fatal(err)
	}
	return m, c, rep
}

func TestAMDSampler(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 3)
	pid := 4242
	put(t, "5368709120\n", o.Sys, "class", "kfd", "kfd", "proc", strconv.Itoa(pid), "vram_1001")
	m, c, rep := sampleAMD(t, o, Run{Interval: 50 * time.Millisecond, PIDs: func() []int { return []int{pid} }}, runnertest.Ticks(6))
	dev := m.Found()
	if len(dev) != 3 || dev[0].PCIBusID != "0000:10:00.0" || dev[0].Name != "AMD Instinct MI300X" || dev[0].DriverVersion != "6.12.12" || *dev[0].TotalBytes != 206158430208 {
		t.Fatalf("devices %+v", dev)
	}
	for i, want := range []int{1, 2, 0} { // KFD's order is another one than the bus's
		if *dev[i].ComputeIndex != want {
			t.Errorf("device %d: compute index %d, want %d", i, *dev[i].ComputeIndex, want)
		}
	}
	var all runner.Fields
	for _, s := range c.Samples {
		all |= s.Has
		if s.Has&runner.HasMemoryUsed == 0 || s.MemoryUsed != int64(s.GPU+1)<<30 || s.MemoryTotal != 206158430208 {
			t.Fatalf("memory of %+v", s)
		}
		if s.Has&runner.HasPower != 0 && (s.Power != 612 || s.Temperature != 42 || s.MemoryTemp != 43 || s.Utilization != 97 || s.MemoryUtil != 44 || s.ClockSM != 1987 || s.ClockMem != 1300) {
			t.Fatalf("sensors of %+v", s)
		}
		if s.Has&runner.HasEnergy != 0 && (s.Energy < 15.258 || s.Energy > 15.260) {
			t.Fatalf("energy %v, want 15.259 J", s.Energy)
		}
		if s.Has&runner.HasProcessMemory != 0 && (s.GPU != 1 || s.ProcessMemory != 5368709120) {
			t.Fatalf("process memory of %+v", s)
		}
	}
	want := runner.HasMemoryUsed | runner.HasMemoryTotal | runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp | runner.HasUtilization |
		runner.HasMemoryUtil | runner.HasClockSM | runner.HasClockMem | runner.HasEnergy | runner.HasProcessMemory
	if all != want {
		t.Errorf("figures %v, want %v", sampling.FieldNames(all), sampling.FieldNames(want))
	}
	if rep.PowerKind != sampling.PowerInstant || rep.Missing["throttle_reasons"] == "" || rep.Missing["memory_reserved_bytes"] == "" {
		t.Errorf("report %+v", rep)
	}
}

// TestAMDThroughHelper samples in the helper child: figures, notes and reasons
// come through, a suspended card is left alone, and a helper that dies comes back.
func TestAMDThroughHelper(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 3)
	put(t, "suspended\n", amdDir(o, 2, "power", "runtime_status"))
	put(t, "nonsense\n", amdDir(o, 0, "hwmon", "hwmon7", "freq2_input"))
	if err := os.Remove(amdDir(o, 1, "mem_busy_percent")); err != nil {
		t.Fatal(err)
	}
	put(t, "5368709120\n", o.Sys, "class", "kfd", "kfd", "proc", "4242", "vram_1001")
	var helpers []proc.Process
	o.Start = func(ctx context.Context, spec proc.Spec) (proc.Process, error) {
		p, err := proc.Start(ctx, spec)
		helpers = append(helpers, p)
		return p, err
	}
	killed := 0
	var all runner.Fields
	_, c, rep := sampleAMD(t, o, Run{Interval: 10 * time.Millisecond, GPUs: []int{1, 2, 0}, PIDs: func() []int { return []int{4242} }}, func(c *runnertest.Collector) bool {
		for _, s := range c.Samples[max(0, len(c.Samples)-2):] {
			all |= s.Has
		}
		if killed == 0 && c.Ticks > 60 {
			helpers[0].Kill("test")
			killed = c.Ticks
		}
		return killed > 0 && c.Ticks > killed+60
	})
	last := map[int32]time.Duration{}
	for _, s := range c.Samples {
		if s.GPU == 2 {
			t.Fatal("a suspended card was read: that wakes it")
		}
		if s.Source != sampling.SourceAMDGPU || s.MemoryUsed != int64(s.GPU+1)<<30 || s.Offset <= last[s.GPU] || s.Read <= 0 {
			t.Fatalf("sample %+v after %v", s, last[s.GPU])
		}
		if s.Has&runner.HasProcessMemory != 0 && (s.GPU != 1 || s.ProcessMemory != 5368709120) {
			t.Fatalf("process memory of %+v", s)
		}
		last[s.GPU] = s.Offset
	}
	if want := runner.HasMemoryUsed | runner.HasPower | runner.HasEnergy | runner.HasProcessMemory | runner.HasClockMem; all&want != want {
		t.Errorf("figures %v, want %v among them", sampling.FieldNames(all), sampling.FieldNames(want))
	}
	for _, want := range []string{"GPU 2 (0000:12:00.0) is suspended", "clock_mem_mhz is missing in", "holds no number", "killed", "started again"} {
		if !strings.Contains(notes(rep), want) {
			t.Errorf("notes lack %q:\n%s", want, notes(rep))
		}
	}
	if rep.PowerKind != sampling.PowerInstant || rep.ToolCPU == nil || *rep.ToolCPU <= 0 || rep.Missing["throttle_reasons"] == "" {
		t.Errorf("report %+v", rep)
	}
}

func TestAMDHiddenFromContainer(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 3)
	for _, minor := range []string{"128", "130"} {
		if err := os.Remove(filepath.Join(o.Dev, "dri", "renderD"+minor)); err != nil {
			t.Fatal(err)
		}
	}
	m := Detect(t.Context(), o, false)
	if d := m.Found(); len(d) != 1 || d[0].PCIBusID != "0000:11:00.0" || *d[0].ComputeIndex != 0 {
		t.Errorf("devices %+v: want the one whose render node is there", d)
	}
	if err := os.Remove(filepath.Join(o.Dev, "dri", "renderD129")); err != nil {
		t.Fatal(err)
	}
	m = Detect(t.Context(), o, false)
	if st := m.Sources()[0]; st.Works || !strings.Contains(st.Reason, "not given to this container") {
		t.Errorf("%+v", st)
	}
}

// TestAMDCardFails breaks one card while it is sampled: the others go on, the
// card's gap is marked, and it comes back.
func TestAMDCardFails(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 2)
	broken, mended := false, false
	_, c, rep := sampleAMD(t, o, Run{Interval: 10 * time.Millisecond}, func(c *runnertest.Collector) bool {
		last := c.Samples[len(c.Samples)-1]
		switch {
		case !broken && c.Ticks == 5:
			put(t, "0\n", amdDir(o, 1, "mem_info_vram_used"))
			broken = true
		case broken && !mended && c.Ticks > 60:
			put(t, "2147483648\n", amdDir(o, 1, "mem_info_vram_used"))
			mended = true
		}
		return mended && last.GPU == 1 && last.Gap
	})
	zero := 0
	for _, s := range c.Samples {
		if s.Has&runner.HasMemoryUsed != 0 && s.MemoryUsed == 0 {
			zero++
		}
	}
	if zero > 0 {
		t.Errorf("%d samples say 0 bytes while the card was in reset", zero)
	}
	for _, want := range []string{"GPU 1 (0000:11:00.0) cannot be read", "GPU 1 (0000:11:00.0) can be read again"} {
		if !strings.Contains(notes(rep), want) {
			t.Errorf("notes lack %q:\n%s", want, notes(rep))
		}
	}
	if len(rep.Gaps) == 0 || rep.Gaps[0].GPU != 1 {
		t.Errorf("gaps %+v", rep.Gaps)
	}
}

func TestAMDSuspended(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 2)
	put(t, "suspended\n", amdDir(o, 1, "power", "runtime_status"))
	_, c, rep := sampleAMD(t, o, Run{Interval: 10 * time.Millisecond}, runnertest.Ticks(5))
	for _, s := range c.Samples {
		if s.GPU == 1 {
			t.Fatal("a suspended card was read: that wakes it")
		}
	}
	if !strings.Contains(notes(rep), "is suspended") {
		t.Errorf("notes: %s", notes(rep))
	}
}

func TestAMDZerosWhileInReset(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 1)
	for _, f := range []string{"power1_input", "temp2_input"} {
		put(t, "0\n", amdDir(o, 0, "hwmon", "hwmon7", f))
	}
	_, c, rep := sampleAMD(t, o, Run{Interval: 50 * time.Millisecond}, runnertest.Ticks(3))
	for _, s := range c.Samples {
		if s.Has&(runner.HasPower|runner.HasTemperature|runner.HasUtilization) != 0 {
			t.Fatalf("0 W and 0 °C counted: %+v", s)
		}
	}
	if !strings.Contains(rep.Missing["power_w"], "being reset") {
		t.Errorf("missing %v", rep.Missing)
	}
}

func TestAMDUnknownMetricsRevision(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 1)
	put(t, string(fakeMetrics(1, 9, 1024, 77)), amdDir(o, 0, "gpu_metrics"))
	_, c, rep := sampleAMD(t, o, Run{Interval: 50 * time.Millisecond}, runnertest.Ticks(3))
	for _, s := range c.Samples {
		if s.Has&runner.HasEnergy != 0 {
			t.Fatal("energy was read from a layout that is not known")
		}
	}
	if !strings.Contains(rep.Missing["energy_j"], "not known") {
		t.Errorf("missing %v", rep.Missing)
	}
}

func TestAMDPartitions(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 1)
	node := filepath.Join(o.Sys, "class", "kfd", "kfd", "topology", "nodes", "3")
	put(t, "2001\n", node, "gpu_id")
	put(t, fmt.Sprintf("location_id %d\ndomain 0\ndrm_render_minor 0\ngfx_target_version 90402\n", 0x10<<8|1), node, "properties")
	m := Detect(t.Context(), o, false)
	d := m.Found()
	if len(d) != 3 || d[0].Parent != "" || d[1].Parent != d[0].UUID || d[2].PCIBusID != "0000:10:00.1" || d[2].Index != 0 || *d[2].ComputeIndex != 1 {
		t.Fatalf("devices %+v", d)
	}
	if d[1].TotalBytes != nil {
		t.Error("a partition's memory is not reported by sysfs: it must not be the whole GPU's")
	}
	chosen, _, err := Visible(d, nil)
	if err != nil || len(chosen) != 2 || chosen[1].PCIBusID != "0000:10:00.1" {
		t.Errorf("chosen %+v, %v", chosen, err)
	}
}

func TestAMDInspect(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 2)
	put(t, "1073741824\n", o.Sys, "class", "kfd", "kfd", "proc", "77", "vram_1000")
	put(t, "python3\n", o.Proc, "77", "comm")
	m := Detect(t.Context(), o, false)
	d, err := m.Inspect(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if d.Tool != sampling.SourceAMDGPU || len(d.GPUs) != 2 {
		t.Fatalf("%+v", d)
	}
	g := d.GPUs[0]
	if *g.VRAMUsedMB != 1024 || *g.PowerWatts != 612 || *g.HotspotTempC != 42 || *g.ClockGfxMHz != 1987 {
		t.Errorf("%+v", g)
	}
	if len(g.Processes) != 1 || g.Processes[0].ProcessInfo != "python3 (PID: 77)" || g.Processes[0].MemoryUsage.Value != 1024 {
		t.Errorf("processes %+v", g.Processes)
	}
	if d.GPUs[1].Processes == nil || len(d.GPUs[1].Processes) != 0 {
		t.Errorf("GPU 1: processes %v, want none and told so", d.GPUs[1].Processes)
	}
}

// TestSlowSources samples through fakes of amd-smi and rocm-smi that print
// recorded outputs.
func TestSlowSources(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		tool, file string
		used       int64
	}{
		{sampling.SourceAMDSMI, "amd-smi_metric_rocm6.2.2_harness.json", 143360 << 20},
		{sampling.SourceROCmSMI, "rocm-smi_all_mi100_rocm602.json", 6750208},
	} {
		t.Run(tt.tool, func(t *testing.T) {
			corpus(t, tt.file)
			abs, err := filepath.Abs(filepath.Join(corpusDir(), tt.file))
			if err != nil {
				t.Fatal(err)
			}
			o := fakeTools(t, []string{tt.tool}, "FAKE_FILE="+abs)
			o.Sources = sampling.DefaultSources()
			_, c, rep := sampleAMD(t, o, Run{Interval: 10 * time.Millisecond}, runnertest.Ticks(2))
			if s := c.Samples[0]; s.MemoryUsed != tt.used || s.Source != tt.tool || s.Read <= 0 || s.Has&runner.HasPower == 0 {
				t.Errorf("sample %+v", s)
			}
			if rep.Name != tt.tool || !strings.Contains(notes(rep), "started anew for every sample") {
				t.Errorf("report %+v", rep)
			}
		})
	}
}
