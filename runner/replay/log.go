package replay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Recording is a run of which only the log is known.
type Recording struct {
	Job      *runner.Job
	Measured *runner.Measured
	// Result holds all but what an Attributor fills.
	Result *runner.Result
}

// maxRanks is more than any engine has in one direction of parallelism.
const maxRanks = 1024

// LoadLog makes a recording of a log: log is what was read of files. Its name is
// that of the first file; its model is described by config.json beside it, else by
// the catalogue. A log tells neither when it was written (vLLM's stamps have
// no year) nor how the benchmark went: the start is the zero time, and a run
// whose engine came up ends as no_result.
func LoadLog(files []string, log *vllmlog.Log) (*Recording, error) {
	if len(files) == 0 || len(log.Accounts) == 0 {
		return nil, fmt.Errorf("%s: nothing of vLLM's is in it, expected the log of an engine", strings.Join(files, " and "))
	}
	a := log.Accounts[len(log.Accounts)-1]
	if a.Model == nil {
		return nil, fmt.Errorf("%s: the log does not name its model, and a run of an unknown model can be compared with none",
			strings.Join(files, " and "))
	}
	name := strings.TrimSuffix(filepath.Base(files[0]), filepath.Ext(files[0]))
	s := sweep.Settings{Model: *a.Model, HFModelID: *a.Model, Asked: sweep.Asked{
		TensorParallelSize: 1, PipelineParallelSize: 1, MaxModelLen: a.MaxModelLen, LoadFormat: a.LoadFormat}}
	for _, n := range []struct {
		from *int64
		to   *int64
	}{{a.TensorParallelSize, &s.TensorParallelSize}, {a.PipelineParallelSize, &s.PipelineParallelSize}} {
		if n.from != nil {
			*n.to = *n.from
		}
		if *n.to < 1 || *n.to > maxRanks {
			return nil, fmt.Errorf("%s: the log names a parallel size of %d; expected 1 to %d", strings.Join(files, " and "),
				*n.to, maxRanks)
		}
	}
	profile := &sweep.Profile{
		ID:       name,
		Sweep:    "recording",
		Settings: s,
		Engine:   sweep.Engine{Kind: "vllm", Mode: "latency"},
	}
	dir := filepath.Dir(files[0])
	profile.Model = architecture(dir, *a.Model)
	job := &runner.Job{RunID: name, Execution: "recording", Profile: profile, Sweep: &sweep.Sweep{Name: "recording"},
		Repeat: 1, Attempt: 1, Dir: dir, Progress: func(runner.Progress) {}}
	m := &runner.Measurement{Account: a, Events: log.Events, StartedAt: time.Time{}, EndedAt: time.Time{}}
	switch {
	case a.Error != nil:
		m.Outcome, m.Detail, m.ErrorLine = outcome(a.Error), a.Error.Message, a.Error.Message
	case a.AvailableKVCacheGB == nil && a.TotalGPUKVCacheTokens == nil:
		m.Outcome, m.Detail = runner.OutcomeEngineError, "the log ends before the engine has its KV cache"
	default:
		m.Outcome, m.Detail = runner.OutcomeNoResult, "a log alone: no benchmark was recorded"
	}
	return &Recording{Job: job, Measured: &runner.Measured{Job: job, Measurement: m}, Result: newResult(job, m)}, nil
}

// Attribute lets an Attributor fill the result of the recording.
func (r *Recording) Attribute(a runner.Attributor) *runner.Result {
	a.Attribute(r.Result, r.Measured)
	return r.Result
}

// Rename gives the run another name than that of its log.
func (r *Recording) Rename(name string) {
	r.Job.RunID, r.Job.Profile.ID = name, name
	r.Result.Run.RunID, r.Result.Run.ProfileID = name, name
}

// SetGPU names the devices of a recording that does not tell what they are; with
// none, it gives it as many as its ranks. It refuses an empty name.
func (r *Recording) SetGPU(name string) error {
	if name == "" {
		return errors.New("the name of the GPU is empty")
	}
	vendor := "nvidia"
	if g, ok := models.LookupGPU(name); ok {
		vendor = g.Vendor
	}
	s := &r.Job.Profile.Settings
	for len(r.Job.Devices) < int(min(s.TensorParallelSize*s.PipelineParallelSize, maxRanks)) {
		r.Job.Devices = append(r.Job.Devices, runner.Device{Index: len(r.Job.Devices), Vendor: vendor, Source: "recording"})
	}
	for i := range r.Job.Devices {
		if r.Job.Devices[i].Name == "" {
			r.Job.Devices[i].Name, r.Job.Devices[i].Vendor = name, vendor
		}
	}
	r.Result.GPUInfo = r.Job.Devices
	return nil
}

// outcome is how a run ended whose log tells an error.
func outcome(e *runner.AccountError) runner.Outcome {
	switch o := runner.Outcome(e.Kind); o {
	case runner.OutcomeOOM, runner.OutcomeNoKVMemory, runner.OutcomeKVTooSmall, runner.OutcomeBadArgument:
		return o
	}
	return runner.OutcomeEngineError
}

// architecture finds what the arithmetic knows of the model; nil: nothing.
func architecture(dir, model string) *models.Architecture {
	if f, err := os.Open(filepath.Join(dir, "config.json")); err == nil {
		defer f.Close() //nolint:errcheck // only read from
		if a, err := models.FromConfig(f, filepath.Base(model)); err == nil {
			return a
		}
	}
	if c, err := models.Builtin(); err == nil {
		if a, ok := c.Lookup(model); ok {
			return a
		}
	}
	return nil
}

// newResult is what a recording tells without its samples. What a parameter and
// a token cost is only said as far as the log says it.
func newResult(job *runner.Job, m *runner.Measurement) *runner.Result {
	r := runner.NewResult(job)
	r.Timestamp, r.Missing, r.DtypeMetadata = m.EndedAt, nil, runner.DtypeMetadata{}
	r.Run.StartedAt, r.Run.EndedAt, r.Run.WallS = m.StartedAt, m.EndedAt, m.EndedAt.Sub(m.StartedAt).Seconds()
	r.BenchmarkParameters.Engine, r.EngineMetadata.LoadFormat = "import", nil
	r.Take(m)
	r.LogEvents = nil // they are read from the logs whenever they are needed
	if a := m.Account; a != nil {
		r.DtypeMetadata = runner.DtypeMetadata{Dtype: a.Dtype, KVCacheDtype: a.KVCacheDtype, Quantization: a.Quantization}
	}
	return r
}
