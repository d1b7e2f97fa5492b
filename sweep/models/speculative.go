package models

import (
	"cmp"
	"slices"
	"strings"
)

// Speculative is how vLLM guesses tokens ahead (--speculative-config).
type Speculative struct {
	Method string // "mtp", "ngram", "eagle3", "draft_model", ...; "": as the drafter says
	Tokens int64  // guessed a step
	Model  string // a drafter of its own; "": none, or the model's own prediction layers
}

// ownLayers says that the prediction layers of the checkpoint guess.
func (s *Speculative) ownLayers() bool {
	return s.Method == "mtp" || strings.HasSuffix(s.Method, "_mtp")
}

// speculating is a with what guessing adds. The prediction layers are layers
// of full attention, each with a projection of two hidden states to one and
// three norms; they share embedding and lm_head. A state keeps a slot a guess,
// and its convolution as many positions more.
// Source: vllm/model_executor/models/deepseek_mtp.py, layers/mamba/mamba_utils.py.
func (a *Architecture) speculating(s *Speculative) *Architecture {
	b := *a
	b.derived, b.guesses = nil, s.Tokens
	if n := min(max(a.MTPLayers, 1), 64); s.ownLayers() && a.Layout != "" {
		kinds := slices.Clone(a.derived.kinds)
		for range n {
			kinds = append(kinds, 'f')
		}
		b.LayerPattern, b.NumLayers, b.predicting = string(kinds), a.NumLayers+n, n
	}
	b.finish()
	return &b
}

// predictionModules join the guess before to the prediction layers.
func (a *Architecture) predictionModules() []module {
	var ms []module
	for range a.predicting {
		ms = append(ms, plain("mtp.eh_proj", a.HiddenSize, 2*a.HiddenSize, replicated).of(partHead),
			plain("mtp.norms", 3*a.HiddenSize, 1, replicated).of(partHead))
	}
	return ms
}

// speculation lays what guessing adds over the setup, and says what of it is
// not counted.
func (s *setup) speculation(e *Estimate) {
	r := s.r.Speculative
	if s.a != nil && s.r.PrefixCaching && s.a.stateLayers() {
		b := *s.a
		b.cached = true
		s.a = &b
		e.warn("prefix caching: one state more of each sequence is counted")
	}
	for _, name := range s.r.NotCounted {
		e.warn("%s is set: its memory is not counted", name)
	}
	if r == nil || s.a == nil {
		return
	}
	s.a = s.a.speculating(r)
	switch {
	case r.ownLayers() && s.a.predicting == 0:
		e.warn("speculative decoding: the model's prediction layers are not known, and not counted")
	case r.ownLayers():
		e.warn("speculative decoding: %d prediction layer(s) and the states of %d guesses are counted, "+
			"their graphs and activations are not", s.a.predicting, r.Tokens)
	case r.Model != "":
		e.warn("speculative decoding: the weights, cache and graphs of drafter %s are not counted", r.Model)
	default:
		e.warn("speculative decoding (%s): no drafter is counted, states of %d guesses are where the model has any",
			cmp.Or(r.Method, "no method named"), r.Tokens)
	}
}
