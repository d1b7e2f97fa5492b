package replay

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/vllm"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// The files of a recording.
const (
	infoFile    = "run.json"
	samplesFile = "timeline.csv"
	latencyFile = "latency.json"
	stdoutFile  = "stdout.log"
	stderrFile  = "stderr.log"
)

// Options say where a recording's model is described.
type Options struct {
	// Model gives the architecture of the model that the command names. nil, or
	// nil from it: config.json in the recording, then configs/<model>.json (or
	// configs/<model>/config.json) in it or beside it, then the catalogue.
	Model func(name string) *models.Architecture
}

// A Recording is a run that was recorded elsewhere.
type Recording struct {
	Job      *runner.Job
	Measured *runner.Measured
	// Result holds all but what an Attributor fills.
	Result *runner.Result
}

// info is run.json of a recording.
type info struct {
	Name     string            `json:"name"`
	Command  []string          `json:"command"`
	Env      map[string]string `json:"env"`
	TP       int64             `json:"tensor_parallel_size"`
	GPUs     []int             `json:"gpus"`
	ExitCode *int              `json:"exit_code"`
	TimedOut bool              `json:"timed_out"`
	Started  float64           `json:"started_at_unix_s"`
	WallS    float64           `json:"wall_s"`
}

// IsRecording reports whether a folder looks like a recording: it has a log
// and a run.json that tells when the process started.
func IsRecording(dir string) bool {
	_, err := readInfo(dir)
	return err == nil
}

func readInfo(dir string) (*info, error) {
	path := filepath.Join(dir, infoFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w; expected a folder with %s, %s, %s, %s and, if the run ended well, %s",
			dir, err, infoFile, stdoutFile, stderrFile, samplesFile, latencyFile)
	}
	var in info
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("recording %s: %s is not the JSON of a recording: %w", dir, infoFile, err)
	}
	if in.Started <= 0 || len(in.Command) == 0 {
		return nil, fmt.Errorf("recording %s: %s lacks started_at_unix_s or command; without them its samples cannot be laid over its log", dir, infoFile)
	}
	return &in, nil
}

// Load reads the recording in a folder. Samples and latency.json may be
// missing: the result says so. What the attribution of it needs, and the
// caller gives to a Sink, is in the Recording.
func Load(dir string, opts Options) (*Recording, error) {
	in, err := readInfo(dir)
	if err != nil {
		return nil, err
	}
	log, err := readLogs(dir)
	if err != nil {
		return nil, err
	}
	sec, frac := math.Modf(in.Started)
	start := time.Unix(int64(sec), int64(frac*1e9)).UTC().Round(time.Millisecond)
	end := start.Add(time.Duration(in.WallS * float64(time.Second)))

	profile := profileOf(in)
	profile.Model = architecture(dir, profile.Settings.HFModelID, opts)
	job := &runner.Job{
		RunID: in.Name, Execution: "recording", Profile: profile, Sweep: &sweep.Sweep{Name: "recording"},
		Repeat: 1, Attempt: 1, Dir: dir, StartedAt: start, Progress: func(runner.Progress) {},
	}
	m := &runner.Measurement{Command: in.Command, Env: in.Env, ExitCode: in.ExitCode, StartedAt: start, EndedAt: end, Events: log.Events}
	if n := len(log.Accounts); n > 0 {
		m.Account = log.Accounts[n-1]
	}
	m.Latency, err = readLatency(dir, profile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	m.Outcome, m.Detail = outcome(in, m)
	measured := &runner.Measured{Job: job, Measurement: m}
	if err := addSamples(dir, in, job, measured); err != nil {
		return nil, err
	}
	return &Recording{Job: job, Measured: measured, Result: newResult(job, m)}, nil
}

// Attribute lets an Attributor fill the result of the recording.
func (r *Recording) Attribute(a runner.Attributor) *runner.Result {
	a.Attribute(r.Result, r.Measured)
	return r.Result
}

func readLogs(dir string) (*vllmlog.Log, error) {
	var files []vllmlog.NamedReader
	for _, name := range []string{stdoutFile, stderrFile} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("recording %s: %w", dir, err)
		}
		defer func() { _ = f.Close() }() // only read
		files = append(files, vllmlog.NamedReader{Name: strings.TrimSuffix(name, ".log"), R: f})
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("recording %s: neither %s nor %s is there", dir, stdoutFile, stderrFile)
	}
	log, err := vllmlog.ReadLogs(files...)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", dir, err)
	}
	return log, nil
}

// readLatency reads the result of `vllm bench latency --output-json`.
func readLatency(dir string, p *sweep.Profile) (*runner.LatencyStats, error) {
	path := filepath.Join(dir, latencyFile)
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	l, err := vllm.ReadLatency(path, p.Settings.BatchSize, p.Settings.OutputLen)
	if err != nil {
		return nil, fmt.Errorf("recording %s: %w", dir, err)
	}
	return l, nil
}

// outcome tells how the run ended from its exit code and the log's error.
func outcome(in *info, m *runner.Measurement) (runner.Outcome, string) {
	switch {
	case in.TimedOut:
		return runner.OutcomeTimeout, "the recording says that the run timed out"
	case in.ExitCode != nil && *in.ExitCode == 0 && m.Latency != nil:
		return runner.OutcomeOK, ""
	case in.ExitCode != nil && *in.ExitCode == 0:
		return runner.OutcomeNoResult, "the run ended well but left no " + latencyFile
	case m.Account != nil && m.Account.Error != nil:
		e := m.Account.Error
		m.ErrorLine = e.Message
		switch o := runner.Outcome(e.Kind); o {
		case runner.OutcomeOOM, runner.OutcomeNoKVMemory, runner.OutcomeKVTooSmall, runner.OutcomeBadArgument:
			return o, e.Message
		}
		return runner.OutcomeEngineError, e.Message
	}
	return runner.OutcomeEngineError, "the run failed and its log names no failure"
}

// addSamples opens the samples and adds the devices that they are about.
func addSamples(dir string, in *info, job *runner.Job, m *runner.Measured) error {
	for _, g := range in.GPUs {
		job.Devices = append(job.Devices, runner.Device{Index: g, Vendor: "nvidia", Source: "recording"})
	}
	path := filepath.Join(dir, samplesFile)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("recording %s: %w", dir, err)
	}
	r := &csvReader{path: path, start: job.StartedAt}
	report := &runner.SamplerReport{Name: "recording", PowerKind: "averaged_1s"}
	var gaps []float64
	var last time.Duration
	err := r.ReadSamples(func(tick []runner.Sample) error {
		if report.Ticks++; report.Ticks > 1 && len(gaps) < 1<<20 {
			gaps = append(gaps, (tick[0].Offset-last).Seconds()*1e3)
		}
		last = tick[0].Offset
		for i := range tick {
			for k := range job.Devices {
				if d := &job.Devices[k]; d.Index == int(tick[i].GPU) && d.ReservedBytes == nil && tick[i].Has&runner.HasMemoryReserved != 0 {
					v := tick[i].MemoryReserved
					d.ReservedBytes = &v
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording %s: %w", dir, err)
	}
	if n := len(gaps); n > 0 {
		slices.Sort(gaps)
		p50, p99 := gaps[n/2], gaps[n*99/100]
		report.IntervalMS = runner.IntervalMS{Asked: math.Round(p50), P50: &p50, P99: &p99}
	}
	m.Samples, m.Reports = r, []*runner.SamplerReport{report}
	return nil
}

// architecture finds what the arithmetic knows of the model; nil: nothing.
func architecture(dir, model string, opts Options) *models.Architecture {
	if opts.Model != nil {
		if a := opts.Model(model); a != nil {
			return a
		}
	}
	name := filepath.Base(model)
	paths := []string{filepath.Join(dir, "config.json")}
	for _, at := range []string{dir, filepath.Dir(filepath.Clean(dir))} {
		paths = append(paths, filepath.Join(at, "configs", name+".json"), filepath.Join(at, "configs", name, "config.json"))
	}
	for _, path := range paths {
		if a := fromConfig(path, name); a != nil {
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

func fromConfig(path, name string) *models.Architecture {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	a, err := models.FromConfig(f, name)
	if err != nil {
		return nil
	}
	return a
}

// profileOf reads the command's flags back into settings.
func profileOf(in *info) *sweep.Profile {
	flags := flagsOf(in.Command)
	s := sweep.Settings{Asked: sweep.Asked{TensorParallelSize: max(1, in.TP), PipelineParallelSize: 1}}
	s.Read(flags)
	return &sweep.Profile{ID: in.Name, Sweep: "recording", Settings: s, Engine: sweep.Engine{Kind: "vllm", Mode: "latency"}}
}

// flagsOf reads "--name value", "--name=value" and "--name".
func flagsOf(argv []string) map[string]string {
	flags := map[string]string{}
	for i := 0; i < len(argv); i++ {
		name, ok := strings.CutPrefix(argv[i], "--")
		if !ok {
			continue
		}
		if k, v, with := strings.Cut(name, "="); with {
			flags[strings.ReplaceAll(k, "_", "-")] = v
			continue
		}
		name = strings.ReplaceAll(name, "_", "-")
		flags[name] = ""
		if i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "--") {
			i++
			flags[name] = argv[i]
		}
	}
	return flags
}
