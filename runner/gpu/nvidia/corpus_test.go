package nvidia

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

func corpusDir() string { return filepath.Join("..", "..", "..", "..", "shared", "corpus", "gpu") }

// readRecorded reads a recorded answer of --query-gpu, whatever it was asked
// for: what is not a column of ours is kept as text.
func readRecorded(data []byte) (*sampling.Reading, error) {
	header, _, _ := bytes.Cut(data, []byte{'\n'})
	q := smiQuery{}
	for _, name := range strings.Split(string(header), ",") {
		name, _, _ = strings.Cut(strings.TrimSpace(name), " [")
		col := smiColumn{name: name, kind: colText}
		for _, c := range smiFullColumns() {
			if c.name == name || c.alias == name {
				col = c
			}
		}
		q.cols = append(q.cols, col)
	}
	return q.reading(&sampling.Output{Stdout: data})
}

// TestOwnRecording reads what this project recorded on two H100s, without the
// corpus. The figures were read off the file by eye.
func TestOwnRecording(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "nvidia-smi_query-gpu_H100x2_580.csv"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := readRecorded(data)
	if err != nil || len(r.GPUs) != 2 || r.Driver != "580.159.04" {
		t.Fatalf("%+v, %v", r, err)
	}
	g := r.GPUs[1]
	s := g.Sample
	if g.Index != 1 || g.BusID != "00000000:00:07.0" || g.Name != "NVIDIA H100 80GB HBM3" || *g.ECC != 0 ||
		s.MemoryTotal != 81559<<20 || s.MemoryReserved != 480<<20 || s.MemoryUsed != 0 || s.Power != 76.70 ||
		g.PowerKind != sampling.PowerInstant || s.Temperature != 42 || s.MemoryTemp != 44 || s.Utilization != 0 ||
		s.ClockSM != 345 || s.ClockMem != 2619 || s.ThrottleReasons != 1 || !g.Has(sampling.MemoryFields) {
		t.Errorf("%+v", g)
	}
}

// TestCorpus compares recorded answers of --query-gpu with what their sidecars
// say that they hold.
func TestCorpus(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(corpusDir(), "nvidia-smi_query-gpu_*.csv"))
	if len(files) == 0 {
		testenv.Skip(t, "no corpus beside the repository")
	}
	figures := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { figures += compareRecorded(t, file) })
	}
	if figures < 50 {
		t.Errorf("%d figures compared", figures)
	}
}

func compareRecorded(t *testing.T, file string) (figures int) {
	var want struct {
		GPUs []map[string]any `json:"gpus"`
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	side, err := os.ReadFile(file + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(side, &want); err != nil {
		t.Fatal(err)
	}
	r, err := readRecorded(data)
	if err != nil || len(want.GPUs) > 0 && len(r.GPUs) != len(want.GPUs) {
		t.Fatalf("%d GPUs, want %d; %v", len(r.GPUs), len(want.GPUs), err)
	}
	for i, w := range want.GPUs {
		g := &r.GPUs[i]
		s := g.Sample
		have := map[string]any{"name": g.Name, "uuid": g.UUID, "pci_bus_id": g.BusID}
		for _, f := range []struct {
			name  string
			field runner.Fields
			value float64
		}{
			{"memory_total_mib", runner.HasMemoryTotal, float64(s.MemoryTotal >> 20)},
			{"memory_reserved_mib", runner.HasMemoryReserved, float64(s.MemoryReserved >> 20)},
			{"memory_used_mib", runner.HasMemoryUsed, float64(s.MemoryUsed >> 20)},
			{"power_draw_instant_w", runner.HasPower, s.Power},
			{"temperature_gpu_c", runner.HasTemperature, s.Temperature},
			{"temperature_memory_c", runner.HasMemoryTemp, s.MemoryTemp},
			{"utilization_gpu_pct", runner.HasUtilization, float64(s.Utilization)},
			{"utilization_memory_pct", runner.HasMemoryUtil, float64(s.MemoryUtil)},
			{"clock_sm_mhz", runner.HasClockSM, float64(s.ClockSM)},
			{"clock_mem_mhz", runner.HasClockMem, float64(s.ClockMem)},
		} {
			have[f.name] = nil
			if g.Has(f.field) {
				have[f.name] = f.value
			}
		}
		for name, v := range w {
			if got, ok := have[name]; ok {
				figures++
				if v == nil && name == "power_draw_instant_w" {
					continue // power.draw stands in
				}
				if got != v {
					t.Errorf("GPU %d: %s = %v, want %v", i, name, got, v)
				}
			}
		}
	}
	return figures
}

// TestList reads `nvidia-smi -L` of a machine with MIG instances.
func TestList(t *testing.T) {
	parts := readSMIList([]byte("GPU 0: NVIDIA H200 (UUID: GPU-a)\n  MIG 1g.18gb     Device  0: (UUID: MIG-x)\n" +
		"  MIG 2g.35gb     Device  1: (UUID: MIG-y)\nGPU 1: NVIDIA H200 (UUID: GPU-b)\n"))
	if p := parts["GPU-a"]; len(p) != 2 || p[1].Name != "2g.35gb" || p[1].UUID != "MIG-y" || len(parts["GPU-b"]) != 0 {
		t.Errorf("%+v", parts)
	}
}

func TestParseApp(t *testing.T) {
	bus, p, ok := parseApp([]byte("00000000:00:06.0, 1026, 630, python3 -c a, b\n"))
	if !ok || bus != "00000000:00:06.0" || p.PID != 1026 || *p.Bytes != 630<<20 || p.Name != "python3 -c a, b" {
		t.Errorf("%s %+v %v", bus, p, ok)
	}
	if _, p, ok = parseApp([]byte("00000000:00:06.0, 7, [N/A], x")); !ok || p.Bytes != nil {
		t.Errorf("%+v %v", p, ok)
	}
	for _, bad := range []string{"", "No running processes found", "a, x, 1, b", "a, 0, 1, b"} {
		if _, _, ok := parseApp([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
}
