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
	capacityRE = regexp.MustCompile(`GPU (\d+)(?: has a total capac\w+ of ([\d.]+) (GiB|MiB|KiB|bytes)| *; ([\d.]+) (GiB|MiB|KiB|bytes) total capacity)`)
	freeRE     = regexp.MustCompile(`([\d.]+) (GiB|MiB|KiB|bytes) (?:is )?free`)
	dummyRE    = regexp.MustCompile(`with (\d+) dummy requests`)
	derivedRE  = regexp.MustCompile(`max_model_len \((\d+)\) is greater than the derived max_model_len \(([^)]*)\)`)
	derivedNRE = regexp.MustCompile(`=(\d+)`)
	divisorRE  = regexp.MustCompile(`\((\d+)\) must be divisible by tensor parallel size \((\d+)\)|(\d+) is not divisible by (\d+)`)
	worldNRE   = regexp.MustCompile(`World size \((\d+)\) is larger than the number of available GPUs \((\d+)\)`)
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
	e := &runner.AccountError{Kind: f.kind, Message: message + strings.TrimSpace(f.text), Line: f.src.Line, File: f.src.File}
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
			return fmt.Sprintf("The model is made for %d tokens at most: set max_model_len to %d or less.", *e.MaxLenFits, *e.MaxLenFits)
		}
		return "Set max_model_len to what the model's config.json allows, or less."
	case KindUnsupportedArch:
		return "This vLLM or its transformers does not know the model's architecture: use a newer vLLM, or another model."
	case KindHub:
		return adviceHub(e.Message)
	case KindTPDivisibility:
		if m := divisorRE.FindStringSubmatch(e.Message); m != nil {
			return fmt.Sprintf("%s is not a multiple of tensor_parallel_size %s: choose one that divides it.", m[1]+m[3], m[2]+m[4])
		}
		return "Choose a tensor_parallel_size that divides the model's heads and vocabulary."
	case KindDeviceRank:
		if m := worldNRE.FindStringSubmatch(e.Message); m != nil {
			return fmt.Sprintf("%s GPUs were asked for and %s can be seen: lower the parallel sizes, or give the run more GPUs.", m[1], m[2])
		}
		return "More ranks were asked for than there are GPUs to be seen: lower the parallel sizes, or give the run more GPUs."
	}
	return r.adviceOther(e)
}

// An adviceRule is what to do about an error of a kind ("" for any) that holds
// a text. Groups of the text stand for %[1]s, %[2]s ... of the advice.
type adviceRule struct {
	kind string
	re   *regexp.Regexp
	text string
}

// adviceRules are tried in order; the last of a kind fits always.
func adviceRules() []adviceRule {
	any := regexp.MustCompile("")
	return []adviceRule{
		{KindDtypeUnsupported, regexp.MustCompile(`Bfloat16`), `This GPU has no bfloat16: set dtype to "float16".`},
		{KindDtypeUnsupported, regexp.MustCompile(`Minimum capability: (\d+)\. Current capability: (\d+)`), "This quantization needs a GPU of compute capability %[1]s/10 and this one has %[2]s/10: choose another quantization or GPU."},
		{KindDtypeUnsupported, any, "This dtype and quantization do not go together on this GPU: choose another dtype or quantization."},
		{KindNoDevice, regexp.MustCompile(`driver on your system is too old \(found version (\d+)\)`), "The GPU's driver (CUDA %[1]s) is older than this torch needs: update the driver, or use a build of vLLM for an older CUDA."},
		{KindNoDevice, regexp.MustCompile(`too old|driver version is insufficient|unsupported display driver|unsupported toolchain`), "The GPU's driver is older than this torch needs: update the driver, or use a build of vLLM for an older CUDA."},
		{KindNoDevice, regexp.MustCompile(`not compiled with CUDA`), "This torch was built without CUDA: install the build of vLLM and torch that fits the GPU."},
		{KindNoDevice, any, "vLLM sees no GPU: check the driver with nvidia-smi or rocm-smi, CUDA_VISIBLE_DEVICES, and that the container was given GPUs."},
		{KindNCCL, regexp.MustCompile(`ran for (\d+) milliseconds before timing out`), "A collective waited %[1]s ms for a rank that did not come: look for that rank's own error first, then run again with NCCL_DEBUG=INFO."},
		{KindNCCL, any, "The GPUs could not talk to each other: run again with NCCL_DEBUG=INFO, and check /dev/shm and the network interface."},
		{KindWorkerDied, regexp.MustCompile(`(?:exit code: |\(s\): .*: )-9\b|Killed`), "The worker was killed from outside (signal 9), most often by the kernel for want of host memory: see dmesg, and give the run more RAM."},
		{KindWorkerDied, regexp.MustCompile(`Bus error|exit code: -7\b`), "A bus error is most often a full /dev/shm: start the container with --ipc=host or a larger --shm-size."},
		{KindWorkerDied, regexp.MustCompile(`exit code: -11\b|Segmentation fault`), "A worker crashed in native code (signal 11): see the trace above it, and try without what is not of vLLM's own release (plugins, other builds of torch or NCCL)."},
		{KindWorkerDied, any, "A worker ended without saying why: see dmesg for the kernel's out-of-memory killer, and the worker's last lines."},
		{KindBadArgument, regexp.MustCompile(`prompt \(length (\d+)\) is longer than the maximum model length of (\d+)`), "The prompt has %[1]s tokens and max_model_len is %[2]s: raise max_model_len above the prompt and its output, or make the prompt shorter."},
		{KindBadArgument, regexp.MustCompile(`trust_remote_code=True`), "The model brings code of its own: set trust_remote_code = true if you trust it."},
		{KindBadArgument, regexp.MustCompile(`ensure that max_model_len is greater`), "Raise max_model_len to input_len + output_len at least, or make the prompts shorter."},
		{KindBadArgument, regexp.MustCompile(`max_num_batched_tokens \((\d+)\) is smaller than max_model_len \((\d+)\)`), "Raise max_num_batched_tokens from %[1]s to %[2]s at least, lower max_model_len, or enable chunked prefill."},
		{KindBadArgument, regexp.MustCompile(`max_num_batched_tokens \((\d+)\) must be greater than or equal to max_num_seqs \((\d+)\)`), "Raise max_num_batched_tokens from %[1]s to %[2]s at least, or lower max_num_seqs."},
		{KindBadArgument, regexp.MustCompile(`unrecognized arguments: (.+)`), "This version of vLLM has no %[1]s: see its `--help`."},
		{KindBadArgument, regexp.MustCompile(`[Uu]nknown quantization method: (\S+?)\.?(?:\s|$)`), "This vLLM has no quantization %[1]s: choose one that the message lists."},
		{KindBadArgument, regexp.MustCompile(`not valid for this configuration|No valid attention backend`), "The attention backend cannot do this combination of head size, dtype, KV dtype and GPU: leave the backend to vLLM, or change what the reasons name."},
		{KindBadArgument, any, "vLLM refuses an argument: see the message, and `vllm bench latency --help` of this version."},
		{"", regexp.MustCompile(`port: (\d+).*EADDRINUSE|bind on address \([^)]*, (\d+)\)`), "Port %[1]s%[2]s is in use: end the other server, or choose another port."},
		{"", portRE, "A port that the engine wants is in use: end the other server, or choose another port (VLLM_PORT, MASTER_PORT, --port)."},
		{"", regexp.MustCompile(`Insufficient space in`), "/dev/shm is too small: start the container with --ipc=host or a larger --shm-size."},
		{"", regexp.MustCompile(`No space left on device`), "A disk is full: see df for the model cache, /tmp and /dev/shm."},
		{"", regexp.MustCompile(`No module named '([\w.]+)'`), "The Python environment lacks the module %[1]s: install it, or switch off what needs it."},
		{"", regexp.MustCompile(`illegal memory access|device-side assert|misaligned address|unspecified launch failure`), "A kernel failed on the GPU: run again with CUDA_LAUNCH_BLOCKING=1 to see which, and with enforce_eager, another attention backend or another version of vLLM to get round it."},
		{"", regexp.MustCompile(`no kernel image is available`), "This build has no kernels for this GPU: install vLLM and torch built for its compute capability."},
		{"", regexp.MustCompile(`ECC error`), "The GPU reports a memory fault: see nvidia-smi -q -d ECC, and reset or replace the GPU."},
		{"", regexp.MustCompile(`busy or unavailable`), "The GPU is held by another process, or in exclusive mode: see nvidia-smi."},
		{"", regexp.MustCompile(`re-initialize CUDA in forked`), "CUDA was touched before the workers were forked: set VLLM_WORKER_MULTIPROCESSING_METHOD=spawn."},
		{"", regexp.MustCompile(`find C compiler|find nvcc|Ninja is required`), "Kernels are compiled at start and the compiler is missing: install gcc and the CUDA toolkit, or use the official image."},
		{"", regexp.MustCompile(`instantiate the backend tokenizer|SentencePiece|sentencepiece|tiktoken`), "The tokenizer cannot be loaded: install sentencepiece and tiktoken, check the tokenizer's files, or set skip_tokenizer_init."},
		{"", regexp.MustCompile(`SafetensorError|MetadataIncompleteBuffer|HeaderTooLarge`), "A weight file is cut short or no safetensors file: fetch the model again (git-lfs pointers look like this too)."},
		{"", regexp.MustCompile(`RPC call to \w+ timed out`), "A worker did not answer in time: look for its own error above, or a kernel that hangs (py-spy dump shows where)."},
	}
}

// adviceOther is about errors whose text says it all.
func (r *run) adviceOther(e *runner.AccountError) string {
	if m := refusedRE.FindStringSubmatch(e.Message); e.Kind == KindBadArgument && m != nil {
		return fmt.Sprintf("vLLM refuses %s = %s: %s.", m[1], m[3], strings.ToLower(m[2][:1])+m[2][1:])
	}
	for _, rule := range r.reader.advices {
		if rule.kind != "" && rule.kind != e.Kind || rule.kind == "" && e.Kind != KindUnknown {
			continue
		}
		m := rule.re.FindStringSubmatch(e.Message)
		if m == nil {
			continue
		}
		text := rule.text
		for i := 1; i < len(m); i++ {
			text = strings.ReplaceAll(text, fmt.Sprintf("%%[%d]s", i), cut(m[i], 200))
		}
		return text
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
			return fmt.Sprintf("%s while warming up the sampler: lower max_num_seqs from %s, or gpu_memory_utilization.", what, m[1])
		}
	}
	switch {
	case r.ready:
		return what + " while serving requests: lower gpu_memory_utilization, so that the KV cache leaves room for it."
	case a.ModelWeightsGB == nil && a.AvailableKVCacheGB == nil:
		return what + " while the weights were loaded: use more GPUs (tensor_parallel_size), a quantized model, or a smaller one."
	case a.AvailableKVCacheGB == nil:
		return what + " while the forward pass was profiled: lower max_num_batched_tokens or max_num_seqs."
	}
	by := ""
	if e.TriedBytes != nil && e.FreeBytes != nil && e.TotalBytes != nil && *e.TotalBytes > 0 && *e.TriedBytes > *e.FreeBytes {
		by = fmt.Sprintf(" by %.2f at least", ceil2(float64(*e.TriedBytes-*e.FreeBytes)/float64(*e.TotalBytes)))
	}
	return what + " after the KV cache was taken: lower gpu_memory_utilization" + by + ", or capture fewer CUDA graphs."
}

func (r *run) adviceNoKV(a *runner.Account) string {
	if a.AvailableKVCacheGB == nil {
		return "Weights and activations fill the requested share: raise gpu_memory_utilization, or use more GPUs."
	}
	short := -*a.AvailableKVCacheGB
	if a.TotalGPUMemoryGB != nil && a.GPUMemoryUtilization != nil && *a.TotalGPUMemoryGB > 0 {
		need := ceil2(*a.GPUMemoryUtilization + (short+0.01) / *a.TotalGPUMemoryGB)
		if need > 1 {
			return fmt.Sprintf("%.2f GiB are missing before there is any KV cache, more than the GPU has: use more GPUs, a smaller or quantized model, or reserve less (max_num_batched_tokens, max_num_seqs).", short)
		}
		return fmt.Sprintf("%.2f GiB are missing before there is any KV cache: raise gpu_memory_utilization from %v to %.2f or more, or use more GPUs.",
			short, *a.GPUMemoryUtilization, need)
	}
	if asked := r.args["gpu_memory_utilization"]; asked != "" {
		return fmt.Sprintf("%.2f GiB are missing before there is any KV cache: raise gpu_memory_utilization above %s, or use more GPUs.", short, asked)
	}
	return fmt.Sprintf("%.2f GiB are missing before there is any KV cache: raise gpu_memory_utilization, or use more GPUs.", short)
}

func adviceKV(e *runner.AccountError) string {
	switch {
	case e.NeededGB != nil && e.AvailableGB != nil && e.MaxLenFits != nil:
		return fmt.Sprintf("One request of that length needs %.2f GiB of KV cache and %.2f are there: set max_model_len to %d or less, or find %.2f GiB more.",
			*e.NeededGB, *e.AvailableGB, *e.MaxLenFits, *e.NeededGB-*e.AvailableGB)
	case e.NeededGB != nil && e.AvailableGB != nil:
		return fmt.Sprintf("One request of that length needs %.2f GiB of KV cache and %.2f are there: lower max_model_len, or find %.2f GiB more.",
			*e.NeededGB, *e.AvailableGB, *e.NeededGB-*e.AvailableGB)
	case e.MaxLenFits != nil:
		return fmt.Sprintf("The KV cache holds %d tokens: set max_model_len to %d or less, or raise gpu_memory_utilization.", *e.MaxLenFits, *e.MaxLenFits)
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
	share := math.Floor(*e.AvailableGB/total*100) / 100
	if share <= 0 {
		return fmt.Sprintf("%.2f GiB of %s were in use before vLLM started: end what holds them.", total-*e.AvailableGB, where)
	}
	return fmt.Sprintf("%.2f GiB of %s were in use before vLLM started: end what holds them, or lower gpu_memory_utilization to %.2f or less.", total-*e.AvailableGB, where, share)
}

func adviceHub(message string) string {
	switch {
	case strings.Contains(message, "gated") || strings.Contains(message, "401") || strings.Contains(message, "403"):
		return "The model is gated or private: accept its terms and set HF_TOKEN."
	case strings.Contains(message, "does not appear to have a file named"):
		return "The repository or folder lacks a file that vLLM needs (config.json of a Hugging Face model): check the name, the revision, and that it is no GGUF or adapter alone."
	case strings.Contains(message, "not a local folder") || strings.Contains(message, "Repository Not Found") || strings.Contains(message, "404"):
		return "No such model: check the name, or give a folder with config.json."
	case strings.Contains(message, "outgoing traffic has been disabled") || strings.Contains(message, "Offline") || strings.Contains(message, "offline"):
		return "The model is not in the local cache and the hub was not asked (offline): download it first, give a folder, or unset HF_HUB_OFFLINE."
	}
	return "The model could not be fetched: check the network, HF_TOKEN and HF_HUB_OFFLINE, or give a folder."
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
