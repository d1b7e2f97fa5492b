package attribution

import (
	"slices"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// busyPct is the utilization from which a GPU counts as at work.
const busyPct = 30

// A track is what the first pass over the samples keeps of one GPU, or of the
// host where there is none.
type track struct {
	gpu  int32 // runner.HostGPU for the host
	rank int   // its place in Job.Devices
	mem  series
	busy []stretch // when it was at work

	lastAt time.Duration // of the last sample, whatever it held
}

// A stretch is from the first sample to the last sample at which something
// held, and the sample after.
type stretch struct {
	before, from, to, after time.Duration
}

// A collection is the first pass over the samples.
type collection struct {
	start  time.Time // Job.StartedAt
	host   bool      // the figures are the host's: a machine without a GPU
	gpus   []int32   // in rank order
	tracks []*track  // in rank order
	first  time.Duration
	last   time.Duration
	n      int64 // samples that count
}

// offset of a moment from the start of the job; with a monotonic reading on
// both, a wall clock that jumps does not move it.
func (c *collection) offset(t time.Time) time.Duration { return t.Sub(c.start) }

func (c *collection) time(d time.Duration) *time.Time {
	t := c.start.Add(d).Round(0).UTC()
	return &t
}

// memory returns the memory that counts of a sample: the driver's on a GPU,
// the process tree's on a host (proportional where it is known, because pages
// that processes share count once in it).
func (c *collection) memory(s *runner.Sample) (int64, bool) {
	if !c.host {
		return s.MemoryUsed, s.Has&runner.HasMemoryUsed != 0
	}
	if s.Has&runner.HasHostPSS != 0 {
		return s.HostPSS, true
	}
	return s.HostRSS, s.Has&runner.HasHostRSS != 0
}

func (c *collection) track(gpu int32) *track {
	for _, t := range c.tracks {
		if t.gpu == gpu {
			return t
		}
	}
	return nil
}

// collect reads the samples once. GPUs that are not the job's never count.
func collect(m *runner.Measured) (*collection, error) {
	c := &collection{start: m.Job.StartedAt, host: len(m.Job.Devices) == 0}
	for i := range m.Job.Devices {
		c.gpus = append(c.gpus, int32(m.Job.Devices[i].Index))
	}
	if c.host {
		c.gpus = []int32{runner.HostGPU}
	}
	for i, g := range c.gpus {
		c.tracks = append(c.tracks, &track{gpu: g, rank: i})
	}
	if m.Samples == nil {
		return c, nil
	}
	err := m.Samples.ReadSamples(func(batch []runner.Sample) error {
		for i := range batch {
			c.take(&batch[i])
		}
		return nil
	})
	return c, err
}

func (c *collection) take(s *runner.Sample) {
	t := c.track(s.GPU)
	if t == nil {
		return
	}
	if c.n == 0 || s.Offset < c.first {
		c.first = s.Offset
	}
	c.last = max(c.last, s.Offset)
	c.n++
	if s.Has&runner.HasMemoryTotal != 0 {
		t.mem.total = s.MemoryTotal
	}
	if v, ok := c.memory(s); ok {
		t.mem.add(s.Offset, v)
	}
	if s.Has&runner.HasUtilization != 0 {
		t.work(s.Offset, s.Utilization >= busyPct)
	}
	t.lastAt = s.Offset
}

// work notes when the GPU was at work. Stretches that lie within 300 ms of
// each other are one: a driver tells of the last sixth of a second to second.
func (t *track) work(at time.Duration, busy bool) {
	k := len(t.busy)
	if k > 0 && t.busy[k-1].after == 0 {
		if busy {
			t.busy[k-1].to = at
		} else {
			t.busy[k-1].after = at
		}
		return
	}
	if !busy {
		return
	}
	if k > 0 && at-t.busy[k-1].to <= 300*time.Millisecond {
		t.busy[k-1].to, t.busy[k-1].after = at, 0
		return
	}
	if k >= maxSpans { // hours of on and off: forget the oldest half
		t.busy = slices.Delete(t.busy, 0, k/2)
	}
	t.busy = append(t.busy, stretch{before: t.lastAt, from: at, to: at})
}
