package gpu

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// processInterval is how often processes and their memory are asked for: the
// driver holds a global lock while it lists them.
const processInterval = time.Second

// A processTable knows how much GPU memory the run's own processes hold, read
// at a slower rate than the samples. The first sample of a GPU after a reading
// carries it.
type processTable struct {
	tree *tree

	mu      sync.Mutex
	fresh   map[int32]int64 // gpu: bytes, not yet carried by a sample
	rows    []appRow        // of the reading that is coming in
	written time.Time       // when its last row came
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
	gpu   int32
	pid   int
	bytes int64
	ok    bool
}

func newProcessTable(t *tree) *processTable {
	return &processTable{tree: t, fresh: map[int32]int64{}}
}

// start runs a second nvidia-smi that lists compute processes once a second,
// and returns what ends it.
func (t *processTable) start(ctx context.Context, o Options, devices []smiDevice, pids func() []int) func() {
	if t == nil || pids == nil {
		return func() {}
	}
	t.mu.Lock()
	t.devices, t.buf, t.rows = devices, nil, nil
	t.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	argv := []string{o.NvidiaSMI, "--query-compute-apps=gpu_bus_id,pid,used_gpu_memory",
		"--format=csv,noheader,nounits", "-lms", fmt.Sprint(processInterval.Milliseconds())}
	p, err := o.start(ctx, proc.Spec{Argv: argv, Env: toolEnv(o.Env), Grace: toolGrace, Stdout: t})
	if err != nil {
		t.fail(err.Error())
		cancel()
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		exit, err := waitBounded(ctx, p)
		if err == nil {
			t.mu.Lock()
			t.toolCPU += exit.CPU
			t.mu.Unlock()
		}
		if ctx.Err() == nil {
			t.fail("nvidia-smi --query-compute-apps ended by itself")
		}
	}()
	return func() {
		cancel()
		<-done
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
	cells := bytes.Split(line, []byte{','})
	if len(cells) != 3 {
		return
	}
	row := appRow{gpu: -1}
	bus := string(trim(cells[0]))
	for _, d := range t.devices {
		if d.busID == bus {
			row.gpu = d.index
		}
	}
	pid, ok := digits(trim(cells[1]))
	if !ok || row.gpu < 0 {
		return
	}
	row.pid = pid
	if v, unit, ok := parseDecimal(cells[2]); ok && len(unit) == 0 {
		row.bytes, row.ok = int64(v)<<20, true
	}
	t.rows = append(t.rows, row)
}

// settle sums the run's own rows of the reading.
func (t *processTable) settle() {
	own, _ := t.tree.pids()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return
	}
	if len(own) == 0 {
		return
	}
	sums, known := map[int32]int64{}, true
	found := false
	for _, r := range t.rows {
		if !slices.Contains(own, r.pid) {
			continue
		}
		found = true
		known = known && r.ok
		sums[r.gpu] += r.bytes
	}
	t.ever = t.ever || found
	t.foreign = t.foreign || !found
	t.unread = t.unread || found && !known
	if !found || !known {
		return
	}
	for gpu, sum := range sums {
		t.fresh[gpu] = sum
	}
}

// attach gives a sample the latest reading, once.
func (t *processTable) attach(s *runner.Sample) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.fresh[s.GPU]; ok {
		s.ProcessMemory = v
		s.Has |= runner.HasProcessMemory
		delete(t.fresh, s.GPU)
	}
}

// cpu is the cost of the tool.
func (t *processTable) cpu() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.toolCPU
}

// why says why no figure came; "" if one did.
func (t *processTable) why() string {
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
