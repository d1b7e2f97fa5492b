package planner

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// randomPlan has sweeps of every kind: their groups are of one profile, of an
// engine, or of a chain.
func randomPlan(r *rand.Rand, profiles int) *sweep.Plan {
	plan := &sweep.Plan{}
	for i := 0; i < profiles; {
		s := &sweep.Sweep{Name: fmt.Sprintf("s%d", len(plan.Sweeps)), Repeats: 1 + r.IntN(3)}
		s.Limits.SkipDominated = r.IntN(4) == 0
		mode := []string{"latency", "session"}[r.IntN(2)]
		for range min(1+r.IntN(200), profiles-i) {
			length := int64(1024 << r.IntN(4))
			p := &sweep.Profile{ID: fmt.Sprintf("%016x", i), Sweep: s.Name, Engine: sweep.Engine{Kind: "vllm", Mode: mode}}
			p.Settings.HFModelID = fmt.Sprintf("o/m%d", r.IntN(5))
			p.Settings.MaxModelLen, p.Settings.TensorParallelSize, p.Settings.BatchSize = &length, int64(1<<r.IntN(4)), int64(i)
			s.Profiles = append(s.Profiles, p)
			i++
		}
		plan.Sweeps = append(plan.Sweeps, s)
	}
	return plan
}

// TestCut: a cut is disjoint and complete, the same each time, keeps groups whole
// and the order of the plan, and its longest shard is near the best.
func TestCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for try := range 60 {
		plan := randomPlan(r, 1+r.IntN(600))
		n := []int{1, 2, 3, 7, 64, 1000, 1 + r.IntN(1000)}[try%7]
		checkCut(t, plan, n)
	}
}

func checkCut(t *testing.T, plan *sweep.Plan, n int) {
	t.Helper()
	shards, again := Cut(plan, n), Cut(plan, n)
	if len(shards) != n {
		t.Fatalf("%d shards, want %d", len(shards), n)
	}
	in, plans := map[*sweep.Profile]int{}, []*sweep.Plan{}
	for i, s := range shards {
		plans = append(plans, s.Plan)
		if runner.Digest(s.Plan) != runner.Digest(again[i].Plan) {
			t.Errorf("shard %d of %d differs from one time to the next", i+1, n)
		}
		for _, part := range s.Plan.Sweeps {
			last := -1
			whole := plan.Sweeps[slices.IndexFunc(plan.Sweeps, func(w *sweep.Sweep) bool { return w.Name == part.Name })]
			for _, p := range part.Profiles {
				if in[p] != 0 {
					t.Errorf("profile %s is in shards %d and %d", p.ID, in[p], s.Number)
				}
				in[p] = s.Number
				at := slices.Index(whole.Profiles, p)
				if at <= last {
					t.Errorf("shard %d is not in the order of the plan", s.Number)
				}
				last = at
			}
		}
	}
	groups, all := groupsOf(plan)
	var times []int64
	var total int64
	for _, g := range groups {
		times, total = append(times, g.millis), total+g.millis
		for _, at := range g.profiles {
			if in[all[at]] == 0 || in[all[at]] != in[all[g.profiles[0]]] {
				t.Errorf("profile %s of group %s is in shard %d, its first in %d", all[at].ID, g.id, in[all[at]],
					in[all[g.profiles[0]]])
			}
		}
	}
	// No cut is shorter than the average, the largest group, or two of the n+1 largest ones.
	slices.SortFunc(times, func(a, b int64) int { return int(b - a) })
	bound := max(float64(total)/float64(n), float64(times[0]))
	if len(times) > n {
		bound = max(bound, float64(times[n-1]+times[n]))
	}
	for _, s := range shards {
		if float64(s.load) > bound*4/3 {
			t.Errorf("shard %d of %d takes %d ms, no cut takes less than %.0f", s.Number, n, s.load, bound)
		}
	}
	if n > 1 && runner.Digest(plans...) == runner.Digest(plan) {
		t.Error("a digest does not tell how a plan was cut")
	}
}

func BenchmarkCut(b *testing.B) {
	plan := randomPlan(rand.New(rand.NewPCG(1, 2)), 100_000)
	for b.Loop() {
		Cut(plan, 1000)
	}
}
