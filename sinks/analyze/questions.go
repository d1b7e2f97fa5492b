package analyze

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/vramsweep/vramsweep/sinks"
)

const gib = 1 << 30

// scaled is an integer column in another unit.
func scaled(name, unit string, by float64, get func(*sinks.RunRow) *int64) quantity {
	return quantity{name: name, unit: unit, value: func(r *sinks.RunRow) *float64 {
		v := get(r)
		if v == nil {
			return nil
		}
		f := float64(*v) / by
		return &f
	}}
}

// overhead is what neither weights nor KV cache explain of the net increase.
func overhead(r *sinks.RunRow) *float64 {
	if r.NetIncreaseBytes == nil || r.ModelWeightsBytes == nil || r.KVCacheBytes == nil {
		return nil
	}
	v := float64(*r.NetIncreaseBytes-*r.ModelWeightsBytes-*r.KVCacheBytes) / gib
	return &v
}

// The quantities of the questions.
func peakGiB() quantity {
	return scaled("peak_memory", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.PeakMemoryBytes })
}

func overheadGiB() quantity { return quantity{name: "overhead", unit: "GiB", value: overhead} }

func batch() quantity {
	return scaled("batch_size", "prompt", 1, func(r *sinks.RunRow) *int64 { return r.BatchSize })
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

// questions answers those that are asked first.
func (c *Correlations) questions(rows []*sinks.RunRow, d *design, o CorrelateOptions) {
	power := quantity{name: "mean_power", unit: "W", value: func(r *sinks.RunRow) *float64 { return r.MeanPowerW }}
	temperature := quantity{name: "mean_temperature", unit: "°C", value: func(r *sinks.RunRow) *float64 {
		v, ok := o.Temperatures[r.RunID]
		if !ok {
			return nil
		}
		return &v
	}}
	used := quantity{name: "kv_cache_used_share", unit: "%", value: usedShare}
	params := scaled("params", "1e9 parameters", 1e9, func(r *sinks.RunRow) *int64 { return r.Params })
	c.ask(rows, d, "Does memory move with power?", "", power, peakGiB())
	row := c.ask(rows, d, "Does memory move with temperature?", "", temperature, peakGiB())
	if o.Temperatures == nil {
		row.Reason = "temperatures stand in the timelines, which were not read (--timelines reads them)"
	}
	c.ask(rows, d, "How much of the KV cache does a larger batch fill?", "", batch(), used)
	c.ask(rows, d, "Does overhead (neither weights nor KV cache) grow with the model?", "", params, overheadGiB())
	for _, part := range split(rows, func(r *sinks.RunRow) string { return deref(r.Family) }) {
		c.ask(part.rows, d, "Does overhead grow with the model, in this family?", "family="+part.name, params, overheadGiB())
	}
	tokens := scaled("kv_cache_tokens", "1,000 tokens", 1000, func(r *sinks.RunRow) *int64 { return r.KVCacheTokens })
	kv := scaled("kv_cache", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.KVCacheBytes })
	batched := scaled("effective_max_num_batched_tokens", "1,000 tokens", 1000, func(r *sinks.RunRow) *int64 { return r.EffectiveMaxNumBatchedTokens })
	reserved := scaled("activations_reserved", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.ActivationsReservedBytes })
	growth := scaled("growth_excess", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.GrowthExcessBytes })
	models := split(rows, modelKey)
	for _, part := range models {
		row := c.ask(part.rows, d, "What does a token of KV cache take?", part.name, tokens, kv)
		row.throughOrigin(part.rows, tokens, kv)
		row.Expected = expectedToken(part.rows)
	}
	for _, part := range models {
		c.ask(part.rows, d, "Do reserved activations follow the batched tokens?", part.name, batched, reserved)
	}
	for _, part := range models {
		c.ask(part.rows, d, "Does growth beyond the budget follow the batch?", part.name, batch(), growth)
	}
}

// modelKey is what a line through runs of one model needs to be the same.
func modelKey(r *sinks.RunRow) string {
	key := "model=" + r.Model
	if r.TensorParallelSize != nil && *r.TensorParallelSize > 1 {
		key += " tp=" + strconv.FormatInt(*r.TensorParallelSize, 10)
	}
	if v := deref(r.KVCacheDtype); v != "" && v != "auto" {
		key += " kv=" + v
	}
	if v := deref(r.Quantization); v != "" {
		key += " quantization=" + v
	}
	return key
}

// expectedToken is the architecture's GiB per 1,000 tokens, where all runs agree.
func expectedToken(rows []*sinks.RunRow) *float64 {
	var first *int64
	for _, r := range rows {
		switch {
		case r.KVTokenBytes == nil:
			return nil
		case first == nil:
			first = r.KVTokenBytes
		case *first != *r.KVTokenBytes:
			return nil
		}
	}
	if first == nil {
		return nil
	}
	v := float64(*first) * 1000 / gib
	return &v
}

// ask adds the row of a question and returns it.
func (c *Correlations) ask(rows []*sinks.RunRow, d *design, question, within string, x, y quantity) *Correlation {
	have := withValue(rows, y)
	row := relate(have, x, y)
	row.Question, row.Within = question, within
	if row.Pearson != nil {
		both := slices.DeleteFunc(slices.Clone(have), func(r *sinks.RunRow) bool { return x.value(r) == nil })
		row.partial(d.with(x).gram(both, y), x)
	}
	c.Rows = append(c.Rows, row)
	return &c.Rows[len(c.Rows)-1]
}

// with is the design with x in place of the setting of that name, or beside
// the others where x is a measured quantity.
func (d *design) with(x quantity) *design {
	out := &design{settings: slices.DeleteFunc(slices.Clone(d.settings), func(s Setting) bool { return s.Name == x.name })}
	out.settings = append(out.settings, Setting{Name: x.name, Number: x.value, Text: func(*sinks.RunRow) string { return "" }})
	return out
}

// A part is the rows that have one value of a word.
type part struct {
	name string
	rows []*sinks.RunRow
}

// split parts rows by a word, in order of the words; rows without it are left out.
func split(rows []*sinks.RunRow, of func(*sinks.RunRow) string) []part {
	at := map[string]int{}
	var parts []part
	for _, r := range rows {
		name := of(r)
		if name == "" {
			continue
		}
		i, ok := at[name]
		if !ok {
			i = len(parts)
			at[name] = i
			parts = append(parts, part{name: name})
		}
		parts[i].rows = append(parts[i].rows, r)
	}
	sort.Slice(parts, func(a, b int) bool { return parts[a].name < parts[b].name })
	return parts
}

// grouped answers the questions about words.
func (c *Correlations) grouped(rows []*sinks.RunRow) {
	family := func(r *sinks.RunRow) string { return deref(r.Family) }
	quantization := func(r *sinks.RunRow) string {
		switch {
		case r.EffectiveQuantization != nil && *r.EffectiveQuantization != "":
			return *r.EffectiveQuantization
		case r.Quantization != nil && *r.Quantization != "":
			return *r.Quantization
		}
		return "none"
	}
	perParam := quantity{name: "weight_bytes_per_param", unit: "bytes", value: weightPerParam}
	used := quantity{name: "kv_cache_used_share", unit: "%", value: usedShare}
	rate := quantity{name: "output_tokens_per_s", unit: "tokens/s", real: true, value: func(r *sinks.RunRow) *float64 { return r.OutputTokensPerS }}
	for _, y := range []quantity{overheadGiB(), perParam, used} {
		c.Groups = append(c.Groups, groupBy(rows, "Patterns by family", "family", family, y))
	}
	for _, y := range []quantity{perParam, overheadGiB(), rate} {
		c.Groups = append(c.Groups, groupBy(rows, "Effect of quantization", "quantization", quantization, y))
	}
}

// groupBy is the mean of a figure by a word, and how much the word explains.
func groupBy(rows []*sinks.RunRow, question, by string, of func(*sinks.RunRow) string, y quantity) Grouped {
	g := Grouped{Question: question, By: by, Y: y.name, Unit: y.unit}
	var all []float64
	between := 0.0
	parts := split(withValue(rows, y), of)
	for _, p := range parts {
		values := make([]float64, len(p.rows))
		for i, r := range p.rows {
			values[i] = *y.value(r)
		}
		all = append(all, values...)
		g.Groups = append(g.Groups, groupOf(p.name, values))
	}
	g.N = len(all)
	switch {
	case g.N == 0:
		g.Reason = "no run has both " + by + " and " + y.name
		return g
	case len(parts) < 2:
		g.Reason = "all runs have one " + by + " (" + parts[0].name + "): nothing to compare with"
		return g
	case constant(all):
		g.Reason = y.name + " is the same in all runs: nothing varies"
		return g
	}
	mean := stat.Mean(all, nil)
	for _, group := range g.Groups {
		between += float64(group.N) * (group.Mean - mean) * (group.Mean - mean)
	}
	eta := between / (stat.Variance(all, nil) * float64(g.N-1))
	g.Eta2 = &eta
	return g
}

func groupOf(name string, values []float64) Group {
	mean, deviation := stat.MeanStdDev(values, nil)
	g := Group{Name: name, N: len(values), Mean: mean}
	if g.N > 1 {
		n := float64(g.N)
		half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(0.975) * deviation / math.Sqrt(n)
		low, high := mean-half, mean+half
		g.Low, g.High = &low, &high
	}
	return g
}
