package amd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// The shapes of amd-smi's JSON changed with nearly every ROCm release; what is
// read here is written down in docs/telemetry.md. Keys are compared in lower
// case.

// An amdKey is a figure of `amd-smi metric --json`, under all paths below the
// record of a GPU that versions use for it. The first one with a figure counts.
type amdKey struct {
	field runner.Fields
	dim   sampling.Dimension
	unit  string // of a bare number: ROCm 6.0 has no units
	paths []string
}

func amdKeys() []amdKey {
	return []amdKey{
		{runner.HasMemoryUsed, sampling.Bytes, "MB", []string{"mem_usage/used_vram"}},
		{runner.HasMemoryTotal, sampling.Bytes, "MB", []string{"mem_usage/total_vram"}},
		{runner.HasPower, sampling.Power, "W", []string{"power/socket_power", "power/current_power"}},
		{runner.HasTemperature, sampling.Temp, "C", []string{"temperature/hotspot", "temperature/edge"}},
		{runner.HasMemoryTemp, sampling.Temp, "C", []string{"temperature/mem"}},
		{runner.HasUtilization, sampling.Percent, "%", []string{"usage/gfx_activity", "usage/gfx_usage"}},
		{runner.HasMemoryUtil, sampling.Percent, "%", []string{"usage/umc_activity", "usage/mem_usage"}},
		{runner.HasClockSM, sampling.Clock, "MHz", []string{"clock/gfx_0/clk", "clock/gfx/clk"}},
		{runner.HasClockMem, sampling.Clock, "MHz", []string{"clock/mem_0/clk", "clock/mem/clk"}},
	}
}

// readAMDSMI reads the JSON of amd-smi's metric and process of any version: a
// list, {"gpu_data": [...]}, one object, an error object, {}, with lines of text
// before them.
func readAMDSMI(b []byte) ([]sampling.GPU, error) {
	docs, noise := jsonDocuments(b)
	if len(docs) == 0 {
		return nil, fmt.Errorf("%w: %q", errNoReading, sampling.Clip(strings.TrimSpace(noise), 200))
	}
	var gpus []sampling.GPU
	var failed error
	for _, d := range docs {
		recs, err := amdRecords(d)
		if err != nil {
			failed = err
		}
		for _, rec := range recs {
			if g, ok := amdGPU(rec); ok {
				gpus = append(gpus, g)
			}
		}
	}
	if len(gpus) == 0 && failed != nil {
		return nil, failed
	}
	return gpus, nil
}

// maxNoise bounds how many lines that look like JSON and are none are tried: each
// costs up to the depth that a decoder follows.
const maxNoise = 64

// jsonDocuments decodes all JSON values in b and returns the text between them.
// A document begins a line, or where another one ended.
func jsonDocuments(b []byte) (docs []any, noise string) {
	var text strings.Builder
	for failed := 0; failed < maxNoise; {
		if b = bytes.TrimSpace(b); len(b) == 0 {
			break
		}
		if b[0] == '[' || b[0] == '{' {
			dec := json.NewDecoder(bytes.NewReader(b))
			dec.UseNumber()
			var v any
			err := dec.Decode(&v)
			if err == nil {
				docs = append(docs, v)
				b = b[dec.InputOffset():]
				continue
			}
			if failed++; errors.Is(err, io.ErrUnexpectedEOF) {
				text.WriteString("(cut off)")
				break // a document that is still being written
			}
		}
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		if b = rest; text.Len() < 1024 {
			text.Write(line)
		}
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
			return nil, &toolError{fmt.Sprint(msg), fmt.Sprint(v["code"])}
		}
		if data, ok := v["gpu_data"]; ok {
			return amdRecords(data)
		}
		return []map[string]any{v}, nil
	}
	return nil, nil
}

// amdGPU reads the record of a GPU.
func amdGPU(rec map[string]any) (sampling.GPU, bool) {
	flat := map[string]any{}
	flatten("", rec, flat)
	index, err := strconv.Atoi(fmt.Sprint(flat["gpu"]))
	if err != nil || index < 0 {
		return sampling.GPU{}, false
	}
	g := sampling.NewGPU(index)
	g.Name = firstText(flat, "asic/market_name", "board/product_name")
	g.BusID = firstText(flat, "bdf", "bus/bdf")
	g.UUID = firstText(flat, "uuid")
	if serial := firstText(flat, "asic/asic_serial"); serial != "" { // what ROCr and sysfs call the GPU
		g.UUID = strings.ToLower(strings.TrimPrefix(serial, "0x"))
	}
	for _, k := range amdKeys() {
		for _, p := range k.paths {
			parent, _, _ := strings.Cut(p, "/")
			v, ok := flat[p]
			if !ok {
				v, ok = flat[parent] // "usage": "N/A" stands for all that would be below it
			}
			if ok && setText(&g, k.field, k.dim, fmt.Sprint(v), k.unit) {
				break
			}
		}
	}
	gtt, _, _ := sampling.ParseDecimal([]byte(firstText(flat, "mem_usage/used_gtt")))
	if g.Has(runner.HasMemoryTotal) && gtt*(1<<20) > float64(g.Sample.MemoryUsed) { // an APU keeps its models there
		g.Texts[sampling.TextMemory] = fmt.Sprintf("VRAM alone; of the host's memory the GPU holds %s of %s beside it (GTT)",
			firstText(flat, "mem_usage/used_gtt"), firstText(flat, "mem_usage/total_gtt"))
	}
	for _, p := range []string{"ecc/total_uncorrectable_count", "ecc/total_uncorrectable"} {
		if n, err := strconv.ParseInt(fmt.Sprint(flat[p]), 10, 64); err == nil {
			g.ECC = &n
			break
		}
	}
	g.Processes = amdProcesses(rec)
	return g, true
}

// firstText is the first of the values that is told.
func firstText(flat map[string]any, paths ...string) string {
	for _, p := range paths {
		if v, ok := flat[p]; ok && !sampling.Absent(fmt.Sprint(v)) {
			return fmt.Sprint(v)
		}
	}
	return ""
}

// flatten turns nested objects into paths. {"value": 612, "unit": "W"} stays
// one value; lists are left out.
func flatten(prefix string, v any, out map[string]any) {
	m, ok := v.(map[string]any)
	if !ok || strings.Count(prefix, "/") > 8 { // records have four levels
		if _, list := v.([]any); !list && !ok {
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

// amdProcesses reads the process lists of ROCm 6.0 ("values"), 6.1 (one
// "process_info") and later ("process_list"); nil where there is none of them.
func amdProcesses(rec map[string]any) []sampling.Process {
	list, ok := rec["process_list"].([]any)
	if !ok {
		list, ok = rec["values"].([]any)
	}
	if info, one := rec["process_info"]; !ok && one {
		list, ok = []any{map[string]any{"process_info": info}}, true
	}
	if !ok {
		return nil
	}
	out := []sampling.Process{}
	for _, e := range list {
		m, _ := e.(map[string]any)
		info, _ := m["process_info"].(map[string]any) // a string: "No running processes detected"
		flat := map[string]any{}
		flatten("", info, flat)
		var p sampling.Process
		p.PID, _ = strconv.Atoi(fmt.Sprint(flat["pid"]))
		if name := fmt.Sprint(flat["name"]); !sampling.Absent(name) {
			p.Name = name
		}
		v, unit, ok := sampling.ParseDecimal([]byte(fmt.Sprint(flat["memory_usage/vram_mem"])))
		if factor, known := sampling.UnitFactor(sampling.Bytes, unit); ok && (known || len(unit) == 0) {
			n := int64(v * max(factor, 1))
			p.Bytes = &n
		}
		if p.PID > 0 {
			out = append(out, p)
		}
	}
	return out
}
