package nvidia

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// recorded opens a file of what was recorded on two H100s with driver 580: raw
// outputs of the tools, of the NVML helper and of this program, taken together
// with UUIDs and serial numbers masked.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join("testdata", "h100x2-580", name)
	b, err := os.ReadFile(path)
	if err != nil {
		b, err = os.ReadFile(path + ".gz")
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if b, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// TestH100SourcesAgree compares the readings of one machine: nvidia-smi, and NVML
// through the helper must tell the same GPUs.
func TestH100SourcesAgree(t *testing.T) {
	t.Parallel()
	q := smiQuery{cols: smiColumns()}
	table, err := q.reading(&sampling.Output{Stdout: recorded(t, "nvidia-smi_sampler-header.csv")})
	if err != nil {
		t.Fatal(err)
	}
	var nvml nvmlHello
	if err := json.Unmarshal(recorded(t, "nvml_hello.json"), &nvml); err != nil {
		t.Fatal(err)
	}
	if len(nvml.MissingSymbols) > 0 {
		t.Errorf("driver %s lacks %v", nvml.Driver, nvml.MissingSymbols)
	}
	if len(table.GPUs) != 2 || len(nvml.GPUs) != 2 {
		t.Fatalf("GPUs: %d in the CSV, %d by NVML", len(table.GPUs), len(nvml.GPUs))
	}
	for i := range nvml.GPUs {
		g, csv := &nvml.GPUs[i], &table.GPUs[i]
		// idle: the same for both, in MiB
		a, b := g.Sample, csv.Sample
		if !g.Has(sampling.MemoryFields) || !csv.Has(sampling.MemoryFields) || a.MemoryUsed>>20 != b.MemoryUsed>>20 ||
			a.MemoryTotal>>20 != b.MemoryTotal>>20 || a.MemoryReserved>>20 != b.MemoryReserved>>20 {
			t.Errorf("GPU %d: NVML %+v, nvidia-smi %+v", i, a, b)
		}
		if sampling.BusKey(g.BusID) != sampling.BusKey(csv.BusID) || g.Index != csv.Index {
			t.Errorf("GPU %d: NVML %s %d, nvidia-smi %s %d", i, g.BusID, g.Index, csv.BusID, csv.Index)
		}
		all := runner.HasPower | runner.HasEnergy | runner.HasTemperature | runner.HasMemoryTemp | runner.HasClockSM |
			runner.HasClockMem | runner.HasUtilization | runner.HasThrottleReasons
		if !g.Has(all) || g.ECC == nil || g.PowerKind != sampling.PowerInstant {
			t.Errorf("GPU %d: NVML does not tell %v", i, sampling.FieldNames(all&^g.Sample.Has))
		}
		if g.Texts["compute_cap"] != "9.0" || g.Texts["persistence_mode"] == "" || g.Texts["mig_mode"] != "Disabled" ||
			g.Processes == nil {
			t.Errorf("GPU %d: texts %v, processes %v", i, g.Texts, g.Processes)
		}
	}
}

// TestH100Stream reads the very stream that the sampler asks for.
func TestH100Stream(t *testing.T) {
	t.Parallel()
	r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
	if err != nil {
		t.Fatal(err)
	}
	data := recorded(t, "nvidia-smi_sampler-lms10.csv")
	src := newSMISource(sampling.Options{}, r, []smiDevice{{index: 0}, {index: 1}})
	src.query.cols = smiColumns()
	header, _, _ := bytes.Cut(recorded(t, "nvidia-smi_sampler-header.csv"), []byte{'\n'})
	if err := readHeader(header, src.query.cols); err != nil {
		t.Fatal(err)
	}
	n := 0
	m := sampling.NewMeter(r.Interval, r.Epoch, func(s []runner.Sample) {
		for _, s := range s {
			if want := sampling.MemoryFields | runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp |
				runner.HasUtilization | runner.HasMemoryUtil | runner.HasClockSM | runner.HasClockMem | runner.HasThrottleReasons; s.Has != want {
				t.Errorf("sample %d lacks %v", n, sampling.FieldNames(want&^s.Has))
			}
		}
		n += len(s)
	})
	st := newSMIStream(src, m)
	if _, err := st.Write(data); err != nil {
		t.Fatal(err)
	}
	st.close()
	if lines := bytes.Count(data, []byte{'\n'}); n != lines || n < 100 {
		t.Errorf("%d samples of %d lines", n, lines)
	}
	if rep := m.Report("", time.Now()); strings.Contains(strings.Join(rep.Notes, " "), "no rows") {
		t.Errorf("notes %v", rep.Notes)
	}
}

// A point is a sample of a recorded timeline.
type point struct {
	at     time.Time
	used   int64
	power  float64
	energy float64
}

func timeline(t *testing.T, source string) []point {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(recorded(t, "timeline_"+source+".csv"))).ReadAll()
	if err != nil || len(rows) < 2 {
		t.Fatalf("timeline of %s: %d rows, %v", source, len(rows), err)
	}
	col := func(name string) int { return slices.Index(rows[0], name) }
	var out []point
	for _, row := range rows[1:] {
		if row[col("source")] != source || row[col("memory_used_bytes")] == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, row[col("ts")])
		if err != nil {
			t.Fatal(err)
		}
		p := point{at: at}
		p.used, err = strconv.ParseInt(row[col("memory_used_bytes")], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		p.power, _ = strconv.ParseFloat(row[col("power_w")], 64)
		p.energy, _ = strconv.ParseFloat(row[col("energy_j")], 64)
		out = append(out, p)
	}
	return out
}

// An allocStep is a line that testdata/alloc_steps.py printed.
type allocStep struct {
	Event string  `json:"event"`
	Wall  float64 `json:"wall"`
	Bytes int64   `json:"bytes"`
	Hold  float64 `json:"hold_s"`
}

func allocSteps(t *testing.T) []allocStep {
	t.Helper()
	var out []allocStep
	sc := bufio.NewScanner(bytes.NewReader(recorded(t, "steps.jsonl")))
	for sc.Scan() {
		var s allocStep
		if json.Unmarshal(sc.Bytes(), &s) == nil && s.Event != "" {
			out = append(out, s)
		}
	}
	return out
}

// held are the samples of the middle of a hold: nothing changes then.
func held(points []point, s allocStep) []point {
	from := time.Unix(0, int64((s.Wall+0.25*s.Hold)*1e9))
	to := time.Unix(0, int64((s.Wall+0.9*s.Hold)*1e9))
	var out []point
	for _, p := range points {
		if p.at.After(from) && p.at.Before(to) {
			out = append(out, p)
		}
	}
	return out
}

// TestH100Steps finds each step of a program that allocated known amounts, seen
// by both samplers at the same time: to 32 MiB, and the same by both.
func TestH100Steps(t *testing.T) {
	t.Parallel()
	const tolerance = 32 << 20
	steps := allocSteps(t)
	if len(steps) < 8 {
		t.Fatalf("%d steps", len(steps))
	}
	levels := map[string][]int64{}
	for _, source := range []string{sampling.SourceNVML, sampling.SourceNvidiaSMI} {
		points := timeline(t, source)
		last := int64(-1)
		for _, s := range steps {
			if s.Hold == 0 {
				continue
			}
			in := held(points, s)
			if len(in) < int(s.Hold*0.65*50) { // half of what 100 Hz gives
				t.Errorf("%s: %d samples while %v s of %s", source, len(in), s.Hold, s.Event)
				continue
			}
			for _, p := range in {
				if p.used != in[0].used {
					t.Errorf("%s: memory moves while it is held: %d and %d", source, in[0].used, p.used)
				}
			}
			level := in[0].used
			if d := level - last - s.Bytes; last >= 0 && (d > tolerance || d < -tolerance) {
				t.Errorf("%s: a step of %d MiB shows as %d MiB", source, s.Bytes>>20, (level-last)>>20)
			}
			last = level
			levels[source] = append(levels[source], level)
		}
	}
	for i, a := range levels[sampling.SourceNVML] {
		if b := levels[sampling.SourceNvidiaSMI][i]; a-b > 1<<20 || b-a > 1<<20 {
			t.Errorf("level %d: NVML %d, nvidia-smi %d", i, a, b)
		}
	}
}

// TestH100Energy holds the integral of the instantaneous power against the
// energy counter of the same time.
func TestH100Energy(t *testing.T) {
	t.Parallel()
	var integral, first, last, firstAt float64
	var before point
	for _, p := range timeline(t, sampling.SourceNVML) {
		if !before.at.IsZero() && first > 0 {
			integral += (p.power + before.power) / 2 * p.at.Sub(before.at).Seconds()
		}
		if p.energy > 0 && first == 0 {
			first, integral = p.energy, 0
		}
		if p.energy > 0 {
			last, firstAt = p.energy, integral
		}
		before = p
	}
	if counted := last - first; counted <= 0 || math.Abs(firstAt/counted-1) > 0.1 {
		t.Errorf("the counter gained %.1f J, the integral is %.1f J", counted, firstAt)
	}
}
