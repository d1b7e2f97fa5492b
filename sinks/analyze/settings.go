package analyze

import (
	"fmt"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
)

// A Setting is a column of the runs table that was asked for.
type Setting struct {
	Name string
	// Text is its value for people and for matching; "" where it was left to vLLM.
	Text func(*sinks.RunRow) string
	// Number is its value as a number; nil for words and where it is missing.
	Number func(*sinks.RunRow) *float64
}

// Settings are the settings of a run, in the order of the table.
func Settings() []Setting {
	return []Setting{
		word("sweep", func(r *sinks.RunRow) *string { return &r.Sweep }),
		word("model", func(r *sinks.RunRow) *string { return &r.Model }),
		word("dtype", func(r *sinks.RunRow) *string { return r.Dtype }),
		word("kv_cache_dtype", func(r *sinks.RunRow) *string { return r.KVCacheDtype }),
		word("quantization", func(r *sinks.RunRow) *string { return r.Quantization }),
		count("tensor_parallel_size", func(r *sinks.RunRow) *int64 { return given(&r.TensorParallelSize) }),
		count("pipeline_parallel_size", func(r *sinks.RunRow) *int64 { return given(&r.PipelineParallelSize) }),
		count("input_len", func(r *sinks.RunRow) *int64 { return given(&r.InputLen) }),
		count("output_len", func(r *sinks.RunRow) *int64 { return given(&r.OutputLen) }),
		count("batch_size", func(r *sinks.RunRow) *int64 { return given(&r.BatchSize) }),
		count("max_model_len", func(r *sinks.RunRow) *int64 { return r.MaxModelLen }),
		count("max_num_seqs", func(r *sinks.RunRow) *int64 { return r.MaxNumSeqs }),
		count("max_num_batched_tokens", func(r *sinks.RunRow) *int64 { return r.MaxNumBatchedTokens }),
		ratio("gpu_memory_utilization", func(r *sinks.RunRow) *float64 { return r.GPUMemoryUtilization }),
		count("kv_cache_memory_bytes", func(r *sinks.RunRow) *int64 { return r.KVCacheMemoryBytes }),
		count("block_size", func(r *sinks.RunRow) *int64 { return r.BlockSize }),
		yesNo("enforce_eager", func(r *sinks.RunRow) *bool { return r.EnforceEager }),
		word("load_format", func(r *sinks.RunRow) *string { return r.LoadFormat }),
		word("flags", func(r *sinks.RunRow) *string { return r.Flags }),
	}
}

// given is nil for 0: nobody asked.
func given(n *int64) *int64 {
	if *n == 0 {
		return nil
	}
	return n
}

func word(name string, get func(*sinks.RunRow) *string) Setting {
	return Setting{Name: name, Number: func(*sinks.RunRow) *float64 { return nil },
		Text: func(r *sinks.RunRow) string {
			if v := get(r); v != nil {
				return *v
			}
			return ""
		}}
}

func count(name string, get func(*sinks.RunRow) *int64) Setting {
	return Setting{Name: name, Number: whole(get),
		Text: func(r *sinks.RunRow) string {
			if v := get(r); v != nil {
				return fmt.Sprint(*v)
			}
			return ""
		}}
}

func ratio(name string, get func(*sinks.RunRow) *float64) Setting {
	return Setting{Name: name, Number: get,
		Text: func(r *sinks.RunRow) string {
			if v := get(r); v != nil {
				return fmt.Sprint(*v)
			}
			return ""
		}}
}

func yesNo(name string, get func(*sinks.RunRow) *bool) Setting {
	return Setting{Name: name,
		Number: func(r *sinks.RunRow) *float64 {
			v := get(r)
			if v == nil {
				return nil
			}
			f := 0.0
			if *v {
				f = 1
			}
			return &f
		},
		Text: func(r *sinks.RunRow) string {
			if v := get(r); v != nil {
				return fmt.Sprint(*v)
			}
			return ""
		}}
}

func settingNames() []string {
	var names []string
	for _, s := range Settings() {
		names = append(names, s.Name)
	}
	return names
}

// labelOf names a profile for people: its model, what was asked of it and its
// free axes. Profiles that differ in other flags of vLLM alone share a label.
func labelOf(r *sinks.RunRow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s", r.Sweep, r.Model)
	for _, s := range Settings() {
		text := s.Text(r)
		switch {
		case text == "", s.Name == "sweep", s.Name == "model", s.Name == "flags", s.Name == "pipeline_parallel_size" && text == "1":
			continue
		}
		fmt.Fprintf(&b, " %s=%s", short(s.Name), text)
	}
	for _, name := range sortedKeys(r.Axes) {
		if text, ok := r.Axes[name].(string); ok && strings.HasPrefix(text, "{") {
			continue // an object: what it is made of was asked above
		}
		fmt.Fprintf(&b, " %s=%v", name, r.Axes[name])
	}
	return b.String()
}

// short are the abbreviations of the field.
func short(name string) string {
	switch name {
	case "tensor_parallel_size":
		return "tp"
	case "pipeline_parallel_size":
		return "pp"
	case "input_len":
		return "in"
	case "output_len":
		return "out"
	case "batch_size":
		return "bs"
	case "kv_cache_dtype":
		return "kv"
	case "max_model_len":
		return "len"
	case "gpu_memory_utilization":
		return "util"
	case "enforce_eager":
		return "eager"
	}
	return name
}

// fixedColumns are the settings of the table, and what runs differ in without
// being asked to.
func fixedColumns() []Setting {
	all := append(Settings(),
		word("family", func(r *sinks.RunRow) *string { return r.Family }),
		count("params", func(r *sinks.RunRow) *int64 { return r.Params }))
	all = append(all, contextSettings()...)
	return append(all, word("execution", func(r *sinks.RunRow) *string { return &r.Execution }))
}

// columnsOf are the fixed columns and the free axes of these rows.
func columnsOf(rows []sinks.RunRow) []Setting {
	all := fixedColumns()
	axes := map[string]bool{}
	for i := range rows {
		for name := range rows[i].Axes {
			axes[name] = true
		}
	}
	for _, name := range sortedKeys(axes) {
		all = append(all, axis(name))
	}
	return all
}

// axis is a free axis of the matrix.
func axis(name string) Setting {
	return Setting{Name: "axis_" + name,
		Text: func(r *sinks.RunRow) string {
			if v, ok := r.Axes[name]; ok {
				return fmt.Sprint(v)
			}
			return ""
		},
		Number: func(r *sinks.RunRow) *float64 {
			var f float64
			switch v := r.Axes[name].(type) {
			case int64:
				f = float64(v)
			case float64:
				f = v
			default:
				return nil
			}
			return &f
		}}
}
