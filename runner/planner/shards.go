package planner

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Shard is a part of a plan for a runner of its own.
type Shard struct {
	Number   int         `json:"number"` // from 1
	Profiles int         `json:"profiles"`
	Runs     int         `json:"runs"`
	Seconds  float64     `json:"expected_seconds"` // one after another
	GPUs     int         `json:"gpus"`             // that its largest run needs
	Largest  float64     `json:"largest_group_seconds"`
	Plan     *sweep.Plan `json:"-"`

	load int64 // milliseconds
}

// unknownMillis stands for a run of which the model of times knows nothing: a short
// one took 125 s on an H100 (docs/measured).
const unknownMillis = 125_000

// A group is what stays in one shard: the profiles of one engine of session mode,
// those that may dominate each other, or one profile.
type group struct {
	id       string // of its first profile
	profiles []int  // positions in the plan
	startup  int64  // milliseconds, once for all of them
	millis   int64
}

// Cut deals a plan to n shards, longest group first, each to the shard that has
// the least until then. The cut depends on the plan alone: neither on the machine
// nor on what earlier executions took. The longest shard takes at most 4/3 of the
// shortest time that any cut could reach (R. L. Graham, Bounds on Multiprocessing
// Timing Anomalies, 1969).
func Cut(plan *sweep.Plan, n int) []*Shard {
	groups, all := groupsOf(plan)
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Or(cmp.Compare(b.millis, a.millis), cmp.Compare(a.id, b.id)) })
	shards := make([]*Shard, n)
	least := make([]*Shard, n) // a heap
	for i := range shards {
		shards[i] = &Shard{Number: i + 1}
		least[i] = shards[i]
	}
	owner := make([]int, len(all))
	for _, g := range groups {
		shard := least[0]
		for _, at := range g.profiles {
			owner[at] = shard.Number
		}
		shard.load += g.millis
		shard.Largest = max(shard.Largest, float64(g.millis)/1000)
		sift(least)
	}
	for _, shard := range shards {
		shard.Seconds = float64(shard.load) / 1000
		shard.Plan = new(*plan)
		shard.Plan.Sweeps = nil
	}
	at := 0
	for _, s := range plan.Sweeps {
		parts := map[int]*sweep.Sweep{}
		for _, p := range s.Profiles {
			shard := shards[owner[at]-1]
			at++
			part := parts[shard.Number]
			if part == nil {
				part = new(*s)
				part.Profiles = nil
				parts[shard.Number] = part
				shard.Plan.Sweeps = append(shard.Plan.Sweeps, part)
			}
			part.Profiles = append(part.Profiles, p)
			shard.Profiles++
			shard.Runs += max(s.Repeats, 1)
			shard.GPUs = max(shard.GPUs, p.Ranks())
		}
	}
	return shards
}

// groupsOf finds the groups of a plan, and lists its profiles.
func groupsOf(plan *sweep.Plan) (groups []*group, all []*sweep.Profile) {
	times := newFixedTimes()
	byKey := map[string]*group{}
	for _, s := range plan.Sweeps {
		for _, p := range s.Profiles {
			id := s.Name + " " + p.ID
			key := id
			switch {
			case s.Limits.SkipDominated:
				key = runner.Chain(p)
			case p.Engine.Mode == "session":
				key = p.EngineKey()
			}
			g := byKey[key]
			if g == nil {
				g = &group{id: id}
				byKey[key] = g
				groups = append(groups, g)
			}
			startup, work := times.of(p)
			runs := int64(max(s.Repeats, 1))
			if p.Engine.Mode != "session" {
				startup, work = 0, startup+work
			}
			g.profiles = append(g.profiles, len(all))
			g.millis += runs*work + max(startup-g.startup, 0)
			g.startup = max(g.startup, startup)
			all = append(all, p)
		}
	}
	return groups, all
}

// fixedTimes are expected times that the plan alone decides.
type fixedTimes struct {
	model   Times
	weights map[weightsKey]models.Estimate
}

// A weightsKey is what the size of weights depends on.
type weightsKey struct {
	model        *models.Architecture
	dtype, quant string
	tp, pp       int64
}

func newFixedTimes() *fixedTimes { return &fixedTimes{weights: map[weightsKey]models.Estimate{}} }

// of is how long a run takes, milliseconds.
func (t *fixedTimes) of(p *sweep.Profile) (startup, work int64) {
	s := &p.Settings
	key := weightsKey{p.Model, deref(s.Dtype), deref(s.Quantization), s.TensorParallelSize, s.PipelineParallelSize}
	e, ok := t.weights[key]
	if !ok {
		e = models.NewEstimate(p.Model, p.Request(), models.GPU{})
		t.weights[key] = e
	}
	d, ok := t.model.expect(p, &e, false)
	if !ok {
		return 0, unknownMillis
	}
	return int64(d.startup * 1000), int64(d.work * 1000)
}

func deref(s *string) string { return *cmp.Or(s, new("")) }

// sift puts the first of a heap, which has got more to do, in its place: the
// first one then has the least.
func sift(heap []*Shard) {
	less := func(a, b *Shard) bool { return a.load < b.load || a.load == b.load && a.Number < b.Number }
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < len(heap) && less(heap[child+1], heap[child]) {
			child++
		}
		if child >= len(heap) || !less(heap[child], heap[i]) {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}

// ShardsText prints a cut for people.
func ShardsText(out io.Writer, shards []*Shard) error {
	var total, longest, largest float64
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "shard\tprofiles\truns\texpected\tGPUs\t")
	for _, s := range shards {
		fmt.Fprintf(table, "%d/%d\t%d\t%d\t%s\t%d\t\n", s.Number, len(shards), s.Profiles, s.Runs, rounded(s.Seconds), s.GPUs)
		total, longest, largest = total+s.Seconds, max(longest, s.Seconds), max(largest, s.Largest)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	average := total / float64(len(shards))
	fmt.Fprintf(out, "The longest takes %s, the average %s, by a plain model of start-up, prefill and decoding: the cut is "+
		"the same on every machine.\n", rounded(longest), rounded(average))
	if largest > average*4/3 {
		fmt.Fprintf(out, "One group of profiles that stay together (an engine of session mode, or a chain of skip = "+
			"[\"dominated\"])\ntakes %s by itself: more shards than %d gain nothing.\n", rounded(largest), max(int(total/largest), 1))
	}
	return nil
}
