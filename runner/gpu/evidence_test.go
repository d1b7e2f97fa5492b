package gpu

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/runnertest"
)

const fakeMeminfo = "MemTotal:       125829120 kB\nMemFree: 1 kB\nMemAvailable:   104857600 kB\n"

// TestMemoryNotTold has a GPU that does not report its memory: it is listed, read and
// sampled, and its memory is null with the tool's reason.
func TestMemoryNotTold(t *testing.T) {
	t.Parallel()
	for mode, token := range map[string]string{"no-memory": "[N/A]", "reset": "[GPU requires reset]"} {
		o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=1", "FAKE_MODE="+mode)
		m := Detect(t.Context(), o, false)
		if st := m.Sources()[0]; !st.Works || !st.Used || !strings.Contains(st.Reason, "memory in use: "+token) {
			t.Errorf("source %+v", st)
		}
		devices, err := m.Devices(t.Context())
		if err != nil || len(devices) != 1 || devices[0].UsedBytes != nil || devices[0].TotalBytes != nil {
			t.Errorf("devices %+v, %v", devices, err)
		}
		d, err := m.Inspect(t.Context(), nil)
		if err != nil || d.GPUs[0].VRAMUsedMB != nil || d.GPUs[0].HotspotTempC == nil {
			t.Errorf("%+v, %v", d, err)
		}
		if d.Missing["gpus[0].memory_used_bytes"] != token {
			t.Errorf("missing %v", d.Missing)
		}
		c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(3))
		if err != nil || c.Samples[0].Has&runner.HasTemperature == 0 || c.Samples[0].Has&sampling.MemoryFields != 0 {
			t.Errorf("sample %+v, %v", c.Samples[0], err)
		}
		if rep.Missing["memory_used_bytes"] != token {
			t.Errorf("missing %v", rep.Missing)
		}
		f := finding(m.Doctor(t.Context(), DoctorOptions{OutputDir: t.TempDir()}), "GPU 0 memory")
		if f.Status != StatusWarn || !strings.Contains(f.Found, token) || f.Fix == "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestSharedMemory has a GPU that shares the host's memory: its account is that of
// /proc/meminfo, and every result says so.
func TestSharedMemory(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"NVIDIA GB10", "Orin (nvgpu)", "NVIDIA Thor"} {
		o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=2", "FAKE_MODE=no-memory", "FAKE_NAME="+name)
		o.Proc = t.TempDir()
		put(t, fakeMeminfo, o.Proc, "meminfo")
		m := Detect(t.Context(), o, false)
		devices, err := m.Devices(t.Context())
		if err != nil || *devices[0].TotalBytes != 120<<30 || *devices[0].UsedBytes != 20<<30 ||
			devices[0].Source != "nvidia-smi and /proc/meminfo" {
			t.Fatalf("%s: %+v, %v", name, devices[0], err)
		}
		if *devices[1].TotalBytes != 81559<<20 || devices[1].Source != sampling.SourceNvidiaSMI {
			t.Errorf("the other GPU: %+v", devices[1])
		}
		d, err := m.Inspect(t.Context(), nil)
		why := d.Missing["gpus[0].memory_used_bytes"]
		if err != nil || d.GPUs[0].VRAMUsedMB != nil || !strings.Contains(why, "/proc/meminfo") {
			t.Errorf("what others hold of the host's memory must not look like a busy GPU: %+v, %v", d, err)
		}
		samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond, PIDs: func() []int { return nil }})
		if err != nil || len(samplers) != 3 {
			t.Fatalf("%d samplers, %v", len(samplers), err)
		}
		c, rep, err := runnertest.Collect(t, samplers[1], runnertest.Ticks(3))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.Samples {
			if s.GPU != 0 || s.MemoryUsed != 20<<30 || s.MemoryTotal != 120<<30 || s.Source != sampling.SourceMeminfo {
				t.Errorf("sample %+v", s)
			}
		}
		if rep.Name != sampling.SourceMeminfo || !strings.Contains(notes(rep), "GPU 0: memory is that of the host") {
			t.Errorf("report %+v", rep)
		}
		f := finding(m.Doctor(t.Context(), DoctorOptions{OutputDir: t.TempDir()}), "GPU 0 memory")
		if f.Status != StatusInfo || !strings.Contains(f.Found, "/proc/meminfo") {
			t.Errorf("%+v", f)
		}
	}
}

// TestMeminfoNotTold has nothing in the place of the host's account: null, with the
// driver's reason.
func TestMeminfoNotTold(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "MemTotal: 1 kB\nMemAvailable: 2 kB\n", "MemTotal: x\n"} {
		o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=1", "FAKE_MODE=no-memory", "FAKE_NAME=NVIDIA GB10")
		o.Proc = t.TempDir()
		put(t, text, o.Proc, "meminfo")
		d, err := Detect(t.Context(), o, false).Devices(t.Context())
		if err != nil || d[0].TotalBytes != nil || d[0].UsedBytes != nil {
			t.Errorf("%q: %+v, %v", text, d, err)
		}
	}
}

// TestNVMLWithoutMemory samples GPUs whose memory call is not supported, and finds
// one that requires a reset.
func TestNVMLWithoutMemory(t *testing.T) {
	t.Parallel()
	lib := stubNVML(t)
	m := nvmlMachine(t, nvmlOptions(t, lib, "STUB_NO_MEMORY=3"))
	samplers, err := m.Samplers(Run{Interval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c, rep, err := runnertest.Collect(t, samplers[0], runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Samples[0]; s.Has&sampling.MemoryFields != 0 || s.Power != 310.25 {
		t.Errorf("sample %+v", s)
	}
	if why := rep.Missing["memory_used_bytes"]; why != "not supported (NVML 3)" {
		t.Errorf("missing %q", why)
	}
	m = Detect(t.Context(), nvmlOptions(t, lib, "STUB_NO_MEMORY=16"), false)
	defer m.Close()
	notes := strings.Join(m.MemoryNotes(), "\n")
	if len(m.Found()) == 0 || !strings.Contains(notes, "GPU requires reset (NVML 16)") {
		t.Errorf("%+v, notes %q", m.Found(), notes)
	}
}

// TestImpossibleValues has a tool that prints what cannot be: null with the value
// as the reason, the other figures and the other GPU go on.
func TestImpossibleValues(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=2", "FAKE_MODE=impossible")
	c, rep, err := sampleSMI(t, o, Run{GPUs: []int{0}}, runnertest.Ticks(3))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Samples {
		const bad = runner.HasMemoryUsed | runner.HasClockSM | runner.HasClockMem | runner.HasPower
		if s.Has&bad != 0 || s.Has&runner.HasTemperature == 0 || s.ClockSM != 0 || s.MemoryUsed != 0 {
			t.Fatalf("sample %+v", s)
		}
	}
	for name, want := range map[string]string{
		"memory_used_bytes": "-5 TB", "clock_sm_mhz": "-500", "power_w": "99999999",
	} {
		if !strings.Contains(rep.Missing[name], "impossible value: "+want) {
			t.Errorf("%s: %q", name, rep.Missing[name])
		}
	}
}

// TestFrozenRows has a tool that prints the same row again and again: it is one
// sample, and the tool counts as hung.
func TestFrozenRows(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=1", "FAKE_MODE=frozen")
	c, rep, err := sampleSMI(t, o, Run{}, runnertest.Ticks(2)) // the second comes once the tool was started again
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Samples) != 2 || !c.Samples[1].Gap {
		t.Errorf("samples %+v", c.Samples)
	}
	if !strings.Contains(notes(rep), "hangs: no row for 2s") || !strings.Contains(notes(rep), "were no rows") {
		t.Errorf("notes: %s", notes(rep))
	}
}

// TestToolHangsAtFirst has nvidia-smi hang when first asked: that is no machine
// without a GPU.
func TestToolHangsAtFirst(t *testing.T) {
	t.Parallel()
	hangs := func(env ...string) Options {
		o := fakeTools(t, []string{"nvidia-smi"}, append(env, "FAKE_MODE=probe-hangs")...)
		o.ToolTimeout = 100 * time.Millisecond
		return o
	}
	m := Detect(t.Context(), hangs(), false)
	if st := m.Sources()[0]; !errors.Is(st.Err, sampling.ErrHung) {
		t.Errorf("source %+v", st)
	}
	for _, err := range []error{m.Unread(), second(m.Devices(t.Context())), second(m.Inspector().Devices(t.Context()))} {
		if err == nil || !strings.Contains(err.Error(), "a GPU is expected") ||
			!strings.Contains(err.Error(), "did not answer within 100ms") {
			t.Errorf("%v", err)
		}
	}
	if f := finding(m.Doctor(t.Context(), DoctorOptions{OutputDir: t.TempDir()}), "GPU"); f.Status != StatusFail {
		t.Errorf("%+v", f)
	}
	if err := Detect(t.Context(), hangs("CUDA_VISIBLE_DEVICES="), false).Unread(); err != nil {
		t.Errorf("the user said that there is none: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestGPUExpected judges machines without a GPU that can be read by what speaks for
// one.
func TestGPUExpected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		tools     []string
		dev, proc []string
		want      string
	}{
		{name: "nothing"},
		{name: "a tool alone", tools: []string{"nvidia-smi"}},
		{name: "a container without GPUs", proc: []string{"driver", "nvidia", "version"}},
		{
			name: "a driver and its tool", tools: []string{"nvidia-smi"}, proc: []string{"driver", "nvidia", "version"},
			want: "the driver in",
		},
		{name: "device files", dev: []string{"nvidia0"}, want: "/nvidia0"},
		{name: "a Jetson", dev: []string{"nvhost-gpu"}, want: "/nvhost-gpu"},
		{name: "control files alone", dev: []string{"nvidiactl"}},
	} {
		o := fakeTools(t, tt.tools, "FAKE_MODE=no-driver")
		o.Proc = t.TempDir()
		if tt.dev != nil {
			put(t, "", append([]string{o.Dev}, tt.dev...)...)
		}
		if tt.proc != nil {
			put(t, "580", append([]string{o.Proc}, tt.proc...)...)
		}
		err := Detect(t.Context(), o, false).Unread()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestListOfProcessesHangs has the list of compute processes hang: the figures
// come, and it is not asked for again at the next reading.
func TestListOfProcessesHangs(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=apps-hang")
	o.ToolTimeout = 2 * time.Minute // longer than this test may take
	m := Detect(t.Context(), o, false)
	mark := filepath.Join(filepath.Dir(lostMarkOf(o)), "listed")
	for i, want := range []string{
		"did not answer within 2s of the figures", "not asked for: the list of processes did not answer at ",
	} {
		d, err := m.Inspect(t.Context(), nil)
		if err != nil || d.GPUs[0].VRAMUsedMB == nil || d.GPUs[0].Processes != nil {
			t.Fatalf("%+v, %v", d, err)
		}
		if why := d.Missing["gpus[0].processes"]; !strings.Contains(why, want) {
			t.Errorf("reading %d: %q", i, why)
		}
		if asked := sampling.Exists(mark); asked != (i == 0) {
			t.Errorf("reading %d: asked %v", i, asked)
		}
		_ = os.Remove(mark)
	}
}

// lostMarkOf is the folder of the fake tools.
func lostMarkOf(o Options) string {
	dir, _ := sampling.EnvValue(o.Env, "FAKE_DIR")
	return filepath.Join(dir, "lost")
}

// TestAMDUnderflow has a kernel whose account of VRAM ran below zero: the memory is
// null with the reason, and the card is read on.
func TestAMDUnderflow(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"18446744073708503040\n", "-1048576\n", "306158430208\n"} {
		o := fakeSys(t, 1)
		put(t, text, amdDir(o, 0, "mem_info_vram_used"))
		m, c, rep := sampleAMD(t, o, Run{Interval: 50 * time.Millisecond}, runnertest.Ticks(3))
		for _, s := range c.Samples {
			if s.Has&runner.HasMemoryUsed != 0 || s.MemoryUsed != 0 || s.MemoryTotal != 206158430208 {
				t.Fatalf("%q: %+v", text, s)
			}
		}
		if why := rep.Missing["memory_used_bytes"]; !strings.Contains(why, "impossible value") || c.Samples[0].Power != 612 {
			t.Errorf("%q: %q, %+v", text, why, c.Samples[0])
		}
		d, err := m.Devices(t.Context())
		if err != nil || d[0].UsedBytes != nil {
			t.Errorf("%+v, %v", d, err)
		}
	}
}

// TestAPU has a card that shares the host's memory: VRAM and GTT count together, and
// every result says so.
func TestAPU(t *testing.T) {
	t.Parallel()
	o := fakeSys(t, 2)
	for name, text := range map[string]string{
		"mem_info_vram_total": "536870912\n", "mem_info_vram_used": "268435456\n",
		"gpu_metrics":        string(fakeMetrics(3, 0, 264, 0)),
		"mem_info_gtt_total": "33554432000\n", "mem_info_gtt_used": "21474836480\n",
	} {
		put(t, text, amdDir(o, 0, name))
	}
	m, c, rep := sampleAMD(t, o, Run{Interval: 50 * time.Millisecond, GPUs: []int{0}}, runnertest.Ticks(2))
	if s := c.Samples[0]; s.MemoryUsed != 268435456+21474836480 || s.MemoryTotal != 536870912+33554432000 {
		t.Errorf("%+v", s)
	}
	const want = "GPU 0: memory is that of an APU: 512 MiB of VRAM and 32000 MiB of the host's memory (GTT), " +
		"counted together"
	if !slices.Contains(rep.Notes, want) || !slices.Equal(m.MemoryNotes(), []string{want}) {
		t.Errorf("notes %q, %q", rep.Notes, m.MemoryNotes())
	}
	put(t, "18446744073708503040\n", amdDir(o, 0, "mem_info_vram_used"))
	if d, err := m.Devices(t.Context()); err != nil || d[0].UsedBytes != nil {
		t.Errorf("an account that ran below zero was added: %+v, %v", d[0], err)
	}
}

// TestAMDSMI7 reads a ROCm 7 whose metric tells neither name nor bus, and whose
// account of VRAM ran below zero.
func TestAMDSMI7(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"amd-smi"})
	o.Sources = []string{sampling.SourceAMDGPU, sampling.SourceAMDSMI}
	dir := filepath.Dir(lostMarkOf(o))
	put(t, `WARNING: User is missing the group [render]
{"gpu_data": [{"gpu": 0, "usage": "N/A", "power": {"socket_power": {"value": 20, "unit": "W"}}, "mem_usage": {
 "total_vram": {"value": 2048, "unit": "MB"}, "used_vram": {"value": 17592186044415, "unit": "MB"},
 "total_gtt": {"value": 32023, "unit": "MB"}, "used_gtt": {"value": 1162, "unit": "MB"}}}]}`, dir, "metric.json")
	put(t, `{"gpu_data": [{"gpu": 0, "asic": {"market_name": "AMD Radeon 9999", "asic_serial": "0x00FE"},
 "bus": {"bdf": "0000:c5:00.0"}}]}`, dir, "static.json")
	put(t, `{"gpu_data": [{"gpu": 0, "bdf": "0000:c5:00.0", "uuid": "00ff150e-0000-1000-8000-000000000000"}]}`,
		dir, "list.json")
	m := Detect(t.Context(), o, false)
	d, err := m.Devices(t.Context())
	if err != nil || len(d) != 1 || d[0].Name != "AMD Radeon 9999" || d[0].PCIBusID != "0000:c5:00.0" ||
		d[0].UUID != "00fe" {
		t.Fatalf("%+v, %v", d, err)
	}
	if d[0].UsedBytes != nil || *d[0].TotalBytes != 2<<30 {
		t.Errorf("%+v", d[0])
	}
	notes := strings.Join(m.MemoryNotes(), "\n")
	if !strings.Contains(notes, "impossible value: 17592186044415 MB") ||
		!strings.Contains(notes, "1162 MB of 32023 MB beside it (GTT)") {
		t.Errorf("notes %s", notes)
	}
}
