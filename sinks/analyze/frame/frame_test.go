package frame

import (
	"slices"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
)

// Every name that the analyses use is a column of the runs table.
func TestColumnsExist(t *testing.T) {
	fields := Fields()
	for _, name := range slices.Concat(Settings(), Context(), FigureNames(), []string{"family", "params", "execution"}) {
		if fields[name] == nil {
			t.Errorf("the runs table has no column %s", name)
		}
	}
}

// A column is read by its name, whatever its type; what is missing is no value.
func TestColumnValues(t *testing.T) {
	row := sinks.RunRow{Axes: map[string]any{"share": 0.5, "on": true, "kind": "a"}}
	row.Model, row.BatchSize, row.EnforceEager, row.GPUName = "m", int64(8), new(true), new("H100")
	number := func(v float64) *float64 { return &v }
	for name, want := range map[string]struct {
		text   string
		number *float64
	}{
		"model": {"m", nil}, "batch_size": {"8", number(8)}, "enforce_eager": {"true", number(1)}, "gpu": {"H100", nil},
		"input_len": {}, "dtype": {}, "axis_share": {"0.5", number(0.5)}, "axis_on": {"true", nil}, "axis_kind": {"a", nil}, "axis_none": {},
	} {
		c := Of(name)[0]
		got := c.Number(&row)
		if c.Text(&row) != want.text || (got == nil) != (want.number == nil) || got != nil && *got != *want.number {
			t.Errorf("%s: %q and %v, want %q and %v", name, c.Text(&row), got, want.text, want.number)
		}
	}
	values := ValuesOf(&row, Fields(), []string{"batch_size", "input_len", "sweep", "repeat"})
	if len(values) != 2 || values["batch_size"] != int64(8) || values["repeat"] != int32(0) {
		t.Errorf("values %v, want batch_size and repeat", values)
	}
}

// A setting that is an axis, and one that was left to vLLM, in the name of a profile.
func TestLabel(t *testing.T) {
	row := sinks.RunRow{Axes: map[string]any{"share": 0.5, "engine": `{"a":1}`}}
	row.Sweep, row.Model, row.BatchSize, row.PipelineParallelSize = "s", "m", 8, 1
	if got := Label(&row); got != "s/m bs=8 share=0.5" {
		t.Errorf("%q", got)
	}
}

// A figure is off by the rounding of the log, or by more where its column says so.
func TestUncertainty(t *testing.T) {
	row := sinks.RunRow{}
	row.TensorParallelSize = 2
	says := 3.0 * GiB
	column := Column{Number: func(*sinks.RunRow) *float64 { return &says }}
	for _, c := range []struct {
		of   Figure
		want float64
	}{{Figure{}, 0}, {Figure{Logged: 1}, 2 * Rounding}, {Figure{Logged: 4}, 4 * Rounding}, {Figure{Logged: 1, uncertainty: &column}, says}} {
		if got := c.of.Uncertainty(&row); got != c.want {
			t.Errorf("%+v: %v, want %v", c.of, got, c.want)
		}
	}
}

// Two nights of a profile are one point with their mean; another version is another.
func TestMeans(t *testing.T) {
	f := New([]Quantity{Scaled("peak", "", 1, "peak_memory_bytes")}, nil)
	for i, version := range []string{"1", "1", "2"} {
		row := sinks.RunRow{ProfileID: "p", VLLMVersion: &version, PeakMemoryBytes: new(int64(10 * i))}
		f.Add(&row)
	}
	if means := f.Means(); means.N != 2 || !slices.Equal(means.Find("peak").Values, []float64{5, 20}) {
		t.Errorf("%d points of %v, want 5 and 20", means.N, means.Find("peak").Values)
	}
}

// A group of 3 and one of 1 explain nothing; what parts rows alike is named, and numbers stand as numbers.
func TestGroupBy(t *testing.T) {
	f := New([]Quantity{Scaled("peak", "", 1, "peak_memory_bytes")}, nil)
	for i := range 6 {
		row := sinks.RunRow{PeakMemoryBytes: new(int64(10*(i/3) + i%3)), CompileCache: new([]string{"cold", "warm"}[i/3])}
		row.BatchSize = []int64{16, 2}[i/3]
		f.Add(&row)
	}
	at := slices.IndexFunc(f.Settings, func(v *Values) bool { return v.Name == "batch_size" })
	batch, peak := f.Settings[at], f.Find("peak")
	g := GroupBy(f.All(), batch, nil, peak, f.Settings)
	if g.Eta2 == nil || !slices.Equal(g.Alike, []string{"compile_cache"}) || g.Groups[0].Name != "2" {
		t.Errorf("%+v: want an effect that compile_cache may have as well, and batch 2 first", g)
	}
	if g := GroupBy([]int{0, 1, 2, 3}, batch, nil, peak, f.Settings); g.Eta2 != nil || g.Reason == "" {
		t.Errorf("3 and 1: %+v, want no share and a reason", g)
	}
}
