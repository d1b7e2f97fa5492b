package sweep

import (
	"cmp"
	"slices"
)

// ByEngine puts the profiles of a sweep that share an engine side by side.
// Engines keep the order of their first profile; on one engine profiles go from
// small to large, so that the allocator's growth is seen where it happens: by
// the tokens that they hold in the KV cache at their end, then by batch size,
// then in the plan's order.
func ByEngine(profiles []*Profile) []*Profile {
	at := map[string]int{}
	engine := make(map[*Profile]int, len(profiles))
	for _, p := range profiles {
		key := p.EngineKey()
		if _, ok := at[key]; !ok {
			at[key] = len(at)
		}
		engine[p] = at[key]
	}
	tokens := func(s *Settings) int64 { return s.BatchSize * (s.InputLen + s.OutputLen) }
	return slices.SortedStableFunc(slices.Values(profiles), func(a, b *Profile) int {
		return cmp.Or(cmp.Compare(engine[a], engine[b]), cmp.Compare(tokens(&a.Settings), tokens(&b.Settings)),
			cmp.Compare(a.Settings.BatchSize, b.Settings.BatchSize))
	})
}

// Ranks is how many GPUs a profile needs.
func (p *Profile) Ranks() int {
	return int(max(p.Settings.TensorParallelSize, 1) * max(p.Settings.PipelineParallelSize, 1))
}

// ByCompile puts the profiles of a sweep that use one entry of vLLM's compile cache
// side by side, in the plan's order otherwise: the first of them compiles.
func ByCompile(profiles []*Profile) []*Profile {
	at := map[string]int{}
	place := make(map[*Profile]int, len(profiles))
	for _, p := range profiles {
		key := p.compileKey()
		if _, ok := at[key]; !ok {
			at[key] = len(at)
		}
		place[p] = at[key]
	}
	return slices.SortedStableFunc(slices.Values(profiles), func(a, b *Profile) int { return cmp.Compare(place[a], place[b]) })
}

// RunsByEngine counts the runs that are planned for each engine of session mode.
func (p *Plan) RunsByEngine() map[string]int {
	runs := map[string]int{}
	for _, s := range p.Sweeps {
		for _, profile := range s.Profiles {
			runs[profile.EngineKey()] += max(s.Repeats, 1)
		}
	}
	return runs
}
