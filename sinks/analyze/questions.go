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
func questionQuantities(o CorrelateOptions) []quantity {
	temperature := func(r *sinks.RunRow) *float64 {
		v, ok := o.Temperatures[r.RunID]
		if !ok {
			return nil
		}
		return &v
	}
	return []quantity{
		scaled("peak_memory", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.PeakMemoryBytes }),
		{name: "overhead", unit: "GiB", value: overhead},
		{name: "mean_power", unit: "W", value: func(r *sinks.RunRow) *float64 { return r.MeanPowerW }},
		{name: "mean_temperature", unit: "°C", value: temperature},
		{name: "kv_cache_used_share", unit: "%", value: usedShare},
		{name: "weight_bytes_per_param", unit: "bytes", value: weightPerParam},
		scaled("batch_size", "prompt", 1, func(r *sinks.RunRow) *int64 { return given(&r.BatchSize) }),
		scaled("params", "1e9 parameters", 1e9, func(r *sinks.RunRow) *int64 { return r.Params }),
		scaled("kv_tokens", "1,000 tokens", 1000, func(r *sinks.RunRow) *int64 { return r.KVCacheTokens }),
		scaled("kv_cache", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.KVCacheBytes }),
		scaled("kv_bytes_per_token", "bytes", 1, func(r *sinks.RunRow) *int64 { return r.KVTokenBytes }),
		scaled("effective_max_num_batched_tokens", "1,000 tokens", 1000, func(r *sinks.RunRow) *int64 { return r.EffectiveMaxNumBatchedTokens }),
		scaled("activations_reserved", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.ActivationsReservedBytes }),
		scaled("growth_excess", "GiB", gib, func(r *sinks.RunRow) *int64 { return r.GrowthExcessBytes }),
		{name: "output_rate", unit: "tokens/s", real: true, value: func(r *sinks.RunRow) *float64 { return r.OutputTokensPerS }},
	}
}

// questionWords are the words that runs are grouped by.
func questionWords() []Setting {
	derived := func(name string, of func(*sinks.RunRow) string) Setting {
		return Setting{Name: name, Text: of, Number: func(*sinks.RunRow) *float64 { return nil }}
	}
	return []Setting{derived("family", func(r *sinks.RunRow) string { return deref(r.Family) }), derived("quantization", quantizationOf), derived("model", modelKey)}
}

// quantizationOf is what vLLM said that it used, else what was asked.
func quantizationOf(r *sinks.RunRow) string {
	for _, q := range []*string{r.EffectiveQuantization, r.Quantization} {
		if v := deref(q); v != "" && v != "None" {
			return v
		}
	}
	return "none"
}

// questions answers those that are asked first.
func (r *relator) questions(o CorrelateOptions) {
	all := r.f.all()
	r.ask(all, "Does memory move with power?", "", "mean_power", "peak_memory")
	row := r.ask(all, "Does memory move with temperature?", "", "mean_temperature", "peak_memory")
	if o.Temperatures == nil {
		row.Reason = "temperatures stand in the timelines, which were not read (--timelines reads them)"
	}
	r.ask(all, "How much of the KV cache does a larger batch fill?", "", "batch_size", "kv_cache_used_share")
	r.ask(all, "Does overhead (neither weights nor KV cache) grow with the model?", "", "params", "overhead")
	for _, part := range split(all, r.f.word("family"), nil) {
		r.ask(part.rows, "Does overhead grow with the model, in this family?", "family="+part.name, "params", "overhead")
	}
	models := split(all, r.f.word("model"), nil)
	for _, part := range models {
		row := r.ask(part.rows, "What does a token of KV cache take?", part.name, "kv_tokens", "kv_cache")
		row.throughOrigin(part.rows, r.f.find("kv_tokens"), r.f.find("kv_cache"))
		row.Expected = r.expectedToken(part.rows)
	}
	for _, part := range models {
		r.ask(part.rows, "Do reserved activations follow the batched tokens?", part.name, "effective_max_num_batched_tokens", "activations_reserved")
	}
	for _, part := range models {
		r.ask(part.rows, "Does growth beyond the budget follow the batch?", part.name, "batch_size", "growth_excess")
	}
}

// modelKey is what a line through runs of one model needs to be the same.
func modelKey(r *sinks.RunRow) string {
	key := "model=" + r.Model
	if r.TensorParallelSize > 1 {
		key += " tp=" + strconv.FormatInt(r.TensorParallelSize, 10)
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
func (r *relator) expectedToken(rows []int) *float64 {
	values := r.f.find("kv_bytes_per_token").values
	for _, at := range rows {
		if v := values[at]; math.IsNaN(v) || v != values[rows[0]] {
			return nil
		}
	}
	v := values[rows[0]] * 1000 / gib
	return &v
}

// ask adds the row of a question and returns it.
func (r *relator) ask(rows []int, question, within, xName, yName string) *Correlation {
	x, y := r.f.find(xName), r.f.find(yName)
	have := r.f.having(rows, y)
	row := r.relate(have, x, y)
	row.Question, row.Within = question, within
	if row.Pearson != nil {
		both := slices.DeleteFunc(have, func(at int) bool { return math.IsNaN(x.values[at]) })
		row.partial(r.designs.of(both).gram(y, x), x.name)
	}
	r.out.Rows = append(r.out.Rows, row)
	return &r.out.Rows[len(r.out.Rows)-1]
}

// A part is the rows that have one value of a word.
type part struct {
	name string
	rows []int
}

// split parts rows by a word, in order of the words. name gives a word its
// name; those with none are left out. nil: words are their names.
func split(rows []int, by *column, name func(string) string) []part {
	at := make([]int, len(by.words)) // place in parts, from 1
	var parts []part
	for _, i := range rows {
		code := by.codes[i]
		if at[code] == 0 {
			p := part{name: by.words[code]}
			if name != nil {
				p.name = name(p.name)
			}
			parts = append(parts, p)
			at[code] = len(parts)
		}
		p := &parts[at[code]-1]
		p.rows = append(p.rows, i)
	}
	parts = slices.DeleteFunc(parts, func(p part) bool { return p.name == "" })
	sort.Slice(parts, func(a, b int) bool { return parts[a].name < parts[b].name })
	return parts
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
	y := r.f.find(yName)
	g := groupBy(r.f.having(r.f.all(), y), r.f.word(by), nil, y)
	g.Question = question
	r.out.Groups = append(r.out.Groups, g)
}

// groupBy is the mean of a figure by a word, and how much the word explains.
// All rows have the figure.
func groupBy(rows []int, by *column, name func(string) string, y *series) Grouped {
	g := Grouped{By: by.Name, Y: y.name, Unit: y.unit}
	var all []float64
	between := 0.0
	parts := split(rows, by, name)
	for _, p := range parts {
		from := len(all)
		for _, at := range p.rows {
			all = append(all, y.values[at])
		}
		g.Groups = append(g.Groups, groupOf(p.name, all[from:]))
	}
	g.N = len(all)
	switch {
	case g.N == 0:
		g.Reason = "no run has both " + by.Name + " and " + y.name
		return g
	case len(parts) < 2:
		g.Reason = "all runs have one " + by.Name + " (" + parts[0].name + "): nothing to compare with"
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
