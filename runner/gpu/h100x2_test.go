package gpu

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
)

// recorded opens a file of what was recorded on two H100s with driver 580: raw
// outputs of the tools, of the NVML helper and of this program, taken together
// with UUIDs and serial numbers masked. The test is skipped without it.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join("testdata", "h100x2-580", name)
	b, err := os.ReadFile(path)
	if err != nil {
		b, err = os.ReadFile(path + ".gz")
		if err != nil {
			t.Skipf("not recorded yet: %v", err)
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

// TestH100SourcesAgree compares the readings of one machine: nvidia-smi's XML,
// its CSV, and NVML through the helper must tell the same GPUs.
func TestH100SourcesAgree(t *testing.T) {
	t.Parallel()
	xml, err := Read(recorded(t, "nvidia-smi_q-x.xml"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := Read(recorded(t, "nvidia-smi_sampler-header.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var hello nvmlHello
	if err := json.Unmarshal(recorded(t, "nvml_hello.json"), &hello); err != nil {
		t.Fatal(err)
	}
	nvml := hello.reading()
	if len(hello.MissingSymbols) > 0 {
		t.Errorf("driver %s lacks %v", hello.Driver, hello.MissingSymbols)
	}
	if len(xml.GPUs) != 2 || len(table.GPUs) != 2 || len(nvml.GPUs) != 2 || xml.Driver != hello.Driver {
		t.Fatalf("GPUs: %d in the XML, %d in the CSV, %d by NVML; drivers %s, %s", len(xml.GPUs), len(table.GPUs), len(nvml.GPUs), xml.Driver, hello.Driver)
	}
	for i := range nvml.GPUs {
		g := &nvml.GPUs[i]
		for _, q := range []Quantity{QMemoryTotal, QMemoryReserved, QMemoryUsed} { // idle: the same for all, in MiB
			for name, other := range map[string]*DeviceReading{"XML": &xml.GPUs[i], "CSV": &table.GPUs[i]} {
				if d := math.Abs(g.Values[q] - other.Values[q]); d > 1<<20 || g.value(q) == nil || other.value(q) == nil {
					t.Errorf("GPU %d %s: NVML %v, %s %v", i, q, g.Values[q], name, other.Values[q])
				}
			}
		}
		if g.UUID != xml.GPUs[i].UUID || busKey(g.BusID) != busKey(xml.GPUs[i].BusID) || g.Name != xml.GPUs[i].Name {
			t.Errorf("GPU %d: NVML %s %s %s, XML %s %s %s", i, g.UUID, g.BusID, g.Name, xml.GPUs[i].UUID, xml.GPUs[i].BusID, xml.GPUs[i].Name)
		}
		for _, q := range []Quantity{QPowerInstant, QEnergy, QTempHotspot, QTempMemory, QClockSM, QClockMemory, QUtilGPU, QThrottleMask, QECCUncorrected} {
			if g.value(q) == nil {
				t.Errorf("GPU %d: NVML does not tell %s: %s", i, q, g.Missing[q])
			}
		}
		if g.Texts["compute_cap"] != "9.0" || g.Texts["persistence_mode"] == "" || g.Texts["mig_mode"] != "Disabled" || g.Processes == nil {
			t.Errorf("GPU %d: texts %v, processes %v", i, g.Texts, g.Processes)
		}
	}
}

// TestH100Stream reads the very stream that the sampler asks for.
func TestH100Stream(t *testing.T) {
	t.Parallel()
	r, err := Run{Interval: 10 * time.Millisecond}.check()
	if err != nil {
		t.Fatal(err)
	}
	data := recorded(t, "nvidia-smi_sampler-lms10.csv")
	src := newSMISource(Options{}, r, []smiDevice{{index: 0}, {index: 1}})
	src.cols = smiColumns()
	header, _, _ := bytes.Cut(recorded(t, "nvidia-smi_sampler-header.csv"), []byte{'\n'})
	if err := readHeader(header, src.cols); err != nil {
		t.Fatal(err)
	}
	n := 0
	m := newMeter(r.Interval, r.Epoch, func(s []runner.Sample) {
		for _, s := range s {
			if want := memoryFields | runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp | runner.HasUtilization | runner.HasMemoryUtil |
				runner.HasClockSM | runner.HasClockMem | runner.HasThrottleReasons; s.Has != want {
				t.Errorf("sample %d lacks %v", n, FieldNames(want&^s.Has))
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
	if rep := m.report("", time.Now()); rep.Notes != nil && strings.Contains(notes(rep), "no rows") {
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
	for _, source := range []string{SourceNVML, SourceNvidiaSMI} {
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
	for i, a := range levels[SourceNVML] {
		if b := levels[SourceNvidiaSMI][i]; a-b > 1<<20 || b-a > 1<<20 {
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
	for _, p := range timeline(t, SourceNVML) {
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

// TestH100Verbs reads what `gpus --json` and `doctor --json` said there.
func TestH100Verbs(t *testing.T) {
	t.Parallel()
	var gpus struct {
		Devices []runner.Device `json:"devices"`
		Sources []SourceStatus  `json:"sources"`
	}
	if err := json.Unmarshal(recorded(t, "gpus.json"), &gpus); err != nil {
		t.Fatal(err)
	}
	if len(gpus.Devices) != 2 || gpus.Devices[1].Index != 1 || *gpus.Devices[1].TotalBytes != 81559<<20 || *gpus.Devices[1].ReservedBytes != 480<<20 {
		t.Errorf("devices %+v", gpus.Devices)
	}
	for _, s := range gpus.Sources {
		nvidia := vendorOf(s.Name) == "nvidia"
		if s.Works != nvidia || s.Used != (s.Name == SourceNVML) || !s.Works && s.Reason == "" || nvidia && s.Power != PowerInstant {
			t.Errorf("source %+v", s)
		}
	}
	var findings []Finding
	if err := json.Unmarshal(recorded(t, "doctor.json"), &findings); err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if (f.Status == StatusFail || f.Status == StatusWarn) && f.Mend == "" {
			t.Errorf("no mend: %+v", f)
		}
	}
	for _, name := range []string{"GPU 0 persistence", "GPU 1 ECC", "GPU 0 use", "rights", "visible GPUs"} {
		if f := finding(findings, name); f.Status == "absent" {
			t.Errorf("no finding %q", name)
		}
	}
}
