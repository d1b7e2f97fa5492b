package summary

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// changes groups what changed by figure and direction, and outcomes by what became
// of them.
func (s *Summary) changes(c Compared) Changes {
	out := Changes{Since: c.Since, Groups: []Group{}}
	if c.Err != nil {
		out.Error = c.Err.Error()
		return out
	}
	out.Matched, out.Notes = c.Of.Matched, surroundings(c.Of)
	out.Groups = append(out.Groups, s.outcomes("fail now", c.Of.NewFailures)...)
	out.Groups = append(out.Groups, s.outcomes("vanished", c.Of.Vanished)...)
	out.Groups = append(out.Groups, s.figures("worse", c.Of.Regressions)...)
	out.Groups = append(out.Groups, s.figures("better", c.Of.Gains)...)
	out.Groups = append(out.Groups, s.outcomes("work again", c.Of.Recovered)...)
	out.Groups = append(out.Groups, s.outcomes("new profiles", c.Of.Added)...)
	return out
}

// surroundings are the notes of a comparison that say in what else the sides differ.
func surroundings(c *compare.Comparison) []string {
	return slices.DeleteFunc(slices.Clone(c.Notes), func(note string) bool {
		return !strings.HasPrefix(note, "the sides")
	})
}

func (s *Summary) outcomes(what string, of []compare.Outcome) []Group {
	if len(of) == 0 {
		return nil
	}
	g := Group{What: what}
	var known []string
	for _, o := range of {
		if _, here := s.space.of[o.Profile]; here {
			known = append(known, o.Profile)
		} else if g.Points == "" {
			g.Points = o.Label
		}
		g.Runs = append(g.Runs, o.Profile)
	}
	if len(known) > 0 {
		g.Points = s.space.describe(known, s.models)
	} else if len(of) > 1 {
		g.Points += fmt.Sprintf(" and %d more", len(of)-1)
	}
	return []Group{g}
}

// figures groups changes by figure, with the least and the most of them.
func (s *Summary) figures(what string, of []compare.Change) (groups []Group) {
	labels := map[string]string{}
	for _, f := range frame.Figures() {
		labels[f.Name] = f.Label
	}
	for len(of) > 0 {
		first, together := of[0], of[0].Profile == ""
		var same, rest []compare.Change
		for _, c := range of {
			if c.Figure == first.Figure && c.Difference > 0 == (first.Difference > 0) && (c.Profile == "") == together {
				same = append(same, c)
			} else {
				rest = append(rest, c)
			}
		}
		of = rest
		least, most := first, first
		g := Group{}
		for _, c := range same {
			if math.Abs(c.Difference) < math.Abs(least.Difference) {
				least = c
			}
			if math.Abs(c.Difference) > math.Abs(most.Difference) {
				most = c
			}
			g.Runs = append(g.Runs, c.Profile)
		}
		g.What = fmt.Sprintf("%s: %s %s", what, labels[first.Figure], size(least))
		if size(most) != size(least) {
			g.What += " to " + size(most)
		}
		g.Points = s.space.describe(g.Runs, s.models)
		if together {
			g.Points = "all profiles together"
		}
		groups = append(groups, g)
	}
	return groups
}

// size is how large a change is, with its share.
func size(c compare.Change) string {
	text := frame.Signed(c.Difference, c.Unit)
	if c.Relative != nil && math.Abs(*c.Relative) < 10 { // a share of next to nothing says nothing
		text += fmt.Sprintf(" (%+.1f %%)", 100**c.Relative)
	}
	return text
}
