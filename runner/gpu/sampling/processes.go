package sampling

import (
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// ProcessInterval is how often processes and their memory are asked for: the
// driver holds a global lock while it lists them.
const ProcessInterval = time.Second

// SlowShare bounds the costs of the slower parts: each may take at most this
// share of the time, so its next turn is the later the longer it took.
const SlowShare = 200 // 1/200

// A Tree is the run's processes. Who belongs to it is for runner/proc to know
// (Process.Tree, through Run.PIDs); here the answer is only kept for a while,
// since looking costs a pass over /proc.
type Tree struct {
	list func() []int

	mu    sync.Mutex
	due   time.Time
	known []int
	gen   int
}

// treeEvery is how old the list of processes may be.
const treeEvery = 500 * time.Millisecond

// NewTree keeps what list says.
func NewTree(list func() []int) *Tree { return &Tree{list: list} }

// PIDs lists the live processes of the run, and the number of the look that the
// list is from. The list must not be changed.
func (t *Tree) PIDs() (pids []int, look int) {
	if t == nil || t.list == nil {
		return nil, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); !now.Before(t.due) {
		t.known = t.list()
		t.due = now.Add(max(treeEvery, SlowShare*time.Since(now)))
		t.gen++
	}
	return t.known, t.gen
}

// ProcessMemory is what the run's own processes hold, by GPU, as long as no
// sample has carried it.
type ProcessMemory struct {
	mu    sync.Mutex
	fresh map[int32]int64
}

// Set has the next sample of a GPU carry what they hold on it.
func (p *ProcessMemory) Set(gpu int32, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fresh == nil {
		p.fresh = map[int32]int64{}
	}
	p.fresh[gpu] = bytes
}

// Attach gives a sample what there is for it, once.
func (p *ProcessMemory) Attach(s *runner.Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, ok := p.fresh[s.GPU]; ok {
		s.ProcessMemory = v
		s.Has |= runner.HasProcessMemory
		delete(p.fresh, s.GPU)
	}
}
