package frame

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
)

// A Column is a column of the runs table by its name, or a word derived from a run.
type Column struct {
	Name string
	// Text is its value for people and for matching; "" where it is missing, as a
	// setting that was left to vLLM is.
	Text func(*sinks.RunRow) string
	// Number is its value as a number; nil for words and where it is missing.
	Number func(*sinks.RunRow) *float64
}

// Fields are the fields of a row by the names of their columns.
func Fields() map[string][]int {
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[sinks.RunRow]()) {
		name, _, _ := strings.Cut(f.Tag.Get("parquet"), ",")
		if !f.Anonymous && name != "" && name != "-" {
			fields[name] = f.Index
		}
	}
	fields["gpu"] = fields["gpu_name"] // as --across names it
	return fields
}

// value is a field of a row; no valid one where it is missing, as a nil pointer
// is, or 0 in a field that has no null of its own (settings of the batch).
func value(r *sinks.RunRow, index []int) reflect.Value {
	v := reflect.ValueOf(r).Elem().FieldByIndex(index)
	if v.Kind() == reflect.Int64 && v.IsZero() {
		return reflect.Value{}
	}
	return reflect.Indirect(v)
}

// ValuesOf are columns of a row by their names; what is missing is not there.
func ValuesOf(r *sinks.RunRow, fields map[string][]int, names []string) map[string]any {
	out := map[string]any{}
	for _, name := range names {
		v := value(r, fields[name])
		if v.IsValid() && (v.Kind() != reflect.String || v.Len() > 0) {
			out[name] = v.Interface()
		}
	}
	return out
}

// Of are the columns of these names: of the table, or axis_NAME for a free axis
// of the matrix.
func Of(names ...string) []Column {
	fields, out := Fields(), make([]Column, len(names))
	for i, name := range names {
		out[i] = column(fields, name)
	}
	return out
}

func column(fields map[string][]int, name string) Column {
	value := func(r *sinks.RunRow) reflect.Value { return value(r, fields[name]) }
	axis, isAxis := strings.CutPrefix(name, "axis_")
	if isAxis {
		value = func(r *sinks.RunRow) reflect.Value { return reflect.ValueOf(r.Axes[axis]) }
	}
	return Column{Name: name,
		Text: func(r *sinks.RunRow) string {
			if v := value(r); v.IsValid() {
				return fmt.Sprint(v)
			}
			return ""
		},
		Number: func(r *sinks.RunRow) *float64 {
			switch v := value(r); {
			case v.CanInt():
				return new(float64(v.Int()))
			case v.CanFloat():
				return new(v.Float())
			case v.Kind() == reflect.Bool && !isAxis:
				return new(map[bool]float64{true: 1}[v.Bool()])
			}
			return nil
		}}
}

// Word is a word that is derived from a run.
func Word(name string, text func(*sinks.RunRow) string) Column {
	return Column{Name: name, Text: text, Number: func(*sinks.RunRow) *float64 { return nil }}
}

// Settings are the names of what is asked of a run, in the order of the table.
func Settings() []string {
	return []string{"sweep", "model", "dtype", "kv_cache_dtype", "quantization", "tensor_parallel_size",
		"pipeline_parallel_size", "input_len", "output_len", "batch_size", "max_model_len", "max_num_seqs",
		"max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes", "block_size", "enforce_eager",
		"load_format", "flags"}
}

// Context are the names of what runs differ in without being asked to.
func Context() []string {
	return []string{"vllm_version", "torch_version", "driver_version", "gpu", "host", "compile_cache", "model_runner",
		"attention_backend", "engine_mode", "measured_alone"}
}

// fixed are the settings of the table, and what runs differ in besides.
func fixed() []Column {
	names := append(Settings(), "family", "params")
	return Of(append(append(names, Context()...), "execution")...)
}

// ColumnsOf are the settings, what surrounds runs, and the free axes of these rows.
func ColumnsOf(rows []sinks.RunRow) []Column {
	axes := map[string]bool{}
	for i := range rows {
		for name := range rows[i].Axes {
			axes["axis_"+name] = true
		}
	}
	return append(fixed(), Of(SortedKeys(axes)...)...)
}

// Label names a profile for people: its model, what was asked of it and its
// free axes. Profiles that differ in other flags of vLLM alone share a label.
func Label(r *sinks.RunRow) string {
	// The abbreviations of the field.
	short := map[string]string{"tensor_parallel_size": "tp", "pipeline_parallel_size": "pp", "input_len": "in",
		"output_len": "out", "batch_size": "bs", "kv_cache_dtype": "kv", "max_model_len": "len",
		"gpu_memory_utilization": "util", "enforce_eager": "eager"}
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s", r.Sweep, r.Model)
	for _, s := range Of(Settings()...) {
		text := s.Text(r)
		switch {
		case text == "", slices.Contains([]string{"sweep", "model", "flags"}, s.Name),
			s.Name == "pipeline_parallel_size" && text == "1":
		default:
			fmt.Fprintf(&b, " %s=%s", cmp.Or(short[s.Name], s.Name), text)
		}
	}
	for _, name := range SortedKeys(r.Axes) {
		if text, ok := r.Axes[name].(string); ok && strings.HasPrefix(text, "{") {
			continue // an object: what it is made of was asked above
		}
		fmt.Fprintf(&b, " %s=%v", name, r.Axes[name])
	}
	return b.String()
}

// Deref is what a pointer points to; the zero value where it is nil.
func Deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Dtype is the dtype that vLLM said it used, else the one that was asked; "": its default.
func Dtype(r *sinks.RunRow) string {
	return cmp.Or(Deref(r.EffectiveDtype), Deref(r.Dtype))
}

// Quantization is what vLLM said that it used, else what was asked; "none" where
// there is none.
func Quantization(r *sinks.RunRow) string {
	for _, q := range []*string{r.EffectiveQuantization, r.Quantization} {
		if v := Deref(q); v != "" && v != "None" {
			return v
		}
	}
	return "none"
}

// RandomWeights says that a run had them: figures that depend on what the
// weights are mean nothing.
func RandomWeights(r *sinks.RunRow) bool { return Deref(r.LoadFormat) == "dummy" }

// Failed says that a run was made and did not end well.
func Failed(r *sinks.RunRow) bool { return r.Outcome != "ok" && r.Outcome != "skipped" }
