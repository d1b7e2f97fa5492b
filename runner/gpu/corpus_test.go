package gpu

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A sidecar says what an output of the corpus must yield.
type sidecar struct {
	Kind              string            `json:"kind"`
	Machine           string            `json:"machine"`
	Note              string            `json:"note"`
	GPUs              []map[string]any  `json:"gpus"`
	Processes         *[]map[string]any `json:"processes"`
	ProcessesDistinct *int              `json:"processes_distinct"`
	Largest           map[string]any    `json:"largest"`
	Rows              *int              `json:"rows"`
}

// notReading reports files of the corpus that are no reading of a tool, or whose
// columns are not told: TestSMIRecordedStream reads that one.
func notReading(name string) bool {
	return strings.Contains(name, "_topo_") || strings.Contains(name, "nvml-costs") || strings.Contains(name, "lms10")
}

// TestCorpus reads every output of the corpus through Read and compares every
// expected field. A field of a sidecar that the test does not know fails.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpusDir(), "*.json"))
	if err != nil || len(files) == 0 {
		t.Skip("no corpus beside the repository")
	}
	fields, outputs := 0, 0
	for _, side := range files {
		file := strings.TrimSuffix(side, ".json")
		data, err := os.ReadFile(file)
		if err != nil || notReading(file) {
			continue
		}
		outputs++
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(side)
			if err != nil {
				t.Fatal(err)
			}
			var want sidecar
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			fields += compareReading(t, filepath.Base(file), data, want)
		})
	}
	t.Logf("%d outputs, %d fields", outputs, fields)
}

func compareReading(t *testing.T, name string, data []byte, want sidecar) int {
	r, err := Read(data)
	if strings.Contains(name, "_error-") || strings.Contains(name, "_crash_") {
		if err == nil {
			t.Error("an error of the tool was read as a reading")
		}
		return 1
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if len(want.GPUs) > 0 && !excerpt(name) && len(r.GPUs) != len(want.GPUs) {
		t.Errorf("%d GPUs, want %d", len(r.GPUs), len(want.GPUs))
	}
	for i, g := range want.GPUs {
		got := findGPU(r, g, i)
		if got == nil {
			t.Errorf("no GPU for %v", g)
			continue
		}
		for key, v := range g {
			n++
			if key == "socket_power_w" && strings.Contains(name, "_static_") {
				key = "power_cap_w" // static tells the limit under this name
			}
			if have := expectedField(r, got, key); !sameValue(have, v) {
				t.Errorf("GPU %d: %s = %v, want %v", i, key, have, v)
			}
		}
	}
	return n + compareProcesses(t, r, want)
}

// excerpt reports whether a sidecar lists only some of the GPUs, or GPUs of an
// output that lists processes.
func excerpt(name string) bool {
	for _, part := range []string{"32partitions", "nodes2-3", "process_R9700", "compute-apps", "_all_mi100"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

func compareProcesses(t *testing.T, r *Reading, want sidecar) int {
	n := 0
	if want.Processes != nil {
		if len(r.Processes) != len(*want.Processes) {
			t.Errorf("%d processes, want %d", len(r.Processes), len(*want.Processes))
			return 0
		}
		for i, p := range *want.Processes {
			for key, v := range p {
				n++
				if have := expectedProcess(r.Processes[i], key); !sameValue(have, v) {
					t.Errorf("process %d: %s = %v, want %v", i, key, have, v)
				}
			}
		}
	}
	if want.Rows != nil {
		n++
		if len(r.GPUs) != *want.Rows {
			t.Errorf("%d rows, want %d", len(r.GPUs), *want.Rows)
		}
	}
	if want.ProcessesDistinct != nil {
		n++
		pids := map[int]bool{}
		for _, p := range r.Processes {
			pids[p.PID] = true
		}
		if len(pids) != *want.ProcessesDistinct {
			t.Errorf("%d distinct processes, want %d", len(pids), *want.ProcessesDistinct)
		}
	}
	if want.Largest != nil {
		best := slices.MaxFunc(r.Processes, func(a, b ProcessReading) int { return int(*a.Bytes/1024 - *b.Bytes/1024) })
		for key, v := range want.Largest {
			n++
			if have := expectedProcess(best, key); !sameValue(have, v) {
				t.Errorf("largest: %s = %v, want %v", key, have, v)
			}
		}
	}
	return n
}

func findGPU(r *Reading, want map[string]any, i int) *DeviceReading {
	index, ok := want["gpu"].(float64)
	if !ok {
		index, ok = want["index"].(float64)
	}
	for j := range r.GPUs {
		if ok && r.GPUs[j].Index == int(index) {
			return &r.GPUs[j]
		}
	}
	if bus, is := want["gpu_bus_id"]; is { // a list of processes
		g := newDeviceReading(0)
		for _, p := range r.Processes {
			if p.BusID == bus {
				g.BusID = p.BusID
				g.Processes = append(g.Processes, p)
			}
		}
		return &g
	}
	if !ok && i < len(r.GPUs) {
		return &r.GPUs[i]
	}
	return nil
}

// expectedField is what the reading holds under a sidecar's name.
func expectedField(r *Reading, g *DeviceReading, key string) any {
	if q, ok := sidecarQuantities()[key]; ok {
		v, have := g.Values[q.q]
		if !have {
			return nil
		}
		return v / q.per
	}
	switch key {
	case "gpu", "index":
		return float64(g.Index)
	case "name":
		return g.Name
	case "uuid":
		return g.UUID
	case "bdf", "pci_bus_id", "gpu_bus_id", "pci":
		return g.BusID
	case "card":
		return g.Card
	case "driver":
		return r.Driver
	case "ticks":
		return float64(r.Documents)
	case "pstate", "performance_state":
		return textOrNil(g, "pstate")
	case "clocks_event_reasons_active":
		return textOrNil(g, "throttle_mask")
	case "vendor":
		return textOrNil(g, "vram_vendor")
	case "mig_mode", "gfx", "partition", "memory_use_key":
		return textOrNil(g, key)
	case "unique_id":
		return g.UUID
	case "node", "gpu_id", "location_id", "drm_render_minor":
		n, _ := strconv.Atoi(g.Texts[key])
		return float64(n)
	case "power_text":
		return g.Missing[QPower]
	case "first_row":
		return map[string]any{
			"pwr_w": orNil(g, QPower), "gtemp_c": orNil(g, QTempHotspot), "mtemp_c": orNil(g, QTempMemory),
			"sm_pct": orNil(g, QUtilGPU), "mclk_mhz": orNil(g, QClockMemory), "pclk_mhz": orNil(g, QClockSM),
		}
	}
	return expectedList(g, key)
}

func expectedList(g *DeviceReading, key string) any {
	list := []any{}
	switch key {
	case "pids":
		for _, p := range g.Processes {
			list = append(list, float64(p.PID))
		}
	case "names":
		for _, p := range g.Processes {
			list = append(list, p.Name)
		}
	case "processes":
		return float64(len(g.Processes))
	case "used_gpu_memory":
		for _, p := range g.Processes {
			if p.Bytes != nil {
				return float64(*p.Bytes)
			}
		}
		return nil
	case "mig":
		for _, m := range g.MIG {
			list = append(list, m.Profile)
		}
	case "mig_devices":
		for _, m := range g.MIG {
			list = append(list, map[string]any{"gi": float64(m.GI), "ci": float64(m.CI), "dev": float64(m.Device), "used_mib": mib(m.Used), "total_mib": mib(m.Total)})
		}
	case "mig_device_fb":
		for _, m := range g.MIG {
			list = append(list, map[string]any{"total_mib": mib(m.Total), "reserved_mib": mib(m.Reserve), "used_mib": mib(m.Used), "free_mib": mib(m.Free)})
		}
	default:
		return fmt.Sprintf("the test does not know the field %q", key)
	}
	return list
}

func mib(v *int64) any {
	if v == nil {
		return nil
	}
	return float64(*v) / (1 << 20)
}

func orNil(g *DeviceReading, q Quantity) any {
	if v, ok := g.Values[q]; ok {
		return v
	}
	return nil
}

func textOrNil(g *DeviceReading, key string) any {
	if v, ok := g.Texts[key]; ok {
		return v
	}
	return nil
}

func expectedProcess(p ProcessReading, key string) any {
	switch key {
	case "gpu":
		return float64(p.GPU)
	case "name":
		return p.Name
	case "pid":
		return float64(p.PID)
	case "used_mib":
		return mib(p.Bytes)
	case "vram_mem_b":
		return float64(*p.Bytes)
	case "vram_mem":
		return fmt.Sprintf("%.1f GB", float64(*p.Bytes)/(1<<30))
	}
	return fmt.Sprintf("the test does not know the field %q", key)
}

func sameValue(have, want any) bool {
	switch w := want.(type) {
	case []any:
		h, ok := have.([]any)
		if !ok { // a count of what is listed
			n, isNumber := have.(float64)
			return isNumber && int(n) == len(w)
		}
		return slices.EqualFunc(h, w, sameValue)
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok || len(h) != len(w) {
			return false
		}
		for k := range w {
			if !sameValue(h[k], w[k]) {
				return false
			}
		}
		return true
	case float64:
		if l, ok := have.([]any); ok {
			return len(l) == int(w)
		}
		h, ok := have.(float64)
		return ok && math.Abs(h-w) < 1e-6
	}
	return have == want
}

type per struct {
	q   Quantity
	per float64
}

// sidecarQuantities are the sidecars' names of figures.
func sidecarQuantities() map[string]per {
	const miB = 1 << 20
	m := map[string]per{
		"vram_used_gb": {QMemoryUsed, 1 << 30}, "vram_total_gb": {QMemoryTotal, 1 << 30},
		"vram_used_b": {QMemoryUsed, 1}, "vram_total_b": {QMemoryTotal, 1}, "mem_info_vram_used": {QMemoryUsed, 1}, "mem_info_vram_total": {QMemoryTotal, 1},
		"mem_info_gtt_used": {QGTTUsed, 1},
	}
	for q, names := range map[Quantity]string{
		QMemoryUsed: "vram_used_mb memory_used_mib fb_used_mib", QMemoryTotal: "vram_total_mb vram_size_mb memory_total_mib fb_total_mib",
		QMemoryFree: "memory_free_mib fb_free_mib", QMemoryReserved: "memory_reserved_mib fb_reserved_mib",
	} {
		for _, n := range strings.Fields(names) {
			m[n] = per{q, miB}
		}
	}
	for q, names := range map[Quantity]string{
		QPower: "power_w socket_power_w power_draw_w", QPowerAverage: "power_draw_average_w average_power_draw_w", QPowerInstant: "power_draw_instant_w instant_power_draw_w",
		QPowerCap: "power_cap_w enforced_power_limit_w", QPowerMax: "max_power_w",
		QTempEdge: "temp_edge_c", QTempHotspot: "temp_hotspot_c gpu_temp_c temperature_c temperature_gpu_c temp_junction_c junction_c",
		QTempMemory: "temp_mem_c mem_temp_c temperature_memory_c memory_temp_c temp_memory_c memory_c", QTempLimit: "temperature_tlimit_c",
		QUtilGPU:    "gfx_activity_pct gfx_pct gfx_util_pct gpu_use_pct gpu_pct gpu_busy_percent utilization_gpu_pct gpu_util_pct sm_pct",
		QUtilMemory: "umc_activity_pct mem_pct mem_util_pct utilization_memory_pct memory_util_pct", QMemoryPercent: "memory_use_pct memory_allocated_pct vram_pct",
		QClockSM: "gfx_clock_mhz clock_sm_mhz sm_clock_mhz sclk_mhz", QClockMemory: "mem_clock_mhz clock_mem_mhz mclk_mhz",
		QECCCorrected: "total_correctable", QECCUncorrected: "total_uncorrectable", QPowerViolation: "pviol_pct", QTempViolation: "tviol_pct",
		QComputeUnits: "compute_units", QPCIeBandwidth: "pcie_bw",
	} {
		for _, n := range strings.Fields(names) {
			m[n] = per{q, 1}
		}
	}
	return m
}
