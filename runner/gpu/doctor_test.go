package gpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

func finding(list []Finding, name string) Finding {
	for _, f := range list {
		if f.Name == name {
			return f
		}
	}
	return Finding{Name: name, Status: "absent"}
}

func TestCheckGPU(t *testing.T) {
	g := sampling.NewGPU(3)
	g.Texts["persistence_mode"] = "Disabled"
	g.Texts["recovery_action"] = "Reset"
	g.Texts["compute_mode"] = "Prohibited"
	g.Texts["mig_mode"] = "Enabled"
	errors, none := int64(4), int64(0)
	g.ECC, g.Sample.ThrottleReasons = &errors, 0x1|0x20|0x40
	got := checkGPU(&g)
	for name, want := range map[string][2]string{
		"GPU 3 persistence":  {StatusWarn, "nvidia-smi -pm 1"},
		"GPU 3 ECC":          {StatusFail, "reset the GPU"},
		"GPU 3 health":       {StatusFail, "before a sweep"},
		"GPU 3 compute mode": {StatusFail, "nvidia-smi -c 0"},
		"GPU 3 MIG":          {StatusInfo, ""},
		"GPU 3 throttling":   {StatusWarn, "cooling"},
	} {
		if f := finding(got, name); f.Status != want[0] || !strings.Contains(f.Fix, want[1]) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := finding(got, "GPU 3 throttling"); strings.Contains(f.Found, "gpu_idle") || !strings.Contains(f.Found, "sw_thermal_slowdown, hw_thermal_slowdown") {
		t.Errorf("throttling: %s", f.Found)
	}
	well := sampling.NewGPU(0)
	well.Texts["persistence_mode"], well.Texts["recovery_action"], well.ECC = "Enabled", "None", &none
	for _, f := range checkGPU(&well) {
		if f.Status != StatusOK {
			t.Errorf("a GPU that is well: %+v", f)
		}
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=2", "FAKE_PIDS=4711", "CUDA_VISIBLE_DEVICES=1")
	o.Proc, o.Sys = t.TempDir(), t.TempDir()
	put(t, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1  Mon\n", o.Proc, "driver", "nvidia", "version")
	put(t, "", o.Dev, "nvidia0")
	put(t, "7.50 1 1 1/1 1\n", o.Proc, "loadavg")
	put(t, "cpu  1\ncpu0 1\ncpu1 1\n", o.Proc, "stat")
	put(t, "hpet\n", o.Sys, "devices", "system", "clocksource", "clocksource0", "current_clocksource")
	got := Detect(t.Context(), o, true).Doctor(t.Context(), DoctorOptions{OutputDir: filepath.Join(t.TempDir(), "not", "yet")})
	for name, want := range map[string][2]string{
		"source nvidia-smi": {StatusOK, "memory_used_bytes"},
		"driver":            {StatusFail, "nvidia-smi says 580.0, the kernel has"},
		"GPU 0 use":         {StatusWarn, "python (PID: 4711)"},
		"visible GPUs":      {StatusOK, "1 (CUDA_VISIBLE_DEVICES=1)"},
		"vllm":              {StatusFail, "not on the PATH"},
		"rights":            {StatusOK, "1 device files"},
		"load":              {StatusWarn, "7.5 on 2 cores"},
		"clock source":      {StatusWarn, "hpet"},
		"disk":              {"", "GiB free"},
		"timer":             {"", "of 20 ticks"},
	} {
		f := finding(got, name)
		if f.Status == "absent" || want[0] != "" && f.Status != want[0] || !strings.Contains(f.Found, want[1]) {
			t.Errorf("%s: %+v, want %v", name, f, want)
		}
	}
	for _, f := range got {
		if (f.Status == StatusWarn || f.Status == StatusFail) && f.Fix == "" {
			t.Errorf("no mend: %+v", f)
		}
	}
}

func TestDoctorBrokenTool(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=no-driver")
	o.Proc = t.TempDir()
	put(t, "NVRM version: 580.0\n", o.Proc, "driver", "nvidia", "version")
	got := Detect(t.Context(), o, true).Doctor(t.Context(), DoctorOptions{OutputDir: t.TempDir()})
	if f := finding(got, "source nvidia-smi"); f.Status != StatusFail || f.Fix == "" {
		t.Errorf("%+v", f)
	}
	if f := finding(got, "GPU"); f.Status != StatusFail || !strings.Contains(f.Found, "a GPU is expected") {
		t.Errorf("%+v", f)
	}
}

func TestCheckVLLM(t *testing.T) {
	t.Parallel()
	python := filepath.Join(t.TempDir(), "python3")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, python); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "vllm")
	if err := os.WriteFile(script, []byte("#!"+python+"\nimport sys\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ versions, status, found string }{
		{"vllm 0.26.0\ntorch 2.11.0+cu130\n", StatusOK, "0.26.0"},
		{"vllm 0.6.3\ntorch 2.4.0\n", StatusWarn, "0.6.3"},
		{"vllm -\ntorch 2.4.0\n", StatusFail, "no package vllm"},
	} {
		file := filepath.Join(t.TempDir(), "versions")
		put(t, tt.versions, file)
		m := Detect(t.Context(), Options{Env: []string{"PATH=" + dir, "FAKE_FILE=" + file, "GORACE=atexit_sleep_ms=0"}, Sys: dir, Dev: dir, Sources: []string{}}, false)
		got := m.checkVLLM(t.Context(), nil)
		if len(got) != 1 || got[0].Status != tt.status || !strings.Contains(got[0].Found, tt.found) {
			t.Errorf("%q: %+v", tt.versions, got)
		}
	}
}

func TestInspectNVIDIA(t *testing.T) {
	t.Parallel()
	o := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=3", "FAKE_PIDS=4711,4712")
	m := Detect(t.Context(), o, false)
	d, err := m.Inspect(t.Context(), []int{0, 2})
	if err != nil {
		t.Fatal(err)
	}
	if d.Tool != sampling.SourceNvidiaSMI || len(d.GPUs) != 2 || d.GPUs[1].GPUID != 2 {
		t.Fatalf("%+v", d)
	}
	g := d.GPUs[1]
	if *g.VRAMUsedMB != 300 || *g.VRAMTotalMB != 81559 || *g.VRAMReservedMB != 480 || *g.PowerWatts != 71.24 || *g.ClockGfxMHz != 1980 || g.ThrottleReasons[0] != "sw_power_cap" || *g.ECCUncorrected != 0 {
		t.Errorf("%+v", g)
	}
	if len(g.Processes) != 2 || g.Processes[1].ProcessInfo != "python (PID: 4712)" || g.Processes[1].MemoryUsage.Value != 3001 {
		t.Errorf("%+v", g.Processes)
	}
	if d.Missing["gpus[2].power_draw_limit"] != "" {
		t.Error("a reason for what is not missing")
	}
	visible, err := m.Inspector().Devices(t.Context())
	if err != nil || len(visible) != 3 || *visible[2].UsedBytes != 300<<20 {
		t.Errorf("%+v %v", visible, err)
	}
}

func TestNoGPU(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := Detect(t.Context(), Options{Env: []string{"PATH=" + dir}, Sys: dir, Dev: dir, Proc: "/proc"}, true)
	if len(m.Found()) != 0 {
		t.Fatalf("%+v", m.Found())
	}
	for _, st := range m.Sources() {
		if st.Works || st.Reason == "" {
			t.Errorf("%+v", st)
		}
	}
	d, err := m.Inspect(t.Context(), nil)
	if err != nil || d.Missing["gpus"] == "" {
		t.Errorf("%+v %v", d, err)
	}
	samplers, err := m.Samplers(Run{PIDs: func() []int { return nil }})
	if err != nil || len(samplers) != 1 {
		t.Errorf("%d samplers, want the host's alone: %v", len(samplers), err)
	}
}
