package runner

import (
	"context"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// How a run goes
//
// The Runner takes the profiles of a plan in order, each as often as its sweep
// repeats it, one at a time. For each run:
//
//	0 baseline  the Inspector says that the GPUs are idle, or who holds them
//	1 monitor   every Sampler starts; its samples go to every Sink at once
//	2 engine    the Engine runs the benchmark and notes what its log says, when
//	3 stop      the Samplers stop after the engine's process tree is gone
//	4 read      the engine's log has become an Account
//	5 detail    the Inspector reads the GPU tools once, in full
//	6 final     memory must be back at the baseline; what stays is recorded
//
// Then the Attributor turns account and samples into phases, steps and the
// breakdown, and every Sink finishes the run: run.json last, by rename. A run
// that fails is a row like any other; the sweep goes on.

// An Engine executes one attempt of a run. It returns an error only where the
// machine or vramsweep is at fault; an engine that fails is a Measurement with
// its Outcome. When Run returns, nothing of what it started is left. When ctx
// ends, it ends the engine and returns what was measured until then; the cause
// of ctx (a limit of the sweep, an interruption) decides the outcome of the run
// and the engine need not look at it.
type Engine interface {
	Run(ctx context.Context, job *Job) (*Measurement, error)
}

// A SharedEngine can serve several runs with one process (session mode). The
// Runner sets Job.KeepEngine on every run but the last of a group; between such
// runs the GPUs are not expected to be idle and the baseline is that of the
// group's first run. An engine that fails a run ends its process: the next run
// of the group then starts a fresh one.
type SharedEngine interface {
	Engine
	// Shares reports whether one process can serve both profiles.
	Shares(a, b *sweep.Profile) bool
	// Alive reports whether a process is there that would serve the profile.
	Alive(p *sweep.Profile) bool
	// Close ends the process, if there is one, and all that it started.
	Close(ctx context.Context) ([]Process, error)
}

// A PromptEngine uses the GPUs from the moment Run is called until it returns:
// the Runner has each GPU sampled for Margin before and after that.
type PromptEngine interface {
	Engine
	Margin(job *Job) time.Duration
}

// A PreparedEngine has something ready before a run's baseline is taken: what
// it starts by then is no part of the run.
type PreparedEngine interface {
	Engine
	Prepare(ctx context.Context, job *Job)
}

// A Sampler reads an instrument at a fixed rate until ctx ends. The slice that
// it gives to emit holds one tick and is reused: emit copies what it keeps.
// A Sampler whose instrument fails goes on as well as it can and says so in
// its report; it returns an error only if it never had a sample.
type Sampler interface {
	Sample(ctx context.Context, emit func([]Sample)) (*SamplerReport, error)
}

// A Sink keeps results. Begin is called once an attempt, before its samplers
// start.
type Sink interface {
	Begin(job *Job) (RunSink, error)
}

// A RunSink keeps one attempt: the samples as they come, from any goroutine,
// then the result. After Finish has returned nil, the run outlives a crash.
type RunSink interface {
	Samples(samples []Sample) error
	Finish(result *Result) error
}

// An Inspector reads the devices once, in full, and slowly.
type Inspector interface {
	Devices(ctx context.Context) ([]Device, error)
	Inspect(ctx context.Context, gpus []int) (*DetailedGPUMetrics, error)
}

// An Attributor says where the memory went: it fills phases, steps, ranks,
// timeline, snapshots and breakdown of the result from what was measured.
type Attributor interface {
	Attribute(result *Result, measured *Measured)
}

// A Job is one attempt of one run.
type Job struct {
	RunID     string // unique over executions: <execution>/<sweep>-<profile id>-r<repeat>, with "-" for "/"
	Execution string
	Profile   *sweep.Profile
	Sweep     *sweep.Sweep
	Written   *sweep.Profile // Profile as it may be written down: without secrets; nil: as it is
	Repeat    int            // from 1
	Attempt   int            // from 1
	Dir       string         // the run's folder; raw logs and the engine's files go there
	Devices   []Device       // the GPUs of the run, in rank order; empty on a machine without one
	Synthetic bool
	// KeepEngine: the next run shares this one's engine process.
	KeepEngine bool
	Mark       string         // proc.Spec.Mark of all that the run starts
	StartedAt  time.Time      // with its monotonic reading: offsets count from here
	Progress   func(Progress) // never nil
	Pulse      *Pulse         // the engine tells here that it speaks, is ready, and its process tree
	Shard      string         // part of the plan, as "3/6"; "": all of it
	Lane       *Lane          // what it has for itself beside other runs; nil: there are none
	Turn       *Turn          // to measure; the engine takes it
}

// Record is the profile as results may hold it.
func (j *Job) Record() *sweep.Profile {
	if j.Written != nil {
		return j.Written
	}
	return j.Profile
}

// Progress is what a display wants to know while a run goes on.
type Progress struct {
	Phase       Phase
	MemoryBytes int64 // highest of the current use over the run's GPUs; 0 before the first sample
	Note        string
	Lane        int // 0: there is one

	// ETA is that of the execution, from the runs so far; 0: unknown. The Runner
	// fills it.
	ETA time.Duration
}

// Measured is all that one attempt brought back, as the Attributor needs it.
type Measured struct {
	Job         *Job
	Measurement *Measurement
	Samples     SampleReader
	Reports     []*SamplerReport
	Baseline    *DetailedGPUMetrics
	Detail      *DetailedGPUMetrics
	Final       *DetailedGPUMetrics
}

// A SampleReader yields the samples of a run again, ordered by time, as often
// as it is asked: a run of hours does not fit in memory.
type SampleReader interface {
	ReadSamples(yield func([]Sample) error) error
}

// A Measurement is what an Engine brings back.
type Measurement struct {
	Command   []string          // argv as it was executed, secrets masked
	Env       map[string]string // what was set or matters, secrets masked
	Outcome   Outcome
	Detail    string // one sentence
	ErrorLine string // the log line that explains the outcome
	ExitCode  *int
	Signal    string
	StartedAt time.Time
	EndedAt   time.Time

	Account   *Account // nil where there was no log to read
	Events    []LogEvent
	Latency   *LatencyStats
	Logs      []RawLog
	Session   *Session          // what the engine itself told; session mode only
	Start     *Start            // how the engine was started
	Leftovers []Process         // outlived the engine and were ended
	Retriable bool              // the failure can pass: hub, port in use, NCCL, device busy
	Decided   bool              // the engine ended by itself: a limit that broke while its remains ended changes nothing
	Notes     []string          // what else a reader of the run should know
	Missing   map[string]string // section: why it cannot be there, where the engine knows better than the Runner
}

// A LogEvent is a line of the engine's log that marks a moment of the run.
type LogEvent struct {
	Kind    EventKind `json:"kind"`
	Arrived time.Time `json:"arrived,omitzero"` // when the line was read; zero if the log was recorded by others
	Stamp   time.Time `json:"stamp,omitzero"`   // the line's own whole second, without year and zone; zero if it has none
	// UncertaintyS is that of Arrived, where it was not read off a clock.
	UncertaintyS float64       `json:"uncertainty_s,omitempty"`
	Rank         int           `json:"rank"`              // -1: of the engine, not of a rank
	PID          int           `json:"pid,omitempty"`     // 0 if the line names none
	File         string        `json:"file"`              // "stdout", "stderr" or "session"
	Line         int           `json:"line"`              // from 1
	Took         time.Duration `json:"took_ns,omitempty"` // a duration that the line names, e.g. of loading; 0 if none
}

// EventKind names the moment that a LogEvent marks.
type EventKind string

// The moments, in the order of a run.
const (
	EventFirstLine    EventKind = "first_line"    // vLLM speaks
	EventEngineInit   EventKind = "engine_init"   // the engine process prints its banner
	EventLoadStart    EventKind = "load_start"    // weights start to load
	EventLoadEnd      EventKind = "load_end"      // "Model loading took"
	EventProfileStart EventKind = "profile_start" // first sign of compiling or profiling
	EventProfileEnd   EventKind = "profile_end"   // "Available KV cache memory"
	EventKVReady      EventKind = "kv_ready"      // "GPU KV cache size"
	EventCaptureStart EventKind = "capture_start" // first bar of graph capture
	EventCaptureEnd   EventKind = "capture_end"   // "Graph capturing finished"
	EventEngineReady  EventKind = "engine_ready"  // "init engine ... took"
	EventWarmupStart  EventKind = "warmup_start"  // "Warming up..."
	EventWarmupIter   EventKind = "warmup_iter"   // one warm-up iteration done (tqdm)
	EventMeasureStart EventKind = "measure_start" // first bar of the measured iterations
	EventMeasureIter  EventKind = "measure_iter"  // one measured iteration done (tqdm)
	EventMeasureEnd   EventKind = "measure_end"   // results printed
	EventShutdown     EventKind = "shutdown"      // the engine says that it stops
	EventError        EventKind = "error"         // the true error
	EventRequestStart EventKind = "request_start" // session mode: a profile begins
	EventRequestEnd   EventKind = "request_end"   // session mode: a profile ends
)

// Outcome is how a run ended, as it stands in the tables.
type Outcome string

// The outcomes. Everything but OutcomeOK and OutcomeSkipped is a failure.
const (
	OutcomeOK             Outcome = "ok"
	OutcomeOOM            Outcome = "oom"
	OutcomeNoKVMemory     Outcome = "no_kv_memory"
	OutcomeKVTooSmall     Outcome = "kv_too_small"
	OutcomeEngineError    Outcome = "engine_error"
	OutcomeBadArgument    Outcome = "bad_argument"
	OutcomeNoResult       Outcome = "no_result"       // ended well but left no readable result
	OutcomeTimeout        Outcome = "timeout"         // of the whole attempt
	OutcomeStartupTimeout Outcome = "startup_timeout" // not ready in time
	OutcomeSilenceTimeout Outcome = "silence_timeout" // no output and no GPU activity
	OutcomeInterrupted    Outcome = "interrupted"
	OutcomeSkipped        Outcome = "skipped"
	OutcomeDirtyGPU       Outcome = "dirty_gpu" // the GPUs did not become idle
)

// Failed reports whether the outcome counts as a failure.
func (o Outcome) Failed() bool { return o != OutcomeOK && o != OutcomeSkipped }

// Phase is a stretch of a run.
type Phase string

// The phases, in order.
const (
	PhaseBaseline   Phase = "baseline"
	PhaseEngineInit Phase = "engine_init"
	PhaseLoad       Phase = "load"
	PhaseProfile    Phase = "profile"
	// PhaseEstimateCapture is a capture of graphs before the KV cache, for an
	// estimate of what they take; they are dropped.
	PhaseEstimateCapture Phase = "estimate_capture"
	PhaseKVAlloc         Phase = "kv_alloc"
	// PhaseKernelWarmup lies between the KV cache and the capture, where the
	// driver's level moves there.
	PhaseKernelWarmup Phase = "kernel_warmup"
	PhaseCapture      Phase = "capture"
	PhaseEngineWarmup Phase = "engine_warmup"
	PhaseBenchWarmup  Phase = "bench_warmup"
	PhaseMeasure      Phase = "measure"
	PhaseTeardown     Phase = "teardown"
	PhaseFinal        Phase = "final"
)
