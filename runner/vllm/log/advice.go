package log

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

var (
	triedRE    = regexp.MustCompile(`Tried to allocate ([\d.]+) (GiB|MiB|KiB|bytes)`)
	capacityRE = regexp.MustCompile(`GPU (\d+)(?: has a total capac\w+ of ([\d.]+) (GiB|MiB|KiB|bytes)|` +
		` *; ([\d.]+) (GiB|MiB|KiB|bytes) total capacity)`)
	freeRE     = regexp.MustCompile(`([\d.]+) (GiB|MiB|KiB|bytes) (?:is )?free`)
	dummyRE    = regexp.MustCompile(`with (\d+) dummy requests`)
	derivedRE  = regexp.MustCompile(`max_model_len \((\d+)\) is greater than the derived max_model_len \(([^)]*)\)`)
	derivedNRE = regexp.MustCompile(`=(\d+)`)
	refusedRE  = regexp.MustCompile(`\n([\w.]+)\n(?:Value error, )?(\S.*?) \[type=\w+, input_value=(.*?), input_type=`)
	cudaDevRE  = regexp.MustCompile(`on device cuda:(\d+)`)
)

// accountError turns the failure that explains the run into what the account
// says of it.
func (r *run) accountError(a *runner.Account) *runner.AccountError {
	f := r.cause()
	if f == nil {
		return nil
	}
	message := f.class
	if f.text != "" && message != "" {
		message += ": "
	}
	message += strings.TrimSpace(f.text)
	e := &runner.AccountError{Kind: f.kind, Message: message, Line: f.src.Line, File: f.src.File}
	for i := range r.failures {
		if o := &r.failures[i]; o.kind == f.kind && r.counts(o) {
			fillFigures(e, o.text)
		}
	}
	e.Advice = r.advice(e, a)
	return e
}

// fillFigures takes the figures of an error's text that e does not have yet.
func fillFigures(e *runner.AccountError, text string) {
	f := filler{e}
	if m := triedRE.FindStringSubmatch(text); m != nil {
		f.bytes(&e.TriedBytes, m[1], m[2])
	}
	if m := capacityRE.FindStringSubmatch(text); m != nil {
		f.index(m[1])
		f.bytes(&e.TotalBytes, m[2]+m[4], m[3]+m[5])
	}
	if m := freeRE.FindStringSubmatch(text); m != nil {
		f.bytes(&e.FreeBytes, m[1], m[2])
	}
	if m := freeCheckRE.FindStringSubmatch(text); m != nil {
		f.bytes(&e.FreeBytes, m[1], "GiB")
		f.bytes(&e.TotalBytes, m[2], "GiB")
		f.gib(&e.NeededGB, m[4])
		f.gib(&e.AvailableGB, m[1])
	}
	if m := cudaDevRE.FindStringSubmatch(text); m != nil {
		f.index(m[1])
	}
	if m := kvSmallRE.FindStringSubmatch(text); m != nil {
		f.gib(&e.NeededGB, m[2])
		f.gib(&e.AvailableGB, m[3])
	}
	f.longest(text)
}

// A filler sets what is not set yet.
type filler struct{ e *runner.AccountError }

func (f filler) bytes(dst **int64, value, unit string) {
	if v, _, ok := number(value); ok && *dst == nil && value != "" {
		n := int64(v * unitScale(unit) * runner.GiB)
		*dst = &n
	}
}

func (f filler) gib(dst **float64, value string) {
	if v, _, ok := number(value); ok && *dst == nil {
		*dst = &v
	}
}

func (f filler) index(value string) {
	if f.e.GPUIndex == nil && value != "" && len(value) < 6 {
		n := atoi(value)
		f.e.GPUIndex = &n
	}
}

// longest is the longest sequence that the error says would do.
func (f filler) longest(text string) {
	value := ""
	if m := kvLongestRE.FindStringSubmatch(text); m != nil {
		value = m[1]
	} else if m := kvTokensRE.FindStringSubmatch(text); m != nil {
		value = m[2]
	} else if m := derivedRE.FindStringSubmatch(text); m != nil {
		if d := derivedNRE.FindStringSubmatch(m[2]); d != nil {
			value = d[1]
		}
	}
	if value != "" && len(value) < 18 && f.e.MaxLenFits == nil {
		n := int64(atoi(value))
		f.e.MaxLenFits = &n
	}
}

// advice is one sentence that says what to change, with the figures at hand.
func (r *run) advice(e *runner.AccountError, a *runner.Account) string {
	switch e.Kind {
	case KindOOM:
		return r.adviceOOM(e, a)
	case KindNoKVMemory:
		return r.adviceNoKV(a)
	case KindKVTooSmall:
		return adviceKV(e)
	case KindFreeMemoryCheck:
		return adviceFree(e)
	case KindMaxModelLen:
		if e.MaxLenFits != nil {
			return fmt.Sprintf("The model is made for %[1]d tokens at most: set max_model_len to %[1]d or less.", *e.MaxLenFits)
		}
		return "Set max_model_len to what the model's config.json allows, or less."
	}
	return r.adviceOf(e)
}

// adviceOf is about errors whose text says it all.
func (r *run) adviceOf(e *runner.AccountError) string {
	if m := refusedRE.FindStringSubmatch(e.Message); e.Kind == KindBadArgument && m != nil {
		return fmt.Sprintf("vLLM refuses %s = %s: %s.", m[1], m[3], strings.ToLower(m[2][:1])+m[2][1:])
	}
	for _, k := range r.reader.kinds {
		if k.kind != e.Kind {
			continue
		}
		for _, rule := range k.advices {
			if m := rule.re.FindStringSubmatch(e.Message); m != nil {
				text := rule.text
				for i := 1; i < len(m); i++ {
					text = strings.ReplaceAll(text, fmt.Sprintf("%%[%d]s", i), cut(m[i], 200))
				}
				return text
			}
		}
	}
	return ""
}

func (r *run) adviceOOM(e *runner.AccountError, a *runner.Account) string {
	if strings.Contains(e.Message, "DefaultCPUAllocator") {
		return "The host's memory was too small, not the GPU's: give the run more RAM."
	}
	what := "Out of memory"
	if e.TriedBytes != nil && e.FreeBytes != nil {
		what = fmt.Sprintf("%s more was asked for and %s was free", size(*e.TriedBytes), size(*e.FreeBytes))
		if e.TotalBytes != nil {
			what += " of " + size(*e.TotalBytes)
		}
	}
	for i := range r.failures {
		if m := dummyRE.FindStringSubmatch(r.failures[i].text); m != nil {
			return what + " while warming up the sampler: lower max_num_seqs from " + m[1] + ", or gpu_memory_utilization."
		}
	}
	switch {
	case r.ready:
		return what + " while serving requests: lower gpu_memory_utilization, so that the KV cache leaves room for it."
	case a.ModelWeightsGB == nil && a.AvailableKVCacheGB == nil:
		return what + " while the weights were loaded: use more GPUs (tensor_parallel_size), a quantized model, " +
			"or a smaller one."
	case a.AvailableKVCacheGB == nil:
		return what + " while the forward pass was profiled: lower max_num_batched_tokens or max_num_seqs."
	}
	by := ""
	if t, f, all := e.TriedBytes, e.FreeBytes, e.TotalBytes; t != nil && f != nil && all != nil && *all > 0 && *t > *f {
		by = fmt.Sprintf(" by %.2f at least", ceil2(float64(*t-*f)/float64(*all)))
	}
	return what + " after the KV cache was taken: lower gpu_memory_utilization" + by + ", or capture fewer CUDA graphs."
}

func (r *run) adviceNoKV(a *runner.Account) string {
	if a.AvailableKVCacheGB == nil {
		return "Weights and activations fill the requested share: raise gpu_memory_utilization, or use more GPUs."
	}
	lacks := -*a.AvailableKVCacheGB
	short := fmt.Sprintf("%.2f GiB are missing before there is any KV cache", lacks)
	if a.TotalGPUMemoryGB != nil && a.GPUMemoryUtilization != nil && *a.TotalGPUMemoryGB > 0 {
		need := ceil2(*a.GPUMemoryUtilization + (lacks+0.01) / *a.TotalGPUMemoryGB)
		if need > 1 {
			return short + ", more than the GPU has: use more GPUs, a smaller or quantized model, or reserve less " +
				"(max_num_batched_tokens, max_num_seqs)."
		}
		return fmt.Sprintf("%s: raise gpu_memory_utilization from %v to %.2f or more, or use more GPUs.",
			short, *a.GPUMemoryUtilization, need)
	}
	above := ""
	if asked := r.args["gpu_memory_utilization"]; asked != "" {
		above = " above " + asked
	}
	return short + ": raise gpu_memory_utilization" + above + ", or use more GPUs."
}

func adviceKV(e *runner.AccountError) string {
	var needs, lacks string
	if e.NeededGB != nil && e.AvailableGB != nil {
		needs = fmt.Sprintf("One request of that length needs %.2f GiB of KV cache and %.2f are there: ",
			*e.NeededGB, *e.AvailableGB)
		lacks = fmt.Sprintf("or find %.2f GiB more.", *e.NeededGB-*e.AvailableGB)
	}
	switch {
	case needs != "" && e.MaxLenFits != nil:
		return fmt.Sprintf("%sset max_model_len to %d or less, %s", needs, *e.MaxLenFits, lacks)
	case needs != "":
		return needs + "lower max_model_len, " + lacks
	case e.MaxLenFits != nil:
		return fmt.Sprintf("The KV cache holds %[1]d tokens: set max_model_len to %[1]d or less, "+
			"or raise gpu_memory_utilization.", *e.MaxLenFits)
	}
	return "Lower max_model_len, or raise gpu_memory_utilization."
}

func adviceFree(e *runner.AccountError) string {
	if e.NeededGB == nil || e.AvailableGB == nil || e.TotalBytes == nil || *e.TotalBytes == 0 {
		return "Another process changed the GPU's memory while vLLM started: see who holds it, and keep it idle."
	}
	where := "the GPU"
	if e.GPUIndex != nil {
		where = fmt.Sprintf("GPU %d", *e.GPUIndex)
	}
	total := float64(*e.TotalBytes) / runner.GiB
	lower := "."
	if share := math.Floor(*e.AvailableGB/total*100) / 100; share > 0 {
		lower = fmt.Sprintf(", or lower gpu_memory_utilization to %.2f or less.", share)
	}
	return fmt.Sprintf("%.2f GiB of %s were in use before vLLM started: end what holds them%s",
		total-*e.AvailableGB, where, lower)
}

// ceil2 rounds up to two digits.
func ceil2(v float64) float64 { return math.Ceil(v*100-1e-9) / 100 }

// size prints bytes in the unit that suits them.
func size(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/runner.GiB)
}
