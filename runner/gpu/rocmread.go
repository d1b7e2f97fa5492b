package gpu

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rocmKeys are rocm-smi's keys, in all the wordings that versions 4 to 6 used;
// lower case. The unit stands in the key.
func rocmKeys() map[string]meaningUnit {
	return map[string]meaningUnit{
		"vram total memory (b)":                     {QMemoryTotal, dimBytes, "B"},
		"vram total used memory (b)":                {QMemoryUsed, dimBytes, "B"},
		"gtt total used memory (b)":                 {QGTTUsed, dimBytes, "B"},
		"gpu memory use (%)":                        {QMemoryPercent, dimPercent, "%"},
		"gpu memory allocated (vram%)":              {QMemoryPercent, dimPercent, "%"},
		"gpu use (%)":                               {QUtilGPU, dimPercent, "%"},
		"temperature (sensor edge) (c)":             {QTempEdge, dimTemp, "C"},
		"temperature (sensor junction) (c)":         {QTempHotspot, dimTemp, "C"},
		"temperature (sensor memory) (c)":           {QTempMemory, dimTemp, "C"},
		"temperature (sensor mem) (c)":              {QTempMemory, dimTemp, "C"},
		"average graphics package power (w)":        {QPower, dimPower, "W"},
		"current socket graphics package power (w)": {QPower, dimPower, "W"},
		"max graphics package power (w)":            {QPowerCap, dimPower, "W"},
		"sclk clock speed:":                         {QClockSM, dimClock, "MHz"},
		"mclk clock speed:":                         {QClockMemory, dimClock, "MHz"},
		"sclk clock level":                          {QClockSM, dimClock, "MHz"},
		"mclk clock level":                          {QClockMemory, dimClock, "MHz"},
	}
}

type meaningUnit struct {
	q    Quantity
	d    dimension
	unit string
}

func isROCmJSON(b []byte) bool {
	t := bytes.TrimSpace(b)
	return bytes.HasPrefix(t, []byte("{")) && rocmCardRE.Match(t)
}

var (
	rocmCardRE  = regexp.MustCompile(`"card\d+"\s*:\s*\{`)
	rocmClockRE = regexp.MustCompile(`\(([0-9.]+)\s*[Mm][Hh]z\)`)
	rocmLineRE  = regexp.MustCompile(`^GPU\[(\d+)\]\s*:\s*(.+?):\s*(.*)$`)
)

// readROCmJSON reads `rocm-smi ... --json`: every value is a string, keys come
// and go with the version, stray keys ("0", "1") come from clock tables.
func readROCmJSON(b []byte) (*Reading, error) {
	docs, _ := jsonDocuments(b)
	r := &Reading{Tool: SourceROCmSMI, Format: "json"}
	for _, d := range docs {
		top, ok := d.(map[string]any)
		if !ok {
			continue
		}
		for name, v := range top {
			card, ok := v.(map[string]any)
			index, err := strconv.Atoi(strings.TrimPrefix(name, "card"))
			if !ok || !strings.HasPrefix(name, "card") || err != nil {
				continue
			}
			g := newDeviceReading(index)
			g.Card = name
			for k, val := range card {
				g.setROCm(k, fmt.Sprint(val))
			}
			r.GPUs = append(r.GPUs, g)
		}
	}
	if len(r.GPUs) == 0 {
		return nil, fmt.Errorf("%w: rocm-smi lists no card", ErrNoReading)
	}
	slices.SortFunc(r.GPUs, func(a, b DeviceReading) int { return a.Index - b.Index })
	return r, nil
}

// setROCm takes one key of rocm-smi.
func (g *DeviceReading) setROCm(key, text string) {
	k := strings.ToLower(strings.TrimSpace(key))
	m, ok := rocmKeys()[k]
	if !ok {
		g.setROCmText(k, text)
		return
	}
	if m.d == dimClock {
		c := rocmClockRE.FindStringSubmatch(text)
		if c == nil {
			g.Missing[m.q] = reasonOf(text)
			return
		}
		text = c[1]
	}
	if m.q == QMemoryPercent {
		g.Texts["memory_use_key"] = key
	}
	g.setText(m.q, m.d, text, m.unit)
}

func (g *DeviceReading) setROCmText(key, text string) {
	if absent(text) {
		return
	}
	switch key {
	case "pci bus":
		g.BusID = text
	case "unique id":
		g.UUID = text
	case "card series":
		g.Name = text
	case "gfx version":
		g.Texts["gfx"] = text
	case "compute partition":
		g.Texts["partition"] = text
	case "memory partition":
		g.Texts["memory_partition"] = text
	}
}

// readROCmText reads rocm-smi's text: the lines "GPU[0] : key: value" of -a, or
// the concise table.
func readROCmText(b []byte) (*Reading, error) {
	r := &Reading{Tool: SourceROCmSMI, Format: "text"}
	if bytes.Contains(b, []byte("Concise Info")) {
		r.Format = "concise"
		r.concise(string(b))
	}
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		if v, ok := strings.CutPrefix(text, "Driver version: "); ok {
			r.Driver = v
		}
		m := rocmLineRE.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		index, _ := strconv.Atoi(m[1])
		key, value := m[2], m[3]
		if level, rest, ok := strings.Cut(value, ": ("); ok && strings.HasSuffix(key, "clock level") && len(level) <= 3 {
			value = "(" + rest // "S: (137Mhz)", "0: (900Mhz)"
		}
		r.card(index).setROCm(key, value)
	}
	if len(r.GPUs) == 0 {
		return nil, fmt.Errorf("%w: rocm-smi lists no GPU", ErrNoReading)
	}
	return r, nil
}

// card is the reading of a GPU, made where it is not there yet.
func (r *Reading) card(index int) *DeviceReading {
	for i := range r.GPUs {
		if r.GPUs[i].Index == index {
			return &r.GPUs[i]
		}
	}
	r.GPUs = append(r.GPUs, newDeviceReading(index))
	return &r.GPUs[len(r.GPUs)-1]
}

// concise reads the table of rocm-smi without arguments: left-aligned columns
// that begin under their headings. Two heading lines: units stand in the second.
func (r *Reading) concise(text string) {
	var at map[string]int
	junction := false
	for line := range strings.Lines(text) {
		runes := []rune(strings.TrimRight(line, " \r\n"))
		if strings.HasPrefix(line, "Device") || strings.HasPrefix(line, "GPU ") {
			at = columnStarts(string(runes))
			continue
		}
		if strings.Contains(line, "(Junction)") {
			junction = true
		}
		f := strings.Fields(string(runes))
		if at == nil || len(f) == 0 {
			continue
		}
		index, err := strconv.Atoi(f[0])
		if err != nil || runes[0] == ' ' {
			continue
		}
		g := r.card(index)
		q := QTempEdge
		if junction {
			q = QTempHotspot
		}
		g.setText(q, dimTemp, strings.TrimSuffix(cell(runes, at, "Temp"), "°C"), "")
		for name, m := range map[string]meaning{
			"Power": {QPower, dimPower}, "PwrCap": {QPowerCap, dimPower}, "SCLK": {QClockSM, dimClock}, "MCLK": {QClockMemory, dimClock},
			"VRAM%": {QMemoryPercent, dimPercent}, "GPU%": {QUtilGPU, dimPercent},
		} {
			if _, ok := at[name]; ok {
				g.setText(m.q, m.d, cell(runes, at, name), "")
			}
		}
		if p := cell(runes, at, "Partitions"); p != "" {
			g.Texts["partition"] = p
		}
	}
}

// columnStarts are the headings of a line and where each begins.
func columnStarts(line string) map[string]int {
	at := map[string]int{}
	names, ends := headings(line)
	for i, n := range names {
		at[n] = ends[i] - len([]rune(n))
	}
	return at
}

// cell is the text from where a heading begins to where the next one does.
func cell(line []rune, at map[string]int, name string) string {
	from, ok := at[name]
	if !ok || from >= len(line) {
		return ""
	}
	to := len(line)
	for _, a := range at {
		if a > from && a < to {
			to = a
		}
	}
	return strings.TrimSpace(string(line[from:to]))
}
