package models

// Manual is an architecture of which only what a user typed is known: the
// parameter count and, where they are above 0, layers, attention heads and
// hidden size. Weights follow from the count; the KV cache stays unknown, because
// the number of KV heads does (it may be any part of the heads). Activations and
// graphs stay unknown with them.
func Manual(id string, params, layers, heads, hidden int64) *Architecture {
	a := &Architecture{
		ID: id, HFModelID: id, Source: "flags", NativeDtype: "bfloat16",
		Params: params, NumLayers: layers, NumHeads: heads, HiddenSize: hidden,
	}
	if heads > 0 {
		a.HeadDim = hidden / heads
	}
	a.finish()
	return a
}
