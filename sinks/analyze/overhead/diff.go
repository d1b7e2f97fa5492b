package overhead

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Architecture is an architecture of the database by the name that its runs
// have; nil: it has none of that name.
func (db *Database) Architecture(name string) *models.Architecture { return db.arcs[name] }

// GPUs are the devices that runs of the database were made on, sorted.
func (db *Database) GPUs() []string {
	seen := map[string]bool{}
	for i := range db.Runs {
		seen[db.Runs[i].GPU] = true
	}
	return frame.SortedKeys(seen)
}

// A Diff is what came, went and moved from one database to another.
type Diff struct {
	Synthetic bool     `json:"synthetic"`
	Entries   []Change `json:"entries"`
	Same      int      `json:"same"`
}

// A Change is one entry that is not the same in both.
type Change struct {
	Key
	Component string `json:"component"`
	Law       Law    `json:"law"`
	// What became of it: added, removed, moved, within (its interval), runs (the same from more or fewer of them).
	What    string   `json:"what"`
	Old     *float64 `json:"old"`
	New     *float64 `json:"new"`
	OldRuns int      `json:"old_runs"`
	NewRuns int      `json:"new_runs"`
	Bytes   *float64 `json:"bytes"` // what the change is worth for the new entry's mean run
}

// Diff compares two databases entry by entry. An entry has moved where its new
// coefficient lies outside the old one's interval (with one run: differs by more
// than what rounding of vLLM's log explains). It fails with ErrMixed.
func (db *Database) Diff(after *Database) (*Diff, error) {
	if db.Synthetic != after.Synthetic {
		return nil, fmt.Errorf("overhead diff: %w", frame.ErrMixed)
	}
	d := &Diff{Synthetic: db.Synthetic, Entries: []Change{}}
	olds := map[string]*Entry{}
	for i := range db.Entries {
		olds[db.Entries[i].order()] = &db.Entries[i]
	}
	seen := map[string]bool{}
	for i := range after.Entries {
		e := &after.Entries[i]
		seen[e.order()] = true
		c := Change{Key: e.Key, Component: e.Component, Law: e.Law, What: "added", New: &e.Coefficient, NewRuns: e.Runs}
		if old := olds[e.order()]; old != nil {
			c.Old, c.OldRuns, c.What = &old.Coefficient, old.Runs, old.change(e)
			c.Bytes = new(e.worth(e.Coefficient - old.Coefficient))
		}
		if c.What == "" {
			d.Same++
			continue
		}
		d.Entries = append(d.Entries, c)
	}
	for i := range db.Entries {
		if e := &db.Entries[i]; !seen[e.order()] {
			d.Entries = append(d.Entries, Change{Key: e.Key, Component: e.Component, Law: e.Law, What: "removed",
				Old: &e.Coefficient, OldRuns: e.Runs})
		}
	}
	return d, nil
}

// worth is what a difference of the coefficient is for the mean run, in bytes.
func (e *Entry) worth(difference float64) float64 {
	if e.Law == lawBeyond {
		return difference
	}
	units := 0.0
	for _, o := range e.Observed {
		units += o.Units / float64(len(e.Observed))
	}
	return difference * units
}

// change names what became of an entry; "": nothing.
func (e *Entry) change(after *Entry) string {
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
func (d *Diff) Moved() bool {
	return slices.ContainsFunc(d.Entries, func(c Change) bool { return c.What == "moved" })
}

// Text prints the differences.
func (d *Diff) Text(out io.Writer) error {
	w := frame.NewText(out)
	if d.Synthetic {
		w.Printf("synthetic: both are of runs of the simulator\n")
	}
	counts := map[string]int{}
	if len(d.Entries) > 0 {
		w.Table(func(line *frame.Text) {
			line.Printf("what\tmodel\tTP\tGPU\tvLLM\trunner\tcompile\tcomponent\told\tnew\tworth\truns\n")
			for _, c := range d.Entries {
				counts[c.What]++
				worth := "-"
				if c.Bytes != nil {
					worth = frame.Signed(*c.Bytes, frame.UnitBytes)
				}
				line.Printf("%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d -> %d\n", c.What, c.Model, c.TP, c.GPU, c.VLLM,
					c.Runner, c.Compile, c.Component, coefficientText(c.Law, c.Old), coefficientText(c.Law, c.New), worth,
					c.OldRuns, c.NewRuns)
			}
		})
	}
	w.Printf("%d entries the same", d.Same)
	for _, what := range []string{"moved", "within", "runs", "added", "removed"} {
		if counts[what] > 0 {
			w.Printf(", %d %s", counts[what], what)
		}
	}
	w.Printf("\n")
	return w.Err
}
