package summary

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep"
)

// A space is the points of an execution: its profiles, by the settings that vary
// and tell them apart.
type space struct {
	axes   []axis
	points [][]int        // of each profile: the place of its value on each axis; -1: it has none
	of     map[string]int // profile id: its point
}

// An axis is a setting that varies.
type axis struct {
	name    string // as lines name it
	model   bool
	numbers bool
	values  []string // in order
}

// newSpace finds the axes of runs. A setting that follows from the others (a length
// that an expression makes of two) is none.
func newSpace(rows []*sinks.RunRow) *space {
	s := &space{of: map[string]int{}}
	var profiles []*sinks.RunRow
	for _, r := range rows {
		if _, known := s.of[r.ProfileID]; !known {
			s.of[r.ProfileID] = len(profiles)
			profiles = append(profiles, r)
		}
	}
	texts := map[string][]string{}
	for _, c := range columnsOf(profiles) {
		list, seen := make([]string, len(profiles)), map[string]bool{}
		for i, r := range profiles {
			list[i] = c.Text(r)
			seen[list[i]] = true
		}
		if len(seen) > 1 {
			s.axes, texts[c.Name] = append(s.axes, axis{name: c.Name}), list
		}
	}
	s.reduce(texts)
	s.points = make([][]int, len(profiles))
	for a := range s.axes {
		s.axes[a].fill(texts[s.axes[a].name])
		for i := range profiles {
			s.points[i] = append(s.points[i], slices.Index(s.axes[a].values, texts[s.axes[a].name][i]))
		}
	}
	for a := range s.axes {
		s.axes[a].model = s.axes[a].name == "model"
		s.axes[a].name = sweep.ShortName(strings.TrimPrefix(s.axes[a].name, "axis_"))
	}
	return s
}

// columnsOf are the settings and free axes that may be axes, the natural ones first.
func columnsOf(profiles []*sinks.RunRow) []frame.Column {
	free := map[string]bool{}
	for _, r := range profiles {
		for name, v := range r.Axes {
			if text, ok := v.(string); !ok || !strings.HasPrefix(text, "{") { // an object: its members are settings
				free["axis_"+name] = true
			}
		}
	}
	names := slices.DeleteFunc(frame.Settings(), func(name string) bool { return name == "flags" })
	return frame.Of(slices.Concat(names, frame.SortedKeys(free), []string{"flags"})...)
}

// reduce takes out what the other axes say already, from the last on.
func (s *space) reduce(texts map[string][]string) {
	tuples := func(axes []axis) int {
		seen := map[string]bool{}
		for i := range s.of {
			var key strings.Builder
			for _, a := range axes {
				key.WriteString(texts[a.name][s.of[i]] + "\x00")
			}
			seen[key.String()] = true
		}
		return len(seen)
	}
	all := tuples(s.axes)
	natural := []string{"sweep", "model", "tensor_parallel_size", "input_len", "output_len", "batch_size"}
	for i := len(s.axes) - 1; i >= 0; i-- {
		fewer := slices.Delete(slices.Clone(s.axes), i, i+1)
		if !slices.Contains(natural, s.axes[i].name) && tuples(fewer) == all {
			s.axes = fewer
		}
	}
}

// fill collects the values of an axis in order: numbers as numbers.
func (a *axis) fill(texts []string) {
	seen := map[string]bool{}
	a.numbers = true
	for _, text := range texts {
		if !seen[text] {
			seen[text] = true
			a.values = append(a.values, text)
			_, err := strconv.ParseFloat(text, 64)
			a.numbers = a.numbers && err == nil
		}
	}
	if a.numbers {
		slices.SortFunc(a.values, func(x, y string) int {
			n, _ := strconv.ParseFloat(x, 64)
			m, _ := strconv.ParseFloat(y, 64)
			return cmp.Compare(n, m)
		})
	}
}

// A box is a set of points: some values of each axis, in every combination that
// there is.
type box [][]bool

func (b box) has(point []int) bool {
	for a, at := range point {
		if !b[a][at] {
			return false
		}
	}
	return true
}

// mostSeeds bounds from how many points boxes are grown.
const mostSeeds = 200

// cover describes a set of points by few boxes that hold all of them and no other
// point of the space, the largest first.
func (s *space) cover(of map[int]bool) []box {
	points := slices.Sorted(maps.Keys(of))
	var grown []box
	for i, p := range points {
		if i%(len(points)/mostSeeds+1) == 0 {
			for _, order := range s.orders() {
				grown = append(grown, s.grow(p, of, order))
			}
		}
	}
	var boxes []box
	for rest := maps.Clone(of); len(rest) > 0; {
		var best box
		most := 0
		for _, b := range grown {
			if n := s.held(b, rest); n > most {
				best, most = b, n
			}
		}
		if best == nil { // a point that no seed came to
			best = s.grow(slices.Min(slices.Collect(maps.Keys(rest))), of, s.orders()[0])
		}
		maps.DeleteFunc(rest, func(p int, _ bool) bool { return best.has(s.points[p]) })
		boxes = append(boxes, best)
	}
	return boxes
}

// held counts the points of a set that a box holds.
func (s *space) held(b box, of map[int]bool) (n int) {
	for p := range of {
		if b.has(s.points[p]) {
			n++
		}
	}
	return n
}

// orders are those in which a box is let grow along the axes.
func (s *space) orders() [][]int {
	forth := make([]int, len(s.axes))
	for a := range forth {
		forth[a] = a
	}
	back := slices.Clone(forth)
	slices.Reverse(back)
	long := slices.Clone(forth)
	slices.SortStableFunc(long, func(a, b int) int { return cmp.Compare(len(s.axes[b].values), len(s.axes[a].values)) })
	return [][]int{back, forth, long}
}

// grow makes a point's box larger, axis by axis, while it holds points of the set alone.
func (s *space) grow(first int, of map[int]bool, order []int) box {
	b := make(box, len(s.axes))
	for a := range b {
		b[a] = make([]bool, len(s.axes[a].values))
		b[a][s.points[first][a]] = true
	}
	for _, a := range order {
		adds, wrong := make([]bool, len(b[a])), make([]bool, len(b[a]))
		for p, point := range s.points {
			at, own := point[a], b[a]
			b[a] = nil
			inside := true
			for other, v := range point {
				inside = inside && (other == a || b[other][v])
			}
			b[a] = own
			if inside && of[p] {
				adds[at] = true
			} else if inside {
				wrong[at] = true
			}
		}
		for v := range b[a] {
			b[a][v] = b[a][v] || adds[v] && !wrong[v]
		}
	}
	return b
}

// text names a box: "Qwen3-8B · bs 32, 128 · in ≥ 4096". An axis that takes no point
// away is left out.
func (s *space) text(b box, models map[string]string) string {
	var words []string
	loose := slices.Clone(b)
	for a := range slices.Backward(s.axes) {
		text := s.axes[a].text(b[a], s.reach(loose, a), models)
		if text != "" {
			words = append(words, text)
			continue
		}
		loose[a] = slices.Repeat([]bool{true}, len(b[a])) // it holds the same points still
	}
	slices.Reverse(words)
	return cmp.Or(strings.Join(words, " · "), "all points")
}

// reach are the values of an axis that points have which agree with a box on the others.
func (s *space) reach(b box, a int) []bool {
	out := make([]bool, len(b[a]))
	for _, point := range s.points {
		inside := true
		for other, v := range point {
			inside = inside && (other == a || b[other][v])
		}
		if inside {
			out[point[a]] = true
		}
	}
	return out
}

func (a *axis) text(in, reach []bool, models map[string]string) string {
	var have []string
	first, last, all := -1, -1, true
	for v := range in {
		if in[v] {
			have = append(have, cmp.Or(models[a.values[v]], a.values[v], "default"))
			if first < 0 {
				first = v
			}
			last = v
		}
		all = all && (in[v] || !reach[v])
	}
	switch {
	case all && (!a.model || len(have) > 2):
		return ""
	case a.model:
		return strings.Join(have, ", ")
	case a.numbers && len(have) > 1 && len(have) == last-first+1:
		return a.stretch(first, last, have)
	}
	return a.name + " " + strings.Join(have, ", ")
}

// stretch are the numbers from the first to the last of them, which all occur.
func (a *axis) stretch(first, last int, have []string) string {
	switch {
	case last == len(a.values)-1:
		return fmt.Sprintf("%s ≥ %s", a.name, a.values[first])
	case first == 0:
		return fmt.Sprintf("%s ≤ %s", a.name, a.values[last])
	case len(have) > 2:
		return fmt.Sprintf("%s %s to %s", a.name, a.values[first], a.values[last])
	}
	return a.name + " " + strings.Join(have, ", ")
}

// mostBoxes are named of a set; the others are counted.
const mostBoxes = 4

// describe names the points of profiles.
func (s *space) describe(profiles []string, models map[string]string) string {
	of := map[int]bool{}
	for _, id := range profiles {
		if p, known := s.of[id]; known {
			of[p] = true
		}
	}
	if len(of) == len(s.points) && len(of) > 1 {
		return "all points"
	}
	boxes := s.cover(of)
	var words []string
	named := map[int]bool{}
	for _, b := range boxes[:min(len(boxes), mostBoxes)] {
		words = append(words, s.text(b, models))
		for p := range of {
			named[p] = named[p] || b.has(s.points[p])
		}
	}
	text := strings.Join(words, "; ")
	left := maps.Clone(of)
	maps.DeleteFunc(left, func(p int, _ bool) bool { return named[p] })
	if len(left) > 0 {
		text += "; and " + plural(len(left), "more point")
	}
	return text
}
