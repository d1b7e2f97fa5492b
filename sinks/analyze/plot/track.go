package plot

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A track is what is drawn of one GPU, or of the host.
type track struct {
	gpu      int32
	phases   []span
	cols     columns // memory, GiB
	watts    columns
	hasPower bool
	levels   []level
	vllm     []vllmLevel
	buffers  float64 // GiB, calculated; in no line of vLLM's log
	budget   *runner.BeyondBudget
}

// A span is one phase, in seconds since the start.
type span struct {
	phase    runner.Phase
	from, to float64
}

// A level is the driver's level at the end of a step.
type level struct {
	step string
	at   float64
	gib  float64
	ok   bool
}

// A vllmLevel is what vLLM's account adds up to over a stretch.
type vllmLevel struct {
	from, to float64
	gib      float64
	what     string
}

// columns thin a line to what a picture can show: of each stretch of time the
// first, the lowest, the highest and the last.
type columns struct {
	width       float64 // seconds
	cur         int64
	held        []xy
	points      []xy
	first, last float64
	n           int64
}

type xy struct{ x, y float64 }

func (c *columns) add(x, y float64) {
	if c.n == 0 {
		c.first = x
	}
	c.n++
	c.last = x
	if k := int64(math.Floor(x / c.width)); k != c.cur || len(c.held) == 0 {
		c.flush()
		c.cur = k
		c.held = slices.Repeat([]xy{{x, y}}, 4)
		return
	}
	if y < c.held[1].y {
		c.held[1] = xy{x, y}
	}
	if y > c.held[2].y {
		c.held[2] = xy{x, y}
	}
	c.held[3] = xy{x, y}
}

func (c *columns) flush() {
	slices.SortStableFunc(c.held, func(a, b xy) int { return cmp.Compare(a.x, b.x) })
	for i, p := range c.held {
		if i == 0 || p != c.held[i-1] {
			c.points = append(c.points, p)
		}
	}
	c.held = nil
}

// gather reads the samples once. Columns are 20 ms of a run of minutes; a
// longer run has as many columns, wider ones.
func (s *scene) gather(samples runner.SampleReader) error {
	start := s.r.Run.StartedAt
	length := s.r.Run.EndedAt.Sub(start).Seconds()
	width := max(0.02, length/8000)
	byGPU := map[int32]*track{}
	err := samples.ReadSamples(func(batch []runner.Sample) error {
		for i := range batch {
			s.take(&batch[i], byGPU, start, width)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range byGPU {
		t.cols.flush()
		t.watts.flush()
		if len(t.cols.points) > 0 {
			s.tracks = append(s.tracks, t)
		}
	}
	slices.SortFunc(s.tracks, func(a, b *track) int { return s.order(a.gpu) - s.order(b.gpu) })
	if len(s.tracks) > 1 && s.tracks[0].gpu == runner.HostGPU {
		s.tracks = s.tracks[1:]
	}
	for i, t := range s.tracks {
		s.account(t, i, start)
	}
	return nil
}

// rank of a GPU; -1: it is of others.
func (s *scene) rank(gpu int32) int {
	return slices.IndexFunc(s.r.Ranks, func(r runner.RankRow) bool { return r.GPUIndex != nil && *r.GPUIndex == gpu })
}

// order is rank order; where no rank tells its GPU, that of the driver.
func (s *scene) order(gpu int32) int {
	if i := s.rank(gpu); i >= 0 {
		return i
	}
	return int(gpu)
}

func (s *scene) ours(gpu int32) bool {
	if len(s.r.Ranks) == 0 || s.r.Ranks[0].GPUIndex == nil {
		return gpu == runner.HostGPU || len(s.r.GPUInfo) > 0
	}
	return s.rank(gpu) >= 0
}

func (s *scene) take(m *runner.Sample, byGPU map[int32]*track, start time.Time, width float64) {
	if !s.ours(m.GPU) {
		return
	}
	t := byGPU[m.GPU]
	if t == nil {
		t = &track{gpu: m.GPU, cols: columns{width: width}, watts: columns{width: width}}
		byGPU[m.GPU] = t
	}
	x := m.Offset.Seconds()
	if !m.TS.IsZero() && !start.IsZero() {
		x = m.TS.Sub(start).Seconds()
	}
	if v, ok := memory(m); ok {
		t.cols.add(x, float64(v)/runner.GiB)
	}
	if m.Has&runner.HasPower != 0 {
		t.watts.add(x, m.Power)
		t.hasPower = true
	}
}

func memory(m *runner.Sample) (int64, bool) {
	switch {
	case m.Has&runner.HasMemoryUsed != 0:
		return m.MemoryUsed, true
	case m.GPU == runner.HostGPU && m.Has&runner.HasHostPSS != 0:
		return m.HostPSS, true
	case m.GPU == runner.HostGPU && m.Has&runner.HasHostRSS != 0:
		return m.HostRSS, true
	}
	return 0, false
}

// at is the curve's value at a moment.
func (t *track) at(x float64) (float64, bool) {
	i := sort.Search(len(t.cols.points), func(i int) bool { return t.cols.points[i].x > x+1e-6 })
	if i == 0 {
		return 0, false
	}
	return t.cols.points[i-1].y, true
}

// account lays both accounts over the track.
func (s *scene) account(t *track, i int, start time.Time) {
	for k := range s.r.Phases {
		p := &s.r.Phases[k]
		mine := p.GPUIndex == nil && t.gpu == runner.HostGPU || p.GPUIndex != nil && *p.GPUIndex == t.gpu
		if mine && p.StartedAt != nil && p.EndedAt != nil {
			t.phases = append(t.phases, span{p.Phase, p.StartedAt.Sub(start).Seconds(), p.EndedAt.Sub(start).Seconds()})
		}
	}
	s.levels(t, start)
	if i < len(s.r.Ranks) {
		t.vllm = vllmLevels(&s.r.Ranks[i], t.phases)
		if b := s.r.Ranks[i].BuffersBytes; b != nil {
			t.buffers = float64(*b) / runner.GiB
		}
	}
}

// levels takes the driver's steps and the budget of the track's GPU.
func (s *scene) levels(t *track, start time.Time) {
	for k := range s.r.Steps {
		st := &s.r.Steps[k]
		if st.GPUIndex != t.gpu || st.Bytes == nil || st.TTo == nil {
			continue
		}
		l := level{step: st.Step, at: st.TTo.Sub(start).Seconds()}
		l.gib, l.ok = t.at(l.at)
		t.levels = append(t.levels, l)
	}
	for k := range s.r.BeyondBudget {
		if s.r.BeyondBudget[k].GPUIndex == int(t.gpu) {
			t.budget = &s.r.BeyondBudget[k]
		}
	}
}

// vllmLevels adds vLLM's account up over the phases: context and weights once
// they are loaded, the activation on top while profiling, then the KV cache,
// and the graphs once they are captured.
func vllmLevels(r *runner.RankRow, phases []span) []vllmLevel {
	at := map[runner.Phase]span{}
	for _, p := range phases {
		at[p.phase] = p
	}
	value := func(vs ...*int64) (float64, bool) {
		var sum int64
		for _, v := range vs {
			if v == nil {
				return 0, false
			}
			sum += *v
		}
		return float64(sum) / runner.GiB, true
	}
	var out []vllmLevel
	add := func(from, to runner.Phase, what string, vs ...*int64) {
		a, okA := at[from]
		b, okB := at[to]
		v, ok := value(vs...)
		if okA && okB && ok && b.from > a.from {
			out = append(out, vllmLevel{a.from, b.from, v, what})
		}
	}
	add(runner.PhaseLoad, runner.PhaseProfile, "context + weights", r.ContextBytes, r.ModelWeightsBytes)
	add(runner.PhaseProfile, runner.PhaseKVAlloc, "+ activation",
		r.ContextBytes, r.ModelWeightsBytes, r.NonTorchBytes, r.ActivationsReservedBytes)
	last := runner.PhaseCapture
	if _, ok := at[last]; !ok {
		last = runner.PhaseEngineWarmup
	}
	kv := []*int64{r.ContextBytes, r.ModelWeightsBytes, r.NonTorchBytes, r.KVCacheBytes}
	add(runner.PhaseKVAlloc, last, "+ KV", kv...)
	if last == runner.PhaseCapture {
		add(runner.PhaseCapture, runner.PhaseEngineWarmup, "+ KV", kv...)
	}
	add(runner.PhaseEngineWarmup, runner.PhaseTeardown, "+ graphs", append(kv, r.CUDAGraphsBytes)...)
	return out
}
