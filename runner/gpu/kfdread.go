package gpu

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A kfdNode is a GPU node of /sys/class/kfd/kfd/topology/nodes/N.
type kfdNode struct {
	node     int
	gpuID    int64
	bdf      string // 0000:0a:00.0
	render   int    // /dev/dri/renderD<render>; -1: not told
	location int64
	uniqueID string
	gfx      string // "gfx942"
	xcc      int
}

// parseKFD reads gpu_id and properties of a node; ok is false for a CPU node.
// location_id is bus<<8 | device<<3 | function, the domain stands apart.
func parseKFD(node int, gpuID, properties []byte) (kfdNode, bool) {
	n := kfdNode{node: node, render: -1}
	id, err := strconv.ParseInt(strings.TrimSpace(string(gpuID)), 10, 64)
	if err != nil || id == 0 {
		return n, false
	}
	n.gpuID = id
	var domain int64
	for line := range bytes.Lines(properties) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		v, err := strconv.ParseInt(value, 10, 64)
		switch key {
		case "location_id":
			n.location = v
		case "domain":
			domain = v
		case "drm_render_minor":
			if err == nil && v > 0 {
				n.render = int(v)
			}
		case "unique_id":
			n.uniqueID = value
		case "gfx_target_version":
			n.gfx = fmt.Sprintf("gfx%d%d%x", v/10000, v/100%100, v%100)
		case "num_xcc":
			n.xcc = int(v)
		}
	}
	n.bdf = fmt.Sprintf("%04x:%02x:%02x.%x", domain, n.location>>8&0xff, n.location>>3&0x1f, n.location&7)
	return n, true
}

// dumpFiles splits a listing "==> NAME <==" of files (head -n, tail) into them.
func dumpFiles(b []byte) (names []string, files map[string][]byte) {
	files = map[string][]byte{}
	name := ""
	for line := range bytes.Lines(b) {
		t := bytes.TrimSpace(line)
		if bytes.HasPrefix(t, []byte("==> ")) && bytes.HasSuffix(t, []byte(" <==")) {
			name = string(t[4 : len(t)-4])
			names = append(names, name)
			continue
		}
		if name != "" {
			files[name] = append(files[name], line...)
		}
	}
	return names, files
}

// readKFDDump reads a listing of topology nodes.
func readKFDDump(b []byte) (*Reading, error) {
	names, files := dumpFiles(b)
	r := &Reading{Tool: "kfd", Format: "topology"}
	for _, name := range names {
		dir, ok := strings.CutSuffix(name, "/gpu_id")
		if !ok {
			continue
		}
		node, _ := strconv.Atoi(strings.TrimPrefix(dir, "nodes/"))
		n, ok := parseKFD(node, files[name], files[dir+"/properties"])
		if !ok {
			continue
		}
		g := newDeviceReading(len(r.GPUs))
		g.BusID, g.UUID = n.bdf, n.uniqueID
		g.Texts["node"] = strconv.Itoa(n.node)
		g.Texts["gpu_id"] = strconv.FormatInt(n.gpuID, 10)
		g.Texts["location_id"] = strconv.FormatInt(n.location, 10)
		g.Texts["drm_render_minor"] = strconv.Itoa(n.render)
		g.Texts["gfx"] = n.gfx
		r.GPUs = append(r.GPUs, g)
	}
	return r, nil
}

// readSysfsDump reads a listing of the files of /sys/class/drm/cardN/device.
func readSysfsDump(b []byte) (*Reading, error) {
	_, files := dumpFiles(b)
	g := newDeviceReading(0)
	g.Card = "card0"
	for name, m := range map[string]meaningUnit{
		"mem_info_vram_total": {QMemoryTotal, dimBytes, "B"}, "mem_info_vram_used": {QMemoryUsed, dimBytes, "B"},
		"mem_info_gtt_used": {QGTTUsed, dimBytes, "B"}, "gpu_busy_percent": {QUtilGPU, dimPercent, "%"}, "mem_busy_percent": {QUtilMemory, dimPercent, "%"},
	} {
		if v, ok := files[name]; ok {
			g.setText(m.q, m.d, strings.TrimSpace(string(v)), m.unit)
		}
	}
	for name, q := range map[string]Quantity{"pp_dpm_sclk": QClockSM, "pp_dpm_mclk": QClockMemory} {
		if v, ok := parseDPM(files[name]); ok {
			g.Values[q] = v
		}
	}
	if v := strings.TrimSpace(string(files["mem_info_vram_vendor"])); v != "" {
		g.Texts["vram_vendor"] = v
	}
	if v := strings.TrimSpace(string(files["unique_id"])); v != "" {
		g.UUID = v
	}
	return &Reading{Tool: SourceAMDGPU, Format: "sysfs dump", GPUs: []DeviceReading{g}}, nil
}

// parseDPM finds the clock that is marked by a star: "0: 852Mhz *". At idle
// there may be none, or one in a row "S:".
func parseDPM(b []byte) (float64, bool) {
	for line := range bytes.Lines(b) {
		t := strings.TrimSpace(string(line))
		if !strings.HasSuffix(t, "*") {
			continue
		}
		_, rest, _ := strings.Cut(t, ":")
		v, unit, ok := parseDecimal([]byte(strings.TrimSuffix(rest, "*")))
		if f, known := clockUnit(unit); ok && known {
			return v * f, true
		}
	}
	return 0, false
}
