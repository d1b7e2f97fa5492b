package log

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// The stages at which memory runs out, as runner.AccountError has them.
const (
	stageLoad      = "load"
	stageProfiling = "profiling"
	stageKV        = "kv_alloc"
	stageCapture   = "capture"
	stageWarmup    = "warmup"
	stageServing   = "serving"
	stageWakeUp    = "wake_up"
)

// A mark is a line that shows a stage. Of the frames of a traceback the one that
// says most wins: V0's profile_run calls execute_model, the warm-up captures.
type mark struct {
	stage  string
	weight int
	line   int
	src    runner.AccountSource
}

// frameRE finds the functions that show where a traceback was, however it is
// printed: `File "x", line 1, in profile_run`, `self.model_runner.profile_run()`,
// a box.
var frameRE = regexp.MustCompile(`\b(wake_up|determine_available_memory|determine_num_available_blocks|profile_run|` +
	`profile_cudagraph_memory|_dummy_sampler_run|_dummy_pooler_run|capture_model|_capture_cudagraphs|capture_graphs|` +
	`_capture_graphs|initialize_kv_cache|initialize_kv_cache_tensors|_allocate_kv_cache\w*|allocate_kv_cache\w*|` +
	`initialize_from_config|initialize_cache|load_model|load_weights|Failed to load model|` +
	`compile_or_warm_up_model|kernel_warmup|execute_model|sample_tokens|execute_dummy_batch)\b`)

// stageOfFrame is the stage that a function belongs to, and how much it says.
func stageOfFrame(name string) (stage string, weight int) {
	switch {
	case name == "wake_up":
		return stageWakeUp, 7
	case strings.HasPrefix(name, "determine_"), strings.HasPrefix(name, "profile_"):
		return stageProfiling, 6
	case strings.HasPrefix(name, "_dummy_"):
		return stageWarmup, 5
	case strings.Contains(name, "capture_"):
		return stageCapture, 4
	case strings.Contains(name, "allocate_kv_cache"), strings.HasPrefix(name, "initialize_"):
		return stageKV, 3
	case strings.HasPrefix(name, "load_"), strings.HasPrefix(name, "Failed"):
		return stageLoad, 3
	case strings.Contains(name, "warm"):
		return stageWarmup, 2
	}
	return stageServing, 1
}

// frameLines is how far before its exception a frame may stand.
const frameLines = 400

// noteFrame keeps the frame of a traceback that says most of its stage, by its
// sender.
func (r *Reader) noteFrame(p *piece) {
	switch p.level {
	case "", "ERROR", "CRITICAL":
	default:
		return
	}
	text := strings.TrimSpace(p.msg)
	m := frameRE.FindString(text)
	if m == "" || m != text && !strings.Contains(text, "()") && !hasAnyPrefix(text, "File ", "self.", "return ", "│", "/",
		"output", "await ", "Failed to load", "Error executing method", "Invocation of") {
		return
	}
	stage, weight := stageOfFrame(m)
	key := traceKey(p)
	last, seen := r.frames[key]
	if !seen && len(r.frames) >= maxTraces || seen && last.weight >= weight && p.line-last.line < frameLines {
		return
	}
	r.frames[key] = mark{stage: stage, weight: weight, line: p.line, src: p.at()}
}

// takeFrame is the frame above an exception, which it then is of no more.
func (r *Reader) takeFrame(p *piece) mark {
	key := traceKey(p)
	m := r.frames[key]
	delete(r.frames, key)
	if p.line-m.line > frameLines {
		return mark{}
	}
	return m
}

// enterStage notes the stage that a line of the run shows.
func (r *run) enterStage(p *piece, stage string) {
	r.stageAt = mark{stage: stage, line: p.line, src: p.at()}
	r.stageIn = p.stream
}

// stageOf is the stage at which a failure came, by the frames of its traceback,
// else by the lines before it. Of two streams the order is not known: the last
// line of the other counts.
func (r *run) stageOf(f *failure) mark {
	switch {
	case f.frame.stage != "":
		return f.frame
	case f.stageAt.stage != "":
		return f.stageAt
	case r.stageIn != f.stream:
		return r.stageAt
	}
	return mark{}
}

const sizeUnit = `(GiB|MiB|KiB|GB|MB|bytes|B)`

// The figures of an allocator's message: torch 1.x to 2.14 on CUDA, ROCm, XPU
// and NPU, in their units or in bytes, the allocator of the driver, and XLA's.
var (
	triedRE = regexp.MustCompile(`(?i)(?:tried|trying) to allocate ([\d.]+) ?` + sizeUnit +
		`|Requested +: ([\d.]+) ?` + sizeUnit + `|Attempting to (?:allocate|reserve) ([\d.]+)(G|M|K)\b|` +
		`Allocation failed for size::(\d+)()`)
	totalRE = regexp.MustCompile(`(?:GPU|NPU|XPU|[Dd]evice) \d+ has a total capac\w+ of ([\d.]+) ?` + sizeUnit +
		`|; ([\d.]+) ?` + sizeUnit + ` total capacity|\btotal: ([\d.]+) ?` + sizeUnit + `?|` +
		`Device limit +: ([\d.]+) ?` + sizeUnit +
		`|Used [\d.]+[GMK] of ([\d.]+)(G|M|K) hbm`)
	freeRE = regexp.MustCompile(`([\d.]+) ?` + sizeUnit + ` (?:is )?free\b|\bfree: ([\d.]+) ?` + sizeUnit + `?|` +
		`Free \(according to CUDA\): ([\d.]+) ?` + sizeUnit + `|There are ([\d.]+)(G|M|K) free`)
	deviceRE  = regexp.MustCompile(`(?:GPU|NPU|XPU) (\d+)(?: has|;)|on device (\d+) while`)
	processRE = regexp.MustCompile(`Process (\d+) has ([\d.]+) ?` + sizeUnit + ` memory in use`)
	ownRE     = regexp.MustCompile(`this process has ([\d.]+) ?` + sizeUnit + ` memory in use`)
	idleRE    = regexp.MustCompile(`([\d.]+) ?` + sizeUnit + ` is reserved by PyTorch but unallocated`)
	privateRE = regexp.MustCompile(`([\d.]+) ?` + sizeUnit + ` allocated in private pools`)
	hbmRE     = regexp.MustCompile(`Used ([\d.]+)(G|M|K) of ([\d.]+)(G|M|K) hbm`)
	confRE    = regexp.MustCompile(`\bPYTORCH_(?:CUDA_|HIP_)?ALLOC_CONF\b`)
)

// sizeIn is the first size that re finds, in bytes; nil where it finds none. Its
// groups are pairs of a number and its unit; a number alone is bytes.
func sizeIn(re *regexp.Regexp, text string) *int64 {
	m := re.FindStringSubmatch(text)
	for i := 1; i+1 < len(m); i += 2 {
		if v, _, ok := number(m[i]); ok {
			unit := m[i+1]
			if unit == "" {
				unit = "bytes"
			}
			n := int64(v * unitScale(unit) * runner.GiB)
			return &n
		}
	}
	return nil
}

// fillMemory takes the figures of an allocator's message that e does not have.
func fillMemory(e *runner.AccountError, text string) {
	for _, f := range []struct {
		dst **int64
		re  *regexp.Regexp
	}{{&e.TriedBytes, triedRE}, {&e.TotalBytes, totalRE}, {&e.FreeBytes, freeRE}} {
		if *f.dst == nil {
			*f.dst = sizeIn(f.re, text)
		}
	}
	if m := deviceRE.FindStringSubmatch(text); m != nil {
		filler{e}.index(m[1] + m[2])
	}
	if m := hbmRE.FindStringSubmatch(text); m != nil && e.NeededGB == nil {
		needed, _, _ := number(m[1])
		available, _, _ := number(m[3])
		needed, available = needed*unitScale(m[2]), available*unitScale(m[4])
		e.NeededGB, e.AvailableGB = &needed, &available
	}
	// A process of another container's is listed as another one even where it is
	// this one: only a message that counts this one apart tells them apart.
	if own := sizeIn(ownRE, text); own == nil {
		return
	}
	for _, m := range processRE.FindAllStringSubmatch(text, 64) {
		v, _, ok := number(m[2])
		held := int64(v * unitScale(m[3]) * runner.GiB)
		if ok && len(m[1]) < 18 && (e.OtherBytes == nil || held > *e.OtherBytes) {
			pid := int64(atoi(m[1]))
			e.OtherPID, e.OtherBytes = &pid, &held
		}
	}
}

// oomStory is what an error of memory says of itself.
func oomStory(e *runner.AccountError) string {
	switch t, f := e.TriedBytes, e.FreeBytes; {
	case t != nil && f != nil && e.TotalBytes != nil:
		return fmt.Sprintf("%s more was asked for and %s was free of %s", size(*t), size(*f), size(*e.TotalBytes))
	case t != nil && f != nil:
		return fmt.Sprintf("%s more was asked for and %s was free", size(*t), size(*f))
	case t != nil:
		return size(*t) + " more was asked for"
	case e.NeededGB != nil && e.AvailableGB != nil:
		return fmt.Sprintf("%.2f GiB were needed of %.2f", *e.NeededGB, *e.AvailableGB)
	}
	return "Out of memory"
}

// adviceOOM is what to do, by what the message itself says before the stage.
func (r *run) adviceOOM(e *runner.AccountError) string {
	what := oomStory(e)
	if most, ok := r.dummyRequests(e); ok {
		e.Stage = stageWarmup
		return what + " while warming up the sampler: lower max_num_seqs" + most + ", or gpu_memory_utilization."
	}
	if why := oomCause(e); why != "" {
		return what + stageWords(e.Stage) + why
	}
	what += stageWords(e.Stage)
	switch e.Stage {
	case stageServing:
		return what + ": lower gpu_memory_utilization, so that the KV cache leaves room for it."
	case stageLoad:
		return what + ": use more GPUs (tensor_parallel_size), a quantized model, or a smaller one."
	case stageProfiling:
		return what + ": lower max_num_batched_tokens or max_num_seqs."
	case stageWakeUp:
		return what + ": what it gave back when it went to sleep is held by others now; " +
			"end or shrink them before the wake-up."
	case stageKV, stageCapture, stageWarmup:
		return what + ": lower gpu_memory_utilization" + r.lowerBy(e) + ", or capture fewer CUDA graphs."
	}
	return what + "; no line of this log shows at which stage, and so not what would help."
}

// dummyRequests reports whether memory ran out while the sampler or pooler was
// tried with as many requests as may come, and how many those are.
func (r *run) dummyRequests(e *runner.AccountError) (most string, ok bool) {
	for i := range r.failures {
		if m := dummyRE.FindStringSubmatch(unwrapped(r.failures[i].text)[0]); m != nil {
			return " from " + m[1], true
		}
	}
	return "", e.Stage == stageWarmup && e.RestsOn != nil && strings.Contains(e.RestsOn.Text, "_dummy_")
}

// stageWords says when memory ran out, "" where that is not known.
func stageWords(stage string) string {
	return map[string]string{
		stageServing: " while serving requests", stageLoad: " while the weights were loaded",
		stageProfiling: " while the forward pass was profiled", stageWakeUp: " while the engine woke up",
		stageKV: " while or after the KV cache was allocated", stageWarmup: " while the engine warmed up",
		stageCapture: " while or after CUDA graphs were captured",
	}[stage]
}

// lowerBy is how much of the GPU is missing, as a share.
func (r *run) lowerBy(e *runner.AccountError) string {
	t, f, all := e.TriedBytes, e.FreeBytes, e.TotalBytes
	if t == nil || f == nil || all == nil || *all <= 0 || *t <= *f {
		return ""
	}
	return fmt.Sprintf(" by %.2f at least", ceil2(float64(*t-*f)/float64(*all)))
}

// oomCause is what the allocator's own figures tell, "" where they tell only that
// memory was short.
func oomCause(e *runner.AccountError) string {
	t, f, all := e.TriedBytes, e.FreeBytes, e.TotalBytes
	if t == nil {
		return ""
	}
	if all != nil && *t > *all {
		return ": more than the whole GPU has, which is one huge tensor and nothing that more free memory would help; " +
			"most often the profile of multimodal input or of attention: lower limit_mm_per_prompt or " +
			"max_num_batched_tokens, or set skip_mm_profiling."
	}
	if f == nil {
		return ""
	}
	if *t <= *f {
		return ": less than was free, so a limit outside of the GPU's own memory stopped it (WSL, a container's or " +
			"the process's limit, a virtual GPU's share): raise that; more GPUs or a smaller share change nothing."
	}
	text := unwrapped(e.Message)[1]
	idle := sizeIn(idleRE, text)
	if o := e.OtherBytes; o != nil && all != nil && *o >= *t-*f && *o >= *all/10 && (idle == nil || *idle < *o) {
		return otherProcesses(e, text) + ": end what is not needed, or leave it its share with a lower gpu_memory_utilization."
	}
	// Every process has some memory in pieces: only where that is a part of the GPU worth the name is it the cause.
	if idle != nil && *idle >= *t && (all == nil || *idle >= *all/50) {
		name := confRE.FindString(text)
		if name == "" {
			name = "PYTORCH_CUDA_ALLOC_CONF"
		}
		return fmt.Sprintf(", while %s was reserved and not used: the memory is in pieces that are too small; set "+
			"%s=expandable_segments:True.", size(*idle), name)
	}
	return ""
}

// otherProcesses says who else holds memory of the GPU.
func otherProcesses(e *runner.AccountError, text string) string {
	all := int64(0)
	others := processRE.FindAllStringSubmatch(text, 64)
	for _, m := range others {
		v, _, _ := number(m[2])
		all += int64(v * unitScale(m[3]) * runner.GiB)
	}
	if len(others) < 2 {
		return fmt.Sprintf(": another process, %d, holds %s of the GPU", *e.OtherPID, size(*e.OtherBytes))
	}
	return fmt.Sprintf(": %d other processes hold %s of the GPU, %d of them the most (%s)",
		len(others), size(all), *e.OtherPID, size(*e.OtherBytes))
}
