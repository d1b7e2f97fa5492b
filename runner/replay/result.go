package replay

import "github.com/vramsweep/vramsweep/runner"

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
