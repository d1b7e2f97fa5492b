package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// laneLines is the display of an execution of several lanes: on a terminal a line
// a lane below what was printed, and one about all of them.
type laneLines struct {
	*display
	width  int
	labels map[int]string
	lines  map[int]string
	eta    time.Duration
	drawn  int // lines that stand on the terminal
	at     time.Time
}

// A shower is a display that is taken away in the end.
type shower interface {
	runner.Display
	finish()
}

// overLanes is d, or lines of lanes over it where a sweep admits several.
func overLanes(d *display, plan *sweep.Plan) shower {
	width, tty := terminal(d.out)
	if !tty || !slices.ContainsFunc(plan.Sweeps, func(s *sweep.Sweep) bool { return s.Lanes.Count != 1 }) {
		return d
	}
	d.bar = nil // its place is the last line
	return &laneLines{display: d, width: width, labels: map[int]string{}, lines: map[int]string{}}
}

// RunBegins names the run of a lane.
func (l *laneLines) RunBegins(n int, job *runner.Job) {
	if job.Lane == nil { // there was work for one lane alone
		l.display.RunBegins(n, job)
		return
	}
	gpus := make([]string, len(job.Devices))
	for i, d := range job.Devices {
		gpus[i] = fmt.Sprint(d.Index)
	}
	l.labels[job.Lane.Number] = fmt.Sprintf("lane %d  GPU %s  %s", job.Lane.Number,
		strings.Join(gpus, ","), l.name(job.Profile.ID, job.Repeat))
	l.lines[job.Lane.Number] = l.labels[job.Lane.Number]
}

// Progress shows phase and memory of a lane.
func (l *laneLines) Progress(p runner.Progress) {
	text := fmt.Sprintf("%s  %s", l.labels[p.Lane], p.Phase)
	if p.MemoryBytes > 0 {
		text += fmt.Sprintf("  %.2f GiB", float64(p.MemoryBytes)/runner.GiB)
	}
	l.lines[p.Lane], l.eta = text, p.ETA
	if now := time.Now(); now.Sub(l.at) >= 100*time.Millisecond {
		l.at = now
		l.erase()
		l.draw()
	}
}

func (l *laneLines) draw() {
	var out strings.Builder
	last := 0
	for lane := range l.lines {
		last = max(last, lane)
	}
	for lane := 1; lane <= last; lane++ {
		if text, ok := l.lines[lane]; ok {
			fmt.Fprintf(&out, "%.*s\n", l.width-1, text)
			l.drawn++
		}
	}
	rest := fmt.Sprintf("%d of %d done", l.done, l.total)
	if l.eta > 0 {
		rest += "  ETA " + l.eta.Round(time.Second).String()
	}
	fmt.Fprintf(&out, "%.*s\n", l.width-1, rest)
	l.drawn++
	_, _ = l.out.Write([]byte(out.String())) // a terminal that went away is no reason to stop
}

// erase takes the lines away.
func (l *laneLines) erase() {
	if l.drawn > 0 {
		fmt.Fprintf(l.out, "\x1b[%dA\x1b[J", l.drawn)
		l.drawn = 0
	}
}

// RunEnds prints what was found, in the place of the lines.
func (l *laneLines) RunEnds(n int, r *runner.Result) {
	l.erase()
	if r.Run.Lane != nil {
		delete(l.lines, r.Run.Lane.Number)
	}
	l.display.RunEnds(n, r)
}

// Note prints something that the user should know now, in the place of the lines.
func (l *laneLines) Note(text string) {
	l.erase()
	l.display.Note(text)
}

func (l *laneLines) finish() {
	l.erase()
	l.display.finish()
}
