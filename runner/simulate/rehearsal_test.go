package simulate

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep"
)

// A rehearsal is a run without processes and without waiting: the script's steps at
// the moments at which the player would take them, sampled and read as a live run is.
// What a real machine adds is drawn: lines and samples that come late, lost ticks.
type rehearsal struct {
	config *Config
	script *script
	result *runner.Result

	levels  [][]change // by rank, in the order of time
	entered map[runner.Phase]time.Duration
	failed  runner.Phase // "": it ended well
	samples []runner.Sample
}

// A change is what a rank holds, or does, from a moment on.
type change struct {
	at     time.Duration
	bytes  int64
	power  float64 // W
	joules float64 // of the counter, at that moment
	drain  float64 // W of the counter from then on
}

// rehearse runs a profile once. execution names it, interval is of its samples.
func rehearse(
	t testing.TB, p *sweep.Profile, execution string, interval time.Duration, rng *rand.Rand,
) *rehearsal {
	t.Helper()
	args, c := jobOf(t, p, 1)
	c.Stay = samplesOfFailure * interval
	req, err := parseArgs("vllm bench latency", args)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.resolve(req); err != nil {
		t.Fatal(err)
	}
	h := &rehearsal{config: &c, script: scriptOf(&c, req, nil, nil), entered: map[runner.Phase]time.Duration{}}
	device, err := NewDevice(filepath.Join(t.TempDir(), "state"), *c.GPU, 8)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	job := &runner.Job{
		RunID: fmt.Sprintf("%s/%s-r1", execution, p.ID), Execution: execution, Profile: p, Repeat: 1, Attempt: 1,
		Sweep: &sweep.Sweep{Name: p.Sweep, Sample: sweep.Sample{Interval: interval}}, Synthetic: true, StartedAt: start,
		Devices: device.list(make([]use, device.Count))[:max(1, p.Settings.TensorParallelSize)],
	}
	m := &runner.Measurement{StartedAt: start.Add(late(rng, 10*time.Millisecond))}
	up := m.StartedAt.Add(late(rng, 20*time.Millisecond)).Sub(start)
	end := h.play(m, start, up, c.TimeScale, rng)
	m.EndedAt = start.Add(end)
	h.sample(job, interval, end, rng)
	zero := 0.0
	reading := &runner.DetailedGPUMetrics{}
	for i := range job.Devices {
		reading.GPUs = append(reading.GPUs, runner.GPUDetail{GPUID: i, VRAMUsedMB: &zero})
	}
	h.result = runner.NewResult(job)
	h.result.Take(m)
	report := &runner.SamplerReport{Name: "simulated", PowerKind: "instant", Ticks: int64(len(h.samples)),
		IntervalMS: runner.IntervalMS{Asked: milliseconds(interval)}}
	(&attribution.Attributor{}).Attribute(h.result, &runner.Measured{Job: job, Measurement: m, Samples: h,
		Reports: []*runner.SamplerReport{report}, Baseline: reading, Final: reading})
	return h
}

// late is a delay of this mean, now and then of a busy machine.
func late(rng *rand.Rand, mean time.Duration) time.Duration {
	d := time.Duration(rng.ExpFloat64() * float64(mean))
	if rng.IntN(200) == 0 {
		d += time.Duration(rng.IntN(15)) * time.Millisecond
	}
	return min(d, max(10*mean, 15*time.Millisecond))
}

// play takes the steps from the moment up on, hands the log to its reader, and
// says when the process ended.
func (h *rehearsal) play(m *runner.Measurement, start time.Time, up time.Duration, scale float64, rng *rand.Rand) time.Duration {
	s := h.script
	reader := vllmlog.NewReader(vllmlog.ReaderOptions{})
	streams := map[bool]*lines{}
	for _, stderr := range []bool{false, true} {
		streams[stderr] = &lines{name: map[bool]string{false: "stdout", true: "stderr"}[stderr], to: reader}
	}
	ranks := 0
	if s.figures != nil {
		ranks = s.figures.ranks
	}
	h.levels = make([][]change, max(ranks, 1))
	for i := range h.levels {
		h.levels[i] = []change{{}}
	}
	now := up
	pid := func(who int) int {
		if who == 0 && ranks == 1 {
			who = engine
		}
		return 100 + who
	}
	for i := range s.steps {
		st := &s.steps[i]
		if st.stays {
			up += h.config.Stay
		}
		now = max(now, up+s.wall(st, scale)+late(rng, 300*time.Microsecond))
		if _, there := h.entered[st.phase]; !there {
			h.entered[st.phase] = now
		}
		h.step(st, now, scale)
		if text := s.render(st, start.Add(now), pid); text != nil {
			streams[st.stderr].write(text, start.Add(now+late(rng, 700*time.Microsecond)))
		}
		if st.outcome != nil {
			code := st.outcome.code
			m.ExitCode = &code
		}
	}
	streams[false].end()
	streams[true].end()
	m.Account, m.Events = reader.Last(), reader.Events()
	m.Outcome = runner.OutcomeOK
	if s.fail != nil {
		h.failed = s.steps[len(s.steps)-1].phase
		m.Outcome = runner.OutcomeEngineError
		if m.Account != nil && m.Account.Error != nil {
			m.Outcome, _ = vllmlog.OutcomeOf(m.Account.Error)
		}
	} else if avg, percentiles, ok := summary(s.figures.latencies); ok {
		m.Latency = &runner.LatencyStats{AvgS: avg, LatenciesS: s.figures.latencies, NIters: len(s.figures.latencies), Percentiles: percentiles}
	}
	return now + late(rng, 3*time.Millisecond)
}

// step changes what the ranks hold and do.
func (h *rehearsal) step(st *step, now time.Duration, scale float64) {
	if st.memory == nil && st.doing == nil {
		return
	}
	idle := speedOf(h.script.figures.gpu).idle
	for rank := range h.levels {
		c := h.at(rank, now)
		if bytes, ok := st.memory[rank]; ok {
			c.bytes = bytes
		}
		if st.doing != nil {
			c.power = st.doing.power
		}
		c.drain = c.power*h.script.speedAt(st.phase, scale) - idle
		h.levels[rank] = append(h.levels[rank], c)
	}
}

// at is the truth of a rank at a moment.
func (h *rehearsal) at(rank int, now time.Duration) change {
	i, _ := slices.BinarySearchFunc(h.levels[rank], now, func(c change, at time.Duration) int {
		if c.at <= at {
			return -1
		}
		return 1
	})
	c := h.levels[rank][max(i-1, 0)]
	c.joules += c.drain * (now - c.at).Seconds()
	c.at = now
	return c
}

// sample reads all GPUs at each tick, until one tick after the end.
func (h *rehearsal) sample(job *runner.Job, interval, end time.Duration, rng *rand.Rand) {
	idle := 0.0
	if f := h.script.figures; f != nil {
		idle = speedOf(f.gpu).idle
	}
	gap, last := false, min(end+2*interval, end+time.Second)
	for tick := interval; tick <= last; tick += interval {
		at := tick + late(rng, 200*time.Microsecond)
		if rng.IntN(500) == 0 || at > tick+interval { // the tick was missed
			gap = true
			continue
		}
		for gpu := range job.Devices {
			s := runner.Sample{TS: job.StartedAt.Add(at), Offset: at, GPU: int32(gpu), Gap: gap, Source: "simulated", Has: sampleFields}
			s.Power, s.Energy = idle, idle*at.Seconds()
			if gpu < len(h.levels) && at < end {
				c := h.at(gpu, at)
				s.MemoryUsed, s.Power, s.Energy = c.bytes, max(c.power, idle), s.Energy+c.joules
			} else if gpu < len(h.levels) {
				s.Energy += h.at(gpu, end).joules
			}
			h.samples = append(h.samples, s)
		}
		gap = false
		if tick > end {
			break
		}
	}
}

// ReadSamples gives the samples tick by tick.
func (h *rehearsal) ReadSamples(yield func([]runner.Sample) error) error { return yield(h.samples) }

// lines cuts one stream into the lines and the pieces of bars that a process's
// output comes in.
type lines struct {
	name    string
	to      *vllmlog.Reader
	held    []byte
	arrived time.Time
}

func (l *lines) write(text []byte, arrived time.Time) {
	if arrived.Before(l.arrived) {
		arrived = l.arrived
	}
	for {
		i := bytes.IndexAny(text, "\r\n")
		if i < 0 {
			break
		}
		if len(l.held)+i > 0 || text[i] == '\n' {
			if i > 0 {
				l.arrived = arrived
			}
			l.held = append(l.held, text[:i]...)
			if text[i] == '\r' {
				l.to.Part(l.name, l.held, l.arrived)
			} else {
				l.to.Line(l.name, l.held, l.arrived)
			}
			l.held = l.held[:0]
		}
		text = text[i+1:]
	}
	if len(text) > 0 {
		l.held, l.arrived = append(l.held, text...), arrived
	}
}

func (l *lines) end() {
	if len(l.held) > 0 {
		l.to.Line(l.name, l.held, l.arrived)
	}
}
