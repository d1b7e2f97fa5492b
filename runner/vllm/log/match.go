package log

// A matcher finds, in one pass over a line, which of a fixed set of strings it
// holds. Nearly all lines of a server's log hold none, so this pass is what
// reading costs: a bitmap of the hashed first three bytes of every string
// rejects all but a few positions.
type matcher struct {
	bitmap  [1 << 9]uint64 // 2^15 bits
	index   [1 << 15]uint8 // of the bucket; 0: none
	buckets [][]needle
}

type needle struct {
	text string
	bit  uint
}

// A hitSet says which strings a line holds, by their index.
type hitSet [4]uint64

func (h *hitSet) add(bit uint)      { h[bit>>6] |= 1 << (bit & 63) }
func (h *hitSet) has(bit uint) bool { return h[bit>>6]&(1<<(bit&63)) != 0 }

// between reports whether a string with an index of from or more and below to
// is there.
func (h *hitSet) between(from, to uint) bool {
	for i := from; i < to; i++ {
		if h.has(i) {
			return true
		}
	}
	return false
}

func (h *hitSet) any() bool { return h[0]|h[1]|h[2]|h[3] != 0 }

// newMatcher takes strings of three bytes or more, 256 at most.
func newMatcher(texts []string) *matcher {
	m := &matcher{buckets: make([][]needle, 1)}
	for i, t := range texts {
		v := uint32(t[0]) | uint32(t[1])<<8 | uint32(t[2])<<16
		h := hash3(v)
		m.bitmap[h>>6] |= 1 << (h & 63)
		if m.index[h] == 0 {
			m.buckets = append(m.buckets, nil)
			m.index[h] = uint8(len(m.buckets) - 1)
		}
		b := &m.buckets[m.index[h]]
		*b = append(*b, needle{text: t, bit: uint(i)})
	}
	return m
}

func hash3(v uint32) uint32 { return v * 0x9E3779B1 >> 17 }

// find reports the strings that line holds.
func (m *matcher) find(line []byte) (hits hitSet) {
	if len(line) < 3 {
		return hits
	}
	v := uint32(line[0])<<8 | uint32(line[1])<<16
	for i, c := range line[2:] {
		v = v>>8 | uint32(c)<<16
		h := hash3(v)
		if m.bitmap[h>>6]&(1<<(h&63)) != 0 {
			m.verify(line[i:], h, &hits)
		}
	}
	return hits
}

func (m *matcher) verify(rest []byte, h uint32, hits *hitSet) {
	for _, n := range m.buckets[m.index[h]] {
		if len(rest) >= len(n.text) && string(rest[:len(n.text)]) == n.text {
			hits.add(n.bit)
		}
	}
}
