package simulate

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A part is one component of what a rank holds at its highest.
type part struct {
	component  string
	bytes      int64
	source     string
	confidence runner.Confidence
}

// room is what a rank holds at its highest of the room that vLLM reserved for
// activation: what was retaken, and the runner's buffers, which stand in no
// line. What exceeds the reserved is growth, as in package runner/attribution.
func (m *rankMemory) room() (room, excess int64) {
	room = m.highest() - m.captured() + m.buffers
	return room, max(room-m.activation, 0)
}

// parts divide the highest use of a rank exactly.
func (w *writer) parts(m *rankMemory) []part {
	room, excess := m.room()
	used := max(room-m.buffers-excess, 0)
	list := []part{
		{"weights", m.weights, "simulated", runner.HighFromVLLMLogs},
		{"kv_cache", m.kv, "simulated", runner.HighFromVLLMLogs},
		{"activations", used, "simulated", runner.HighMeasuredStep},
		{"cuda_graphs", m.graphs, "simulated", runner.HighFromVLLMLogs},
		{"non_torch", m.nonTorch, "simulated", runner.HighFromVLLMLogs},
		{"context", m.context, "simulated", runner.HighFromVLLMLogs},
		{"buffers", m.buffers, "simulated", runner.HighCalculated},
		{"growth_excess", excess, "simulated", runner.HighMeasuredStep},
	}
	rest := m.highest()
	for _, p := range list {
		rest -= p.bytes
	}
	return append(list, part{"framework_overhead", rest, "simulated", runner.CalculatedResidual})
}

// attribute fills everything that follows from what each rank holds.
func (w *writer) attribute(res *runner.Result) {
	f := w.s.figures
	sums, highest, reserved, unused := map[string]int64{}, int64(0), int64(0), int64(0)
	b := &runner.Breakdown{
		BaselineGB: gb(0), EstimationMethod: "simulated", ConfidenceLevels: map[string]runner.Confidence{}, VLLMReportedValuesUsed: true, KVUsedSource: "calculated",
	}
	for rank := range f.memory {
		m := &f.memory[rank]
		highest += m.highest()
		reserved += m.activation
		room, _ := m.room()
		unused += max(m.activation-room, 0)
		for _, p := range w.parts(m) {
			sums[p.component] += p.bytes
			b.ConfidenceLevels[p.component] = p.confidence
			share := float64(p.bytes) / float64(max(m.highest(), 1))
			res.Breakdowns = append(res.Breakdowns, runner.BreakdownRow{Rank: int32(rank), Component: p.component, Bytes: p.bytes, Share: &share, Source: p.source, Confidence: p.confidence})
		}
		res.Ranks = append(res.Ranks, w.rankRow(rank, m))
		res.Steps = append(res.Steps, w.stepRows(rank, m)...)
		res.BeyondBudget = append(res.BeyondBudget, w.beyond(rank, m))
	}
	for dst, name := range map[**float64]string{
		&b.ModelWeightsGB: "weights", &b.KVCacheGB: "kv_cache", &b.GraphCaptureGB: "cuda_graphs", &b.NonTorchGB: "non_torch", &b.ContextGB: "context",
		&b.BuffersGB: "buffers", &b.ActivationsGB: "activations", &b.GrowthExcessGB: "growth_excess", &b.FrameworkOverheadGB: "framework_overhead",
	} {
		*dst = gb(sums[name])
	}
	b.TotalMeasuredGB, b.NetIncreaseGB, b.ActivationsReservedGB = gb(highest), gb(highest), gb(reserved)
	b.HeadroomUnusedGB = gb(unused)
	b.KVCacheUsedGB = gb(min(f.bytesOfTokens(w.r.batchSize*(w.r.inputLen+w.r.outputLen)), f.memory[0].kv) * int64(f.ranks))
	percent := 100 * float64(sums["framework_overhead"]) / float64(max(highest, 1))
	b.OverheadPercentage = &percent
	if sums["framework_overhead"] < 0 {
		b.Flags = append(b.Flags, fmt.Sprintf("negative framework_overhead: %.2f GiB", *b.FrameworkOverheadGB))
	}
	res.MemoryBreakdown = b
	w.snapshots(res)
}

// rankRow is vLLM's account of a rank in bytes.
func (w *writer) rankRow(rank int, m *rankMemory) runner.RankRow {
	f := w.s.figures
	gpu, uuid, zero, free := int32(rank), w.devices()[rank].UUID, int64(0), f.gpu.TotalBytes-m.context
	row := runner.RankRow{
		Rank: int32(rank), GPUIndex: &gpu, GPUUUID: &uuid, ModelWeightsBytes: &m.weights, KVCacheBytes: &m.kv, ActivationsReservedBytes: &m.activation,
		CUDAGraphsBytes: &m.graphs, NonTorchBytes: &m.nonTorch, ContextBytes: &m.context, BuffersBytes: &m.buffers, RequestedBytes: &f.requested,
		FreeAtStartBytes: &free, BudgetDifferenceBytes: &zero,
	}
	if f.estimate {
		row.GraphEstimateBytes = &m.graphEst
	}
	return row
}

// stepRows are the driver's account of a rank.
func (w *writer) stepRows(rank int, m *rankMemory) []runner.StepRow {
	rows := []runner.StepRow{}
	add := func(name string, phase runner.Phase, bytes int64, vllm *int64) {
		from, to, ok := w.phaseSpan(phase)
		if !ok {
			return
		}
		row := runner.StepRow{GPUIndex: int32(rank), Step: name, Bytes: &bytes, TFrom: &from, TTo: &to, VLLMBytes: vllm}
		if vllm != nil {
			diff := bytes - *vllm
			row.DifferenceBytes = &diff
		}
		rows = append(rows, row)
	}
	add("context", runner.PhaseEngineInit, m.context, &m.context)
	add("load", runner.PhaseLoad, m.weights+m.buffers+m.nonTorch, &m.weights)
	add("profile_peak", runner.PhaseProfile, m.activation, &m.activation)
	add("kv_alloc", runner.PhaseKVAlloc, m.kv, &m.available)
	add("capture", runner.PhaseCapture, m.graphs, &m.graphs)
	add("engine_warmup", runner.PhaseEngineWarmup, m.retaken, nil)
	add("bench_warmup", runner.PhaseBenchWarmup, m.requests, nil)
	add("measure", runner.PhaseMeasure, 0, nil)
	add("left_after", runner.PhaseTeardown, 0, nil)
	return rows
}

// beyond explains the use above gpu_memory_utilization on one GPU.
func (w *writer) beyond(rank int, m *rankMemory) runner.BeyondBudget {
	f := w.s.figures
	highest, gross := m.highest(), m.highest()-f.requested
	net, graphs := gross-m.context, m.graphs-m.graphEst
	room, excess := m.room()
	retaken := max(min(room, m.activation), 0)
	unused := m.activation - retaken
	row := runner.BeyondBudget{
		GPUIndex: rank, HighestBytes: &highest, ContextBytes: &m.context, GraphsOutsideBytes: &graphs,
		HeadroomRetakenBytes: &retaken, HeadroomUnusedBytes: &unused, GrowthExcessBytes: &excess,
		Sentence: fmt.Sprintf("simulated: %.2f GiB above the share of %.2f", float64(gross)/runner.GiB, f.util),
	}
	if w.r.kvBytes == nil {
		row.RequestedBytes, row.GrossBytes, row.NetBytes = &f.requested, &gross, &net
		spare := f.gpu.TotalBytes - highest - 256<<20
		most := min(f.requested+spare, f.gpu.TotalBytes-m.context)
		safe := math.Floor(float64(most)/float64(f.gpu.TotalBytes)*1000) / 1000
		row.SafeUtilization = &safe
	}
	return row
}

// curve is what the GPUs hold and do over the run, step by step.
type curve struct {
	at     time.Time
	memory []int64
	doing  activity
	drain  float64 // W that the energy counter runs with, from here on
	phase  runner.Phase
}

// curve works out the steps of the run.
func (w *writer) curve() []curve {
	if w.points != nil {
		return w.points
	}
	f := w.s.figures
	state := curve{at: w.start, memory: make([]int64, f.ranks), doing: activity{power: speedOf(f.gpu).idle, clock: speedOf(f.gpu).clock / 6}, phase: runner.PhaseEngineInit}
	points := []curve{state}
	for i := range w.s.steps {
		st := &w.s.steps[i]
		if st.memory == nil && st.doing == nil && st.phase == state.phase {
			continue
		}
		state.at, state.phase = w.at(st), st.phase
		if st.memory != nil {
			state.memory = slices.Clone(state.memory)
			for rank, bytes := range st.memory {
				state.memory[rank] = bytes
			}
		}
		if st.doing != nil {
			state.doing = *st.doing
		}
		state.drain = state.doing.power * w.s.speedAt(st.phase, w.c.TimeScale)
		points = append(points, state)
	}
	w.points = points
	return points
}

// samples reads the run at a fixed rate, as the Sampler does.
func (w *writer) samples(interval time.Duration) []runner.Sample {
	f := w.s.figures
	if f == nil {
		return nil
	}
	points, s := w.curve(), speedOf(f.gpu)
	d := &Device{GPU: f.gpu}
	var out []runner.Sample
	energy, celsius, i := 0.0, idleCelsius, 0
	for offset := time.Duration(0); offset <= w.end.Sub(w.start); offset += interval {
		now := w.start.Add(offset)
		from := now.Add(-interval)
		for i+1 < len(points) && !points[i+1].at.After(now) {
			energy += points[i].drain * points[i+1].at.Sub(later(from, points[i].at)).Seconds()
			i++
		}
		energy += points[i].drain * now.Sub(later(from, points[i].at)).Seconds()
		p := &points[i]
		target := idleCelsius + fullCelsius*(p.doing.power-s.idle)/max(s.tdp-s.idle, 1)
		celsius += (target - celsius) * (1 - math.Exp(-interval.Seconds()/thermalTime.Seconds()))
		for rank, bytes := range p.memory {
			out = append(out, runner.Sample{
				TS: now, Offset: offset, GPU: int32(rank), Has: sampleFields, Source: "simulated",
				MemoryUsed: bytes, MemoryReserved: f.gpu.Reserve, MemoryTotal: d.driverTotal(), ProcessMemory: bytes,
				Power: p.doing.power, Temperature: celsius, Energy: energy, Utilization: p.doing.util, MemoryUtil: p.doing.memUtil,
				ClockSM: p.doing.clock, ClockMem: s.memClock,
			})
		}
	}
	return out
}

// later is the later of two moments.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// phaseRows are the phases on every GPU.
func (w *writer) phaseRows() []runner.PhaseRow {
	f := w.s.figures
	points := w.curve()
	var rows []runner.PhaseRow
	for _, phase := range phases() {
		from, to, ok := w.phaseSpan(phase)
		if !ok {
			continue
		}
		for rank := range f.ranks {
			rows = append(rows, phaseRow(points, phase, from, to, rank))
		}
	}
	return rows
}

// phaseRow is one phase on one GPU, integrated over the steps.
func phaseRow(points []curve, phase runner.Phase, from, to time.Time, rank int) runner.PhaseRow {
	gpu, duration, zero := int32(rank), to.Sub(from).Seconds(), 0.0
	row := runner.PhaseRow{GPUIndex: &gpu, Phase: phase, StartedAt: &from, EndedAt: &to, DurationS: &duration, UncertaintyS: &zero}
	least, most, start, end := int64(math.MaxInt64), int64(0), int64(0), int64(0)
	var weighted, energy, power float64
	for i := range points {
		until := to
		if i+1 < len(points) {
			until = points[i+1].at
		}
		if until.After(to) {
			until = to
		}
		began := later(points[i].at, from)
		if points[i].at.Before(from) || points[i].at.Equal(from) {
			start = points[i].memory[rank]
		}
		if points[i].at.After(to) || !until.After(began) {
			continue
		}
		held, seconds := points[i].memory[rank], until.Sub(began).Seconds()
		least, most, end = min(least, held), max(most, held), held
		weighted += float64(held) * seconds
		energy += points[i].drain * seconds
		power += points[i].doing.power * seconds
	}
	if duration <= 0 || least == math.MaxInt64 {
		return row
	}
	mean, watts := int64(weighted/duration), power/duration
	row.MinBytes, row.MaxBytes, row.MeanBytes, row.StartBytes, row.EndBytes = &least, &most, &mean, &start, &end
	row.EnergyJ, row.MeanPowerW = &energy, &watts
	return row
}

// snapshots are the memory at the phase boundaries.
func (w *writer) snapshots(res *runner.Result) {
	for _, row := range res.Phases {
		if row.StartBytes == nil {
			continue
		}
		n := len(res.MemoryMeasurements)
		if n == 0 || res.MemoryMeasurements[n-1].Phase != row.Phase {
			res.MemoryMeasurements = append(res.MemoryMeasurements, runner.Snapshot{Phase: row.Phase, T: *row.StartedAt})
			n++
		}
		s := &res.MemoryMeasurements[n-1]
		s.GPUs = append(s.GPUs, runner.SnapshotGPU{GPUIndex: int(*row.GPUIndex), UsedBytes: *row.StartBytes})
	}
}

// timeline condenses the run: the window from the engine being ready to the end
// of measuring, exact from the steps instead of from samples.
func (w *writer) timeline(res *runner.Result) {
	zero := 0.0
	report := &runner.SamplerReport{Name: "simulated", PowerKind: "instant", Notes: []string{"synthetic"}}
	res.MemoryTimeline = &runner.MemoryTimeline{Samplers: []*runner.SamplerReport{report}, Sampler: report, IntervalMS: runner.IntervalMS{P50: &zero, P99: &zero}}
	t := res.MemoryTimeline
	from, _, ready := w.phaseSpan(runner.PhaseBenchWarmup)
	_, to, measured := w.phaseSpan(runner.PhaseMeasure)
	if !ready || !measured {
		t.Window.What = "the engine was never ready"
		return
	}
	t.Window = runner.TimeWindow{From: &from, To: &to, What: "engine ready to end of measuring"}
	t.WholeRun = w.stats(w.start, w.end, -1)
	t.TimelineStats = w.stats(from, to, -1)
	t.Extended = w.extended(from, to)
	for rank := range w.s.figures.ranks {
		t.PerGPU = append(t.PerGPU, runner.GPUTimeline{GPUIndex: rank, TimelineStats: w.stats(from, to, rank), Extended: w.extended(from, to)})
	}
}

// stats are over the steps of a window, of one GPU or (-1) of all together.
func (w *writer) stats(from, to time.Time, rank int) runner.TimelineStats {
	points := w.curve()
	least, most, weighted := int64(math.MaxInt64), int64(0), 0.0
	type stretch struct {
		bytes   int64
		seconds float64
	}
	var all []stretch
	for i := range points {
		until := to
		if i+1 < len(points) && points[i+1].at.Before(to) {
			until = points[i+1].at
		}
		seconds := until.Sub(later(points[i].at, from)).Seconds()
		if seconds <= 0 {
			continue
		}
		held := int64(0)
		for r, bytes := range points[i].memory {
			if rank < 0 || r == rank {
				held += bytes
			}
		}
		least, most = min(least, held), max(most, held)
		weighted += float64(held) * seconds
		all = append(all, stretch{held, seconds})
	}
	if len(all) == 0 {
		return runner.TimelineStats{}
	}
	slices.SortFunc(all, func(a, b stretch) int { return int(min(max(a.bytes-b.bytes, -1), 1)) })
	total := 0.0
	for _, s := range all {
		total += s.seconds
	}
	at := func(p float64) *float64 {
		sum := 0.0
		for _, s := range all {
			if sum += s.seconds; sum >= p*total {
				return gb(s.bytes)
			}
		}
		return gb(all[len(all)-1].bytes)
	}
	return runner.TimelineStats{MinGB: gb(least), MaxGB: gb(most), MeanGB: gb(int64(weighted / total)), MedianGB: at(0.5), P95GB: at(0.95), NumSamples: int64(len(all))}
}

// extended are power and energy of a window.
func (w *writer) extended(from, to time.Time) runner.TimelineExtended {
	row := phaseRow(w.curve(), runner.PhaseMeasure, from, to, 0)
	if row.MeanPowerW == nil {
		return runner.TimelineExtended{}
	}
	ranks := float64(w.s.figures.ranks)
	mean, energy := *row.MeanPowerW*ranks, *row.EnergyJ*ranks
	return runner.TimelineExtended{Power: runner.PowerStats{MinW: &mean, MaxW: &mean, MeanW: &mean, Kind: "instant"}, EnergyJ: &energy, EnergyFrom: "counter"}
}
