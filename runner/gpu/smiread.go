package gpu

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A meaning is what a field of a tool's output measures.
type meaning struct {
	q Quantity
	d dimension
}

// smiCSVFields are the fields of `nvidia-smi --query-gpu` that are read, under
// all their names.
func smiCSVFields() map[string]meaning {
	return map[string]meaning{
		"memory.total":                          {QMemoryTotal, dimBytes},
		"memory.reserved":                       {QMemoryReserved, dimBytes},
		"memory.used":                           {QMemoryUsed, dimBytes},
		"memory.free":                           {QMemoryFree, dimBytes},
		"utilization.gpu":                       {QUtilGPU, dimPercent},
		"utilization.memory":                    {QUtilMemory, dimPercent},
		"temperature.gpu":                       {QTempHotspot, dimTemp},
		"temperature.memory":                    {QTempMemory, dimTemp},
		"temperature.gpu.tlimit":                {QTempLimit, dimTemp},
		"power.draw":                            {QPower, dimPower},
		"power.draw.instant":                    {QPowerInstant, dimPower},
		"power.draw.average":                    {QPowerAverage, dimPower},
		"enforced.power.limit":                  {QPowerCap, dimPower},
		"power.max_limit":                       {QPowerMax, dimPower},
		"clocks.sm":                             {QClockSM, dimClock},
		"clocks.current.sm":                     {QClockSM, dimClock},
		"clocks.mem":                            {QClockMemory, dimClock},
		"clocks.current.memory":                 {QClockMemory, dimClock},
		"ecc.errors.uncorrected.volatile.total": {QECCUncorrected, dimNone},
		"ecc.errors.corrected.volatile.total":   {QECCCorrected, dimNone},
	}
}

// smiCSVTexts are the fields that are kept as they are.
func smiCSVTexts() map[string]string {
	return map[string]string{
		"pstate":                         "pstate",
		"mig.mode.current":               "mig_mode",
		"persistence_mode":               "persistence_mode",
		"compute_mode":                   "compute_mode",
		"compute_cap":                    "compute_cap",
		"gpu_recovery_action":            "recovery_action",
		"serial":                         "serial",
		"clocks_event_reasons.active":    "throttle_mask",
		"clocks_throttle_reasons.active": "throttle_mask",
	}
}

// throttleNames are NVML's bits of clocks_event_reasons.active (nvml.h,
// nvmlClocksEventReason*).
func throttleNames(mask int64) []string {
	names := []struct {
		bit  int64
		name string
	}{
		{0x1, "gpu_idle"}, {0x2, "applications_clocks_setting"}, {0x4, "sw_power_cap"}, {0x8, "hw_slowdown"},
		{0x10, "sync_boost"}, {0x20, "sw_thermal_slowdown"}, {0x40, "hw_thermal_slowdown"},
		{0x80, "hw_power_brake_slowdown"}, {0x100, "display_clock_setting"},
	}
	var out []string
	for _, n := range names {
		if mask&n.bit != 0 {
			out = append(out, n.name)
			mask &^= n.bit
		}
	}
	if mask != 0 {
		out = append(out, fmt.Sprintf("unknown 0x%x", mask))
	}
	return out
}

// isSMICSV recognises the header of --query-gpu with --format=csv.
func isSMICSV(b []byte) bool {
	head, _, _ := bytes.Cut(b, []byte{'\n'})
	return bytes.Contains(head, []byte(",")) &&
		(bytes.Contains(head, []byte("memory.")) || bytes.Contains(head, []byte("pci.bus_id")) || bytes.Contains(head, []byte("utilization.")))
}

// readSMICSV reads `nvidia-smi --query-gpu=... --format=csv[,nounits]`. The
// header's units hold also where the cells have none.
func readSMICSV(b []byte) (*Reading, error) {
	head, rest, _ := bytes.Cut(b, []byte{'\n'})
	names, units := csvHeader(string(head))
	r := &Reading{Tool: SourceNvidiaSMI, Format: "query-gpu csv"}
	fields, texts := smiCSVFields(), smiCSVTexts()
	for line := range bytes.Lines(rest) {
		cells := strings.Split(strings.TrimSpace(string(line)), ",")
		if len(cells) != len(names) {
			continue // an XID or ECC event, a warning
		}
		g := newDeviceReading(len(r.GPUs))
		for i, cell := range cells {
			cell = strings.TrimSpace(cell)
			if m, ok := fields[names[i]]; ok {
				g.setText(m.q, m.d, cell, units[i])
				continue
			}
			if key, ok := texts[names[i]]; ok && !absent(cell) {
				g.Texts[key] = cell
				continue
			}
			g.setName(names[i], cell, r)
		}
		g.setThrottle()
		r.GPUs = append(r.GPUs, g)
	}
	if len(r.GPUs) == 0 {
		if err := smiError(b); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (g *DeviceReading) setThrottle() {
	if mask, ok := parseHex([]byte(g.Texts["throttle_mask"])); ok {
		g.Values[QThrottleMask] = float64(mask)
		g.Throttle = throttleNames(mask)
	}
}

func (g *DeviceReading) setName(field, cell string, r *Reading) {
	if absent(cell) {
		return
	}
	switch field {
	case "index":
		if n, err := strconv.Atoi(cell); err == nil {
			g.Index = n
		}
	case "name", "gpu_name":
		g.Name = cell
	case "uuid", "gpu_uuid":
		g.UUID = cell
	case "pci.bus_id", "gpu_bus_id":
		g.BusID = cell
	case "driver_version":
		r.Driver = cell
	}
}

// absent reports a token that stands for a missing value (gpu-telemetry 4.2).
func absent(cell string) bool {
	return cell == "" || cell == "N/A" || cell == "-" || strings.HasPrefix(cell, "[") || strings.HasPrefix(cell, "ERR!") ||
		cell == "Requested functionality has been deprecated" || strings.HasPrefix(cell, "Unknown Error")
}

// csvHeader splits "memory.used [MiB], pstate" into names and units.
func csvHeader(head string) (names, units []string) {
	for _, cell := range strings.Split(strings.TrimSpace(head), ",") {
		name, unit, _ := strings.Cut(strings.TrimSpace(cell), " [")
		names = append(names, strings.TrimSpace(name))
		units = append(units, strings.TrimSuffix(unit, "]"))
	}
	return names, units
}

func isSMIApps(b []byte) bool {
	head, _, _ := bytes.Cut(b, []byte{'\n'})
	return bytes.Contains(head, []byte("used_gpu_memory")) && bytes.Contains(head, []byte("pid"))
}

// readSMIApps reads `nvidia-smi --query-compute-apps=... --format=csv`. No row
// means that there is no process, or that a PID namespace hides them.
func readSMIApps(b []byte) (*Reading, error) {
	head, rest, _ := bytes.Cut(b, []byte{'\n'})
	names, units := csvHeader(string(head))
	r := &Reading{Tool: SourceNvidiaSMI, Format: "query-compute-apps csv", Processes: []ProcessReading{}}
	for line := range bytes.Lines(rest) {
		cells := strings.Split(strings.TrimSpace(string(line)), ",")
		if len(cells) != len(names) {
			continue
		}
		p := ProcessReading{GPU: -1}
		for i, cell := range cells {
			p.set(names[i], strings.TrimSpace(cell), units[i])
		}
		if p.PID > 0 {
			r.Processes = append(r.Processes, p)
		}
	}
	return r, nil
}

func (p *ProcessReading) set(field, cell, unit string) {
	switch field {
	case "pid":
		p.PID, _ = strconv.Atoi(cell)
	case "process_name", "name":
		p.Name = cell
	case "gpu_bus_id":
		p.BusID = cell
	case "gpu_uuid":
		p.UUID = cell
	case "used_gpu_memory", "used_memory":
		p.Bytes = textBytes(cell, unit)
	}
}

// textBytes is "2566 MiB" in bytes; nil where it is no figure.
func textBytes(cell, unit string) *int64 {
	v, own, ok := parseDecimal([]byte(cell))
	if !ok {
		return nil
	}
	if len(own) > 0 {
		unit = string(own)
	}
	f, ok := byteUnit([]byte(unit))
	if !ok {
		return nil
	}
	n := int64(v*f + 0.5)
	return &n
}

var smiErrorRE = regexp.MustCompile(`(?m)^.*(NVIDIA-SMI has failed|Failed to initialize NVML|Unable to determine the device handle|No devices were found|is not a valid field to query|couldn't find libnvidia-ml|Driver/library version mismatch).*$`)

// smiError finds nvidia-smi's own messages, which may stand on stdout.
func smiError(b []byte) error {
	if m := smiErrorRE.Find(b); m != nil {
		return &ToolError{Tool: SourceNvidiaSMI, Message: clip(strings.TrimSpace(string(m)), 300)}
	}
	return nil
}

// smiPaths are the figures of `nvidia-smi -q`, in XML and in text: the path of
// names under the GPU in lower case. Later names of the same come later.
func smiPaths() map[string]meaning {
	return map[string]meaning{
		"fb_memory_usage/total":                       {QMemoryTotal, dimBytes},
		"fb_memory_usage/reserved":                    {QMemoryReserved, dimBytes},
		"fb_memory_usage/used":                        {QMemoryUsed, dimBytes},
		"fb_memory_usage/free":                        {QMemoryFree, dimBytes},
		"utilization/gpu_util":                        {QUtilGPU, dimPercent},
		"utilization/gpu":                             {QUtilGPU, dimPercent},
		"utilization/memory_util":                     {QUtilMemory, dimPercent},
		"utilization/memory":                          {QUtilMemory, dimPercent},
		"temperature/gpu_temp":                        {QTempHotspot, dimTemp},
		"temperature/gpu_current_temp":                {QTempHotspot, dimTemp},
		"temperature/memory_temp":                     {QTempMemory, dimTemp},
		"temperature/memory_current_temp":             {QTempMemory, dimTemp},
		"temperature/gpu_temp_tlimit":                 {QTempLimit, dimTemp},
		"temperature/gpu_t.limit_temp":                {QTempLimit, dimTemp},
		"power_readings/power_draw":                   {QPower, dimPower},
		"gpu_power_readings/power_draw":               {QPower, dimPower},
		"gpu_power_readings/average_power_draw":       {QPowerAverage, dimPower},
		"gpu_power_readings/instant_power_draw":       {QPowerInstant, dimPower},
		"gpu_power_readings/instantaneous_power_draw": {QPowerInstant, dimPower},
		"power_readings/enforced_power_limit":         {QPowerCap, dimPower},
		"gpu_power_readings/current_power_limit":      {QPowerCap, dimPower},
		"gpu_power_readings/max_power_limit":          {QPowerMax, dimPower},
		"clocks/sm_clock":                             {QClockSM, dimClock},
		"clocks/sm":                                   {QClockSM, dimClock},
		"clocks/mem_clock":                            {QClockMemory, dimClock},
		"clocks/memory":                               {QClockMemory, dimClock},
	}
}

// smiPathTexts are the facts of `nvidia-smi -q` that are kept as they are.
func smiPathTexts() map[string]string {
	return map[string]string{
		"performance_state":          "pstate",
		"mig_mode/current_mig":       "mig_mode",
		"mig_mode/current":           "mig_mode",
		"persistence_mode":           "persistence_mode",
		"compute_mode":               "compute_mode",
		"gpu_recovery_action":        "recovery_action",
		"ecc_mode/current_ecc":       "ecc_mode",
		"ecc_mode/current":           "ecc_mode",
		"serial":                     "serial",
		"product_architecture":       "architecture",
		"power_readings/power_state": "pstate",
	}
}

// setPath takes one name of `nvidia-smi -q`.
func (g *DeviceReading) setPath(path, text string) {
	if m, ok := smiPaths()[path]; ok {
		if _, have := g.Values[m.q]; !have {
			g.setText(m.q, m.d, text, "")
		}
		return
	}
	if key, ok := smiPathTexts()[path]; ok {
		if !absent(text) {
			g.Texts[key] = text
		}
		return
	}
	switch path {
	case "product_name":
		g.Name = text
	case "uuid", "gpu_uuid":
		g.UUID = text
	case "pci/pci_bus_id", "pci/bus_id":
		g.BusID = text
	}
	g.setECC(path, text)
	if reason, ok := throttlePath(path); ok && text == "Active" {
		g.Throttle = append(g.Throttle, reason)
	}
}

// setECC adds up the uncorrectable errors since the driver was loaded.
func (g *DeviceReading) setECC(path, text string) {
	rest, ok := strings.CutPrefix(path, "ecc_errors/volatile/")
	if !ok || !strings.Contains(rest, "uncorrectable") || strings.Contains(rest, "double_bit") {
		return
	}
	if n, err := strconv.Atoi(text); err == nil {
		g.Values[QECCUncorrected] += float64(n)
	}
}

func throttlePath(path string) (string, bool) {
	for _, p := range []string{"clocks_event_reasons/clocks_event_reason_", "clocks_throttle_reasons/clocks_throttle_reason_", "clocks_event_reasons/", "clocks_throttle_reasons/"} {
		if r, ok := strings.CutPrefix(path, p); ok {
			return r[strings.LastIndexByte(r, '/')+1:], true
		}
	}
	return "", false
}

// readSMIXML reads `nvidia-smi -q -x` of the DTD versions 10 to 13.
func readSMIXML(b []byte) (*Reading, error) {
	x := &smiXML{r: &Reading{Tool: SourceNvidiaSMI, Format: "xml"}}
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = false
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return x.r, nil
		}
		if err != nil {
			if len(x.r.GPUs) > 0 {
				return x.r, fmt.Errorf("nvidia-smi's XML breaks off after %d GPUs: %w", len(x.r.GPUs), err)
			}
			return nil, fmt.Errorf("nvidia-smi's XML cannot be read: %w", err)
		}
		x.token(tok)
	}
}

// smiXML is where the reader stands in the document.
type smiXML struct {
	r    *Reading
	path []string // below nvidia_smi_log
	text strings.Builder
	g    *DeviceReading
	p    *ProcessReading
	mig  *MIGReading
}

func (x *smiXML) token(tok xml.Token) {
	switch t := tok.(type) {
	case xml.StartElement:
		x.text.Reset()
		x.path = append(x.path, strings.ToLower(t.Name.Local))
		x.open(t)
	case xml.CharData:
		if x.text.Len() < 4096 {
			x.text.Write(t)
		}
	case xml.EndElement:
		if len(x.path) > 0 {
			x.shut(strings.TrimSpace(x.text.String()))
			x.path = x.path[:len(x.path)-1]
		}
		x.text.Reset()
	}
}

func (x *smiXML) open(t xml.StartElement) {
	switch strings.ToLower(t.Name.Local) {
	case "gpu":
		if len(x.path) == 2 {
			g := newDeviceReading(len(x.r.GPUs))
			for _, a := range t.Attr {
				if a.Name.Local == "id" {
					g.BusID = a.Value
				}
			}
			x.g = &g
		}
	case "mig_device":
		x.mig = &MIGReading{}
	case "processes":
		if x.g != nil && x.g.Processes == nil {
			x.g.Processes = []ProcessReading{}
		}
	case "process_info":
		if x.g != nil && slices.Contains(x.path, "processes") {
			x.p = &ProcessReading{GPU: x.g.Index, BusID: x.g.BusID, UUID: x.g.UUID}
		}
	}
}

// shut closes the element at the end of the path.
func (x *smiXML) shut(text string) {
	name := x.path[len(x.path)-1]
	switch {
	case x.g == nil:
		x.head(name, text)
	case name == "gpu" && len(x.path) == 2:
		x.r.GPUs = append(x.r.GPUs, *x.g)
		x.g = nil
	case name == "process_info" && x.p != nil:
		if x.p.PID > 0 {
			x.g.Processes = append(x.g.Processes, *x.p)
			x.r.Processes = append(x.r.Processes, *x.p)
		}
		x.p = nil
	case name == "mig_device" && x.mig != nil:
		x.g.MIG = append(x.g.MIG, *x.mig)
		x.mig = nil
	case x.p != nil:
		x.p.set(name, text, "")
	case x.mig != nil:
		x.mig.set(strings.Join(x.path[len(x.path)-2:], "/"), text)
	case len(x.path) > 2:
		x.g.setPath(strings.Join(x.path[2:], "/"), text)
	}
}

func (x *smiXML) head(name, text string) {
	switch name {
	case "driver_version":
		x.r.Driver = text
	case "cuda_version":
		x.r.Version = text
	}
}

func (m *MIGReading) set(path, text string) {
	n, _ := strconv.Atoi(text)
	switch path {
	case "mig_device/index":
		m.Device = n
	case "mig_device/gpu_instance_id":
		m.GI = n
	case "mig_device/compute_instance_id":
		m.CI = n
	case "fb_memory_usage/total":
		m.Total = textBytes(text, "")
	case "fb_memory_usage/reserved":
		m.Reserve = textBytes(text, "")
	case "fb_memory_usage/used":
		m.Used = textBytes(text, "")
	case "fb_memory_usage/free":
		m.Free = textBytes(text, "")
	}
}
