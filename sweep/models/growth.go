package models

// serving adds what serving takes beyond the budget and whether the device has
// it. What of the reserved activation and beyond it comes into use goes with the
// prompt tokens of a batch, up to max_num_batched_tokens:
//
//	in use  base + token x min(prompts, T); more where layers have a state, whose
//	        kernels are tuned with a cache of their own
//	growth  what of it the reserved activation does not hold
func (s *setup) serving(e *Estimate) {
	law, ok := s.law(e, termGrowth)
	if !ok || s.a == nil || e.Activations.Value == nil || e.Activations.Low == nil {
		e.Growth = unknown("the activations, which it goes beyond, are not known")
		return
	}
	var n sum
	n.add(law.c("base_bytes"), 1)
	c, tokens := law.c("token_bytes"), s.tokens
	if prompts := s.r.InputLen * s.r.BatchSize; prompts > 0 {
		tokens = min(prompts, tokens)
	} else {
		c.Low = 0
	}
	n.add(c, tokens)
	if s.a.stateLayers() {
		n.add(law.c("state_bytes"), 1)
	}
	beyond := func(use float64, reserved int64) int64 { return max(int64(use)-reserved, 0) }
	value := beyond(n.value, *e.Activations.Value)
	lowest, highest := beyond(n.low, *e.Activations.High), beyond(n.high, *e.Activations.Low)
	if !law.measured {
		lowest, highest = 0, max(highest, beyond(n.high*law.Elsewhere.High, *e.Activations.Low))
	}
	e.Growth = figure(value, lowest, highest, "what comes into use beyond the reserved activation")
	s.outOfMemory(e)
}

// outOfMemory warns of a profile that starts, but whose growth the device may
// not have.
func (s *setup) outOfMemory(e *Estimate) {
	if e.Requested.Value == nil || e.Context.Value == nil || e.CUDAGraphs.Value == nil || e.Fits == nil || !*e.Fits {
		return
	}
	outside := *e.CUDAGraphs.Value - deref(e.GraphEstimate)
	short := *e.Requested.Value + *e.Context.Value + outside + *e.Growth.Value - s.g.TotalBytes
	e.ServingShortBy = &short
	if short-*e.Growth.Value+*e.Growth.High > 0 {
		e.MayRunOut = true
		e.warn("it starts, but may run out of memory while serving: less is left outside the budget than may come into " +
			"use there (growth_bytes; a lower gpu_memory_utilization leaves more)")
	}
}
