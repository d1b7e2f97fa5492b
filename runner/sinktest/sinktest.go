// Package sinktest is what every runner.Sink must do, as one test that each of
// them runs.
package sinktest

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// begun is when the runs of the tests start.
func begun() time.Time { return time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC) }

// job is an attempt of the run of that name.
func job(name string, attempt int) *runner.Job {
	p := &sweep.Profile{
		ID: name, Sweep: "suite", Engine: sweep.Engine{Kind: "vllm", Mode: "latency"},
		Settings: sweep.Settings{Model: "m", HFModelID: "o/m",
			Asked: sweep.Asked{TensorParallelSize: 1, PipelineParallelSize: 1, BatchSize: 1}},
	}
	const execution = "20261120T020000Z-abcdef"
	return &runner.Job{
		RunID: runner.RunID(execution, p, 1), Execution: execution, Profile: p, Sweep: &sweep.Sweep{Name: "suite"},
		Repeat: 1, Attempt: attempt, StartedAt: begun(), Progress: func(runner.Progress) {}, Pulse: &runner.Pulse{},
	}
}

// feed gives a run n ticks of each of the GPUs, from as many goroutines, in slices
// that are used again, as samplers do.
func feed(t *testing.T, run runner.RunSink, gpus, n int) {
	t.Helper()
	var group sync.WaitGroup
	for gpu := range gpus {
		group.Go(func() {
			tick := make([]runner.Sample, 1)
			for i := range n {
				offset := time.Duration(i)*10*time.Millisecond + time.Duration(gpu)*time.Millisecond
				tick[0] = runner.Sample{
					TS: begun().Add(offset), Offset: offset, GPU: int32(gpu), Source: "suite",
					Has: runner.HasMemoryUsed, MemoryUsed: int64(gpu)<<32 + int64(i),
				}
				if err := run.Samples(tick); err != nil {
					t.Errorf("sample %d of GPU %d: %v", i, gpu, err)
					return
				}
				tick[0] = runner.Sample{}
			}
		})
	}
	group.Wait()
}

// held are the samples that a run gives back, as often as it is asked; nil where
// it gives none.
func held(t *testing.T, run runner.RunSink) []string {
	t.Helper()
	reader, ok := run.(runner.SampleReader)
	if !ok {
		return nil
	}
	var twice [2][]string
	for i := range twice {
		twice[i] = []string{}
		last := time.Duration(-1)
		err := reader.ReadSamples(func(batch []runner.Sample) error {
			for _, s := range batch {
				if s.Offset < last {
					t.Errorf("a sample at %v follows one at %v", s.Offset, last)
				}
				last = s.Offset
				twice[i] = append(twice[i], fmt.Sprintf("%d %d %v", s.GPU, s.MemoryUsed, s.Offset))
			}
			return nil
		})
		if err != nil {
			t.Errorf("samples do not come back: %v", err)
		}
	}
	if !slices.Equal(twice[0], twice[1]) {
		t.Errorf("asked twice, it gives %d and %d samples, and not the same", len(twice[0]), len(twice[1]))
	}
	enough := errors.New("enough")
	err := reader.ReadSamples(func([]runner.Sample) error { return enough })
	if len(twice[0]) > 0 && !errors.Is(err, enough) {
		t.Errorf("a reader that has enough gets %v", err)
	}
	return twice[0]
}

func begin(t *testing.T, sink runner.Sink, job *runner.Job) runner.RunSink {
	t.Helper()
	run, err := sink.Begin(job)
	if err != nil {
		t.Fatalf("begin %s, attempt %d: %v", job.RunID, job.Attempt, err)
	}
	return run
}

func finish(t *testing.T, run runner.RunSink, job *runner.Job) {
	t.Helper()
	r := runner.NewResult(job)
	r.Run.Outcome, r.Run.EndedAt = runner.OutcomeOK, job.StartedAt.Add(time.Second)
	if err := run.Finish(r); err != nil {
		t.Errorf("finish %s, attempt %d: %v", job.RunID, job.Attempt, err)
	}
}

// Test runs all of it on a sink that holds nothing yet.
func Test(t *testing.T, sink runner.Sink) {
	t.Run("samples", func(t *testing.T) {
		job := job("samples", 1)
		run := begin(t, sink, job)
		feed(t, run, 3, 100)
		if got := held(t, run); got != nil && len(got) != 300 {
			t.Errorf("%d samples come back of 300", len(got))
		}
		finish(t, run, job)
	})
	t.Run("none", func(t *testing.T) {
		job := job("none", 1)
		run := begin(t, sink, job)
		if got := held(t, run); len(got) != 0 {
			t.Errorf("%d samples come back of none", len(got))
		}
		finish(t, run, job)
	})
	t.Run("cut off", func(t *testing.T) {
		run := begin(t, sink, job("cut", 1))
		feed(t, run, 1, 20)
		if c, ok := run.(io.Closer); ok {
			if err := c.Close(); err != nil {
				t.Errorf("end an attempt without a result: %v", err)
			}
		}
		second := job("cut", 2)
		run = begin(t, sink, second)
		feed(t, run, 1, 10)
		if got := held(t, run); got != nil && len(got) != 10 {
			t.Errorf("%d samples come back of the second attempt, want its 10", len(got))
		}
		finish(t, run, second)
	})
}
