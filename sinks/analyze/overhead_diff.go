package analyze

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// Architecture is an architecture of the database by the name that its runs
// have; nil: it has none of that name.
func (db *Overheads) Architecture(name string) *models.Architecture { return db.arcs[name] }

// GPUs are the devices that runs of the database were made on, sorted.
func (db *Overheads) GPUs() []string {
	seen := map[string]bool{}
	for i := range db.Runs {
		seen[db.Runs[i].GPU] = true
	}
	return sortedKeys(seen)
}

// An OverheadDiff is what came, went and moved from one database to another.
type OverheadDiff struct {
	Entries []OverheadChange `json:"entries"`
	Same    int              `json:"same"`
}

// An OverheadChange is one entry that is not the same in both.
type OverheadChange struct {
	OverheadKey
	Component string   `json:"component"`
	Law       string   `json:"law"`
	What      string   `json:"what"` // added, removed, moved, within (its interval), runs (the same from more or fewer of them)
	Old       *float64 `json:"old"`
	New       *float64 `json:"new"`
	OldRuns   int      `json:"old_runs"`
	NewRuns   int      `json:"new_runs"`
	Bytes     *float64 `json:"bytes"` // what the change is worth for the new entry's mean run
}

// Diff compares two databases entry by entry. An entry has moved where its new
// coefficient lies outside the old one's interval (with one run: differs by more
// than what rounding of vLLM's log explains). It fails with ErrMixed.
func (db *Overheads) Diff(after *Overheads) (*OverheadDiff, error) {
	if db.Synthetic != after.Synthetic {
		return nil, fmt.Errorf("overhead diff: %w", ErrMixed)
	}
	d := &OverheadDiff{Entries: []OverheadChange{}}
	olds := map[string]*Overhead{}
	for i := range db.Entries {
		olds[db.Entries[i].order()] = &db.Entries[i]
	}
	seen := map[string]bool{}
	for i := range after.Entries {
		e := &after.Entries[i]
		seen[e.order()] = true
		old := olds[e.order()]
		c := OverheadChange{OverheadKey: e.OverheadKey, Component: e.Component, Law: e.Law, What: "added", New: &e.Coefficient, NewRuns: e.Runs}
		if old != nil {
			c.Old, c.OldRuns, c.What = &old.Coefficient, old.Runs, old.change(e)
			bytes := e.worth(e.Coefficient - old.Coefficient)
			c.Bytes = &bytes
			if c.What == "" {
				d.Same++
				continue
			}
		}
		d.Entries = append(d.Entries, c)
	}
	for i := range db.Entries {
		if e := &db.Entries[i]; !seen[e.order()] {
			d.Entries = append(d.Entries, OverheadChange{OverheadKey: e.OverheadKey, Component: e.Component, Law: e.Law, What: "removed", Old: &e.Coefficient, OldRuns: e.Runs})
		}
	}
	return d, nil
}

// worth is what a difference of the coefficient is for the mean run, in bytes.
func (e *Overhead) worth(difference float64) float64 {
	if lawNamed(e.Law).added {
		return difference
	}
	units := 0.0
	for _, o := range e.Observed {
		units += o.Units / float64(len(e.Observed))
	}
	return difference * units
}

// change names what became of an entry; "": nothing.
func (e *Overhead) change(after *Overhead) string {
	by := after.Coefficient - e.Coefficient
	switch {
	case by == 0 && e.Runs == after.Runs:
		return ""
	case math.Abs(after.worth(by)) <= rounding:
		return "runs"
	case e.Low != nil && *e.Low <= after.Coefficient && after.Coefficient <= *e.High:
		return "within"
	}
	return "moved"
}

// Moved says that a coefficient left its interval.
func (d *OverheadDiff) Moved() bool {
	for _, c := range d.Entries {
		if c.What == "moved" {
			return true
		}
	}
	return false
}

// Text prints the differences.
func (d *OverheadDiff) Text(out io.Writer) error {
	table := tabwriter.NewWriter(out, 2, 4, 2, ' ', 0)
	counts := map[string]int{}
	for i, c := range d.Entries {
		if i == 0 {
			fmt.Fprintln(table, "what\tmodel\tTP\tGPU\tvLLM\trunner\tcompile\tcomponent\told\tnew\tworth\truns")
		}
		counts[c.What]++
		old, fresh, worth := "-", "-", "-"
		if c.Old != nil {
			old = (&Overhead{Law: c.Law, Coefficient: *c.Old}).coefficientText()
		}
		if c.New != nil {
			fresh = (&Overhead{Law: c.Law, Coefficient: *c.New}).coefficientText()
		}
		if c.Bytes != nil {
			worth = signed(*c.Bytes, UnitBytes)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d -> %d\n", c.What, c.Model, c.TP, c.GPU, c.VLLM, c.Runner, c.Compile, c.Component, old, fresh, worth, c.OldRuns, c.NewRuns)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the difference: %w", err)
	}
	w := &lines{out: out}
	w.printf("%d entries the same", d.Same)
	for _, what := range []string{"moved", "within", "runs", "added", "removed"} {
		if counts[what] > 0 {
			w.printf(", %d %s", counts[what], what)
		}
	}
	w.printf("\n")
	return w.err
}
