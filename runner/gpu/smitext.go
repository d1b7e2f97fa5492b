package gpu

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// readSMIText reads `nvidia-smi -q`: names nested by indentation.
func readSMIText(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceNvidiaSMI, Format: "-q text"}
	var g *DeviceReading
	var path []string
	var indents []int
	var p *ProcessReading
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), " \r\n")
		name := strings.TrimSpace(text)
		if name == "" {
			continue
		}
		key, value, isPair := strings.Cut(name, " : ")
		indent := len(text) - len(strings.TrimLeft(text, " "))
		if indent == 0 {
			if bus, ok := strings.CutPrefix(name, "GPU "); ok && !isPair {
				r.GPUs = append(r.GPUs, newDeviceReading(len(r.GPUs)))
				g = &r.GPUs[len(r.GPUs)-1]
				g.BusID = bus
			} else if isPair && strings.TrimSpace(key) == "Driver Version" {
				r.Driver = strings.TrimSpace(value)
			}
			path, indents = nil, nil
			continue
		}
		for len(indents) > 0 && indents[len(indents)-1] >= indent {
			path, indents = path[:len(path)-1], indents[:len(indents)-1]
		}
		path = append(path, strings.ReplaceAll(strings.ToLower(strings.TrimSpace(strings.TrimSuffix(key, ":"))), " ", "_"))
		indents = append(indents, indent)
		if g != nil && isPair {
			p = g.textPair(path, strings.TrimSpace(value), p)
		}
	}
	for i := range r.GPUs {
		r.Processes = append(r.Processes, r.GPUs[i].Processes...)
	}
	return r, nil
}

// textPair takes a line "name : value" of -q. It returns the process that the
// next lines tell more about.
func (g *DeviceReading) textPair(path []string, value string, p *ProcessReading) *ProcessReading {
	if path[0] != "processes" {
		g.setPath(strings.Join(path, "/"), value)
		return nil
	}
	switch path[len(path)-1] {
	case "processes":
		g.Processes = []ProcessReading{} // "None"
	case "process_id":
		pid, err := strconv.Atoi(value)
		if err != nil {
			return nil
		}
		g.Processes = append(g.Processes, ProcessReading{GPU: g.Index, BusID: g.BusID, PID: pid})
		return &g.Processes[len(g.Processes)-1]
	case "name":
		if p != nil {
			p.Name = value
		}
	case "used_gpu_memory":
		if p != nil {
			p.Bytes = textBytes(value, "")
		}
	}
	return p
}

func isSMIDmon(b []byte) bool {
	return bytes.HasPrefix(b, []byte("# gpu")) && bytes.Contains(b, []byte("pwr"))
}

func isSMIPmon(b []byte) bool {
	return bytes.HasPrefix(b, []byte("# gpu")) && bytes.Contains(b, []byte("pid"))
}

// monHeader finds the columns of dmon and pmon: the first line that begins with
// "# gpu"; the second holds the units.
func monHeader(b []byte) []string {
	head, _, _ := bytes.Cut(b, []byte{'\n'})
	return strings.Fields(strings.TrimPrefix(string(head), "#"))
}

// readSMIDmon reads `nvidia-smi dmon`. Documents counts the readings; the GPUs
// are those of the first one.
func readSMIDmon(b []byte) (*Reading, error) {
	cols := map[string]meaning{
		"pwr": {QPower, dimPower}, "gtemp": {QTempHotspot, dimTemp}, "mtemp": {QTempMemory, dimTemp},
		"sm": {QUtilGPU, dimPercent}, "mem": {QUtilMemory, dimPercent}, "mclk": {QClockMemory, dimClock}, "pclk": {QClockSM, dimClock},
	}
	names := monHeader(b)
	r := &Reading{Tool: SourceNvidiaSMI, Format: "dmon"}
	count := map[int]int{}
	for line := range bytes.Lines(b) {
		cells := strings.Fields(string(line))
		if len(cells) != len(names) || cells[0] == "#" {
			continue
		}
		index, err := strconv.Atoi(cells[0])
		if err != nil {
			continue
		}
		count[index]++
		r.Documents = max(r.Documents, count[index])
		if count[index] > 1 {
			continue
		}
		g := newDeviceReading(index)
		for i, name := range names {
			if m, ok := cols[name]; ok {
				g.setText(m.q, m.d, cells[i], "")
			}
		}
		r.GPUs = append(r.GPUs, g)
	}
	return r, nil
}

// readSMIPmon reads `nvidia-smi pmon`: each process once, in order.
func readSMIPmon(b []byte) (*Reading, error) {
	names := monHeader(b)
	r := &Reading{Tool: SourceNvidiaSMI, Format: "pmon", Processes: []ProcessReading{}}
	seen := map[[2]int]bool{}
	for line := range bytes.Lines(b) {
		cells := strings.Fields(string(line))
		if len(cells) < len(names) || cells[0] == "#" {
			continue
		}
		index, err := strconv.Atoi(cells[0])
		if err != nil {
			continue
		}
		if len(r.GPUs) == 0 || r.GPUs[len(r.GPUs)-1].Index < index {
			r.GPUs = append(r.GPUs, newDeviceReading(index))
			r.GPUs[len(r.GPUs)-1].Processes = []ProcessReading{}
		}
		pid, err := strconv.Atoi(cells[1])
		if err != nil || seen[[2]int{index, pid}] {
			continue // "-": no process on this GPU
		}
		seen[[2]int{index, pid}] = true
		p := ProcessReading{GPU: index, PID: pid, Name: strings.Join(cells[len(names)-1:], " ")}
		r.Processes = append(r.Processes, p)
		for i := range r.GPUs {
			if r.GPUs[i].Index == index {
				r.GPUs[i].Processes = append(r.GPUs[i].Processes, p)
			}
		}
	}
	return r, nil
}

var (
	listGPURE = regexp.MustCompile(`^GPU (\d+): (.*?)(?: \(UUID: ([^)]+)\))?$`)
	listMIGRE = regexp.MustCompile(`^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: ([^)]+)\)`)
)

func isSMIList(b []byte) bool {
	head, _, _ := bytes.Cut(b, []byte{'\n'})
	return listGPURE.Match(bytes.TrimSpace(head))
}

// readSMIList reads `nvidia-smi -L`: the GPUs and their MIG parts.
func readSMIList(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceNvidiaSMI, Format: "list"}
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), " \r\n")
		if m := listGPURE.FindStringSubmatch(text); m != nil {
			index, _ := strconv.Atoi(m[1])
			g := newDeviceReading(index)
			g.Name, g.UUID = m[2], m[3]
			r.GPUs = append(r.GPUs, g)
			continue
		}
		if m := listMIGRE.FindStringSubmatch(text); m != nil && len(r.GPUs) > 0 {
			device, _ := strconv.Atoi(m[2])
			g := &r.GPUs[len(r.GPUs)-1]
			g.MIG = append(g.MIG, MIGReading{Profile: m[1], Device: device, UUID: m[3]})
		}
	}
	return r, nil
}

// readSMIVersion reads `nvidia-smi --version`.
func readSMIVersion(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceNvidiaSMI, Format: "version"}
	for line := range bytes.Lines(b) {
		key, value, _ := strings.Cut(string(line), ":")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "nvidia-smi version":
			r.Version = strings.TrimSpace(value)
		case "driver version":
			r.Driver = strings.TrimSpace(value)
		}
	}
	return r, nil
}

// readSMIHelp reads `nvidia-smi --help-query-gpu`: the names of all fields,
// aliases too.
func readSMIHelp(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceNvidiaSMI, Format: "help-query-gpu"}
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		if !strings.HasPrefix(text, `"`) {
			continue
		}
		for i, part := range strings.Split(text, `"`) {
			if i%2 == 1 {
				r.Fields = append(r.Fields, part)
			}
		}
	}
	return r, nil
}

var (
	tableDriverRE = regexp.MustCompile(`Driver Version: (\S+)`)
	tableGPURE    = regexp.MustCompile(`^\|\s+(\d+)\s+(.+?)\s+(?:On|Off|N/A)\s+\|\s+([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])`)
	tableUseRE    = regexp.MustCompile(`^\|\s*\S+\s+(\S+)\s+(P\d+|ERR!|N/A|Unknown)\s+(\S+)\s*/\s*(\S+)\s*\|\s*(\S+)\s*/\s*(\S+)\s*\|\s*(\S+)`)
	tableMIGRE    = regexp.MustCompile(`^\|\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\|\s*(\d+MiB)\s*/\s*(\d+MiB)`)
	tableProcRE   = regexp.MustCompile(`^\|\s+(\d+)\s+(\S+)\s+(\S+)\s+(\d+)\s+(C|G|C\+G|M\+C)\s+(.*?)\s+(\S+)\s*\|`)
)

// readSMITable reads what plain `nvidia-smi` prints, layout of drivers 450 on.
// It is the last resort: power is rounded to watts, names are cut.
func readSMITable(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceNvidiaSMI, Format: "table"}
	if m := tableDriverRE.FindSubmatch(b); m != nil {
		r.Driver = string(m[1])
	}
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), " \r\n")
		if m := tableGPURE.FindStringSubmatch(text); m != nil {
			index, _ := strconv.Atoi(m[1])
			g := newDeviceReading(index)
			g.Name, g.BusID = m[2], m[3]
			r.GPUs = append(r.GPUs, g)
			continue
		}
		if len(r.GPUs) > 0 {
			r.tableLine(text)
		}
	}
	return r, nil
}

func (r *Reading) tableLine(text string) {
	last := &r.GPUs[len(r.GPUs)-1]
	if m := tableUseRE.FindStringSubmatch(text); m != nil {
		if _, done := last.Values[QMemoryTotal]; !done {
			last.setText(QTempHotspot, dimTemp, m[1], "")
			last.setText(QPower, dimPower, m[3], "")
			last.setText(QPowerCap, dimPower, m[4], "")
			last.setText(QMemoryUsed, dimBytes, m[5], "")
			last.setText(QMemoryTotal, dimBytes, m[6], "")
			last.setText(QUtilGPU, dimPercent, m[7], "")
			last.Texts["pstate"] = m[2]
		}
		return
	}
	if m := tableMIGRE.FindStringSubmatch(text); m != nil {
		var n [4]int
		for i := range n {
			n[i], _ = strconv.Atoi(m[i+1])
		}
		for i := range r.GPUs {
			if r.GPUs[i].Index == n[0] {
				r.GPUs[i].MIG = append(r.GPUs[i].MIG, MIGReading{GI: n[1], CI: n[2], Device: n[3], Used: textBytes(m[5], ""), Total: textBytes(m[6], "")})
			}
		}
		return
	}
	if m := tableProcRE.FindStringSubmatch(text); m != nil {
		index, _ := strconv.Atoi(m[1])
		pid, _ := strconv.Atoi(m[4])
		r.Processes = append(r.Processes, ProcessReading{GPU: index, PID: pid, Name: m[6], Bytes: textBytes(m[7], "")})
	}
}
