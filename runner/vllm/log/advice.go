package log

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

var (
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
	for _, text := range unwrapped(message) {
		fillFigures(e, text)
	}
	for i := range r.failures { // the same failure of another process may say more
		if o := &r.failures[i]; o.kind == f.kind && r.counts(o) {
			for _, text := range unwrapped(o.text) {
				fillFigures(e, text)
			}
		}
	}
	if e.Kind == KindOOM {
		m := r.stageOf(f)
		if e.Stage = m.stage; m.stage == "" && privateRE.MatchString(unwrapped(message)[1]) {
			e.Stage, m.src = stageCapture, f.src
		}
		if m.src.Line > 0 {
			e.RestsOn = &m.src
		}
	}
	if f.kind == KindHub && f.headless && hubMayAnswer(message) {
		return e // why the hub said so stood in the part that is not here
	}
	if e.Advice = r.advice(e, a); e.Advice != "" && (e.RestsOn == nil || oomCause(e) != "") {
		src := f.src
		e.RestsOn = &src
	}
	return e
}

// unwrapped is a message of several lines as one, joined without and with a
// blank: a terminal breaks in the middle of a word, or between two.
func unwrapped(text string) [2]string {
	return [2]string{strings.ReplaceAll(text, "\n", ""), strings.ReplaceAll(text, "\n", " ")}
}

// fillFigures takes the figures of an error's text that e does not have yet.
func fillFigures(e *runner.AccountError, text string) {
	f := filler{e}
	if e.Kind == KindOOM || e.Kind == KindHostOOM {
		fillMemory(e, text)
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
		return r.adviceOOM(e)
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
	message := e.Message
	if e.Kind == KindWorkerDied {
		if text := adviceKilled(e); text != "" {
			return text
		}
		message += fmt.Sprintf(" signal %d", signalOf(message))
	}
	if m := refusedRE.FindStringSubmatch(e.Message); e.Kind == KindBadArgument && m != nil {
		return fmt.Sprintf("vLLM refuses %s = %s: %s.", m[1], m[3], strings.ToLower(m[2][:1])+m[2][1:])
	}
	if e.Kind == KindBadArgument && strings.Contains(message, "validation error") {
		return "" // which value it refuses was not read
	}
	for _, k := range r.reader.kinds {
		if k.kind != e.Kind {
			continue
		}
		for _, rule := range k.advices {
			if m := rule.find(message); m != nil {
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

// find is the match of an advice's condition in a message, however its lines
// were broken.
func (a adviceRule) find(message string) []string {
	parts := unwrapped(message)
	for _, text := range []string{message, parts[0], parts[1]} {
		if m := a.re.FindStringSubmatch(text); m != nil {
			return m
		}
	}
	return nil
}

var (
	rssRE   = regexp.MustCompile(`Killed process (\d+).*?anon-rss:(\d+)kB`)
	usageKB = regexp.MustCompile(`usage (\d+)kB, limit (\d+)kB`)
)

// adviceKilled is about a process that the kernel killed, with the figures of its
// line, "" where it has none.
func adviceKilled(e *runner.AccountError) string {
	const todo = ": give the run more RAM or a higher limit, or take less of it (cpu_offload_gb, pinned pools)."
	kilobytes := func(s string) *int64 {
		n, _ := strconv.ParseInt(s, 10, 54)
		n *= 1024
		return &n
	}
	if m := rssRE.FindStringSubmatch(e.Message); m != nil {
		e.HostBytes = kilobytes(m[2])
		whose := "The host's memory"
		if strings.Contains(e.Message, "cgroup") {
			whose = "The memory of the container's limit (cgroup)"
		}
		return fmt.Sprintf("%s ran out and the kernel killed process %s, which held %s%s",
			whose, m[1], size(*e.HostBytes), todo)
	}
	if m := usageKB.FindStringSubmatch(e.Message); m != nil {
		e.HostBytes, e.HostLimitBytes = kilobytes(m[1]), kilobytes(m[2])
		return fmt.Sprintf("The container held %s of the %s of host memory that its limit allows%s",
			size(*e.HostBytes), size(*e.HostLimitBytes), todo)
	}
	return ""
}

// adviceNoKV names what can work where not even a part of a KV cache fits: a
// higher share only as far as the GPU has that much.
func (r *run) adviceNoKV(a *runner.Account) string {
	less := r.fewerGraphs(a) + "lower max_num_batched_tokens or max_num_seqs, "
	if a.AvailableKVCacheGB == nil {
		return "What is reserved fills the requested share: " + less + "raise gpu_memory_utilization, or use more GPUs."
	}
	lacks := -*a.AvailableKVCacheGB
	short := fmt.Sprintf("%.2f GiB are missing before there is any KV cache, "+
		"into which one request of max_model_len must fit (a shorter one needs less): ", lacks)
	asked, _, known := number(r.args["gpu_memory_utilization"])
	if a.GPUMemoryUtilization != nil {
		asked, known = *a.GPUMemoryUtilization, true
	}
	switch {
	case a.TotalGPUMemoryGB != nil && known && *a.TotalGPUMemoryGB > 0:
		most := 1.0
		if a.FreeMemoryGB != nil {
			most = *a.FreeMemoryGB / *a.TotalGPUMemoryGB
		}
		need := ceil2(asked + (lacks+0.01) / *a.TotalGPUMemoryGB)
		if need > most {
			return short + less + "or use more GPUs or a smaller or quantized model; no gpu_memory_utilization gives that much."
		}
		if r.unified != nil && need >= 0.9 {
			return short + less +
				"or use a smaller or quantized model; the GPU shares its memory with the host, which needs the rest."
		}
		return fmt.Sprintf("%s%sraise gpu_memory_utilization from %v to %.2f or more, or use more GPUs.",
			short, less, asked, need)
	case known && asked < 0.9:
		return fmt.Sprintf("%s%sraise gpu_memory_utilization above %v, or use more GPUs.", short, less, asked)
	case known && asked < 1:
		return fmt.Sprintf("%s%sor use more GPUs; a gpu_memory_utilization above %v is enough only on a GPU of more than %.1f GiB.",
			short, less, asked, lacks/(1-asked))
	}
	return short + less + "raise gpu_memory_utilization, or use more GPUs."
}

// fewerGraphs is what less of CUDA graphs gives back to the budget; "" where
// nothing is taken off for them.
func (r *run) fewerGraphs(a *runner.Account) string {
	const what = "set enforce_eager or capture fewer sizes (cudagraph_capture_sizes)"
	switch {
	case r.eager() || r.estimateOff != nil || r.version == nil || before(r.version.val, 0, 20) ||
		(r.runnerIs("v2") && before(r.version.val, 0, 29)):
		return ""
	case a.GraphEstimateGB != nil && *a.GraphEstimateGB > 0:
		return fmt.Sprintf("%s, for which vLLM takes off %.2f GiB, ", what, *a.GraphEstimateGB)
	}
	return what + ", for which vLLM takes memory off, "
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
