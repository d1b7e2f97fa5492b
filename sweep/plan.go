package sweep

import (
	"fmt"
	"strconv"
	"time"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Plan is everything that a configuration asks for, fully evaluated: no
// expression is left in it and no type of HCL or cty leaves this package.
type Plan struct {
	Files     []string        `json:"files"`     // as they were read, in order
	Variables []VariableValue `json:"variables"` // sorted by name
	Sweeps    []*Sweep        `json:"sweeps"`    // in source order
	GPUs      []GPU           `json:"gpus"`      // the gpu blocks
	OutputDir string          `json:"output_dir"`

	// Models holds the catalogue with the file's own model blocks laid over it.
	Models *models.Catalogue `json:"-"`
	// Warnings did not stop the plan.
	Warnings []Diagnostic `json:"warnings,omitempty"`
}

// A VariableValue says what a variable was set to and by whom. The value of a
// sensitive variable is not in it.
type VariableValue struct {
	Name      string `json:"name"`
	Value     any    `json:"value"`
	From      string `json:"from"` // "default", "environment", "var-file NAME", "--var"
	Sensitive bool   `json:"sensitive,omitempty"`
}

// A GPU is a gpu block: a device to plan for. Sizes are bytes; nil is left to
// the catalogue entry that Like names.
type GPU struct {
	Name        string `json:"name"`
	Like        string `json:"like,omitempty"`
	TotalMemory *int64 `json:"total_memory_bytes,omitempty"`
	Reserve     *int64 `json:"reserve_bytes,omitempty"`
	Context     *int64 `json:"context_bytes,omitempty"`
}

// A Sweep is one sweep block and the profiles that it expands to.
type Sweep struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Axes        []Axis     `json:"axes"`
	Repeats     int        `json:"repeats"`
	GPUs        []int      `json:"gpus,omitempty"` // nil: the first ones, as many as tensor_parallel_size asks for
	Env         []EnvVar   `json:"env,omitempty"`  // of the child, sorted by name
	Sample      Sample     `json:"sample"`
	Limits      Limits     `json:"limits"`
	Lanes       Lanes      `json:"lanes"`
	Order       string     `json:"order,omitempty"` // "matrix": as it stands in the file; "": what shares a start lies together
	Profiles    []*Profile `json:"profiles"`        // in run order
	Excluded    int        `json:"excluded"`        // points that an exclude took away

	secrets []string // values of sensitive variables
}

// An Axis is one attribute of the matrix, in source order.
type Axis struct {
	Name   string `json:"name"`
	Free   bool   `json:"free"`   // names no setting: only expressions see it
	Values []any  `json:"values"` // string, int64, float64, bool, or map[string]any for an axis of objects
}

// An EnvVar is one variable of the child's environment.
type EnvVar struct {
	Name      string `json:"name"`
	Value     string `json:"-"`
	Sensitive bool   `json:"sensitive,omitempty"` // came from a sensitive variable, or its name says so
}

// Sample says how often instruments are read.
type Sample struct {
	Interval time.Duration `json:"interval_ns"` // 10 ms to 10 s; 100 ms by default
	AllGPUs  bool          `json:"all_gpus"`    // record the GPUs of others too; they never count
}

// Lanes say how many runs go on side by side, each on GPUs of its own.
type Lanes struct {
	Count   int    `json:"count"`   // 1 by default; LanesAuto: one a GPU
	Latency string `json:"latency"` // "alone": one run at a time measures; "shared": they do so side by side
}

// LanesAuto is a lane a GPU.
const LanesAuto = -1

// ParseLanes reads a number of lanes, or "auto".
func ParseLanes(text string) (int, error) {
	if text == "auto" {
		return LanesAuto, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > MaxLanes {
		return 0, fmt.Errorf("%q is no number of lanes: expected 1 to %d, or auto for one a GPU", text, MaxLanes)
	}
	return n, nil
}

// MaxLanes is more than the GPUs of any host.
const MaxLanes = 256

// Limits bound a run and a sweep. Zero means: no such limit.
type Limits struct {
	Timeout        time.Duration `json:"timeout_ns"`
	StartupTimeout time.Duration `json:"startup_timeout_ns"`
	SilenceTimeout time.Duration `json:"silence_timeout_ns"`
	IdleTimeout    time.Duration `json:"idle_timeout_ns"` // how long phase 0 waits for idle GPUs
	Retries        int           `json:"retries"`
	MaxFailures    int           `json:"max_failures"`
	SameFailure    int           `json:"same_failure"` // the first runs that fail alike end the sweep; 0: never
	SkipNeverFits  bool          `json:"skip_never_fits"`
	SkipDominated  bool          `json:"skip_dominated"`
	OnDirtyGPU     string        `json:"on_dirty_gpu"` // "wait", "skip", "stop"
}

// A Profile is one point of a sweep, fully resolved.
type Profile struct {
	ID       string      `json:"id"` // 16 hex digits over the sweep's name and the asked settings
	Sweep    string      `json:"sweep"`
	Index    int         `json:"index"` // position in the sweep, from 0
	Settings Settings    `json:"settings"`
	Axes     []AxisValue `json:"axes"` // the point: one value an axis, in source order
	Engine   Engine      `json:"engine"`

	// Model is nil for a Hugging Face id that the catalogue lacks.
	Model *models.Architecture `json:"-"`
	// Origins says where each setting came from: "matrix", "engine", "default",
	// "include", with the position in the file. Keyed by the setting's name.
	Origins map[string]string `json:"origins,omitempty"`
}

// An AxisValue is the value of one axis at one point. An axis of objects is
// followed by those of its keys that name no setting, each as a free value of
// its own: so they become columns as free axes do.
type AxisValue struct {
	Axis  string `json:"axis"`
	Value any    `json:"value"` // string, int64, float64, bool, map[string]any
	Free  bool   `json:"free"`
}

// Settings are what a profile asks of the engine. nil (or "") is left to vLLM.
// Settings that this struct does not name travel in Engine.Flags.
type Settings struct {
	Model     string `json:"model"`       // as the file names it: catalogue name, folder, or owner/name
	HFModelID string `json:"hf_model_id"` // what vLLM is given: an id or a folder
	Asked
}

// Asked are the settings beside the model, in their one form: what run.json and
// the table runs hold of a profile embeds it. 0 is left to vLLM as nil is. A
// further setting is a field here, nil where it is not asked for, and an entry
// in settings.go, which also has the column's description.
type Asked struct {
	Dtype                *string  `json:"dtype" parquet:"dtype,optional,dict"`
	KVCacheDtype         *string  `json:"kv_cache_dtype" parquet:"kv_cache_dtype,optional,dict"`
	Quantization         *string  `json:"quantization" parquet:"quantization,optional,dict"`
	TensorParallelSize   int64    `json:"tensor_parallel_size" parquet:"tensor_parallel_size,optional,dict"`
	PipelineParallelSize int64    `json:"pipeline_parallel_size" parquet:"pipeline_parallel_size,optional,dict"`
	InputLen             int64    `json:"input_len" parquet:"input_len,optional,dict" unit:"tokens"`
	OutputLen            int64    `json:"output_len" parquet:"output_len,optional,dict" unit:"tokens"`
	BatchSize            int64    `json:"batch_size" parquet:"batch_size,optional,dict"`
	MaxModelLen          *int64   `json:"max_model_len" parquet:"max_model_len,optional,dict" unit:"tokens"`
	MaxNumSeqs           *int64   `json:"max_num_seqs" parquet:"max_num_seqs,optional,dict"`
	MaxNumBatchedTokens  *int64   `json:"max_num_batched_tokens" parquet:"max_num_batched_tokens,optional,dict" unit:"tokens"`
	GPUMemoryUtilization *float64 `json:"gpu_memory_utilization" parquet:"gpu_memory_utilization,optional" unit:"ratio"`
	KVCacheMemoryBytes   *int64   `json:"kv_cache_memory_bytes" parquet:"kv_cache_memory_bytes,optional" unit:"bytes" doc:"Asked per GPU instead of a share of the memory; null: not given."`
	BlockSize            *int64   `json:"block_size" parquet:"block_size,optional,dict" unit:"tokens"`
	EnforceEager         *bool    `json:"enforce_eager" parquet:"enforce_eager,optional"`
	LoadFormat           *string  `json:"load_format" parquet:"load_format,optional,dict"`
	TrustRemoteCode      *bool    `json:"trust_remote_code" parquet:"trust_remote_code,optional"`
	NumIters             *int64   `json:"num_iters" parquet:"num_iters,optional,dict"`
	NumItersWarmup       *int64   `json:"num_iters_warmup" parquet:"num_iters_warmup,optional,dict"`
}

// Engine says what executes a profile.
type Engine struct {
	Kind        string   `json:"kind"`                // "vllm" or "simulator"
	Mode        string   `json:"mode"`                // "latency" or "session"
	Command     []string `json:"command,omitempty"`   // stands for `vllm`; nil: found on PATH
	Benchmark   []string `json:"benchmark,omitempty"` // stands for `vllm bench latency`
	Python      []string `json:"python,omitempty"`    // vLLM's own interpreter; session mode; nil: found from the command
	Start       string   `json:"start,omitempty"`     // "warm", "cold"; "": as it can be ("auto")
	VLLMVersion string   `json:"vllm_version,omitempty"`
	ModelRunner string   `json:"model_runner,omitempty"` // "v1", "v2", "auto"
	Defaults    string   `json:"defaults,omitempty"`     // "serve" pins the API server's token and sequence limits
	Flags       []Flag   `json:"flags,omitempty"`        // vLLM's own flags, sorted by name

	Simulator *Simulator `json:"simulator,omitempty"`
}

// A Flag is one of vLLM's own flags. Value is a string, int64, float64, bool,
// []any (a flag with several values) or map[string]any (JSON text).
type Flag struct {
	Name  string `json:"name"` // as written, with underscores
	Value any    `json:"value"`
}

// Simulator are the settings of engine "simulator".
type Simulator struct {
	GPU       string         `json:"gpu"`        // catalogue name; default h100-80gb
	Seed      int64          `json:"seed"`       // same seed, same results
	Noise     float64        `json:"noise"`      // relative standard deviation
	TimeScale float64        `json:"time_scale"` // simulated seconds a second of wall time
	Plant     map[string]any `json:"plant,omitempty"`
}

// Severity of a Diagnostic.
type Severity string

// The two severities.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// A Diagnostic is one thing that is wrong, or looks wrong, in a configuration.
// Its JSON has Terraform's shape.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // stable; docs/messages.md explains it
	Summary  string   `json:"summary"`
	Detail   string   `json:"detail"`
	Range    *Range   `json:"range,omitempty"`
	Snippet  *Snippet `json:"snippet,omitempty"`
}

// A Range is a piece of a file. Lines and columns count from 1, bytes from 0.
type Range struct {
	Filename string `json:"filename"`
	Start    Pos    `json:"start"`
	End      Pos    `json:"end"`
}

// A Pos is a place in a file.
type Pos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// A Snippet is the source at fault and the values that its expression used.
type Snippet struct {
	Context              string   `json:"context,omitempty"` // the enclosing block, as in `sweep "kv"`
	Code                 string   `json:"code"`
	StartLine            int      `json:"start_line"`
	HighlightStartOffset int      `json:"highlight_start_offset"`
	HighlightEndOffset   int      `json:"highlight_end_offset"`
	Values               []string `json:"values,omitempty"` // "matrix.dtype is \"fp8\""
}
