package nvidia

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// A processTable knows how much GPU memory the run's own processes hold, read
// at a slower rate than the samples. The first sample of a GPU after a reading
// carries it.
type processTable struct {
	tree *sampling.Tree
	own  sampling.ProcessMemory

	mu      sync.Mutex
	rows    []appRow  // of the reading that is coming in
	written time.Time // when its last row came
	settler *time.Timer
	ever    bool // a process of the run was seen
	foreign bool // rows came, none of them the run's
	unread  bool // a process of the run whose memory the driver does not tell
	toolCPU time.Duration
	devices []smiDevice
	buf     []byte
	failure string
}

type appRow struct {
	gpu int32
	p   sampling.Process
}

func newProcessTable(t *sampling.Tree) *processTable {
	return &processTable{tree: t}
}

// start runs a second nvidia-smi that lists compute processes once a second,
// and returns what ends it.
func (t *processTable) start(ctx context.Context, o sampling.Options, devices []smiDevice) func() {
	if t == nil {
		return func() {}
	}
	t.mu.Lock()
	t.devices, t.buf, t.rows = devices, nil, nil
	t.mu.Unlock()
	argv := append(appsArgv(o), "-lms", fmt.Sprint(sampling.ProcessInterval.Milliseconds()))
	tool, err := o.Begin(ctx, proc.Spec{Argv: argv, Stdout: t}, nil, 0)
	if err != nil {
		t.fail(err.Error())
		return func() {}
	}
	return func() {
		select {
		case <-tool.Ended:
			t.fail("nvidia-smi --query-compute-apps ended by itself")
		default:
		}
		tool.End()
		cpu, _ := tool.CPU() // one that cannot be waited for costs what nobody can tell
		t.mu.Lock()
		t.toolCPU += cpu
		t.mu.Unlock()
	}
}

func (t *processTable) fail(why string) {
	t.mu.Lock()
	t.failure = why
	t.mu.Unlock()
}

// rowsTogether is how near to each other the rows of one reading come: they
// follow each other within milliseconds, readings within a second.
const rowsTogether = 100 * time.Millisecond

// Write takes the tool's output. A reading counts when no further row has
// followed for a while.
func (t *processTable) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.written) > rowsTogether {
		t.rows = t.rows[:0]
	}
	t.written = now
	t.buf = append(t.buf, p...)
	for {
		line, rest, ok := bytes.Cut(t.buf, []byte{'\n'})
		if !ok {
			break
		}
		t.line(line)
		t.buf = rest
	}
	if len(t.buf) > maxSMILine {
		t.buf = nil
	}
	if t.settler == nil {
		t.settler = time.AfterFunc(rowsTogether, t.settle)
	} else {
		t.settler.Reset(rowsTogether)
	}
	return len(p), nil
}

func (t *processTable) line(line []byte) {
	bus, p, ok := parseApp(line)
	i := slices.IndexFunc(t.devices, func(d smiDevice) bool { return d.busID == bus })
	if ok && i >= 0 {
		t.rows = append(t.rows, appRow{t.devices[i].index, p})
	}
}

// settle sums the run's own rows of the reading.
func (t *processTable) settle() {
	own, _ := t.tree.PIDs()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 || len(own) == 0 {
		return
	}
	sums, known := map[int32]int64{}, true
	for _, r := range t.rows {
		if !slices.Contains(own, r.p.PID) {
			continue
		}
		if r.p.Bytes == nil {
			known = false
			continue
		}
		sums[r.gpu] += *r.p.Bytes
	}
	found := len(sums) > 0 || !known
	t.ever = t.ever || found
	t.foreign = t.foreign || !found
	t.unread = t.unread || !known
	if known {
		for gpu, sum := range sums {
			t.own.Set(gpu, sum)
		}
	}
}

// attach gives a sample the latest reading, once.
func (t *processTable) attach(s *runner.Sample) {
	if t != nil {
		t.own.Attach(s)
	}
}

// cpu is the cost of the tool.
func (t *processTable) cpu() time.Duration {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.toolCPU
}

// why says why no figure came; "" if one did.
func (t *processTable) why() string {
	if t == nil {
		return "the run's own processes were not asked for"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ever && !t.unread:
		return ""
	case t.unread:
		return "the driver does not tell the memory of single processes here"
	case t.failure != "":
		return t.failure
	case t.foreign:
		return "the driver lists processes, none of them the run's: a PID namespace (container) may hide them"
	}
	return "the driver listed no process: a PID namespace (container) may hide them, or none used the GPU"
}
