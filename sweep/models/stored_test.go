package models

// Stored counts the elements that a checkpoint stores, which is what model
// pages publish: the resident parameters, and what Published.Counts names
// beside them. ok is false where a part of it is not known.
func Stored(a *Architecture) (n int64, ok bool) {
	n, ok = Params(a)
	if !ok || a.Published == nil {
		return n, ok
	}
	for _, what := range a.Published.Counts {
		switch what {
		case "mtp":
			n += a.MTPLayers * a.mtpLayerParams()
		case "mtp_without_embeddings": // GLM-5 stores no second embedding and lm_head
			n += a.MTPLayers * (a.mtpLayerParams() - 2*a.VocabSize*a.HiddenSize)
		case "tied_lm_head":
			n += a.VocabSize * a.HiddenSize
		case "fp8_scales":
			n += a.blockScales()
		case "-router_correction":
			n -= a.routerCorrections()
		case "rounded":
		default:
			return n, false
		}
	}
	return n, true
}

// mtpLayerParams counts one multi-token-prediction layer: a layer with experts,
// the projection of two hidden states to one, its two norms, and its own copy
// of final norm, embedding and lm_head.
// Source: vllm/model_executor/models/{deepseek_mtp,glm4_moe_mtp}.py.
func (a *Architecture) mtpLayerParams() int64 {
	var n int64
	for _, m := range a.layerModules('f', a.MoE != nil) {
		n += m.params()
	}
	return n + 2*a.HiddenSize*a.HiddenSize + 3*a.HiddenSize + 2*a.VocabSize*a.HiddenSize
}

// blockScales counts the scales of an fp8 checkpoint: one for each block of
// each converted matrix, of the main layers and of the multi-token ones.
func (a *Architecture) blockScales() int64 {
	q := a.Quantization
	if q == nil || len(q.Block) != 2 {
		return 0
	}
	var n int64
	add := func(ms []module, count int64) {
		for _, m := range ms {
			if m.linear && !q.keeps(m) {
				n += count * m.count * ceilDiv(m.out, q.Block[0]) * ceilDiv(m.in, q.Block[1])
			}
		}
	}
	for _, c := range a.derived.classes {
		add(c.modules, c.count)
	}
	for _, what := range a.Published.Counts {
		if what == "mtp" {
			add(a.layerModules('f', a.MoE != nil), a.MTPLayers)
		}
	}
	return n
}

func (a *Architecture) routerCorrections() int64 {
	var n int64
	for _, c := range a.derived.classes {
		for _, m := range c.modules {
			if m.float {
				n += c.count * m.params()
			}
		}
	}
	return n
}
