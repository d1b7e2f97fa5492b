package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// engineFunc is an Engine.
type engineFunc func(ctx context.Context, job *Job) (*Measurement, error)

func (f engineFunc) Run(ctx context.Context, job *Job) (*Measurement, error) { return f(ctx, job) }

// ticker is a Sampler of GPUs 0 to n-1 whose use a function tells.
type ticker struct {
	job   *Job
	every time.Duration
	used  func() int64
}

func (t *ticker) Sample(ctx context.Context, emit func([]Sample)) (*SamplerReport, error) {
	report := &SamplerReport{Name: "fake"}
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		var s []Sample
		for _, d := range t.job.Devices {
			s = append(s, Sample{GPU: int32(d.Index), TS: time.Now(), Offset: time.Since(t.job.StartedAt), Has: HasMemoryUsed,
				MemoryUsed: t.used()})
		}
		emit(s)
		report.Ticks++
		select {
		case <-ctx.Done():
			return report, nil
		case <-tick.C:
		}
	}
}

// keeper is a Sink and a History in memory, with attempts as the folder has.
type keeper struct {
	mu       sync.Mutex
	results  map[string]*Result   // final, by run id
	attempts map[string][]*Result // earlier ones
	samples  map[string][]Sample
	order    []string
	execs    []*Execution
	refuse   error // of Samples
	damaged  error // of Finished
	finish   error
	closed   int
}

// NewKeeper is newKeeper for those who may not know more of it.
func NewKeeper() Sink { return newKeeper() }

func newKeeper() *keeper {
	return &keeper{results: map[string]*Result{}, attempts: map[string][]*Result{}, samples: map[string][]Sample{}}
}

type keptRun struct {
	*keeper
	job *Job
}

func (k *keeper) Begin(job *Job) (RunSink, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.results[job.RunID]; old != nil {
		k.attempts[job.RunID] = append(k.attempts[job.RunID], old)
		delete(k.results, job.RunID)
	}
	k.samples[job.RunID] = nil
	return &keptRun{k, job}, nil
}

func (r *keptRun) Samples(s []Sample) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples[r.job.RunID] = append(r.samples[r.job.RunID], s...)
	return r.refuse
}

func (r *keptRun) ReadSamples(yield func([]Sample) error) error {
	r.mu.Lock()
	all := slices.Clone(r.samples[r.job.RunID])
	r.mu.Unlock()
	slices.SortStableFunc(all, func(a, b Sample) int { return cmp.Compare(a.Offset, b.Offset) })
	return yield(all)
}

func (r *keptRun) Close() error { r.closed++; return nil }

func (r *keptRun) Finish(result *Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finish != nil {
		return r.finish
	}
	r.results[r.job.RunID] = result
	r.order = append(r.order, r.job.RunID)
	return nil
}

func (k *keeper) Executions() ([]*Execution, error) { return slices.Clone(k.execs), nil }

func (k *keeper) Finished(id string) (map[string]*Result, error) {
	done := maps.Clone(k.results)
	maps.DeleteFunc(done, func(_ string, r *Result) bool {
		return r.Run.Execution != id || r.Run.Outcome == OutcomeInterrupted
	})
	return done, k.damaged
}

func (k *keeper) BeginExecution(e *Execution) error {
	k.execs = slices.DeleteFunc(k.execs, func(o *Execution) bool { return o.ID == e.ID })
	c := *e
	k.execs = append(k.execs, &c)
	return nil
}

func (k *keeper) FinishExecution(id string, state ExecutionState, _ any) error {
	for _, e := range k.execs {
		if e.ID == id {
			e.State = state
			return nil
		}
	}
	return errors.New("no such execution")
}

// machine is an Inspector: GPUs with what processes hold of them.
type machine struct {
	mu    sync.Mutex
	gpus  int
	held  []GPUProcess
	used  float64 // MiB, beyond the processes
	reads int
	fail  error
	after func(m *machine) // called after every reading, with the lock
}

func (m *machine) Devices(context.Context) ([]Device, error) {
	var list []Device
	for i := range m.gpus {
		list = append(list, Device{Index: i, Name: "Fake GPU", DriverVersion: "1.2"})
	}
	return list, nil
}

func (m *machine) Inspect(_ context.Context, gpus []int) (*DetailedGPUMetrics, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.fail != nil {
		return nil, m.fail
	}
	d := &DetailedGPUMetrics{Tool: "fake", Timestamp: time.Now()}
	for _, g := range gpus {
		used, total := m.used, 81559.0
		for _, p := range m.held {
			used += p.MemoryUsage.Value
		}
		d.GPUs = append(d.GPUs, GPUDetail{GPUID: g, VRAMUsedMB: &used, VRAMTotalMB: &total, Processes: slices.Clone(m.held)})
	}
	if m.after != nil {
		m.after(m)
	}
	return d, nil
}

func holds(pid int, name string, mib float64) GPUProcess {
	return GPUProcess{PID: pid, Name: name, MemoryUsage: &ValueUnit{mib, "MB"}}
}

// plan makes a sweep with one profile per batch size.
func plan(limits sweep.Limits, batches ...int64) *sweep.Plan {
	s := &sweep.Sweep{Name: "s", Repeats: 1, Limits: limits, Sample: sweep.Sample{Interval: 10 * time.Millisecond}}
	for i, b := range batches {
		s.Profiles = append(s.Profiles, &sweep.Profile{
			ID: fmt.Sprintf("%016x", b), Sweep: "s", Index: i, Engine: sweep.Engine{Kind: "vllm", Mode: "latency"},
			Settings: sweep.Settings{Model: "m", HFModelID: "o/m",
				Asked: sweep.Asked{TensorParallelSize: 1, PipelineParallelSize: 1, InputLen: 8, OutputLen: 8, BatchSize: b}},
			Axes: []sweep.AxisValue{{Axis: "batch_size", Value: b}},
		})
	}
	return &sweep.Plan{Files: []string{"a.hcl"}, Sweeps: []*sweep.Sweep{s}}
}

// notes is a Display that remembers what it was told.
type notes struct {
	notes []string
	shown []Progress
	rows  []Outcome
}

func (n *notes) Begin(*Schedule) {}

func (n *notes) RunBegins(int, *Job) {}

func (n *notes) Note(s string) { n.notes = append(n.notes, s) }

func (n *notes) Progress(p Progress) { n.shown = append(n.shown, p) }

func (n *notes) RunEnds(_ int, r *Result) { n.rows = append(n.rows, r.Run.Outcome) }

func ok(context.Context, *Job) (*Measurement, error) {
	return &Measurement{Outcome: OutcomeOK, Latency: &LatencyStats{AvgS: 1, NIters: 1}}, nil
}

func newRunner(k *keeper, e Engine) *Runner {
	return &Runner{
		Engines: func(*sweep.Profile, int) (Engine, error) { return e, nil },
		Samplers: func(job *Job) []Sampler {
			return []Sampler{&ticker{job: job, every: 2 * time.Millisecond, used: func() int64 { return 1 << 30 }}}
		},
		Sinks: []Sink{k}, History: k, Version: "test", Host: "box", Mark: "mark",
	}
}

// mustRun runs a plan and checks that nothing of it goes on.
func mustRun(t *testing.T, r *Runner, p *sweep.Plan, o Options) *Summary {
	t.Helper()
	defer nothingGoesOn(t)()
	sum, err := r.Run(context.Background(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
