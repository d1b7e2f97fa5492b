package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/rivo/uniseg"
	"github.com/schollz/progressbar/v3"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

// A display shows how an execution goes: a progress bar on a terminal, and what
// each run came to: its full account, or a line that says what varies in its sweep.
type display struct {
	out    io.Writer // progress and notes: standard error
	report io.Writer // what runs came to: standard output
	bar    *progressbar.ProgressBar
	names  map[string]string // of profiles, by their ids
	repeat bool              // a sweep repeats its profiles
	pad    int               // columns of the longest name
	detail detail
	colour bool
	each   func(*runner.Result) // nil: nobody asks

	total, done int
	label       string
	phase       runner.Phase
}

// detail is how much is printed of a run.
type detail int

const (
	detailAuto detail = iota // full on a terminal, where there are few runs
	detailFull
	detailLine
)

// fewRuns is how many full accounts people read.
const fewRuns = 10

// newDisplay makes a display for the runs of a plan.
func (w *world) newDisplay(plan *sweep.Plan, how detail) *display {
	d := &display{out: w.stderr, report: w.stdout, detail: how, names: map[string]string{}}
	_, onTerminal := terminal(d.report)
	d.colour = onTerminal && w.getenv("NO_COLOR") == ""
	if how == detailAuto && !onTerminal {
		d.detail = detailLine
	}
	labels := sweep.LabelsOf(plan)
	for _, s := range plan.Sweeps {
		d.repeat = d.repeat || s.Repeats > 1
		for _, p := range s.Profiles {
			name := labels[s.Name].Of(p)
			if len(plan.Sweeps) > 1 {
				name = s.Name + " " + name
			}
			d.names[p.ID] = name
			d.pad = max(d.pad, min(len(name), 44))
		}
	}
	if d.repeat {
		d.pad += len(" r9")
	}
	if width, tty := terminal(d.out); tty {
		d.bar = progressbar.NewOptions(-1,
			progressbar.OptionSetWriter(rawOf(d.out)),
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

// name names a run by its sweep, where there are several, what varies, and the repeat.
func (d *display) name(profile string, repeat int) string {
	if d.repeat {
		return fmt.Sprintf("%s r%d", d.names[profile], repeat)
	}
	return d.names[profile]
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
	if s.Runs > fewRuns && d.detail == detailAuto {
		d.detail = detailLine
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
func (d *display) RunBegins(_ int, job *runner.Job) {
	d.label, d.phase = d.name(job.Profile.ID, job.Repeat), ""
	if job.Attempt > 1 {
		d.label += fmt.Sprintf(", attempt %d", job.Attempt)
	}
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
	// The bar shrinks to what is left of the line; the label is cut for the rest.
	width, _ := terminal(d.out)
	rest := fmt.Sprintf("  %s%s%s", d.phase, memory, eta)
	label := clip(d.label, max(width-len(rest)-2*len(strconv.Itoa(d.total))-len("  100%||  (/) ")-4, 8))
	d.bar.Describe(sweep.Printable(label + rest))
	d.set()
}

// RunEnds prints what was found.
func (d *display) RunEnds(n int, r *runner.Result) {
	d.done++
	if d.each != nil {
		d.each(r)
	}
	d.clear()
	if d.detail != detailLine && r.Run.Outcome == runner.OutcomeOK {
		d.account(n, r)
	} else {
		d.line(n, r)
	}
	if d.bar != nil {
		d.set()
	}
}

// account is all that is known of a run.
func (d *display) account(n int, r *runner.Result) {
	title := fmt.Sprintf("\n[%d/%d] %s", n, d.total, d.name(r.Run.ProfileID, r.Run.Repeat))
	if r.Run.Synthetic {
		title += " (synthetic)"
	}
	fmt.Fprintln(d.report, title)
	if err := attribution.RenderSummary(d.report, r); err != nil {
		fmt.Fprintf(d.out, "cannot show this run: %v\n", err)
	}
}

// line is a run on one line, no longer than a terminal is wide.
func (d *display) line(n int, r *runner.Result) {
	outcome := fmt.Sprintf("%-7s", r.Run.Outcome)
	head := fmt.Sprintf("[%*d/%d] ", len(strconv.Itoa(d.total)), n, d.total)
	rest := fmt.Sprintf(" %-*s  %s", d.pad, d.name(r.Run.ProfileID, r.Run.Repeat), foundOf(r))
	if width, tty := terminal(d.report); tty {
		rest = clip(rest, width-len(head)-len(outcome))
	}
	rest = strings.TrimRight(rest, " ")
	if d.colour { // our own controls go past what makes those of others visible
		outcome, rest = colourOf(r.Run.Outcome)+outcome+"\x1b[0m", sweep.Printable(rest)
		fmt.Fprintln(rawOf(d.report), head+outcome+rest)
		return
	}
	fmt.Fprintln(d.report, head+outcome+rest)
}

// colourOf is green for what ended well, red for what failed.
func colourOf(o runner.Outcome) string {
	switch {
	case o.Failed():
		return "\x1b[31m"
	case o == runner.OutcomeOK:
		return "\x1b[32m"
	}
	return "\x1b[2m"
}

// foundOf says what was found of a run in a few words.
func foundOf(r *runner.Result) string {
	var words []string
	if peak := sinks.RowsOf(r).Run.PeakMemoryMaxGPUBytes; peak != nil && r.Run.Outcome == runner.OutcomeOK {
		words = append(words, fmt.Sprintf("%6.2f GiB/GPU", float64(*peak)/runner.GiB))
	}
	if l := r.LatencyStats; l != nil {
		words = append(words, fmt.Sprintf("%.4g s/iteration", l.AvgS))
	}
	if r.Run.Outcome == runner.OutcomeOK && r.Run.Quality != "" && r.Run.Quality != runner.QualityFull {
		words = append(words, fmt.Sprintf("samples %s", r.Run.Quality))
	}
	if r.Run.Outcome != runner.OutcomeSkipped {
		words = append(words, "in "+time.Duration(r.Run.WallS*float64(time.Second)).Round(time.Second).String())
	}
	if r.Run.Synthetic {
		words = append(words, "synthetic")
	}
	if r.Run.OutcomeDetail != "" {
		words = append(words, r.Run.OutcomeDetail)
	}
	return strings.Join(words, "  ")
}

// clip cuts a text to a number of columns.
func clip(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	kept, used := "", 0
	for graphemes := uniseg.NewGraphemes(text); graphemes.Next(); {
		if used += graphemes.Width(); used >= width {
			break
		}
		kept += graphemes.Str()
	}
	return kept + "…"
}

// Note prints something that the user should know now.
func (d *display) Note(text string) {
	d.clear()
	text = fmt.Sprintf("note: %s\n", text)
	if width, tty := terminal(d.out); tty {
		text = planner.Fold(text, width)
	}
	fmt.Fprint(d.out, text)
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
