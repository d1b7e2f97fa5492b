package models

import "strings"

// weightCache keeps what WeightBytes computed of one architecture.
type weightCache struct{}

func ceilDiv(a, b int64) int64 {
	if b <= 0 {
		return 0
	}
	return (a + b - 1) / b
}

// keeps says that the checkpoint leaves module m in the model's dtype: one of
// the names that it lists is m's name or an ending or a part of its path.
func (q *Quantization) keeps(m module) bool {
	for _, k := range q.Keep {
		k = strings.TrimSuffix(strings.TrimPrefix(k, "re:"), "*")
		if i := strings.LastIndex(k, "layers."); i >= 0 { // model.layers.*.self_attn
			if _, rest, ok := strings.Cut(k[i+len("layers."):], "."); ok {
				k = rest
			} else {
				continue // whole layers: not a rule for all
			}
		}
		k = strings.TrimPrefix(k, "model.")
		if k != "" && (m.name == k || strings.HasPrefix(m.name, k+".") || strings.HasSuffix(m.name, "."+k)) {
			return true
		}
	}
	return false
}
