package summary

import (
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// MostLines is how many lines a summary takes, whatever the execution was.
const MostLines = 40

// A Section is a part of a summary under its heading, as text, Markdown and the
// report show it.
type Section struct {
	Title string `json:"title"`
	Items []Item `json:"items"`
}

// An Item is a line, and what stands below it.
type Item struct {
	Text  string   `json:"text"`
	Lines []string `json:"lines,omitempty"`
}

// Head is the first lines: which execution, its counts, how long it took.
func (s *Summary) Head() []string {
	state := s.State
	if state == "" {
		state = "state not known"
	}
	head := []string{fmt.Sprintf("%s@%s: %s", s.Folder, s.Execution, state)}
	if s.StoppedBy != "" {
		head = append(head, "ended early: "+s.StoppedBy)
	}
	counts := fmt.Sprintf("%d ok, %d failed, %d skipped of %s of %s", s.OK, s.Failed, s.Skipped, plural(s.Runs, "run"),
		plural(s.Profiles, "profile"))
	if due := s.Planned - s.Runs; due > 0 {
		counts += fmt.Sprintf(", %d more are due", due)
	}
	if s.WallS != nil {
		took := time.Duration(*s.WallS * float64(time.Second)).Round(time.Second)
		counts += fmt.Sprintf(", in %s (from %s UTC), %.2g GPU-hours", took, s.StartedAt.UTC().Format("2006-01-02 15:04"),
			*s.GPUHours)
	}
	head = append(head, counts)
	if s.Synthetic {
		head = append(head, "All figures are synthetic: the simulator made them.")
	}
	return append(head, s.Problems[:min(len(s.Problems), 2)]...)
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Sections are the parts that say something, with at most so many items each.
func (s *Summary) Sections(most int) []Section {
	all := []Section{
		{"Failed", s.items(s.Failures, most)},
		{"Skipped", s.items(s.Skips, most)},
		{"Suspicious: do not take these figures as they are", s.items(s.Suspicious, most)},
	}
	for _, c := range s.Changes {
		section := Section{"Changed since " + c.Since, s.items(c.Groups, most)}
		switch {
		case c.Error != "":
			section.Items = []Item{{Text: "not compared: " + c.Error}}
		case len(c.Groups) == 0:
			section.Items = []Item{{Text: fmt.Sprintf("nothing, in %s", plural(c.Matched, "profile"))}}
		}
		for _, note := range c.Notes[:min(len(c.Notes), 2)] {
			section.Items = append(section.Items, Item{Text: note})
		}
		all = append(all, section)
	}
	safe := Section{Title: "Highest gpu_memory_utilization that is proved safe for these loads"}
	for _, x := range s.Safe[:min(len(s.Safe), most)] {
		safe.Items = append(safe.Items, Item{Text: s.safeText(x)})
	}
	all = append(all, withRest(safe, len(s.Safe)-most))
	next := Section{Title: "Next"}
	for _, command := range s.Next {
		next.Items = append(next.Items, Item{Text: command})
	}
	var filled []Section
	for _, section := range append(all, next) {
		if len(section.Items) > 0 {
			filled = append(filled, section)
		}
	}
	return filled
}

func withRest(s Section, rest int) Section {
	if rest > 0 {
		s.Items = append(s.Items, Item{Text: fmt.Sprintf("and %d more (--json has all)", rest)})
	}
	return s
}

func (s *Summary) safeText(x Safe) string {
	text := fmt.Sprintf("%s tp=%d: %.3f", s.models[x.Model], x.Ranks, x.Utilization)
	if x.Asked != nil {
		text += fmt.Sprintf(" (asked: %g)", *x.Asked)
	}
	text += fmt.Sprintf(", the lowest of %s", plural(x.Runs, "run"))
	if x.Unproved > 0 {
		text += fmt.Sprintf("; %d more prove nothing", x.Unproved)
	}
	return text
}

func (s *Summary) items(groups []Group, most int) []Item {
	out := Section{}
	for _, g := range groups[:min(len(groups), most)] {
		item := Item{Text: fmt.Sprintf("%d × %s: %s", len(g.Runs), g.What, g.Points)}
		if g.Line != "" {
			item.Lines = append(item.Lines, firstSentences(g.Line))
		}
		if g.failed {
			item.Lines = append(item.Lines, path.Join(s.Folder, g.Log))
		}
		out.Items = append(out.Items, item)
	}
	rest := 0
	for _, g := range groups[min(len(groups), most):] {
		rest += len(g.Runs)
	}
	return withRest(out, rest).Items
}

// longestLine is what a line of a log is cut to.
const longestLine = 160

func firstSentences(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	if runes := []rune(line); len(runes) > longestLine {
		return string(runes[:longestLine-1]) + "…"
	}
	return line
}

// fitting are the sections with as many items as MostLines has room for, where
// folded lines of width columns count as several.
func (s *Summary) fitting(width int) []Section {
	for most := 8; ; most-- {
		sections := s.Sections(most)
		lines := len(s.Head())
		for _, section := range sections {
			lines += 1 + len(section.Items)
			for _, item := range section.Items {
				lines += len(item.Lines)
				if width > 0 {
					lines += (len([]rune(item.Text)) + 1) / width
				}
			}
		}
		if lines <= MostLines || most == 1 {
			return sections
		}
	}
}

// Text prints a summary for people, lines folded or cut to width columns; 0: as long
// as they are.
func (s *Summary) Text(out io.Writer, width int, fold func(string, int) string) error {
	w := frame.NewText(out)
	line := func(indent, text string, cut bool) {
		switch {
		case width <= 0:
			w.Printf("%s%s\n", indent, text)
		case cut:
			w.Printf("%s", fold(indent+shorten(text, width-len(indent))+"\n", width))
		default:
			w.Printf("%s", fold(indent+text+"\n", width))
		}
	}
	for _, text := range s.Head() {
		line("", text, false)
	}
	for _, section := range s.fitting(width) {
		w.Printf("%s\n", section.Title)
		for _, item := range section.Items {
			line("  ", item.Text, false)
			for _, below := range item.Lines {
				line("      ", below, !strings.HasPrefix(below, s.Folder))
			}
		}
	}
	return w.Err
}

func shorten(text string, width int) string {
	if runes := []rune(text); len(runes) > width && width > 1 {
		return string(runes[:width-1]) + "…"
	}
	return text
}

// Markdown prints a summary for the page of a CI job.
func (s *Summary) Markdown(out io.Writer) error {
	w := frame.NewText(out)
	for i, text := range s.Head() {
		if i == 0 {
			w.Printf("### %s\n\n", text)
			continue
		}
		w.Printf("%s  \n", text)
	}
	for _, section := range s.fitting(0) {
		w.Printf("\n#### %s\n\n", section.Title)
		for _, item := range section.Items {
			if section.Title == "Next" {
				w.Printf("- `%s`\n", item.Text)
				continue
			}
			w.Printf("- %s\n", escape(item.Text))
			for _, below := range item.Lines {
				w.Printf("  - `%s`\n", strings.ReplaceAll(below, "`", "'"))
			}
		}
	}
	return w.Err
}

// escape keeps names from being read as markup.
func escape(text string) string {
	return strings.NewReplacer("*", `\*`, "_", `\_`, "<", "&lt;", "|", `\|`).Replace(text)
}
