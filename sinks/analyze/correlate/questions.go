package correlate

import (
	"math"
	"slices"
	"strconv"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// overhead is what neither weights nor KV cache explain of the net increase.
func overhead(r *sinks.RunRow) *float64 {
	if r.NetIncreaseBytes == nil || r.ModelWeightsBytes == nil || r.KVCacheBytes == nil {
		return nil
	}
	v := float64(*r.NetIncreaseBytes-*r.ModelWeightsBytes-*r.KVCacheBytes) / frame.GiB
	return &v
}

// usedShare is the share of the KV cache that the run filled, in per cent.
func usedShare(r *sinks.RunRow) *float64 {
	if r.KVCacheUsedBytes == nil || r.KVCacheBytes == nil || *r.KVCacheBytes <= 0 {
		return nil
	}
	v := 100 * float64(*r.KVCacheUsedBytes) / float64(*r.KVCacheBytes)
	return &v
}

// weightPerParam is what one parameter takes, in bytes, on all ranks together.
func weightPerParam(r *sinks.RunRow) *float64 {
	if r.ModelWeightsBytes == nil || r.Params == nil || *r.Params <= 0 {
		return nil
	}
	v := float64(*r.ModelWeightsBytes) / float64(*r.Params)
	return &v
}

// questionQuantities are what the questions ask for, by name.
func questionQuantities(o Options) []frame.Quantity {
	temperature := func(r *sinks.RunRow) *float64 {
		v, ok := o.Temperatures[r.RunID]
		if !ok {
			return nil
		}
		return &v
	}
	rate := frame.Scaled("output_rate", "tokens/s", 1, "output_tokens_per_s")
	rate.Real = true
	return []frame.Quantity{
		frame.Scaled("peak_memory", "GiB", frame.GiB, "peak_memory_bytes"),
		{Name: "overhead", Unit: "GiB", Value: overhead},
		frame.Scaled("mean_power", "W", 1, "mean_power_w"),
		{Name: "mean_temperature", Unit: "°C", Value: temperature},
		{Name: "kv_cache_used_share", Unit: "%", Value: usedShare},
		{Name: "weight_bytes_per_param", Unit: "bytes", Value: weightPerParam},
		frame.Scaled("batch_size", "prompt", 1, "batch_size"),
		frame.Scaled("params", "1e9 parameters", 1e9, "params"),
		frame.Scaled("kv_tokens", "1,000 tokens", 1000, "kv_cache_tokens"),
		frame.Scaled("kv_cache", "GiB", frame.GiB, "kv_cache_bytes"),
		frame.Scaled("kv_bytes_per_token", "bytes", 1, "kv_bytes_per_token"),
		frame.Scaled("effective_max_num_batched_tokens", "1,000 tokens", 1000, "effective_max_num_batched_tokens"),
		frame.Scaled("activations_reserved", "GiB", frame.GiB, "activations_reserved_bytes"),
		frame.Scaled("growth_excess", "GiB", frame.GiB, "growth_excess_bytes"),
		rate,
	}
}

// questionWords are the words that runs are grouped by.
func questionWords() []frame.Column {
	return append(frame.Of("family"), frame.Word("quantization", frame.Quantization), frame.Word("model", modelKey))
}

// questions answers those that are asked first.
func (r *relator) questions(o Options) {
	all := r.f.All()
	r.ask(all, "Does memory move with power?", "", "mean_power", "peak_memory")
	row := r.ask(all, "Does memory move with temperature?", "", "mean_temperature", "peak_memory")
	if o.Temperatures == nil {
		row.Reason = "temperatures stand in the timelines, which were not read (--timelines reads them)"
	}
	r.ask(all, "How much of the KV cache does a larger batch fill?", "", "batch_size", "kv_cache_used_share")
	r.ask(all, "Does overhead (neither weights nor KV cache) grow with the model?", "", "params", "overhead")
	for _, part := range frame.Split(all, r.f.Word("family"), nil) {
		r.ask(part.Rows, "Does overhead grow with the model, in this family?", "family="+part.Name, "params", "overhead")
	}
	models := frame.Split(all, r.f.Word("model"), nil)
	for _, part := range models {
		row := r.ask(part.Rows, "What does a token of KV cache take?", part.Name, "kv_tokens", "kv_cache")
		row.throughOrigin(part.Rows, r.f.Find("kv_tokens"), r.f.Find("kv_cache"))
		row.Expected = r.expectedToken(part.Rows)
	}
	for _, part := range models {
		r.ask(part.Rows, "Do reserved activations follow the batched tokens?", part.Name,
			"effective_max_num_batched_tokens", "activations_reserved")
	}
	for _, part := range models {
		r.ask(part.Rows, "Does growth beyond the budget follow the batch?", part.Name, "batch_size", "growth_excess")
	}
}

// modelKey is what a line through runs of one model needs to be the same.
func modelKey(r *sinks.RunRow) string {
	key := "model=" + r.Model
	if r.TensorParallelSize > 1 {
		key += " tp=" + strconv.FormatInt(r.TensorParallelSize, 10)
	}
	if v := frame.Deref(r.KVCacheDtype); v != "" && v != "auto" {
		key += " kv=" + v
	}
	if v := frame.Deref(r.Quantization); v != "" {
		key += " quantization=" + v
	}
	return key
}

// expectedToken is the architecture's GiB per 1,000 tokens, where all runs agree.
func (r *relator) expectedToken(rows []int) *float64 {
	values := r.f.Find("kv_bytes_per_token").Values
	for _, at := range rows {
		if v := values[at]; math.IsNaN(v) || v != values[rows[0]] {
			return nil
		}
	}
	v := values[rows[0]] * 1000 / frame.GiB
	return &v
}

// ask adds the row of a question and returns it.
func (r *relator) ask(rows []int, question, within, xName, yName string) *Row {
	x, y := r.f.Find(xName), r.f.Find(yName)
	have := r.f.Having(rows, y)
	row := r.relate(have, x, y)
	row.Question, row.Within = question, within
	if row.Pearson != nil {
		both := slices.DeleteFunc(have, func(at int) bool { return math.IsNaN(x.Values[at]) })
		row.partial(r.design(both).gram(y, x), x.Name)
	}
	r.out.Rows = append(r.out.Rows, row)
	return &r.out.Rows[len(r.out.Rows)-1]
}

// grouped answers the questions about words.
func (r *relator) grouped() {
	for _, y := range []string{"overhead", "weight_bytes_per_param", "kv_cache_used_share"} {
		r.group("Patterns by family", "family", y)
	}
	for _, y := range []string{"weight_bytes_per_param", "overhead", "output_rate"} {
		r.group("Effect of quantization", "quantization", y)
	}
}

func (r *relator) group(question, by, yName string) {
	y := r.f.Find(yName)
	g := frame.GroupBy(r.f.Having(r.f.All(), y), r.f.Word(by), nil, y)
	g.Question = question
	r.out.Groups = append(r.out.Groups, g)
}
