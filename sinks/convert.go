package sinks

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// Rows are what one run adds to the tables, but for its timeline.
type Rows struct {
	Run        RunRow
	Ranks      []RankRow
	Phases     []PhaseRow
	Breakdowns []BreakdownRow
	Steps      []StepRow
	Latencies  []LatencyRow
}

// RowsOf are the rows that a result stands for. It is the one place where JSON
// becomes tables: publishing, verifying and reading of unpublished runs all
// come here. GiB become bytes by rounding; the GiB were made from whole bytes,
// so the bytes are the same again.
func RowsOf(r *runner.Result) *Rows {
	key := keyOf(r)
	rows := &Rows{Run: runRowOf(r)}
	for _, row := range r.Ranks {
		rows.Ranks = append(rows.Ranks, RankRow{key, row})
	}
	for _, row := range r.Phases {
		row.StartedAt, row.EndedAt = instant(row.StartedAt), instant(row.EndedAt)
		rows.Phases = append(rows.Phases, PhaseRow{key, row})
	}
	for _, row := range r.Breakdowns {
		rows.Breakdowns = append(rows.Breakdowns, BreakdownRow{key, row})
	}
	for _, row := range r.Steps {
		row.TFrom, row.TTo = instant(row.TFrom), instant(row.TTo)
		rows.Steps = append(rows.Steps, StepRow{key, row})
	}
	if r.LatencyStats != nil {
		for i, l := range r.LatencyStats.LatenciesS {
			rows.Latencies = append(rows.Latencies, LatencyRow{Key: key, Iteration: int32(i + 1), LatencyS: l})
		}
	}
	slices.SortStableFunc(rows.Ranks, func(a, b RankRow) int { return cmp.Compare(a.Rank, b.Rank) })
	slices.SortStableFunc(rows.Phases, func(a, b PhaseRow) int {
		return cmp.Compare(gpuOrder(a.GPUIndex), gpuOrder(b.GPUIndex))
	})
	slices.SortStableFunc(rows.Breakdowns, func(a, b BreakdownRow) int { return cmp.Compare(a.Rank, b.Rank) })
	slices.SortStableFunc(rows.Steps, func(a, b StepRow) int { return cmp.Compare(a.GPUIndex, b.GPUIndex) })
	return rows
}

func keyOf(r *runner.Result) Key {
	return Key{RunID: r.Run.RunID, Execution: r.Run.Execution, Sweep: r.Run.Sweep, Model: r.ModelInfo.Model,
		Synthetic: r.Run.Synthetic}
}

func runRowOf(r *runner.Result) RunRow {
	row := RunRow{
		Key: keyOf(r), ProfileID: r.Run.ProfileID, Repeat: int32(r.Run.Repeat), Attempts: int32(r.Run.Attempts),
		StartedAt: instant(&r.Run.StartedAt), EndedAt: instant(&r.Run.EndedAt),
		WallS: positive(r.Run.WallS), OverheadS: positive(r.Run.OverheadS),
		Outcome: string(r.Run.Outcome), OutcomeDetail: text(r.Run.OutcomeDetail), ErrorLine: text(r.Run.ErrorLine),
		SkippedFor:      text(r.Run.SkippedBecause),
		Host:            text(r.Provenance.Host),
		ProfilerVersion: r.ProfilerVersion, SchemaVersion: r.SchemaVersion,
		Axes: freeAxes(r.Run.Axes),
	}
	row.setModel(r)
	row.setAsked(&r.BenchmarkParameters)
	row.setEngine(r)
	row.setLatency(r.LatencyStats)
	row.setKV(r)
	row.setSession(r.Session, len(r.GPUInfo))
	row.setLane(&r.Run)
	if start := r.Start; start != nil {
		row.StartMode, row.StartReason, row.ImportSeconds = &start.Mode, text(start.Reason), start.ImportS
	}
	row.setMemory(r)
	return row
}

func (row *RunRow) setModel(r *runner.Result) {
	m := &r.ModelInfo
	row.HFModelID, row.Architecture, row.Family = m.HFModelID, m.Architecture, text(m.Family)
	row.Params, row.NumLayers, row.NumHeads, row.NumKVHeads = m.Params, m.NumLayers, m.NumHeads, m.NumKVHeads
	row.HeadDim, row.HiddenSize, row.VocabSize = m.HeadDim, m.HiddenSize, m.VocabSize
	row.WeightBytes, row.KVTokenBytes = finite(r.DtypeMetadata.WeightBytesPerParam), r.DtypeMetadata.KVBytesPerToken
}

func (row *RunRow) setAsked(p *runner.BenchmarkParameters) {
	row.Engine, row.EngineMode, row.Asked, row.Effective = p.Engine, p.EngineMode, p.Asked, p.Effective
	if len(p.Flags) > 0 {
		if b, err := json.Marshal(p.Flags); err == nil {
			row.Flags = text(string(b))
		}
	}
}

func (row *RunRow) setEngine(r *runner.Result) {
	e := &r.EngineMetadata
	row.VLLMVersion, row.TorchVersion, row.ModelRunner = e.VLLMVersion, e.TorchVersion, e.ModelRunner
	row.AttentionBackend, row.CompileCache = e.AttentionBackend, e.CompileCache
	row.DriverVersion = r.Provenance.DriverVersion
	if len(r.GPUInfo) > 0 {
		row.GPUName = text(r.GPUInfo[0].Name)
		if row.DriverVersion == nil {
			row.DriverVersion = text(r.GPUInfo[0].DriverVersion)
		}
	}
	if len(r.GPUInfo) > 0 || r.Run.Outcome != runner.OutcomeSkipped {
		n := int32(len(r.GPUInfo))
		row.GPUCount = &n
	}
}

func (row *RunRow) setLatency(l *runner.LatencyStats) {
	if l == nil {
		return
	}
	row.LatencyIters = count(int64(l.NIters))
	row.AvgLatencyS = positive(l.AvgS)
	row.P50LatencyS, row.P90LatencyS = percentile(l, "p50"), percentile(l, "p90")
	if l.NIters >= runner.LeastForP99 { // results of before have it whatever the number
		row.P99LatencyS = percentile(l, "p99")
	}
	row.OutputTokensPerS = finite(l.OutputTokensPerS)
}

func percentile(l *runner.LatencyStats, name string) *float64 {
	if v, ok := l.Percentiles[name]; ok {
		return finite(&v)
	}
	return nil
}

func (row *RunRow) setKV(r *runner.Result) {
	if a := r.VLLMInternalMetrics; a != nil {
		row.KVCacheTokens, row.MaxConcurrency = a.TotalGPUKVCacheTokens, finite(a.MaxConcurrency)
	}
	if row.KVCacheTokens == nil || row.BatchSize == 0 || row.InputLen == 0 || row.OutputLen == 0 {
		return
	}
	over := row.BatchSize*(row.InputLen+row.OutputLen) > *row.KVCacheTokens
	row.KVOversubscribed = &over
}

func (row *RunRow) setMemory(r *runner.Result) {
	row.Quality, row.QualityDetail = text(string(r.Run.Quality)), text(r.Run.QualityDetail)
	if t := r.MemoryTimeline; t != nil {
		row.MeanPowerW, row.MaxPowerW = finite(t.Extended.Power.MeanW), finite(t.Extended.Power.MaxW)
		row.MaxTemperatureC = finite(t.Extended.Temperature.MaxC)
		if from, to := t.Window.From, t.Window.To; from != nil && to != nil {
			row.WindowS = positive(to.Sub(*from).Seconds())
		}
		if r.LatencyStats != nil { // else the window has no end of measuring
			row.EnergyJ, row.EnergyMethod = finite(t.Extended.EnergyJ), text(t.Extended.EnergyFrom)
			row.EnergyOffJ = finite(t.Extended.EnergyOffJ)
		}
	}
	row.setMeasure(r)
	if b := r.MemoryBreakdown; b != nil {
		row.PeakMemoryBytes, row.BaselineMemoryBytes = bytesOf(b.TotalMeasuredGB), bytesOf(b.BaselineGB)
		row.NetIncreaseBytes = bytesOf(b.NetIncreaseGB)
		if b.PeakAt != nil {
			row.PeakAt, row.PeakPhase, row.PeakLowerBound = instant(b.PeakAt), text(string(b.PeakPhase)), &b.PeakLowerBound
		}
		row.ModelWeightsBytes, row.KVCacheBytes = bytesOf(b.ModelWeightsGB), bytesOf(b.KVCacheGB)
		row.ActivationsBytes, row.CUDAGraphsBytes = bytesOf(b.ActivationsGB), bytesOf(b.GraphCaptureGB)
		row.NonTorchBytes, row.ContextBytes = bytesOf(b.NonTorchGB), bytesOf(b.ContextGB)
		row.BuffersBytes, row.GrowthExcessBytes = bytesOf(b.BuffersGB), bytesOf(b.GrowthExcessGB)
		row.FrameworkOverheadBytes = bytesOf(b.FrameworkOverheadGB)
		row.ActivationsReservedBytes = bytesOf(b.ActivationsReservedGB)
		row.HeadroomUnusedBytes = bytesOf(b.HeadroomUnusedGB)
		row.KVCacheUsedBytes, row.KVUsedSource = bytesOf(b.KVCacheUsedGB), text(b.KVUsedSource)
		for field, to := range map[string]**int64{"total_measured_gb": &row.PeakOffBytes, "net_increase_gb": &row.NetOffBytes,
			"activations_gb": &row.ActivationsOffBytes, "growth_excess_gb": &row.GrowthOffBytes,
			"framework_overhead_gb": &row.FrameworkOffBytes} {
			if off, known := b.UncertaintyBytes[field]; known {
				*to = &off
			}
		}
	}
	for i := range r.BeyondBudget {
		b := &r.BeyondBudget[i]
		row.PeakMemoryMaxGPUBytes = larger(row.PeakMemoryMaxGPUBytes, b.HighestBytes)
		row.BeyondBudgetGrossBytes = larger(row.BeyondBudgetGrossBytes, b.GrossBytes)
		row.GrossOffBytes = larger(row.GrossOffBytes, b.GrossUncertaintyBytes)
		row.BeyondBudgetNetBytes = larger(row.BeyondBudgetNetBytes, b.NetBytes)
	}
	if len(r.BeyondBudget) > 0 {
		return
	}
	for i := range r.Phases { // nothing to hold it against: the phases know the peak as well
		if r.Phases[i].GPUIndex != nil {
			row.PeakMemoryMaxGPUBytes = larger(row.PeakMemoryMaxGPUBytes, r.Phases[i].MaxBytes)
		}
	}
}

// setMeasure adds up the measuring phase over the GPUs; null where one lacks it.
func (row *RunRow) setMeasure(r *runner.Result) {
	var joules, watts float64
	n := 0
	for i := range r.Phases {
		p := &r.Phases[i]
		if p.Phase != runner.PhaseMeasure || p.EnergyJ == nil || p.MeanPowerW == nil {
			continue
		}
		joules, watts, n = joules+*p.EnergyJ, watts+*p.MeanPowerW, n+1
	}
	if n > 0 && n == len(r.GPUInfo) {
		row.MeasureEnergyJ, row.MeasureMeanPowerW = &joules, &watts
	}
}

// freeAxes leaves out the axes that name a setting: those are columns already.
func freeAxes(axes map[string]any) map[string]any {
	settings := sweep.SettingNames()
	free := map[string]any{}
	for name, v := range axes {
		if slices.Contains(settings, name) {
			continue
		}
		if value, ok := axisValue(v); ok {
			free[name] = value
		}
	}
	if len(free) == 0 {
		return nil
	}
	return free
}

// axisValue turns a value of an axis, fresh from the plan or read from JSON,
// into one that a column can hold. It reports false for null.
func axisValue(v any) (any, bool) {
	switch v := v.(type) {
	case nil:
		return nil, false
	case string, bool, int64:
		return v, true
	case int:
		return int64(v), true
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, false
		}
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 { // JSON does not tell 1 from 1.0
			return int64(v), true
		}
		return v, true
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i, true
		}
		f, err := v.Float64()
		if err != nil {
			return nil, false
		}
		return axisValue(f)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v), true
		}
		return string(b), true
	}
}

// bytesOf turns GiB into bytes.
func bytesOf(gib *float64) *int64 {
	if finite(gib) == nil {
		return nil
	}
	b := int64(math.Round(*gib * runner.GiB))
	return &b
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// count is for figures where 0 can only mean that nobody said.
func count(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

// positive is count for seconds.
func positive(f float64) *float64 {
	if f <= 0 {
		return nil
	}
	return finite(&f)
}

// finite drops NaN and infinities: they are no measurements.
func finite(f *float64) *float64 {
	if f == nil || math.IsNaN(*f) || math.IsInf(*f, 0) {
		return nil
	}
	return f
}

func larger(a, b *int64) *int64 {
	if a == nil || (b != nil && *b > *a) {
		return b
	}
	return a
}

// instant is a time as a table holds it: whole microseconds, UTC.
func instant(t *time.Time) *time.Time {
	if t == nil || t.IsZero() {
		return nil
	}
	at := t.UTC().Truncate(time.Microsecond)
	return &at
}

// setLane is what went on beside.
func (row *RunRow) setLane(r *runner.RunInfo) {
	row.Shard = text(r.Shard)
	if l := r.Lane; l != nil {
		row.LanesBusy, row.HostCPUPct, row.MeasuredAlone = new(int32(l.Busy)), finite(l.HostCPUPct), &l.Alone
	}
}

// setSession is what the engine itself told, and the profile's place on it.
func (row *RunRow) setSession(s *runner.Session, gpus int) {
	if s == nil {
		return
	}
	position := int32(s.Position)
	row.EngineShared, row.GroupPosition = &s.EngineShared, &position
	if s.GroupSize > 0 {
		size := int32(s.GroupSize)
		row.GroupSize = &size
	}
	row.SessionStartBytes, row.SessionGrowthBytes = sumOf(s.MemoryAtStart, gpus), sumOf(s.Growth, gpus)
	row.Preemptions, row.WaitingPeak = s.Preemptions, s.WaitingPeak
}

// sumOf adds up the GPUs; nil if one of them is missing.
func sumOf(perGPU map[int]int64, gpus int) *int64 {
	if len(perGPU) == 0 || len(perGPU) < gpus {
		return nil
	}
	var sum int64
	for _, bytes := range perGPU {
		sum += bytes
	}
	return &sum
}
