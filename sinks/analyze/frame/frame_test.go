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
