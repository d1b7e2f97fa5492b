package gpu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// amd-smi's shapes changed with nearly every ROCm release; what is read here is
// written down in docs/telemetry.md. Keys are compared in lower case.

// amdKeys are the figures of amd-smi's JSON and CSV, as the path below the
// record of a GPU. The first path that is there counts.
func amdKeys() []amdKey {
	return []amdKey{
		{QMemoryUsed, dimBytes, "MB", []string{"mem_usage/used_vram", "vram_used"}},
		{QMemoryFree, dimBytes, "MB", []string{"mem_usage/free_vram", "vram_free"}},
		{QMemoryTotal, dimBytes, "MB", []string{"mem_usage/total_vram", "vram_total", "vram/size", "vram/vram_size_mb", "vram/vram_size"}},
		{QGTTUsed, dimBytes, "MB", []string{"mem_usage/used_gtt"}},
		{QMemoryPercent, dimPercent, "%", []string{"vram_percent"}},
		{QPower, dimPower, "W", []string{"power/socket_power", "power/current_power", "power_usage"}},
		{QPowerMax, dimPower, "W", []string{"limit/max_power", "limit/ppt0/max_power_limit", "max_power"}},
		{QPowerCap, dimPower, "W", []string{"limit/socket_power", "limit/current_power", "limit/ppt0/socket_power_limit"}},
		{QTempEdge, dimTemp, "C", []string{"temperature/edge"}},
		{QTempHotspot, dimTemp, "C", []string{"temperature/hotspot", "hotspot_temperature"}},
		{QTempMemory, dimTemp, "C", []string{"temperature/mem", "memory_temperature"}},
		{QUtilGPU, dimPercent, "%", []string{"usage/gfx_activity", "usage/gfx_usage", "gfx"}},
		{QUtilMemory, dimPercent, "%", []string{"usage/umc_activity", "usage/mem_usage", "mem"}},
		{QClockSM, dimClock, "MHz", []string{"clock/gfx_0/clk", "clock/gfx/clk", "gfx_clk", "gfx_clock"}},
		{QClockMemory, dimClock, "MHz", []string{"clock/mem_0/clk", "clock/mem/clk", "mem_clock"}},
		{QECCCorrected, dimNone, "", []string{"ecc/total_correctable_count", "ecc/total_correctable", "single_bit_ecc"}},
		{QECCUncorrected, dimNone, "", []string{"ecc/total_uncorrectable_count", "ecc/total_uncorrectable", "double_bit_ecc"}},
		{QEnergy, dimEnergy, "J", []string{"energy/total_energy_consumption"}},
		{QPowerViolation, dimPercent, "%", []string{"pviol"}},
		{QTempViolation, dimPercent, "%", []string{"tviol"}},
		{QComputeUnits, dimNone, "", []string{"asic/num_compute_units"}},
	}
}

type amdKey struct {
	q     Quantity
	d     dimension
	unit  string // of a bare number
	paths []string
}

// amdTexts are the facts that are kept as they are.
func amdTexts() map[string][]string {
	return map[string][]string{
		"name":             {"asic/market_name"},
		"gfx":              {"asic/target_graphics_version"},
		"bdf":              {"bus/bdf", "bdf"},
		"uuid":             {"uuid"},
		"driver":           {"driver/version", "driver/driver_version"},
		"partition":        {"partition/accelerator_partition", "partition/compute_partition"},
		"memory_partition": {"partition/memory_partition"},
		"hip_id":           {"hip_id"},
		"xcp":              {"xcp"},
		"throttle":         {"power/throttle_status", "throttle_status"},
	}
}

// isAMDJSON recognises amd-smi's JSON, also behind text lines.
func isAMDJSON(b []byte) bool {
	at := bytes.IndexAny(b, "[{")
	return at >= 0 && (bytes.Contains(b, []byte(`"gpu"`)) || bytes.Contains(b, []byte(`"error"`)) || bytes.Contains(b, []byte(`"amdsmi_library_version"`)) ||
		len(bytes.Trim(b, " \r\n{}[]")) == 0)
}

// readAMDJSON reads amd-smi's JSON of any version: a list, {"gpu_data": [...]},
// one object, an error object, {}, concatenated documents of the watch mode,
// with lines of text before them.
func readAMDJSON(b []byte) (*Reading, error) {
	docs, noise := jsonDocuments(b)
	if len(docs) == 0 {
		return nil, &ToolError{Tool: SourceAMDSMI, Message: clip(strings.TrimSpace(noise), 300)}
	}
	r := &Reading{Tool: SourceAMDSMI, Format: "json", Documents: len(docs)}
	var failed error
	for _, d := range docs {
		recs, err := amdRecords(d)
		if err != nil {
			failed = err
			continue
		}
		if len(docs) > 1 {
			r.GPUs, r.Processes = nil, nil // watch mode: the last reading counts
		}
		for _, rec := range recs {
			r.amdRecord(rec)
		}
	}
	if len(r.GPUs) == 0 && failed != nil {
		return nil, failed
	}
	return r, nil
}

// jsonDocuments decodes all JSON values in b and returns the text between them.
func jsonDocuments(b []byte) (docs []any, noise string) {
	var text strings.Builder
	for len(b) > 0 {
		at := bytes.IndexAny(b, "[{")
		if at < 0 {
			text.Write(b)
			break
		}
		text.Write(b[:at])
		dec := json.NewDecoder(bytes.NewReader(b[at:]))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				text.WriteString("(cut off)")
				break // a document that is still being written
			}
			text.WriteByte(b[at])
			b = b[at+1:]
			continue
		}
		docs = append(docs, v)
		b = b[at+int(dec.InputOffset()):]
	}
	return docs, text.String()
}

// amdRecords finds the records of GPUs in a document.
func amdRecords(doc any) ([]map[string]any, error) {
	switch v := doc.(type) {
	case []any:
		var out []map[string]any
		for _, e := range v {
			if rec, ok := e.(map[string]any); ok {
				out = append(out, rec)
			}
		}
		return out, nil
	case map[string]any:
		if msg, ok := v["error"]; ok {
			code, _ := strconv.Atoi(fmt.Sprint(v["code"]))
			return nil, &ToolError{Tool: SourceAMDSMI, Message: fmt.Sprint(msg), Code: code}
		}
		if data, ok := v["gpu_data"]; ok {
			return amdRecords(data)
		}
		return []map[string]any{v}, nil
	}
	return nil, nil
}

// amdRecord reads one object: a GPU, or the answer of `amd-smi version`.
func (r *Reading) amdRecord(rec map[string]any) {
	flat := map[string]any{}
	flatten("", rec, flat)
	if v, ok := flat["amdsmi_library_version"]; ok {
		r.Version = fmt.Sprint(flat["version"])
		_ = v
		return
	}
	index, err := strconv.Atoi(fmt.Sprint(flat["gpu"]))
	if err != nil {
		return
	}
	g := newDeviceReading(index)
	g.amdFigures(flat)
	for key, paths := range amdTexts() {
		for _, p := range paths {
			if s, ok := flat[p]; ok && !absent(fmt.Sprint(s)) {
				g.Texts[key] = fmt.Sprint(s)
				break
			}
		}
	}
	g.Name, g.BusID, g.UUID = g.Texts["name"], g.Texts["bdf"], g.Texts["uuid"]
	if d := g.Texts["driver"]; d != "" {
		r.Driver = d
	}
	g.Processes = amdProcesses(rec, index)
	r.Processes = append(r.Processes, g.Processes...)
	r.GPUs = append(r.GPUs, g)
}

// flatten turns nested objects into paths. {"value": 612, "unit": "W"} stays
// one value; lists are left out.
func flatten(prefix string, v any, out map[string]any) {
	m, ok := v.(map[string]any)
	if !ok {
		if _, list := v.([]any); !list {
			out[prefix] = v
		}
		return
	}
	if val, ok := m["value"]; ok {
		if unit, ok := m["unit"]; ok {
			out[prefix] = fmt.Sprintf("%v %v", val, unit)
			return
		}
	}
	for k, e := range m {
		path := strings.ToLower(k)
		if prefix != "" {
			path = prefix + "/" + path
		}
		flatten(path, e, out)
	}
}

func (g *DeviceReading) amdFigures(flat map[string]any) {
	for _, k := range amdKeys() {
		for _, p := range k.paths {
			v, ok := flat[p]
			if !ok {
				if parent, _, nested := strings.Cut(p, "/"); nested {
					// "usage": "N/A" stands for all that would be below it
					if s, bare := flat[parent]; bare {
						g.Missing[k.q] = reasonOf(fmt.Sprint(s))
					}
				}
				continue
			}
			g.setAMD(k, p, fmt.Sprint(v))
			break
		}
	}
}

// setAMD takes one value. Bare numbers are ROCm 6.0's: power limits in uW, all
// else in the unit of the key.
func (g *DeviceReading) setAMD(k amdKey, path, text string) {
	unit := k.unit
	if strings.HasPrefix(path, "limit/") && k.d == dimPower {
		if v, own, ok := parseDecimal([]byte(text)); ok && len(own) == 0 && v > 1e5 {
			unit = "uW"
		}
	}
	if k.q == QEnergy && (text == "0" || text == "0.0" || text == "0.0 J") {
		g.Missing[k.q] = "0 J stands for: not supported (consumer cards)"
		return
	}
	g.setText(k.q, k.d, text, unit)
}

// amdProcesses reads the process lists of ROCm 6.0 ("values"), 6.1 (one
// "process_info") and later ("process_list"); nil where there is none of them.
func amdProcesses(rec map[string]any, gpu int) []ProcessReading {
	list, ok := rec["process_list"].([]any)
	if !ok {
		list, ok = rec["values"].([]any)
	}
	if !ok {
		info, is := rec["process_info"]
		if !is {
			return nil
		}
		list = []any{map[string]any{"process_info": info}}
	}
	out := []ProcessReading{}
	for _, e := range list {
		m, _ := e.(map[string]any)
		info, _ := m["process_info"].(map[string]any) // a string: "No running processes detected"
		if info == nil {
			continue
		}
		flat := map[string]any{}
		flatten("", info, flat)
		p := ProcessReading{GPU: gpu}
		p.PID, _ = strconv.Atoi(fmt.Sprint(flat["pid"]))
		if name := fmt.Sprint(flat["name"]); !absent(name) {
			p.Name = name
		}
		if v, ok := flat["memory_usage/vram_mem"]; ok {
			p.Bytes = textBytes(fmt.Sprint(v), "B")
		}
		if p.PID > 0 {
			out = append(out, p)
		}
	}
	return out
}

var amdVersionRE = regexp.MustCompile(`AMDSMI Tool: (\S+)`)

// readAMDVersion reads the text of `amd-smi version`.
func readAMDVersion(b []byte) (*Reading, error) {
	m := amdVersionRE.FindSubmatch(b)
	if m == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoReading, clip(string(b), 200))
	}
	return &Reading{Tool: SourceAMDSMI, Format: "version", Version: string(m[1])}, nil
}

// isAMDCSV recognises a header line of amd-smi's CSV.
func isAMDCSV(b []byte) bool {
	for line := range bytes.Lines(b) {
		if amdCSVHeader(string(line)) != nil {
			return true
		}
	}
	return false
}

func amdCSVHeader(line string) []string {
	cells := strings.Split(strings.TrimSpace(line), ",")
	for i, c := range cells {
		if c == "gpu" && i <= 1 && len(cells) > 2 {
			return cells
		}
	}
	return nil
}

// readAMDCSV reads amd-smi's CSV. Watch mode repeats the header each tick: the
// last reading counts.
func readAMDCSV(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceAMDSMI, Format: "csv"}
	var names []string
	for line := range bytes.Lines(b) {
		if h := amdCSVHeader(string(line)); h != nil {
			names = h
			r.GPUs = nil
			r.Documents++
			continue
		}
		cells := strings.Split(strings.TrimSpace(string(line)), ",")
		if names == nil || len(cells) != len(names) {
			continue
		}
		rec := map[string]any{}
		for i, n := range names {
			rec[n] = cells[i]
		}
		r.amdRecord(rec)
	}
	return r, nil
}

// isAMDTable recognises the tables of `amd-smi monitor`.
func isAMDTable(b []byte) bool {
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) > 1 && f[0] == "GPU" && (strings.Contains(f[1], "POWER") || f[1] == "PVIOL" || f[1] == "XCP" || f[1] == "VRAM_USED") {
			return true
		}
	}
	return false
}

// amdColumns are the headings of `amd-smi monitor` as JSON keys.
func amdColumns() map[string]string {
	return map[string]string{
		"GPU": "gpu", "XCP": "xcp", "POWER": "power_usage", "GPU_TEMP": "hotspot_temperature", "GPU_T": "hotspot_temperature", "MEM_TEMP": "memory_temperature",
		"MEM_T": "memory_temperature", "GFX_UTIL": "gfx", "GFX%": "gfx", "GFX_CLOCK": "gfx_clock", "GFX_CLK": "gfx_clock", "MEM_UTIL": "mem", "MEM%": "mem",
		"MEM_CLOCK": "mem_clock", "VRAM_USED": "vram_used", "VRAM_TOTAL": "vram_total", "VRAM_FREE": "vram_free", "VRAM%": "vram_percent",
		"SINGLE_ECC": "single_bit_ecc", "DOUBLE_ECC": "double_bit_ecc", "PVIOL": "pviol", "TVIOL": "tviol", "PCIE_BW": "pcie_bw", "THROTTLE": "throttle_status",
	}
}

// readAMDTable reads the text of `amd-smi monitor`: right-aligned columns, so
// that a value ends where its heading ends. A second table holds processes.
func readAMDTable(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceAMDSMI, Format: "table"}
	var names []string
	var ends []int
	inProcesses := false
	for line := range bytes.Lines(b) {
		text := []rune(strings.TrimRight(string(line), " \r\n"))
		f := strings.Fields(string(text))
		switch {
		case len(f) == 0:
			continue
		case f[0] == "GPU" && len(f) > 1:
			names, ends = headings(string(text))
			if inProcesses = f[1] == "NAME"; !inProcesses {
				r.GPUs = nil
				r.Documents++
			}
			continue
		}
		if _, err := strconv.Atoi(f[0]); err != nil || names == nil {
			continue
		}
		rec := map[string]any{}
		from := 0
		for i, end := range ends {
			if i == len(ends)-1 {
				end = len(text)
			}
			end = min(end, len(text))
			rec[names[i]] = strings.TrimSpace(string(text[min(from, end):end]))
			from = end
		}
		if inProcesses {
			r.tableProcess(rec)
			continue
		}
		r.tableGPU(rec)
	}
	return r, nil
}

// headings are the words of a header line and where each ends, in runes.
func headings(line string) (names []string, ends []int) {
	runes := []rune(line)
	for i := 0; i < len(runes); {
		if runes[i] == ' ' {
			i++
			continue
		}
		from := i
		for i < len(runes) && runes[i] != ' ' {
			i++
		}
		names = append(names, string(runes[from:i]))
		ends = append(ends, i)
	}
	return names, ends
}

func (r *Reading) tableGPU(cells map[string]any) {
	cols := amdColumns()
	rec := map[string]any{}
	for k, v := range cells {
		if key, ok := cols[k]; ok {
			rec[key] = v
		}
	}
	r.amdRecord(rec)
}

func (r *Reading) tableProcess(cells map[string]any) {
	gpu, _ := strconv.Atoi(fmt.Sprint(cells["GPU"]))
	pid, err := strconv.Atoi(fmt.Sprint(cells["PID"]))
	if err != nil {
		return
	}
	p := ProcessReading{GPU: gpu, PID: pid, Name: fmt.Sprint(cells["NAME"]), Bytes: textBytes(fmt.Sprint(cells["VRAM_MEM"]), "")}
	r.Processes = append(r.Processes, p)
	for i := range r.GPUs {
		if r.GPUs[i].Index == gpu {
			r.GPUs[i].Processes = append(r.GPUs[i].Processes, p)
		}
	}
}
