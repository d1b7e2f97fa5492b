package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// liveEvery is how often the live line is drawn.
const liveEvery = 500 * time.Millisecond

// A live is the line that shows what is sampled while a command runs: a
// runner.Sink that draws. It stands below the command's output, on terminals
// only. All methods may be called from any goroutine.
type live struct {
	out    io.Writer
	width  int // 0: no terminal
	result *runner.Result
	begun  time.Time
	now    func() time.Time

	mu    sync.Mutex
	gpus  map[int32]runner.Sample // the latest of each; figures stay until they are told anew
	peak  map[int32]int64
	drawn time.Time
	shown bool
	bol   bool // the command's output stands at the beginning of a line
}

// newLive draws on out if it is a terminal.
func newLive(out io.Writer) *live {
	l := &live{
		out: rawOf(out), begun: time.Now(), now: time.Now, bol: true,
		gpus: map[int32]runner.Sample{}, peak: map[int32]int64{},
	}
	if width, tty := terminal(out); tty {
		l.width = width
	}
	return l
}

// Begin makes it the sink of a run.
func (l *live) Begin(*runner.Job) (runner.RunSink, error) { return l, nil }

// Finish keeps the result.
func (l *live) Finish(r *runner.Result) error {
	l.result = r
	return nil
}

// Samples notes samples and draws the line when it is time.
func (l *live) Samples(batch []runner.Sample) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range batch {
		l.note(&batch[i])
	}
	if now := l.now(); l.width > 0 && l.bol && now.Sub(l.drawn) >= liveEvery {
		l.drawn = now
		l.draw()
	}
	return nil
}

func (l *live) note(s *runner.Sample) {
	g := l.gpus[s.GPU]
	g.Has |= s.Has
	if s.Has&runner.HasMemoryUsed != 0 {
		g.MemoryUsed = s.MemoryUsed
		l.peak[s.GPU] = max(l.peak[s.GPU], s.MemoryUsed)
	}
	if s.Has&runner.HasUtilization != 0 {
		g.Utilization = s.Utilization
	}
	if s.Has&runner.HasPower != 0 {
		g.Power = s.Power
	}
	if s.Has&runner.HasHostRSS != 0 {
		g.HostRSS = s.HostRSS
	}
	l.gpus[s.GPU] = g
}

// text is the line without its end: the GPUs in order, the host last.
func (l *live) text() string {
	parts := []string{l.now().Sub(l.begun).Round(time.Second).String()}
	for _, gpu := range slices.Sorted(maps.Keys(l.gpus)) {
		g := l.gpus[gpu]
		if gpu == runner.HostGPU {
			continue
		}
		part := fmt.Sprintf("GPU %d", gpu)
		if g.Has&runner.HasMemoryUsed != 0 {
			part += fmt.Sprintf(" %.2f GiB (max %.2f)", float64(g.MemoryUsed)/runner.GiB, float64(l.peak[gpu])/runner.GiB)
		}
		if g.Has&runner.HasUtilization != 0 {
			part += fmt.Sprintf(" %d%%", g.Utilization)
		}
		if g.Has&runner.HasPower != 0 {
			part += fmt.Sprintf(" %.0f W", g.Power)
		}
		parts = append(parts, part)
	}
	if host, ok := l.gpus[runner.HostGPU]; ok {
		parts = append(parts, fmt.Sprintf("host %.2f GiB", float64(host.HostRSS)/runner.GiB))
	}
	text := strings.Join(parts, " | ")
	if len(text) >= l.width {
		text = text[:l.width-1]
	}
	return text
}

func (l *live) draw() {
	fmt.Fprintf(l.out, "\r\x1b[K%s", l.text())
	l.shown = true
}

// erase takes the line away. The caller holds the lock.
func (l *live) erase() {
	if l.shown {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.shown = false
	}
}

// end takes the line away for good.
func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.erase()
	l.width = 0
}

// over is out for those who print beside the line.
func (l *live) over(out io.Writer) io.Writer {
	if l.width == 0 {
		return out
	}
	return &overLive{l, out}
}

type overLive struct {
	l   *live
	out io.Writer
}

// Write prints in the place of the line, which comes back below once the output
// has ended its own.
func (o *overLive) Write(p []byte) (int, error) {
	o.l.mu.Lock()
	defer o.l.mu.Unlock()
	o.l.erase()
	if len(p) > 0 {
		o.l.bol = p[len(p)-1] == '\n' || p[len(p)-1] == '\r'
	}
	return o.out.Write(p)
}
