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
)

// A processTable knows how much GPU memory the run's own processes hold, read
// at a slower rate than the samples. The first sample of a GPU after a reading
// carries it.
type processTable struct {
	tree *sampling.Tree
	own  sampling.ProcessMemory

	mu      sync.Mutex
	missing string // why no figure came; "" once one did
}

func newProcessTable(t *sampling.Tree) *processTable {
	return &processTable{
		tree:    t,
		missing: "the driver listed no process: a PID namespace (container) may hide them, or none used the GPU",
	}
}

// appsShare bounds what listing processes costs: nvidia-smi starts anew for
// each look (18 ms on an H100, 300 ms without persistence mode), so the next one
// is the later the longer it took.
const appsShare = 50 // 1/50

// run lists the compute processes until ctx ends.
func (t *processTable) run(ctx context.Context, m *sampling.Meter, o sampling.Options, devices []smiDevice) {
	for {
		began := time.Now()
		out, err := o.RunTool(ctx, appsArgv(o)...)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			m.ToolCPU(out.CPU)
			err = appsError(out)
		}
		t.take(out, err, devices)
		if !sampling.Sleep(ctx, max(sampling.ProcessInterval, appsShare*time.Since(began))) {
			return
		}
	}
}

// take sums what the run's own processes hold by one list.
func (t *processTable) take(out *sampling.Output, err error, devices []smiDevice) {
	own, _ := t.tree.PIDs()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.lacks(err.Error())
		return
	}
	sums, foreign := map[int32]int64{}, false
	for line := range bytes.Lines(out.Stdout) {
		bus, p, ok := parseApp(line)
		i := slices.IndexFunc(devices, func(d smiDevice) bool { return d.busID == bus })
		switch {
		case !ok || i < 0:
		case !slices.Contains(own, p.PID):
			foreign = true
		case p.Bytes == nil:
			t.missing = "the driver does not report the memory of single processes here"
			return
		default:
			sums[devices[i].index] += *p.Bytes
		}
	}
	for gpu, sum := range sums {
		t.own.Set(gpu, sum)
		t.missing = ""
	}
	if len(sums) == 0 && foreign && len(own) > 0 {
		t.lacks("the driver lists processes, none of them the run's: a PID namespace (container) may hide them")
	}
}

// lacks keeps why there is no figure, as long as there was none.
func (t *processTable) lacks(why string) {
	if t.missing != "" {
		t.missing = why
	}
}

func appsError(out *sampling.Output) error {
	if out.Code == 0 {
		return nil
	}
	return fmt.Errorf("nvidia-smi --query-compute-apps (exit code %d): %s", out.Code, out.Text())
}

// why is why there is no figure; "" where there was one.
func (t *processTable) why() string {
	if t == nil {
		return notAsked
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.missing
}

// attach gives a sample the latest reading, once.
func (t *processTable) attach(s *runner.Sample) {
	if t != nil {
		t.own.Attach(s)
	}
}
