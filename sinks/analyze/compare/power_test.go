package compare

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

var power = flag.Bool("power", false, "1,000 comparisons, and the table of docs/analysis.md")

// many makes n comparisons of a world with itself: how many called anything, and
// the share of intervals that hold the truth, which is no difference.
func many(t *testing.T, n int, seed uint64, of func(r *rand.Rand) (w world, nights int)) (called int, covered float64) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(1000)) // the rows of a night are soon gone
	held, all := 0, 0
	for i := range n {
		w, nights := of(rand.New(rand.NewPCG(seed, uint64(i))))
		var base []sinks.RunRow
		for k := range nights {
			base = append(base, w.night(fmt.Sprintf("a%d", k))...)
		}
		c, err := Run("a", base, "b", w.night("b"), Options{All: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Regressions)+len(c.Gains)+len(c.Alone) > 0 {
			called++
		}
		for _, one := range c.All {
			if one.Figure == "kv_cache_tokens" { // never differs
				continue
			}
			all++
			if *one.Low <= 0 && *one.High >= 0 {
				held++
			}
		}
	}
	return called, float64(held) / float64(all)
}

// quiet is a world of 3 to 36 profiles with 2 to 5 repeats.
func quiet(r *rand.Rand) world {
	profiles := []int{3, 4, 6, 9, 18, 36}
	return world{profiles: profiles[r.IntN(len(profiles))], repeats: 2 + r.IntN(4), memory: 100 * frame.MiB, ratio: 0.05, random: r}
}

// Where nothing changed nothing is called but for the stated rate, and intervals
// hold the truth as often as they say; noise is large, so that no threshold helps.
func TestNothingChanged(t *testing.T) {
	n := 200
	if *power {
		n = 1000
	}
	for name, c := range map[string]struct {
		nights    int
		shared    float64
		own       float64
		most      float64 // share of comparisons that call anything
		low, high float64 // of coverage
	}{
		"one execution a side":                  {1, 0, 0, 0.003, 0.94, 0.96},
		"three base executions":                 {3, 0, 0, 0.003, 0.94, 0.96},
		"three base executions that drift":      {3, 0.02, 0, 0.05, 0.93, 0.97},
		"three base executions, profiles drift": {3, 0, 0.02, 0.05, 0.93, 0.97},
	} {
		called, covered := many(t, n, 7, func(r *rand.Rand) (world, int) {
			w := quiet(r)
			if c.shared+c.own > 0 {
				w.memory, w.ratio = 30*frame.MiB, 0.003
			}
			w.shared, w.own = c.shared, c.own
			return w, c.nights
		})
		t.Logf("%s: %d of %d comparisons call something, %.1f %% of intervals hold", name, called, n, 100*covered)
		if float64(called) > max(c.most*float64(n), 1) || covered < c.low || covered > c.high {
			t.Errorf("%s: at most %.1f %% and %.0f to %.0f %% are allowed", name, 100*c.most, 100*c.low, 100*c.high)
		}
	}
}

// What is found of a change on one profile of 36, three repeats, 30 MiB and 1 %
// of noise, with the default thresholds: the table of docs/analysis.md.
func TestPower(t *testing.T) {
	n := 10
	if *power {
		n = 200
	}
	var table strings.Builder
	found := func(w world, figure, profile string) (share float64) {
		for i := range n {
			w.random = rand.New(rand.NewPCG(11, uint64(i)))
			fresh := w
			plain := w
			plain.more, plain.slower = nil, nil
			c, err := Run("a", plain.night("a"), "b", fresh.night("b"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range c.Regressions {
				if one.Profile == profile && one.Figure == figure {
					share += 1 / float64(n)
				}
			}
		}
		return share
	}
	base := world{profiles: 36, repeats: 3, memory: 30 * frame.MiB, ratio: 0.01}
	for _, on := range []struct {
		says, profile string
		of            func(p int) bool
		least         [4]float64 // share that has to be found of +100 MiB, +200 MiB, +3 %, +8 %
	}{
		{"one profile", "p007", func(p int) bool { return p == 7 }, [4]float64{0, 0.8, 0, 0.8}},
		{"each, where all change", "p007", func(int) bool { return true }, [4]float64{0.2, 1, 0, 1}},
		{"all together", "", func(int) bool { return true }, [4]float64{1, 1, 0.2, 1}},
	} {
		fmt.Fprintf(&table, "| %s |", on.says)
		planted := func(by float64) func(int) float64 {
			return func(p int) float64 { return map[bool]float64{true: by}[on.of(p)] }
		}
		judge := func(share, least float64) {
			fmt.Fprintf(&table, " %.0f %% |", 100*share)
			if share < least-1e-9 {
				t.Errorf("%s: %.0f %% found, at least %.0f %% asked", on.says, 100*share, 100*least)
			}
		}
		for i, mib := range []float64{100, 200, 75, 125, 150} {
			w := base
			w.more = planted(mib * frame.MiB)
			if i < 2 {
				judge(found(w, "peak_memory_bytes", on.profile), on.least[i])
			} else if *power {
				judge(found(w, "peak_memory_bytes", on.profile), 0)
			}
		}
		for i, percent := range []float64{3, 8, 2, 4, 5, 6} {
			w := base
			w.slower = planted(percent / 100)
			if i < 2 {
				judge(found(w, "avg_latency_s", on.profile), on.least[2+i])
			} else if *power {
				judge(found(w, "avg_latency_s", on.profile), 0)
			}
		}
		table.WriteString("\n")
	}
	t.Logf("found, 36 profiles, 3 repeats; +100, 200 (75, 125, 150) MiB, +3, 8 (2, 4, 5, 6) %%:\n%s", table.String())
}
