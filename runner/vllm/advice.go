package vllm

import (
	"fmt"
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
	exitCodeRE = regexp.MustCompile(`exit code: (-?\d+)`)
	refusedRE  = regexp.MustCompile(`\n([\w.]+)\n(?:Value error, )?(\S.*?) \[type=\w+, input_value=(.*?), input_type=`)
	moduleRE   = regexp.MustCompile(`No module named '([\w.]+)'`)
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
	return adviceOther(e)
}

func adviceOther(e *runner.AccountError) string {
	switch e.Kind {
	case KindDtypeUnsupported:
		if strings.Contains(e.Message, "Bfloat16") {
			return "This GPU has no bfloat16: set dtype to \"float16\"."
		}
		return "This dtype and quantization do not go together on this GPU: choose another dtype or quantization."
	case KindNoDevice:
		return "vLLM sees no GPU: check the driver with nvidia-smi or rocm-smi, CUDA_VISIBLE_DEVICES, and that the container was given GPUs."
	case KindNCCL:
		return "The GPUs could not talk to each other: run again with NCCL_DEBUG=INFO, and check /dev/shm and the network interface."
	case KindWorkerDied:
		if m := exitCodeRE.FindStringSubmatch(e.Message); m != nil && m[1] == "-9" || strings.Contains(e.Message, "Killed") {
			return "The worker was killed from outside (signal 9), most often by the kernel for want of host memory: see dmesg, and give the run more RAM."
		}
		return "A worker ended without saying why: see dmesg for the kernel's out-of-memory killer, and the worker's last lines."
	case KindBadArgument:
		if m := refusedRE.FindStringSubmatch(e.Message); m != nil {
			return fmt.Sprintf("vLLM refuses %s = %s: %s.", m[1], m[3], strings.ToLower(m[2][:1])+m[2][1:])
		}
		if strings.Contains(e.Message, "trust_remote_code=True") {
			return "The model brings code of its own: set trust_remote_code = true if you trust it."
		}
		if strings.Contains(e.Message, "ensure that max_model_len is greater") {
			return "Raise max_model_len to input_len + output_len at least, or make the prompts shorter."
		}
		return "vLLM refuses an argument: see the message, and `vllm bench latency --help` of this version."
	}
	if strings.Contains(e.Message, "Insufficient space in") {
		return "/dev/shm is too small: start the container with --ipc=host or a larger --shm-size."
	}
	if m := moduleRE.FindStringSubmatch(e.Message); m != nil {
		return fmt.Sprintf("The Python environment lacks the module %s: install it, or switch off what needs it.", m[1])
	}
	return ""
}

func (r *run) adviceOOM(e *runner.AccountError, a *runner.Account) string {
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
	return what + " after the KV cache was taken: lower gpu_memory_utilization, or capture fewer CUDA graphs."
}

func (r *run) adviceNoKV(a *runner.Account) string {
	if a.AvailableKVCacheGB == nil {
		return "Weights and activations fill the requested share: raise gpu_memory_utilization, or use more GPUs."
	}
	short := -*a.AvailableKVCacheGB
	if a.TotalGPUMemoryGB != nil && a.GPUMemoryUtilization != nil && *a.TotalGPUMemoryGB > 0 {
		return fmt.Sprintf("%.2f GiB are missing before there is any KV cache: raise gpu_memory_utilization from %v to more than %.2f, or use more GPUs.",
			short, *a.GPUMemoryUtilization, *a.GPUMemoryUtilization + short / *a.TotalGPUMemoryGB)
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
	return fmt.Sprintf("Others hold %.2f GiB of %s: end them, or lower gpu_memory_utilization below %.2f.", total-*e.AvailableGB, where, *e.AvailableGB/total)
}

func adviceHub(message string) string {
	switch {
	case strings.Contains(message, "gated") || strings.Contains(message, "401") || strings.Contains(message, "403"):
		return "The model is gated or private: accept its terms and set HF_TOKEN."
	case strings.Contains(message, "not a local folder") || strings.Contains(message, "Repository Not Found") || strings.Contains(message, "404"):
		return "No such model: check the name, or give a folder with config.json."
	case strings.Contains(message, "outgoing traffic has been disabled") || strings.Contains(message, "Offline") || strings.Contains(message, "offline"):
		return "The model is not in the local cache and the hub was not asked (offline): download it first, give a folder, or unset HF_HUB_OFFLINE."
	}
	return "The model could not be fetched: check the network, HF_TOKEN and HF_HUB_OFFLINE, or give a folder."
}

// size prints bytes in the unit that suits them.
func size(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/runner.GiB)
}
