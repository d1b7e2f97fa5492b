package models

// allocator plays torch's caching allocator for one sequence of allocations,
// because what vLLM prints as weights is what that allocator counts: a tensor
// above 1 MiB comes from a segment that is a multiple of 2 MiB, and a rest of up to 1 MiB
// is counted with the tensor. For phi-4 that is 80 MiB, for Qwen2.5-7B 57.
// Source: c10/cuda/CUDACachingAllocator.cpp (get_allocation_size, should_split,
// get_free_block).
type allocator struct {
	split int64 // max_split_size; 0: none
	used  int64
	free  []int64
}

const (
	smallSize    = 1 * mib  // up to here a tensor comes from the small pool, in steps of 512 bytes
	largeBuffer  = 20 * mib // segment of a tensor under minLargeSize
	minLargeSize = 10 * mib
	roundLarge   = 2 * mib
)

// alloc takes n bytes and returns what the allocator counts for them.
func (p *allocator) alloc(n int64) int64 {
	if n <= 0 {
		return 0
	}
	size := roundUp(n, 512)
	if size <= smallSize {
		p.used += size
		return size
	}
	block := p.take(size)
	if block == 0 {
		block = roundUp(size, roundLarge)
		if size < minLargeSize {
			block = largeBuffer
		}
	}
	if rest := block - size; rest > smallSize && (p.split == 0 || size < p.split) {
		p.keep(rest)
		block = size
	}
	p.used += block
	return block
}

// take removes the smallest free block that may serve size; 0: none.
func (p *allocator) take(size int64) int64 {
	best := -1
	for i, b := range p.free {
		switch {
		case b < size, best >= 0 && b >= p.free[best]:
			continue
		case p.split > 0 && size < p.split && b >= p.split:
			continue // kept whole for large tensors
		case p.split > 0 && size >= p.split && b >= size+largeBuffer:
			continue // would waste too much
		}
		best = i
	}
	if best < 0 {
		return 0
	}
	b := p.free[best]
	p.free[best] = p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return b
}

// release gives a block of alloc's back.
func (p *allocator) release(block int64) {
	p.used -= block
	if block > smallSize {
		p.keep(block)
	}
}

// keep adds a free block, of at most a few hundred: models of thousands of
// layers do not need each rest to be looked through for each tensor.
func (p *allocator) keep(block int64) {
	const most = 256
	if len(p.free) < most {
		p.free = append(p.free, block)
	}
}

func roundUp(n, step int64) int64 { return (n + step - 1) / step * step }
