package amd

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// rocmKeys are rocm-smi's keys, in all the wordings that versions 4 to 6 used;
// lower case. The unit stands in the key. Of two keys for one figure the later
// one counts: the hotspot is hotter than the edge.
func rocmKeys() []rocmKey {
	return []rocmKey{
		{"vram total memory (b)", runner.HasMemoryTotal, sampling.Bytes, "B"},
		{"vram total used memory (b)", runner.HasMemoryUsed, sampling.Bytes, "B"},
		{"gpu use (%)", runner.HasUtilization, sampling.Percent, "%"},
		{"temperature (sensor edge) (c)", runner.HasTemperature, sampling.Temp, "C"},
		{"temperature (sensor junction) (c)", runner.HasTemperature, sampling.Temp, "C"},
		{"temperature (sensor memory) (c)", runner.HasMemoryTemp, sampling.Temp, "C"},
		{"temperature (sensor mem) (c)", runner.HasMemoryTemp, sampling.Temp, "C"},
		{"average graphics package power (w)", runner.HasPower, sampling.Power, "W"},
		{"current socket graphics package power (w)", runner.HasPower, sampling.Power, "W"},
		{"sclk clock speed:", runner.HasClockSM, sampling.Clock, "MHz"},
		{"mclk clock speed:", runner.HasClockMem, sampling.Clock, "MHz"},
	}
}

type rocmKey struct {
	name  string
	field runner.Fields
	dim   sampling.Dimension
	unit  string
}

var rocmClockRE = regexp.MustCompile(`\(([0-9.]+)\s*[Mm][Hh]z\)`)

// readROCmSMI reads `rocm-smi ... --json`: every value is a string, keys come
// and go with the version, stray keys ("0", "1") come from clock tables.
func readROCmSMI(b []byte) ([]sampling.GPU, error) {
	docs, _ := jsonDocuments(b)
	var gpus []sampling.GPU
	for _, d := range docs {
		top, _ := d.(map[string]any)
		for name, v := range top {
			card, ok := v.(map[string]any)
			index, err := strconv.Atoi(strings.TrimPrefix(name, "card"))
			if ok && strings.HasPrefix(name, "card") && err == nil {
				gpus = append(gpus, rocmGPU(index, card))
			}
		}
	}
	if len(gpus) == 0 {
		return nil, fmt.Errorf("%w: rocm-smi lists no card", errNoReading)
	}
	slices.SortFunc(gpus, func(a, b sampling.GPU) int { return a.Index - b.Index })
	return gpus, nil
}

func rocmGPU(index int, card map[string]any) sampling.GPU {
	g := sampling.NewGPU(index)
	texts := map[string]string{}
	for key, v := range card {
		texts[strings.ToLower(strings.TrimSpace(key))] = fmt.Sprint(v)
	}
	for _, k := range rocmKeys() {
		text, ok := texts[k.name]
		if !ok {
			continue
		}
		if m := rocmClockRE.FindStringSubmatch(text); k.dim == sampling.Clock && m != nil {
			text = m[1]
		} else if k.dim == sampling.Clock {
			text = "(" + text + ")" // no figure: "0" would be a level
		}
		if had := g.Has(k.field); setText(&g, k.field, k.dim, text, k.unit) || had {
			delete(g.Missing, sampling.FieldName(k.field))
		}
	}
	for name, to := range map[string]*string{"pci bus": &g.BusID, "unique id": &g.UUID, "card series": &g.Name} {
		if text := texts[name]; !sampling.Absent(text) {
			*to = text
		}
	}
	return g
}
