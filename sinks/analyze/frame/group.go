package frame

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// A Grouped is a figure by the values of a word.
type Grouped struct {
	Question string   `json:"question"`
	By       string   `json:"by"`
	Y        string   `json:"y"`
	Unit     string   `json:"unit"`
	N        int      `json:"n"`
	Groups   []Group  `json:"groups"`
	Eta2     *float64 `json:"eta_squared"` // share of the variance that groups of 3 and more explain
	// Alike are settings that part the runs in the same way: it may be them.
	Alike  []string `json:"alike,omitempty"`
	Reason string   `json:"reason,omitempty"`
}

// A Group is one value of a word.
type Group struct {
	Name string   `json:"name"`
	N    int      `json:"n"`
	Mean float64  `json:"mean"`
	Low  *float64 `json:"low"` // 95 % interval of the mean; null with one run
	High *float64 `json:"high"`
}

// A Part is the rows that have one value of a word.
type Part struct {
	Name string
	Rows []int
}

// Split parts rows by a word, in order of the words. name gives a word its
// name; those with none are left out. nil: words are their names.
func Split(rows []int, by *Values, name func(string) string) []Part {
	at := make([]int, len(by.words)) // place in parts, from 1
	var parts []Part
	for _, i := range rows {
		code := by.Codes[i]
		if at[code] == 0 {
			p := Part{Name: by.words[code]}
			if name != nil {
				p.Name = name(p.Name)
			}
			parts = append(parts, p)
			at[code] = len(parts)
		}
		p := &parts[at[code]-1]
		p.Rows = append(p.Rows, i)
	}
	parts = slices.DeleteFunc(parts, func(p Part) bool { return p.Name == "" })
	slices.SortFunc(parts, func(a, b Part) int { // numbers as numbers: 2 before 16
		x, xerr := strconv.ParseFloat(a.Name, 64)
		y, yerr := strconv.ParseFloat(b.Name, 64)
		if xerr == nil && yerr == nil {
			return cmp.Compare(x, y)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return parts
}

// leastGroup is how many runs a group needs to say anything of what parts them.
const leastGroup = 3

// GroupBy is the mean of a figure by a word, how much the word explains, and which
// of the other settings part the runs alike. All rows have the figure.
func GroupBy(rows []int, by *Values, name func(string) string, y *Series, others []*Values) Grouped {
	g := Grouped{By: by.Name, Y: y.Name, Unit: y.Unit}
	var all []float64
	parts := Split(rows, by, name)
	var enough []float64
	large := 0
	for _, p := range parts {
		from := len(all)
		for _, at := range p.Rows {
			all = append(all, y.Values[at])
		}
		g.Groups = append(g.Groups, groupOf(p.Name, all[from:]))
		if len(p.Rows) >= leastGroup {
			enough, large = append(enough, all[from:]...), large+1
		}
	}
	g.N = len(all)
	switch {
	case g.N == 0:
		g.Reason = "no run has both " + by.Name + " and " + y.Name
		return g
	case len(parts) < 2:
		g.Reason = "all runs have one " + by.Name + " (" + parts[0].Name + "): nothing to compare with"
		return g
	case large < 2:
		g.Reason = fmt.Sprintf("fewer than two groups have %d runs: no saying what %s explains", leastGroup, by.Name)
		return g
	case Constant(enough):
		g.Reason = y.Name + " is the same in all runs: nothing varies"
		return g
	}
	between, mean := 0.0, stat.Mean(enough, nil)
	for _, group := range g.Groups {
		if group.N < leastGroup {
			continue
		}
		between += float64(group.N) * (group.Mean - mean) * (group.Mean - mean)
	}
	g.Eta2 = new(between / (stat.Variance(enough, nil) * float64(len(enough)-1)))
	for _, other := range others {
		if other.Name != by.Name && partition(rows, other) == partition(rows, by) {
			g.Alike = append(g.Alike, other.Name)
		}
	}
	return g
}

// partition is how a word parts rows, whatever its values are.
func partition(rows []int, by *Values) string {
	places, out := map[int32]int{}, make([]byte, 0, 4*len(rows))
	for _, i := range rows {
		code, known := places[by.Codes[i]]
		if !known {
			code = len(places)
			places[by.Codes[i]] = code
		}
		out = append(out, fmt.Sprint(code, " ")...)
	}
	return string(out)
}

func groupOf(name string, values []float64) Group {
	mean, deviation := stat.MeanStdDev(values, nil)
	g := Group{Name: name, N: len(values), Mean: mean}
	if n := float64(g.N); g.N > 1 {
		g.Low, g.High = Around(mean, T95(n-1)*deviation/math.Sqrt(n))
	}
	return g
}

// Constant says that no value differs from the first.
func Constant(v []float64) bool {
	return !slices.ContainsFunc(v, func(x float64) bool { return x != v[0] })
}

// T95 is how many standard errors a 95 % interval reaches on either side.
func T95(dof float64) float64 {
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: dof}.Quantile(0.975)
}

// Around is the interval that reaches half on either side.
func Around(center, half float64) (low, high *float64) { return new(center - half), new(center + half) }

// Mean adds from the first to the last: stat.Mean, which adds four at a time,
// differs in the last digits of a database that lies in the repository.
func Mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// Pooled is the variance within groups, as an analysis of variance has it, and
// its degrees of freedom. Groups of one say nothing.
func Pooled(groups ...[]float64) (variance, dof float64) {
	sum := 0.0
	for _, g := range groups {
		if len(g) < 2 {
			continue
		}
		n := float64(len(g) - 1)
		sum += stat.Variance(g, nil) * n
		dof += n
	}
	if dof == 0 {
		return 0, 0
	}
	return sum / dof, dof
}
