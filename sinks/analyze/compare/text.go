package compare

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// A section is a list of the comparison under its heading.
type section[T any] struct {
	title string
	of    []T
}

func (c *Comparison) changes() []section[Change] {
	return filled(section[Change]{"Worse", c.Regressions}, section[Change]{"Better", c.Gains},
		section[Change]{"Changed alone: what other figures leave over, and none of them moved; no regression", c.Alone})
}

func (c *Comparison) others() []section[Outcome] {
	return filled(section[Outcome]{"Fail now", c.NewFailures}, section[Outcome]{"Vanished", c.Vanished},
		section[Outcome]{"Work again", c.Recovered}, section[Outcome]{"New", c.Added},
		section[Outcome]{"Not finished, not compared", c.Unfinished})
}

func filled[T any](all ...section[T]) []section[T] {
	return slices.DeleteFunc(all, func(s section[T]) bool { return len(s.of) == 0 })
}

// Text prints a comparison for people.
func (c *Comparison) Text(out io.Writer) error {
	w := frame.NewText(out)
	w.Printf("base  %s: %s\nnew   %s: %s\n", c.Base.Name, c.Base.rests(), c.New.Name, c.New.rests())
	w.Printf("%s on both sides, %d figures compared, false discovery rate %g, noise of %s\n",
		profiles(c.Matched), c.Tests, c.FDR, cmp.Or(string(c.Noise), "nothing: thresholds alone"))
	for _, s := range c.changes() {
		w.Printf("\n%s\n", s.title)
		w.Right(func(line *frame.Text) {
			line.Printf("  figure\tbase\tnew\tchange\t\t95 %% interval\truns\t  profile\n")
			for _, change := range s.of {
				line.Printf("  %s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", append(change.cells(), change.Label)...)
			}
		})
	}
	for _, s := range c.others() {
		w.Printf("\n%s\n", s.title)
		for _, o := range s.of {
			w.Printf("  %s  %s\n", o.Label, o.what())
		}
	}
	c.textAll(w)
	for _, note := range c.Notes {
		w.Printf("\nnote: %s\n", note)
	}
	if len(c.Findable) > 0 {
		w.Printf("\nnote: a change of one profile is found in 80 of 100 such comparisons from: %s\n", c.found())
	}
	w.Printf("\n%s\n", c.verdict())
	return w.Err
}

// textAll prints every test; shares are those of figures that are compared by ratio.
func (c *Comparison) textAll(w *frame.Text) {
	if len(c.All) == 0 {
		return
	}
	w.Printf("\nAll figures (called: beyond threshold and noise)\n")
	w.Right(func(line *frame.Text) {
		line.Printf("  figure\tbase\tnew\tchange\t\t95 %% interval\truns\tq\tcalled\t  profile\n")
		for _, change := range c.All {
			q := "-"
			if change.Q != nil {
				q = fmt.Sprintf("%.2g", *change.Q)
			}
			cells := append(change.cells(), q, map[bool]string{true: "yes"}[change.Called], change.Label)
			line.Printf("  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", cells...)
		}
	})
}

// Table is every test as a flat table, for pandas and DuckDB (Options.All): one row
// a figure of a profile, and of all profiles together, whose profile is null. A
// cell that is not known is null; runs are ids, separated by blanks.
func (c *Comparison) Table() (columns []string, rows [][]any) {
	columns = []string{"profile", "label", "figure", "unit", "base", "new", "difference", "relative", "difference_low",
		"difference_high", "q", "base_n", "new_n", "called", "regression", "same_as", "note", "base_runs", "new_runs"}
	number := func(v *float64) any {
		if v == nil {
			return nil
		}
		return *v
	}
	word := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	for _, t := range c.All {
		rows = append(rows, []any{word(t.Profile), t.Label, t.Figure, string(t.Unit), t.Base, t.New, t.Difference,
			number(t.Relative), number(t.Low), number(t.High), number(t.Q), int64(len(t.BaseRuns)), int64(len(t.NewRuns)),
			t.Called, t.Regression, word(strings.Join(t.Also, " ")), word(t.Note),
			strings.Join(t.BaseRuns, " "), strings.Join(t.NewRuns, " ")})
	}
	return columns, rows
}

// found says how small a change each figure would have shown; the leading figures
// alone, where not all tests are printed.
func (c *Comparison) found() string {
	var all []string
	for _, f := range c.Findable {
		switch {
		case len(c.All) == 0 && !slices.Contains([]string{"peak_memory_bytes", "kv_cache_bytes", "avg_latency_s"}, f.Figure):
		case f.Relative != nil:
			all = append(all, fmt.Sprintf("%s %.1f %%", f.Figure, 100**f.Relative))
		default:
			all = append(all, f.Figure+" "+strings.TrimPrefix(frame.Signed(f.Change, f.Unit), "+"))
		}
	}
	if len(c.All) == 0 {
		all = append(all, "and so on (--all)")
	}
	return strings.Join(all, ", ")
}

func (c *Comparison) verdict() string {
	verdict := "No regression."
	if c.Regressed() {
		verdict = "Regression."
	}
	if c.Noise == NoiseRepeats && len(c.Regressions)+len(c.Gains) > 0 {
		verdict += " It cannot be distinguished from drift between executions: there is one a side, and no earlier one."
	}
	if len(c.Unfinished) > 0 {
		verdict += fmt.Sprintf(" Not finished: %s.", profiles(len(c.Unfinished)))
	}
	return verdict
}

func (s Side) rests() string {
	return fmt.Sprintf("%d runs (%d failed) of %s", s.Runs, s.Failed, strings.Join(s.Executions, ", "))
}

func (o Outcome) what() string {
	switch {
	case o.Base == "" && o.New == "":
		return "not measured yet, or interrupted"
	case o.Base == "":
		return o.New
	case o.New == "":
		return "was " + o.Base
	case o.Detail != "":
		return fmt.Sprintf("%s -> %s: %s", o.Base, o.New, o.Detail)
	}
	return fmt.Sprintf("%s -> %s", o.Base, o.New)
}

// cells are a change for a table: figure, base, new, difference, share, interval, runs.
func (c Change) cells() []any {
	share := ""
	if c.Relative != nil {
		share = fmt.Sprintf("%+.1f %%", *c.Relative*100)
	}
	figure := c.Figure
	if len(c.Also) > 0 {
		figure += " (" + strings.Join(c.Also, ", ") + ")"
	}
	return []any{figure, frame.Amount(c.Base, c.Unit), frame.Amount(c.New, c.Unit),
		frame.Signed(c.Difference, c.Unit), share, c.interval(), fmt.Sprintf("%d + %d", len(c.BaseRuns), len(c.NewRuns))}
}

func (c Change) interval() string {
	if c.Low == nil {
		return "-"
	}
	return frame.Signed(*c.Low, c.Unit) + " .. " + frame.Signed(*c.High, c.Unit)
}

// Markdown prints a comparison for the summary of a CI job.
func (c *Comparison) Markdown(out io.Writer) error {
	w := frame.NewText(out)
	verdict := "no regression"
	if c.Regressed() {
		verdict = "**regression**"
	}
	w.Printf("### vramsweep compare: %s\n\n%d profiles on both sides, %d figures, base %s, new %s.\n",
		verdict, c.Matched, c.Tests, c.Base.rests(), c.New.rests())
	for _, s := range c.changes() {
		w.Printf("\n#### %s\n\n| figure | base | new | change | 95 %% interval | runs | profile |\n", s.title)
		w.Printf("|---|---:|---:|---:|---:|---:|---|\n")
		for _, change := range s.of {
			w.Printf("| %s | %s | %s | %s (%s) | %s | %s | %s |\n", append(change.cells(), cell(change.Label))...)
		}
	}
	for _, s := range c.others() {
		w.Printf("\n#### %s\n\n", s.title)
		for _, o := range s.of {
			w.Printf("- %s: %s\n", cell(o.Label), cell(o.what()))
		}
	}
	for _, note := range c.Notes {
		w.Printf("\n> %s\n", note)
	}
	return w.Err
}

// cell keeps text from ending a cell of a Markdown table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }

// The elements of a JUnit report, as Jenkins' and GitLab's readers know them:
// testsuites with totals, a testsuite, and a testcase a profile.
type (
	junitReport struct {
		XMLName  xml.Name   `xml:"testsuites"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Time     string     `xml:"time,attr"`
		Suite    junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
		Out      string      `xml:"system-out,omitempty"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
		Skipped *junitFailure `xml:"skipped"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit prints a comparison as a test report: a test a profile of either side,
// under the same name every night, which fails where anything of it got worse; and
// one of all profiles together.
func (c *Comparison) JUnit(out io.Writer) error {
	worse := map[string]*junitFailure{}
	note := func(key, kind, message, text string) {
		f := worse[key]
		if f == nil {
			f = &junitFailure{Type: kind, Message: message}
			worse[key] = f
		} else {
			f.Message += "; " + message
		}
		f.Text += text + "\n"
	}
	for _, change := range c.Regressions {
		message := fmt.Sprintf("%s %s", change.Figure, frame.Signed(change.Difference, change.Unit))
		note(change.Profile, "regression", message, fmt.Sprintf("%s: base %s, new %s, interval %s; base runs %s; new runs %s",
			message, frame.Amount(change.Base, change.Unit), frame.Amount(change.New, change.Unit), change.interval(),
			strings.Join(change.BaseRuns, " "), strings.Join(change.NewRuns, " ")))
	}
	for _, o := range c.NewFailures {
		note(o.Profile, "new failure", o.what(), "profile "+o.Profile+": "+o.what())
	}
	for _, o := range c.Vanished {
		note(o.Profile, "vanished", "not in "+c.New.Name, "profile "+o.Profile+" "+o.what()+", is not in "+c.New.Name)
	}
	waits := map[string]*junitFailure{}
	for _, o := range c.Unfinished {
		waits[o.Profile] = &junitFailure{Type: "not finished", Message: o.what()}
	}
	suite := junitSuite{Name: "vramsweep compare", Time: "0", Out: strings.Join(c.Notes, "\n")}
	labels := map[string]int{}
	for _, p := range c.profiles {
		labels[p.label]++
	}
	for _, p := range c.profiles {
		name := p.label
		if labels[name] > 1 { // a test's name is its identity
			name += " [" + slices.Concat(p.base, p.new)[0].ProfileID + "]"
		}
		suite.Cases = append(suite.Cases,
			junitCase{Name: name, Class: "vramsweep." + p.sweep, Time: "0", Failure: worse[p.key], Skipped: waits[p.key]})
	}
	suite.Cases = append(suite.Cases,
		junitCase{Name: "all profiles together", Class: "vramsweep", Time: "0", Failure: worse[""]})
	suite.Failures, suite.Skipped = len(worse), len(waits)
	suite.Tests = len(suite.Cases)
	report := junitReport{Name: c.Base.Name + " to " + c.New.Name, Tests: suite.Tests, Failures: suite.Failures,
		Time: "0", Suite: suite}
	text, err := xml.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s%s\n", xml.Header, text)
	return err
}
