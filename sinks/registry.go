package sinks

import (
	"fmt"
	"io"
	"math"
	"reflect"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// A definition is what is known of a table, whatever its rows.
type definition struct {
	name  Table
	grain string   // what a row is
	keys  []string // columns that identify a row
	// sorted is how many of the keys the files are sorted by: phases, steps and
	// components stand in the order of a run, not of their names.
	sorted int
}

// A rowTable is a table with all that depends on the type of its rows. The
// registry below is the one list of tables: what differs from table to table
// stands there, and nowhere else.
type rowTable[T Row] struct {
	definition
	key   func(*T) *Key
	order func(*T) rowKey          // the keys beside run_id
	of    func(*Rows) []T          // the rows of a run; nil: they stand in its timeline
	axes  func(*T) *map[string]any // of a row; nil: the table has none
}

// An anyTable is a rowTable whose rows are not known to the caller.
type anyTable interface {
	def() *definition
	rowType() reflect.Type
	stage(s *Store, name string, marks []Mark, axes []table.Axis) (stager, error)
	verify(v *verifier, executions []string)
	export(s *Store, format string, where Predicate, w io.Writer) (int64, error)
}

// registry lists the tables in the order of the documentation.
func registry() []anyTable {
	return []anyTable{
		&rowTable[RunRow]{
			definition: definition{name: TableRuns, keys: []string{"run_id"}, sorted: 1, grain: "One row a run: one profile, " +
				"one repeat, one execution. Memory columns are sums over the run's GPUs unless the name says max_gpu."},
			key:   func(r *RunRow) *Key { return &r.Key },
			order: func(*RunRow) rowKey { return rowKey{} },
			of:    func(r *Rows) []RunRow { return []RunRow{r.Run} },
			axes:  func(r *RunRow) *map[string]any { return &r.Axes },
		},
		&rowTable[RankRow]{
			definition: definition{name: TableRanks, keys: []string{"run_id", "rank"}, sorted: 2,
				grain: "One row a rank of a run: vLLM's own account of it."},
			key:   func(r *RankRow) *Key { return &r.Key },
			order: func(r *RankRow) rowKey { return rowKey{a: int64(r.Rank)} },
			of:    func(r *Rows) []RankRow { return r.Ranks },
		},
		&rowTable[TimelineRow]{
			definition: definition{name: TableTimelines, keys: []string{"run_id", "gpu_index", "ts"}, sorted: 3,
				grain: "One row a sample of a GPU, or of the host (gpu_index null)."},
			key:   func(r *TimelineRow) *Key { return &r.Key },
			order: func(r *TimelineRow) rowKey { return rowKey{a: gpuOrder(r.GPUIndex), b: int64(r.TS)} },
		},
		&rowTable[PhaseRow]{
			definition: definition{name: TablePhases, keys: []string{"run_id", "gpu_index", "phase"}, sorted: 2,
				grain: "One row a phase of a run and GPU."},
			key:   func(r *PhaseRow) *Key { return &r.Key },
			order: func(r *PhaseRow) rowKey { return rowKey{a: gpuOrder(r.GPUIndex), s: string(r.Phase)} },
			of:    func(r *Rows) []PhaseRow { return r.Phases },
		},
		&rowTable[BreakdownRow]{
			definition: definition{name: TableBreakdowns, keys: []string{"run_id", "rank", "component"}, sorted: 2,
				grain: "One row a part " +
					"of the net increase of a rank; the parts of a run add up to its net_increase_bytes, nothing twice."},
			key:   func(r *BreakdownRow) *Key { return &r.Key },
			order: func(r *BreakdownRow) rowKey { return rowKey{a: int64(r.Rank), s: r.Component} },
			of:    func(r *Rows) []BreakdownRow { return r.Breakdowns },
		},
		&rowTable[StepRow]{
			definition: definition{name: TableSteps, keys: []string{"run_id", "gpu_index", "step"}, sorted: 2,
				grain: "One row a step of the driver's account of a GPU: what its memory did in a phase."},
			key:   func(r *StepRow) *Key { return &r.Key },
			order: func(r *StepRow) rowKey { return rowKey{a: int64(r.GPUIndex), s: r.Step} },
			of:    func(r *Rows) []StepRow { return r.Steps },
		},
		&rowTable[LatencyRow]{
			definition: definition{name: TableLatencies, keys: []string{"run_id", "iteration"}, sorted: 2,
				grain: "One row a measured iteration."},
			key:   func(r *LatencyRow) *Key { return &r.Key },
			order: func(r *LatencyRow) rowKey { return rowKey{a: int64(r.Iteration)} },
			of:    func(r *Rows) []LatencyRow { return r.Latencies },
		},
	}
}

// lookup finds a table by its name.
func lookup(name Table) (anyTable, error) {
	for _, t := range registry() {
		if t.def().name == name {
			return t, nil
		}
	}
	return nil, fmt.Errorf("there is no table %q; the tables are %v", name, Tables())
}

// tableOf is the table that a row belongs to.
func tableOf[T Row]() *rowTable[T] {
	for _, t := range registry() {
		if own, ok := t.(*rowTable[T]); ok {
			return own
		}
	}
	return nil // cannot be: Row lists the types above
}

func (d *definition) def() *definition { return d }

// rising says whether whole keys rise in the files of a table; in the others
// the rows of a run stand in the order of the run.
func (d *definition) rising() bool { return d.sorted == len(d.keys) }

func (t *rowTable[T]) rowType() reflect.Type { return reflect.TypeFor[T]() }

// Grain says what a row of a table is.
func Grain(name Table) string { return defined(name).grain }

// Keys are the columns that identify a row.
func Keys(name Table) []string { return defined(name).keys }

func defined(name Table) *definition {
	if t, err := lookup(name); err == nil {
		return t.def()
	}
	return &definition{}
}

// A Mark names an execution in a file of tables/, and whether more of it can come.
type Mark = table.Mark

func (t *rowTable[T]) writer(w io.Writer, version string, axes []table.Axis, marks []Mark) *table.Writer[T] {
	o := table.Options{Table: string(t.name), Schema: runner.SchemaVersion, Version: version,
		Sorted: t.keys[:t.sorted], Marks: marks, Sealed: true}
	if t.axes == nil {
		return table.NewWriter[T](w, o, nil)
	}
	o.Axes = axes
	return table.NewWriter(w, o, func(row *T) map[string]any { return *t.axes(row) })
}

// read yields the rows of a file that a predicate chooses, in chunks that are reused.
func (t *rowTable[T]) read(f *table.File, where Predicate, yield func([]T) error) error {
	filter := table.Filter[T]{Equal: where.equal()}
	if len(filter.Equal) > 0 {
		filter.Match = func(row *T) bool { return where.match(t.key(row)) }
	}
	if t.axes == nil {
		return table.Read(f, filter, nil, yield)
	}
	return table.Read(f, filter, func(row *T, axes map[string]any) { *t.axes(row) = axes }, yield)
}

// A Predicate chooses rows. An empty field chooses all.
type Predicate struct {
	RunID     string
	Execution string
	Sweep     string
	Model     string
}

// equal are the columns that a predicate fixes, the most selective last.
func (p *Predicate) equal() []table.Equal {
	var equal []table.Equal
	for _, e := range []table.Equal{{Column: "model", Value: p.Model}, {Column: "sweep", Value: p.Sweep},
		{Column: "execution", Value: p.Execution}, {Column: "run_id", Value: p.RunID}} {
		if e.Value != "" {
			equal = append(equal, e)
		}
	}
	return equal
}

func (p *Predicate) match(k *Key) bool {
	return (p.RunID == "" || p.RunID == k.RunID) && (p.Execution == "" || p.Execution == k.Execution) &&
		(p.Sweep == "" || p.Sweep == k.Sweep) && (p.Model == "" || p.Model == k.Model)
}

// A rowKey identifies a row of any table.
type rowKey struct {
	run  string
	a, b int64
	s    string
}

func (t *rowTable[T]) rowKey(row *T) rowKey {
	k := t.order(row)
	k.run = t.key(row).RunID
	return k
}

func (k rowKey) less(o rowKey) bool {
	return k.run == o.run && (k.a < o.a || k.a == o.a && k.b < o.b)
}

// gpuOrder puts null, the host, last.
func gpuOrder(gpu *int32) int64 {
	if gpu == nil {
		return math.MaxInt64
	}
	return int64(*gpu)
}
