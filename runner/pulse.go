package runner

import (
	"sync/atomic"
	"time"
)

// A Pulse is what an engine tells while it runs: that it speaks, that it is
// ready, and which processes it consists of. The Runner keeps the sweep's limits
// of start-up and silence by it, and samplers ask it for the process tree. All
// methods may be called on a nil Pulse and from any goroutine.
type Pulse struct {
	output atomic.Pointer[time.Time] // with its monotonic reading: a clock that is set is no silence
	ready  atomic.Bool
	tree   atomic.Pointer[func() []int]
}

// Output says that the engine printed something at this time.
func (p *Pulse) Output(at time.Time) {
	if p != nil {
		p.output.Store(&at)
	}
}

// LastOutput is the time of the last Output; zero if there was none.
func (p *Pulse) LastOutput() time.Time {
	if p == nil || p.output.Load() == nil {
		return time.Time{}
	}
	return *p.output.Load()
}

// Ready says that the engine has started up: startup_timeout no longer counts.
func (p *Pulse) Ready() {
	if p != nil {
		p.ready.Store(true)
	}
}

// IsReady reports whether Ready was called.
func (p *Pulse) IsReady() bool { return p != nil && p.ready.Load() }

// SetTree tells how the engine's live processes are listed (proc.Process.Tree).
// It is set to nil when they are gone.
func (p *Pulse) SetTree(tree func() []int) {
	if p != nil {
		p.tree.Store(&tree)
	}
}

// Tree lists the engine's live processes; empty before it has started.
func (p *Pulse) Tree() []int {
	if p == nil {
		return nil
	}
	if tree := p.tree.Load(); tree != nil && *tree != nil {
		return (*tree)()
	}
	return nil
}
