package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
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
