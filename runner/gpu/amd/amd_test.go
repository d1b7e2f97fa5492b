package amd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

func corpusDir() string { return filepath.Join("..", "..", "..", "..", "shared", "corpus", "gpu") }

// A sidecar says what an output of the corpus must yield.
type sidecar struct {
	GPUs              []map[string]any  `json:"gpus"`
	Processes         *[]map[string]any `json:"processes"`
	ProcessesDistinct *int              `json:"processes_distinct"`
}

// TestCorpus reads the recorded outputs of what is asked of amd-smi and
// rocm-smi, and compares them with their sidecars.
func TestCorpus(t *testing.T) {
	compared := 0
	for pattern, read := range map[string]func([]byte) ([]sampling.GPU, error){
		"amd-smi_metric*.json": readAMDSMI, "amd-smi_process*.json": readAMDSMI, "amd-smi_error*.json": readAMDSMI,
		"amd-smi_empty*.json": readAMDSMI, "rocm-smi_*.json": readROCmSMI,
	} {
		files, _ := filepath.Glob(filepath.Join(corpusDir(), pattern))
		for _, file := range files {
			if side := file + ".json"; sampling.Exists(side) {
				t.Run(filepath.Base(file), func(t *testing.T) { compared += compareRecorded(t, file, side, read) })
			}
		}
	}
	if compared == 0 {
		testenv.Skip(t, "no corpus beside the repository")
	}
	if compared < 120 {
		t.Errorf("%d figures compared", compared)
	}
}

func compareRecorded(t *testing.T, file, side string, read func([]byte) ([]sampling.GPU, error)) (compared int) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(side)
	if err != nil {
		t.Fatal(err)
	}
	var want sidecar
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	gpus, err := read(data)
	if strings.Contains(file, "_error-") {
		if err == nil || len(gpus) > 0 {
			t.Error("an error of the tool was read as a reading")
		}
		return 1
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(want.GPUs) != len(gpus) && !strings.Contains(file, "process") && !strings.Contains(file, "_all_mi100") {
		t.Errorf("%d GPUs, want %d", len(gpus), len(want.GPUs))
	}
	for i, w := range want.GPUs {
		index := i
		for _, key := range []string{"gpu", "index"} {
			if n, ok := w[key].(float64); ok {
				index = int(n)
			}
		}
		for j := range gpus {
			if gpus[j].Index == index {
				compared += compareGPU(t, &gpus[j], w)
			}
		}
	}
	return compared + compareProcesses(t, gpus, want)
}

func compareGPU(t *testing.T, g *sampling.GPU, want map[string]any) (compared int) {
	s := &g.Sample
	for _, f := range []struct {
		names string
		field runner.Fields
		value float64
	}{
		{"vram_used_mb", runner.HasMemoryUsed, float64(s.MemoryUsed) / (1 << 20)},
		{"vram_total_mb", runner.HasMemoryTotal, float64(s.MemoryTotal) / (1 << 20)},
		{"vram_used_b", runner.HasMemoryUsed, float64(s.MemoryUsed)},
		{"vram_total_b", runner.HasMemoryTotal, float64(s.MemoryTotal)},
		{"power_w socket_power_w", runner.HasPower, s.Power},
		{"temp_hotspot_c temp_junction_c junction_c", runner.HasTemperature, s.Temperature},
		{"temp_mem_c mem_temp_c temp_memory_c memory_c", runner.HasMemoryTemp, s.MemoryTemp},
		{"gfx_activity_pct gfx_pct gpu_use_pct", runner.HasUtilization, float64(s.Utilization)},
		{"umc_activity_pct mem_pct", runner.HasMemoryUtil, float64(s.MemoryUtil)},
		{"gfx_clock_mhz clock_sm_mhz sclk_mhz", runner.HasClockSM, float64(s.ClockSM)},
		{"mem_clock_mhz clock_mem_mhz mclk_mhz", runner.HasClockMem, float64(s.ClockMem)},
	} {
		for _, name := range strings.Fields(f.names) {
			v, ok := want[name]
			if !ok {
				continue
			}
			compared++
			n, told := v.(float64)
			// a hotspot that is not reported: the edge stands in
			if told != g.Has(f.field) && f.field != runner.HasTemperature || told && n-f.value > 1e-6 || f.value-n > 1e-6 && told {
				t.Errorf("GPU %d: %s = %v (%v), want %v", g.Index, name, f.value, g.Has(f.field), v)
			}
		}
	}
	if v, ok := want["total_uncorrectable"].(float64); ok {
		if compared++; g.ECC == nil || float64(*g.ECC) != v {
			t.Errorf("GPU %d: uncorrectable %v, want %v", g.Index, g.ECC, v)
		}
	}
	return compared
}

func compareProcesses(t *testing.T, gpus []sampling.GPU, want sidecar) (compared int) {
	var all []sampling.Process
	distinct := map[int]bool{}
	for _, g := range gpus {
		all = append(all, g.Processes...)
		for _, p := range g.Processes {
			distinct[p.PID] = true
		}
	}
	if want.ProcessesDistinct != nil {
		if compared++; len(distinct) != *want.ProcessesDistinct {
			t.Errorf("%d distinct processes, want %d", len(distinct), *want.ProcessesDistinct)
		}
	}
	if want.Processes == nil {
		return compared
	}
	if len(all) != len(*want.Processes) {
		t.Errorf("%d processes, want %d", len(all), len(*want.Processes))
		return compared
	}
	for i, w := range *want.Processes {
		have := map[string]any{"name": all[i].Name, "pid": float64(all[i].PID)}
		if b := all[i].Bytes; b != nil {
			have["vram_mem_b"] = float64(*b)
		}
		for name, v := range w {
			if got, ok := have[name]; ok {
				if compared++; got != v {
					t.Errorf("process %d: %s = %v, want %v", i, name, got, v)
				}
			}
		}
	}
	return compared
}

// TestKFDCorpus reads the nodes of a machine with several MI308.
func TestKFDCorpus(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(corpusDir(), "kfd_topology_MI308_nodes2-3.txt"))
	if err != nil {
		testenv.Skip(t, "no corpus: %v", err)
	}
	var want sidecar
	side, err := os.ReadFile(filepath.Join(corpusDir(), "kfd_topology_MI308_nodes2-3.txt.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(side, &want); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{} // "==> NAME <==" stands before each
	name := ""
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("==> ")); ok {
			name = strings.TrimSuffix(string(rest), " <==")
			continue
		}
		files[name] = append(files[name], line...)
	}
	for _, w := range want.GPUs {
		n := int(w["node"].(float64))
		dir := fmt.Sprintf("nodes/%d", n)
		node, ok := parseKFD(n, files[dir+"/gpu_id"], files[dir+"/properties"])
		if !ok || float64(node.gpuID) != w["gpu_id"] || float64(node.location) != w["location_id"] ||
			float64(node.render) != w["drm_render_minor"] {
			t.Errorf("%+v, want %v", node, w)
		}
		if bdf, told := w["bdf"]; told && node.bdf != bdf {
			t.Errorf("bus %s, want %v", node.bdf, bdf)
		}
	}
}

func put(t *testing.T, text string, elem ...string) {
	t.Helper()
	name := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestAMDWatchdog puts a card in the place of one that hangs: the lane's
// goroutine is replaced, and the late one does not sample on.
func TestAMDWatchdog(t *testing.T) {
	t.Parallel()
	r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
	if err != nil {
		t.Fatal(err)
	}
	o := sampling.Options{Sys: t.TempDir(), Dev: t.TempDir()}
	for i := range 2 {
		dir := filepath.Join(o.Sys, "class", "drm", "card"+strconv.Itoa(i), "device")
		put(t, "0x1002\n", dir, "vendor")
		put(t, fmt.Sprintf("PCI_SLOT_NAME=0000:1%d:00.0\n", i), dir, "uevent")
		put(t, "1000\n", dir, "mem_info_vram_total")
		put(t, "500\n", dir, "mem_info_vram_used")
	}
	cards, _ := findAMD(o)
	src := newAMDSource(o, r, cards, nil)
	m := sampling.NewMeter(r.Interval, r.Epoch, func([]runner.Sample) {})
	a := &amdLane{m: m, interval: r.Interval}
	for _, c := range cards {
		a.cards = append(a.cards, &amdLoop{s: src, c: c, m: m, files: openAMD(c)})
	}
	stuck, mine := a.begin(0, 0)
	if !mine || stuck.c.index != 0 {
		t.Fatal("the first card is not read first")
	}
	ctx, cancel := context.WithCancel(t.Context())
	a.watch(ctx, time.Now())
	if a.gen != 0 {
		t.Fatal("replaced at once")
	}
	a.watch(ctx, time.Now().Add(2*amdMaxRead))
	if a.gen != 1 || len(a.cards) != 1 || a.cards[0].c.index != 1 {
		t.Errorf("generation %d, %d cards left", a.gen, len(a.cards))
	}
	if a.done(0) {
		t.Error("the goroutine that hung may go on sampling")
	}
	if _, mine := a.begin(0, 0); mine {
		t.Error("the goroutine that hung reads other cards")
	}
	cancel()
	a.wg.Wait()
	if rep := m.Report("", time.Now()); !strings.Contains(strings.Join(rep.Notes, " "), "GPU 0 (0000:10:00.0) hangs in the kernel") {
		t.Errorf("notes %v", rep.Notes)
	}
}

func FuzzReadTools(f *testing.F) {
	for _, s := range []string{
		"{}", "[]", `[{"gpu":0,"power":{"socket_power":{"value":1,"unit":"W"}}}]`, `{"card0":{"GPU use (%)":"1"}}`,
		`{"error":"no","code":-3}`, `{"gpu_data":[{"gpu":1,"usage":"N/A"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func([]byte) ([]sampling.GPU, error){readAMDSMI, readROCmSMI} {
			if gpus, err := read(b); err != nil && len(gpus) > 0 {
				t.Errorf("%q: both a reading and an error", b)
			}
		}
	})
}

// TestBrackets has a tool that prints what looks like the beginning of JSON again
// and again: few of them are tried.
func TestBrackets(t *testing.T) {
	const good = `[{"gpu":0,"mem_usage":{"used_vram":{"value":1,"unit":"MB"}}}]`
	for name, text := range map[string]string{
		"one line": strings.Repeat("[", 80_000), "lines": strings.Repeat("[\n", 80_000), "objects": strings.Repeat(`{"a":`, 80_000),
		"words": strings.Repeat("[WARNING] x\n", 80_000),
	} {
		began := time.Now()
		if gpus, err := readAMDSMI([]byte(text)); err == nil || len(gpus) > 0 {
			t.Errorf("%s: %v", name, gpus)
		}
		t.Logf("%s: %v", name, time.Since(began))
	}
	docs, noise := jsonDocuments([]byte(strings.Repeat("[x]\n", maxNoise+5) + good))
	if len(docs) > 0 || !strings.HasPrefix(noise, "[x]") {
		t.Errorf("%d documents after %d lines that are none", len(docs), maxNoise+5)
	}
	deep := strings.Repeat(`{"gpu":0,"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	if gpus, err := readAMDSMI([]byte("[WARNING]: x\n" + good + good + deep)); err != nil || len(gpus) != 3 {
		t.Errorf("%d GPUs, %v", len(gpus), err)
	}
}
