package models

import (
	"cmp"
	"slices"
	"strings"
)

// A cacheGroup is layers of one kind that share block tables.
type cacheGroup struct {
	kind   byte
	layers int64 // of this kind in the whole model
	groups int64 // that vLLM splits them into
	block  int64 // tokens in a block
}

// cacheLayout is how vLLM lays out the KV cache of one rank: every block is a
// page for each of perGroup layers, and one pool of blocks serves all groups.
// Source: vllm/v1/core/kv_cache_utils.py (_get_kv_cache_groups_uniform_page_size,
// unify_kv_cache_spec_page_size, get_kv_cache_config_from_groups,
// get_max_concurrency_for_kv_cache_config).
type cacheLayout struct {
	block    int64 // tokens in a block of full attention; of a model of states alone, as asked
	page     int64 // bytes of a block of one layer
	perGroup int64 // layers that share a pool on this rank
	bytes    int64 // of a block of the pool, on the rank
	groups   []cacheGroup
	total    int64 // groups in all
}

// kvWidth is bytes of one KV element, 0 where the dtype is not known.
func kvWidth(a *Architecture, kvDtype, dtype string) int64 {
	switch kvDtype {
	case "", "auto":
		if a.Quantization != nil && a.Quantization.KVCache == "fp8" {
			return 1
		}
		name, ok := dtypeOf(a, dtype)
		if !ok {
			return 0
		}
		return dtypeSize(name)
	case "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc":
		return 1
	}
	return dtypeSize(kvDtype)
}

// tokenBytes is what one token takes in one layer of a kind, on one rank:
//
//	attention   max(1, KV/tp) · 2·d · b
//	MLA         (kv_lora_rank + qk_rope_head_dim) · b, on every rank in full;
//	            with a sparse indexer fp8 takes 656, and the indexer 132 more
//
// Source: vllm/v1/kv_cache_interface.py, page_size_bytes.
func (a *Architecture) tokenBytes(kind byte, width, tp int64) int64 {
	if a.MLA != nil {
		n := (a.MLA.KVLoraRank + a.MLA.RopeDim) * width
		if a.MLA.IndexHeads > 0 {
			if width == 1 {
				n = 656
			}
			n += ceilDiv(a.MLA.IndexDim+a.MLA.IndexDim/128*4, max(a.MLA.IndexPool, 1))
		}
		return n
	}
	heads, dim := a.heads(kind)
	n := max(1, ceilDiv(heads, tp)) * 2 * dim * width
	if kind == 'i' {
		n += 2 * a.Index.Dim // 16 bit, whatever the cache's dtype
	}
	return n
}

// stateBytes is what a sequence takes in one state layer, on one rank:
// convolution (k-1) · channels/tp · b and, but for a short convolution,
// recurrent state heads/tp · d · state · b_state.
// Source: vllm/model_executor/layers/mamba/mamba_utils.py.
func (a *Architecture) stateBytes(kind byte, width, tp int64) int64 {
	state := func(name string) int64 { return orElse(dtypeSize(name), width) }
	conv := func(channels, kernel int64) int64 {
		return ceilDiv(channels, tp) * (max(kernel-1, 0) + a.guesses) * width
	}
	switch {
	case kind == 'v' && a.ShortConv != nil:
		return conv(a.HiddenSize, a.ShortConv.Kernel)
	case kind == 'l' && a.DeltaNet != nil:
		n := a.DeltaNet
		return conv(2*n.KeyHeads*n.KeyDim+n.ValueHeads*n.ValueDim, n.ConvKernel) +
			ceilDiv(n.ValueHeads, tp)*n.KeyDim*n.ValueDim*state(n.StateDtype)
	case a.Mamba != nil:
		n := a.Mamba
		groups := n.Groups
		if groups%tp != 0 { // each rank keeps a group of its own
			groups = tp
		}
		channels := n.Heads*n.HeadDim + 2*groups*n.StateSize
		if n.TimeStepRank > 0 {
			channels = n.Heads * n.HeadDim // Mamba 1 convolves its input alone
		}
		return conv(channels, n.ConvKernel) + ceilDiv(n.Heads, tp)*n.HeadDim*n.StateSize*state(n.StateDtype)
	}
	return 0
}

// cacheKnown says why the KV cache of a cannot be computed; "" when it can.
func cacheKnown(a *Architecture) string {
	switch {
	case a == nil:
		return reasonNoModel
	case a.NumLayers <= 0:
		return "the number of layers is not known"
	case a.Unknown != "" && a.stateLayers():
		return a.NotKnown()
	case strings.ContainsAny(a.LayerPattern, "xyz"):
		return "how the caches of compressed attention share pages was neither read nor measured"
	case a.MLA == nil && (a.NumKVHeads <= 0 || a.HeadDim <= 0) &&
		strings.Trim(cmp.Or(a.LayerPattern, "f"), "mMlv-E") != "": // not of states alone
		return "the number of KV heads or their size is not known"
	case a.stateLayers() && a.DeltaNet == nil && a.Mamba == nil && a.ShortConv == nil:
		return "the size of the state layers is not known"
	}
	return ""
}

// KVBytesPerToken is what one token takes in the KV cache of one rank at
// tensor-parallel size tp, over all layers: sum over attention layers of
// max(1, KV/tp)·2·d·b, or of (kv_lora_rank + qk_rope_head_dim)·b for MLA. State layers (Mamba,
// delta net) take none; their states come with each sequence. kvDtype "" or
// "auto" is the checkpoint's.
func KVBytesPerToken(a *Architecture, kvDtype string, tp int64) (n int64, ok bool, reason string) {
	return kvBytesPerToken(a, kvDtype, "", tp)
}

func kvBytesPerToken(a *Architecture, kvDtype, dtype string, tp int64) (int64, bool, string) {
	if reason := cacheKnown(a); reason != "" {
		return 0, false, reason
	}
	width := kvWidth(a, kvDtype, dtype)
	if width == 0 {
		return 0, false, "the width of the KV cache's dtype is not known"
	}
	var n int64
	for _, c := range a.derived.classes {
		if hasAttention(c.kind) {
			n += c.count * a.tokenBytes(c.kind, width, max(tp, 1))
		}
	}
	return n, true, ""
}

// layout lays the cache out for one pipeline stage.
func (a *Architecture) layout(width, tp, pp, block int64, st stage) cacheLayout {
	l := cacheLayout{block: block}
	var state int64
	for _, c := range a.derived.classes {
		for _, kind := range cacheKinds(c.kind) {
			l.add(kind, c.count)
			if hasState(kind) {
				state = max(state, a.stateBytes(kind, width, tp))
			}
		}
	}
	l.pages(a, width, tp, state)
	if len(l.groups) > 1 && a.full() {
		return l.together(a, width, tp, st)
	}
	l.split()
	for _, g := range l.groups {
		here := g.layers
		if pp > 1 {
			here = 0
			for _, kind := range a.derived.kinds[st.first:st.last] {
				if slices.Contains(cacheKinds(kind), g.kind) {
					here++
				}
			}
		}
		l.perGroup = max(l.perGroup, ceilDiv(here, g.groups))
	}
	l.bytes = l.page * l.perGroup
	return l
}

// full says that all layers with a cache keep all positions, whatever the
// size of their pages: vLLM then makes one group of them.
func (a *Architecture) full() bool {
	for _, c := range a.derived.classes {
		for _, kind := range cacheKinds(c.kind) {
			if !isGlobal(kind) {
				return false
			}
		}
	}
	return true
}

// together makes one group of all layers, a block of which is a page of each.
func (l cacheLayout) together(a *Architecture, width, tp int64, st stage) cacheLayout {
	for _, kind := range a.derived.kinds[st.first:st.last] {
		for _, kind := range cacheKinds(kind) {
			l.bytes += l.block * a.tokenBytes(kind, width, tp)
		}
	}
	l.groups, l.total = []cacheGroup{{kind: 'f', groups: 1, block: l.block}}, 1
	return l
}

// cacheKinds are the kinds of cache that a layer has: those with one part alone
// are like those with an MLP, and one with attention and a state has both.
func cacheKinds(kind byte) []byte {
	switch kind {
	case '*':
		return []byte{'f'}
	case 'M':
		return []byte{'m'}
	case 'h':
		return []byte{'f', 'm'}
	}
	if hasAttention(kind) || hasState(kind) {
		return []byte{kind}
	}
	return nil
}

func (l *cacheLayout) add(kind byte, count int64) {
	for i := range l.groups {
		if l.groups[i].kind == kind {
			l.groups[i].layers += count
			return
		}
	}
	l.groups = append(l.groups, cacheGroup{kind: kind, layers: count})
}

// pages sets the common page, the largest of the kinds', because one pool
// serves all: a kind whose page divides it has larger blocks, any other leaves
// a rest unused. Where there are state layers the attention block grows until
// its page holds a state, in steps of 16 tokens, of 128 with MLA
// (vllm/platforms/interface.py, _align_hybrid_block_size).
func (l *cacheLayout) pages(a *Architecture, width, tp, state int64) {
	var token int64
	for _, g := range l.groups {
		if hasAttention(g.kind) {
			token = max(token, a.tokenBytes(g.kind, width, tp))
		}
	}
	if state > 0 && token > 0 {
		step := max(l.block, 16)
		if a.MLA != nil {
			step = max(step, 128)
		}
		l.block = max(l.block, roundUp(ceilDiv(state, token), step))
	}
	l.page = max(l.block*token, state)
	for i, g := range l.groups {
		l.groups[i].block = l.block
		if own := l.block * a.tokenBytes(g.kind, width, tp); hasAttention(g.kind) && own > 0 && l.page%own == 0 {
			l.groups[i].block = l.block * (l.page / own)
		}
	}
}

// split sets how many groups each kind is divided into: all of the size of the
// smallest kind, or of the largest where that is less than half as large again.
func (l *cacheLayout) split() {
	var least, most int64
	for _, g := range l.groups {
		if least == 0 || g.layers < least {
			least = g.layers
		}
		most = max(most, g.layers)
	}
	size := least
	if 2*most < 3*least {
		size = most
	}
	for i := range l.groups {
		l.groups[i].groups = max(1, ceilDiv(l.groups[i].layers, max(size, 1)))
		l.total += l.groups[i].groups
	}
}

// blocks is how many blocks of the pool a sequence of length tokens needs when
// inFlight tokens may be scheduled at once:
//
//	full      ceil(len / block)
//	sliding   ceil(min(window - 1 + inFlight, len) / block) + 1
//	chunked   ceil(min(chunk + inFlight, len) / block)
//	state     1, one more a guessed token, and one with prefix caching
//
// Source: vllm/v1/kv_cache_interface.py, max_admission_blocks_per_request.
func (l *cacheLayout) blocks(a *Architecture, length, inFlight int64) int64 {
	var n int64
	for _, g := range l.groups {
		b := ceilDiv(length, g.block)
		switch {
		case hasState(g.kind):
			b = 1 + a.guesses
			if a.cached {
				b++ // the state at the last block's end, for another prompt to start from
			}
		case g.kind == 's':
			b = ceilDiv(min(a.SlidingWindow-1+inFlight, length), g.block) + 1
			if len(l.groups) == 1 { // a model of one kind: no bound by the pool's other groups
				b = min(b, ceilDiv(length, g.block)+1)
			}
		case g.kind == 'c':
			b = ceilDiv(min(a.ChunkSize+inFlight, length), g.block)
		}
		n += g.groups * b
	}
	return n
}

// blockBytes is what one block of the pool takes on the rank.
func (l *cacheLayout) blockBytes() int64 { return l.bytes }

// KVUsedBytes is what batch sequences of length tokens fill of the KV cache of
// one rank, whole blocks of block tokens (0: 16): the windows of sliding
// layers are kept to their size, states of state layers counted once a sequence.
func KVUsedBytes(a *Architecture, kvDtype string, tp, batch, length, block int64) (n int64, ok bool, reason string) {
	if reason := cacheKnown(a); reason != "" {
		return 0, false, reason
	}
	width := kvWidth(a, kvDtype, "")
	if width == 0 {
		return 0, false, "the width of the KV cache's dtype is not known"
	}
	l := a.layout(width, max(tp, 1), 1, blockSize(block), stageOf(a.NumLayers, 1, 0))
	return batch * l.taken(a, length) * l.blockBytes(), true, ""
}

// taken is how many blocks a sequence of length tokens has taken. A window may
// begin within a block, and vLLM admits one more for that (blocks); a sequence
// that is no longer than its window never takes it.
// Source: vllm/v1/core/single_type_kv_cache_manager.py, get_num_blocks_to_allocate.
func (l *cacheLayout) taken(a *Architecture, length int64) int64 {
	n := l.blocks(a, length, 0)
	for _, g := range l.groups {
		if g.kind == 's' && ceilDiv(length, g.block) <= ceilDiv(min(a.SlidingWindow-1, length), g.block) {
			n -= g.groups
		}
	}
	return n
}

// blockSize is the tokens in a block: asked, else 16. (The FlashMLA kernels take
// 64, which rounds the tokens of a sequence up by at most 48 more.)
// Source: vllm/config/cache.py.
func blockSize(asked int64) int64 {
	if asked > 0 {
		return asked
	}
	return 16
}
