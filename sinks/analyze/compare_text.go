package analyze

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/vramsweep/vramsweep/sinks"
)

// Text prints a comparison for people.
func (c *Comparison) Text(out io.Writer) error {
	w := &lines{out: out}
	w.printf("base  %s: %s\nnew   %s: %s\n", c.Base.Name, c.Base.rests(), c.New.Name, c.New.rests())
	w.printf("%d profiles on both sides, %d figures compared, false discovery rate %g\n", c.Matched, c.Tests, c.FDR)
	c.textChanges(w, "Worse", c.Regressions)
	c.textChanges(w, "Better", c.Gains)
	c.textOutcomes(w, "Fail now", c.NewFailures)
	c.textOutcomes(w, "Vanished", c.Vanished)
	c.textOutcomes(w, "Work again", c.Recovered)
	c.textOutcomes(w, "New", c.Added)
	for _, note := range c.Notes {
		w.printf("\nnote: %s\n", note)
	}
	if c.Regressed() {
		w.printf("\nRegression.\n")
	} else {
		w.printf("\nNo regression.\n")
	}
	return w.err
}

func (s Side) rests() string {
	return fmt.Sprintf("%d runs (%d failed) of %s", s.Runs, s.Failed, strings.Join(s.Executions, ", "))
}

// lines writes and remembers the first error.
type lines struct {
	out io.Writer
	err error
}

func (l *lines) printf(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.out, format, args...)
	}
}

func (c *Comparison) textChanges(w *lines, title string, changes []Change) {
	if len(changes) == 0 || w.err != nil {
		return
	}
	w.printf("\n%s\n", title)
	table := tabwriter.NewWriter(w.out, 2, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "  figure\tbase\tnew\tchange\t\t95 % interval\truns\t  profile")
	for _, change := range changes {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\t%d + %d\t  %s\n", change.Figure, amount(change.Base, change.Unit), amount(change.New, change.Unit),
			signed(change.Difference, change.Unit), percent(change.Relative), change.interval(), len(change.BaseRuns), len(change.NewRuns), change.Label)
	}
	w.err = table.Flush()
}

func (c *Comparison) textOutcomes(w *lines, title string, outcomes []Outcome) {
	if len(outcomes) == 0 {
		return
	}
	w.printf("\n%s\n", title)
	for _, o := range outcomes {
		w.printf("  %s  %s\n", o.Label, o.what())
	}
}

func (o Outcome) what() string {
	switch {
	case o.Base == "":
		return o.New
	case o.New == "":
		return "was " + o.Base
	case o.Detail != "":
		return fmt.Sprintf("%s -> %s: %s", o.Base, o.New, o.Detail)
	}
	return fmt.Sprintf("%s -> %s", o.Base, o.New)
}

func (c Change) interval() string {
	if c.Low == nil {
		return "-"
	}
	return signed(*c.Low, c.Unit) + " .. " + signed(*c.High, c.Unit)
}

// amount prints a figure in its unit; bytes as GiB.
func amount(v float64, unit Unit) string {
	switch unit {
	case UnitBytes:
		return fmt.Sprintf("%.2f GiB", v/(1<<30))
	case UnitTokens:
		return fmt.Sprintf("%.0f tok", v)
	case UnitSeconds:
		return fmt.Sprintf("%.4g s", v)
	}
	return fmt.Sprintf("%.4g %s", v, unit)
}

// signed prints a difference in its unit; small ones of bytes as MiB.
func signed(v float64, unit Unit) string {
	sign := "+"
	if v < 0 {
		sign = "-"
	}
	if unit == UnitBytes && math.Abs(v) < 1<<30 {
		return fmt.Sprintf("%s%.0f MiB", sign, math.Abs(v)/mib)
	}
	return sign + amount(math.Abs(v), unit)
}

func percent(v *float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%+.1f %%", *v*100)
}

// Markdown prints a comparison for the summary of a CI job.
func (c *Comparison) Markdown(out io.Writer) error {
	w := &lines{out: out}
	verdict := "no regression"
	if c.Regressed() {
		verdict = "**regression**"
	}
	w.printf("### vramsweep compare: %s\n\n%d profiles on both sides, %d figures, base %s, new %s.\n", verdict, c.Matched, c.Tests, c.Base.rests(), c.New.rests())
	for _, part := range []struct {
		title   string
		changes []Change
	}{{"Worse", c.Regressions}, {"Better", c.Gains}} {
		if len(part.changes) == 0 {
			continue
		}
		w.printf("\n#### %s\n\n| figure | base | new | change | 95 %% interval | runs | profile |\n|---|---:|---:|---:|---:|---:|---|\n", part.title)
		for _, change := range part.changes {
			w.printf("| %s | %s | %s | %s (%s) | %s | %d + %d | %s |\n", change.Figure, amount(change.Base, change.Unit), amount(change.New, change.Unit),
				signed(change.Difference, change.Unit), percent(change.Relative), change.interval(), len(change.BaseRuns), len(change.NewRuns), cell(change.Label))
		}
	}
	for _, part := range []struct {
		title    string
		outcomes []Outcome
	}{{"Fail now", c.NewFailures}, {"Vanished", c.Vanished}, {"Work again", c.Recovered}, {"New", c.Added}} {
		if len(part.outcomes) == 0 {
			continue
		}
		w.printf("\n#### %s\n\n", part.title)
		for _, o := range part.outcomes {
			w.printf("- %s: %s\n", cell(o.Label), cell(o.what()))
		}
	}
	for _, note := range c.Notes {
		w.printf("\n> %s\n", note)
	}
	return w.err
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
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit prints a comparison as a test report: a test a profile of either side,
// under the same name every night, which fails where anything of it got worse.
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
		message := fmt.Sprintf("%s %s", change.Figure, signed(change.Difference, change.Unit))
		note(change.Profile, "regression", message, fmt.Sprintf("%s: base %s, new %s, interval %s; base runs %s; new runs %s", message,
			amount(change.Base, change.Unit), amount(change.New, change.Unit), change.interval(), strings.Join(change.BaseRuns, " "), strings.Join(change.NewRuns, " ")))
	}
	for _, o := range c.NewFailures {
		note(o.Profile, "new failure", o.what(), "profile "+o.Profile+": "+o.what())
	}
	for _, o := range c.Vanished {
		note(o.Profile, "vanished", "not in "+c.New.Name, "profile "+o.Profile+" "+o.what()+", is not in "+c.New.Name)
	}
	suite := junitSuite{Name: "vramsweep compare", Time: "0", Out: strings.Join(c.Notes, "\n")}
	labels := map[string]int{}
	for _, p := range c.profiles {
		labels[p.label]++
	}
	for _, p := range c.profiles {
		name := p.label
		if labels[name] > 1 { // a test's name is its identity
			name += " [" + append(append([]*sinks.RunRow{}, p.base...), p.new...)[0].ProfileID + "]"
		}
		suite.Cases = append(suite.Cases, junitCase{Name: name, Class: "vramsweep." + p.sweep, Time: "0", Failure: worse[p.key]})
		if worse[p.key] != nil {
			suite.Failures++
		}
	}
	suite.Tests = len(suite.Cases)
	report := junitReport{Name: c.Base.Name + " to " + c.New.Name, Tests: suite.Tests, Failures: suite.Failures, Time: "0", Suite: suite}
	if _, err := io.WriteString(out, xml.Header); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	encoder := xml.NewEncoder(out)
	encoder.Indent("", "  ")
	if err := encoder.Encode(report); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	_, err := io.WriteString(out, "\n")
	return err
}
