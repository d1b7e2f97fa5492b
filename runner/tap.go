package runner

import (
	"sync"
	"time"
)

// activeBytes is how much memory must move to count as activity of a GPU.
const activeBytes = 1 << 20

// A tap listens to the samples and the engine while a run goes on: for the
// display, and to tell silence.
type tap struct {
	job     *Job
	display *lockedDisplay
	eta     func(elapsed time.Duration) time.Duration
	begun   time.Time

	mu     sync.Mutex
	gpus   map[int32]*gpuState
	active time.Time // last activity of a GPU
	last   Progress
}

type gpuState struct {
	used    int64
	sampled time.Time
}

func newTap(job *Job, eta func(time.Duration) time.Duration, d *lockedDisplay) *tap {
	t := &tap{job: job, display: d, eta: eta, begun: time.Now(), gpus: map[int32]*gpuState{}}
	for _, dev := range job.Devices {
		t.gpus[int32(dev.Index)] = &gpuState{used: -1}
	}
	return t
}

// take looks at one tick of samples.
func (t *tap) take(samples []Sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for i := range samples {
		s := &samples[i]
		g := t.gpus[s.GPU]
		if g == nil {
			continue // of the host, or of others
		}
		g.sampled = t.job.StartedAt.Add(s.Offset) // not its arrival: samplers deliver in batches
		if s.Has&HasUtilization != 0 && s.Utilization > 0 {
			t.active = now
		}
		if s.Has&HasMemoryUsed != 0 {
			if moved := s.MemoryUsed - g.used; g.used >= 0 && (moved > activeBytes || moved < -activeBytes) {
				t.active = now
			}
			g.used = s.MemoryUsed
		}
	}
}

// sampledSince reports whether each GPU was sampled after t0.
func (t *tap) sampledSince(t0 time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.gpus {
		if !g.sampled.After(t0) {
			return false
		}
	}
	return true
}

// lastActive is the time of a GPU's last activity; zero if there was none.
func (t *tap) lastActive() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active
}

// progress is Job.Progress.
func (t *tap) progress(p Progress) {
	switch p.Phase {
	case PhaseEngineWarmup, PhaseBenchWarmup, PhaseMeasure, PhaseTeardown:
		t.job.Pulse.Ready()
	}
	if p.Phase == PhaseTeardown {
		t.job.Turn.Give()
	}
	t.mu.Lock()
	changed := p.Phase != t.last.Phase || p.Note != t.last.Note
	t.last.Phase, t.last.Note = p.Phase, p.Note
	t.mu.Unlock()
	if changed {
		t.show()
	}
}

// show tells the display how the run stands.
func (t *tap) show() {
	t.mu.Lock()
	p := t.last
	for _, g := range t.gpus {
		p.MemoryBytes = max(p.MemoryBytes, g.used)
	}
	t.mu.Unlock()
	if p.Phase == "" {
		p.Phase = PhaseBaseline
	}
	p.ETA = t.eta(time.Since(t.begun))
	if t.job.Lane != nil {
		p.Lane = t.job.Lane.Number
	}
	t.display.Progress(p)
}
