package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// A display shows how an execution goes: a progress bar on a terminal, plain
// lines elsewhere, and after each run what was found.
type display struct {
	out     io.Writer // progress and notes: standard error
	report  io.Writer // summaries of runs: standard output
	bar     *progressbar.ProgressBar
	details func(io.Writer, *runner.Result) error
	each    func(*runner.Result) // nil: nobody asks

	total, done int
	label       string
	phase       runner.Phase
}

// newDisplay makes a display for out; details prints the summary of one run,
// nil prints one line.
func newDisplay(out, report io.Writer, details func(io.Writer, *runner.Result) error) *display {
	d := &display{out: out, report: report, details: details}
	if width, tty := terminal(out); tty {
		d.bar = progressbar.NewOptions(-1,
			progressbar.OptionSetWriter(rawOf(out)),
			progressbar.OptionSetWidth(min(24, width/5)),
			progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(false), // our own: runs that were kept take no time
			progressbar.OptionSetElapsedTime(false),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionUseANSICodes(true),
			progressbar.OptionClearOnFinish(),
		)
	}
	return d
}

// Begin says what is ahead.
func (d *display) Begin(s *runner.Schedule) {
	d.total, d.done = s.Runs, s.Kept
	verb := "execution"
	if s.Resumed {
		verb = "resumed execution"
	}
	fmt.Fprintf(d.out, "%s %s: %s", verb, s.Execution, plural(s.Runs, "run"))
	if s.Kept > 0 {
		fmt.Fprintf(d.out, ", %d of them finished earlier", s.Kept)
	}
	fmt.Fprintln(d.out)
	for _, change := range s.Changes {
		fmt.Fprintf(d.out, "  %s since then: %s (%s)\n", change.Change, change.Point, change.ID)
	}
	if d.bar != nil {
		d.bar.ChangeMax(max(s.Runs, 1))
		d.set()
	}
}

// set moves the bar to the runs that are done.
func (d *display) set() {
	_ = d.bar.Set(d.done) // a terminal that went away is no reason to stop
}

// RunBegins names the run.
func (d *display) RunBegins(n int, job *runner.Job) {
	s := job.Profile.Settings
	d.label = fmt.Sprintf("%s tp=%d in=%d out=%d bs=%d", s.Model, s.TensorParallelSize, s.InputLen, s.OutputLen,
		s.BatchSize)
	d.phase = ""
	if d.bar == nil {
		fmt.Fprintf(d.out, "[%d/%d] %s: %s%s\n", n, d.total, job.Sweep.Name, d.label, attempt(job))
	}
}

func attempt(job *runner.Job) string {
	text := ""
	if job.Sweep.Repeats > 1 {
		text = fmt.Sprintf(", repeat %d", job.Repeat)
	}
	if job.Attempt > 1 {
		text += fmt.Sprintf(", attempt %d", job.Attempt)
	}
	return text
}

// Progress shows phase, memory and the time that is left.
func (d *display) Progress(p runner.Progress) {
	if d.bar == nil {
		return
	}
	if p.Phase != "" {
		d.phase = p.Phase
	}
	memory := ""
	if p.MemoryBytes > 0 {
		memory = fmt.Sprintf("  %.2f GiB", float64(p.MemoryBytes)/runner.GiB)
	}
	eta := ""
	if p.ETA > 0 {
		eta = "  ETA " + p.ETA.Round(time.Second).String()
	}
	d.bar.Describe(sweep.Printable(fmt.Sprintf("%s  %s%s%s", d.label, d.phase, memory, eta)))
	d.set()
}

// RunEnds prints what was found.
func (d *display) RunEnds(n int, r *runner.Result) {
	d.done++
	if d.each != nil {
		d.each(r)
	}
	d.clear()
	if d.details != nil && r.Run.Outcome == runner.OutcomeOK {
		fmt.Fprintf(d.report, "\n[%d/%d] %s\n", n, d.total, runTitle(r))
		if err := d.details(d.report, r); err != nil {
			fmt.Fprintf(d.out, "cannot show this run: %v\n", err)
		}
	} else {
		fmt.Fprintf(d.report, "[%d/%d] %s: %s\n", n, d.total, runTitle(r), outcomeLine(r))
	}
	if d.bar != nil {
		d.set()
	}
}

func runTitle(r *runner.Result) string {
	b := r.BenchmarkParameters
	parts := []string{r.Run.Sweep, r.ModelInfo.Model,
		fmt.Sprintf("tp=%d in=%d out=%d bs=%d", b.TensorParallelSize, b.InputLen, b.OutputLen, b.BatchSize)}
	if r.Run.Synthetic {
		parts = append(parts, "(synthetic)")
	}
	return strings.Join(parts, " ")
}

// outcomeLine is a run on one line.
func outcomeLine(r *runner.Result) string {
	line := string(r.Run.Outcome)
	if r.Run.OutcomeDetail != "" {
		line += ": " + r.Run.OutcomeDetail
	}
	if b := r.MemoryBreakdown; b != nil && b.TotalMeasuredGB != nil {
		line += fmt.Sprintf("; highest %.2f GiB", *b.TotalMeasuredGB)
	}
	if l := r.LatencyStats; l != nil {
		line += fmt.Sprintf("; %.4g s an iteration", l.AvgS)
	}
	return line
}

// Note prints something that the user should know now.
func (d *display) Note(text string) {
	d.clear()
	fmt.Fprintf(d.out, "note: %s\n", text)
}

func (d *display) clear() {
	if d.bar != nil {
		_ = d.bar.Clear()
	}
}

// finish takes the bar away.
func (d *display) finish() {
	if d.bar != nil {
		_ = d.bar.Finish()
	}
}
