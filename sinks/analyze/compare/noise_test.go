package compare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"testing"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// The statistics are those of scipy: of the golden file of package correlate,
// whose test asks scipy for the same samples where Python has it.
func TestNoiseEqualsSciPy(t *testing.T) {
	text, err := os.ReadFile("../correlate/testdata/statistics.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]float64
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	d := oneTest([]float64{10, 11, 10.5}, []float64{12, 11.2, 13, 12.4})
	got := map[string]float64{"t p": d.p}
	got["t low"], got["t high"] = d.interval()
	for i, q := range adjust([]float64{0.001, 0.2, 0.04, 0.03, 0.9, 0.041}) {
		got[fmt.Sprintf("fdr %d", i)] = q
	}
	for name, have := range got {
		v, ok := want[name]
		if !ok || math.Abs(have-v) > 1e-9*math.Max(1, math.Abs(v)) {
			t.Errorf("%s: %v, scipy says %v", name, have, v)
		}
	}
}

// oneTest is the difference of two samples, each of one execution.
func oneTest(base, fresh []float64) difference {
	t := &test{base: side{nights: []night{{group: "base", mean: frame.Mean(base), values: base}}},
		new: side{nights: []night{{group: "new", mean: frame.Mean(fresh), values: fresh}}}}
	n := learn([]*test{t})
	t.differ(&n, 1)
	return t.d
}

// A whole comparison equals that of scipy and statsmodels on the same runs.
func TestCompareEqualsStatsmodels(t *testing.T) {
	python := os.Getenv("VRAMSWEEP_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if exec.CommandContext(t.Context(), python, "-c", "import scipy.stats, statsmodels.stats.multitest").Run() != nil {
		testenv.Skip(t, "%s lacks scipy or statsmodels (VRAMSWEEP_TEST_PYTHON names another)", python)
	}
	type profile struct {
		Base []float64  `json:"base"`
		New  []float64  `json:"new"`
		Off  [2]float64 `json:"off"`
	}
	in := map[string][]profile{}
	got := map[string][][3]float64{}
	c := &Comparison{}
	keyOf, err := matcher(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.match(nightOf("a", 12, 3, 5), nightOf("b", 12, 3, 6, 4), keyOf, Options{})
	var all []*test
	var p []float64
	figures := frame.Figures()
	for i := range figures {
		f := &figures[i]
		if f.Name == "kv_cache_tokens" { // has no noise
			continue
		}
		of, _ := testsOf(f, c.profiles, c.homes(Options{}), nil)
		n := learn(of)
		for _, one := range of {
			one.differ(&n, len(of))
			in[f.Name] = append(in[f.Name], profile{one.base.nights[0].values, one.new.nights[0].values, [2]float64{one.base.off, one.new.off}})
		}
		all = append(append(all, of...), together(of, &n))
	}
	for _, one := range all {
		p = append(p, one.d.p)
	}
	for i, q := range adjust(p) {
		low, high := all[i].d.interval()
		got[all[i].figure.Name] = append(got[all[i].figure.Name], [3]float64{low, high, q})
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/compare.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want map[string][][3]float64
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for name, tests := range want {
		for i, w := range tests {
			h, width := got[name][i], w[1]-w[0]
			// The fit of the prior's scale ends at a millionth, and q of p at its far end moves with it.
			if math.Abs(h[0]-w[0]) > 1e-4*width || math.Abs(h[1]-w[1]) > 1e-4*width || math.Abs(h[2]/w[2]-1) > 0.02 {
				t.Errorf("%s, profile %d: %v, scipy and statsmodels say %v", name, i, h, w)
			}
		}
	}
	if len(want) != len(got) || len(got) != len(figures)-1 {
		t.Errorf("%d figures compared, %d by Python, of %d", len(got), len(want), len(figures)-1)
	}
}
