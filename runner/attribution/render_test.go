package attribution_test

import (
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
)

// TestSummaryOfCommand: of a command that is no engine the summary has the levels
// of each GPU and nothing of vLLM's; the same figures of an engine that left no
// log keep their budget and phases.
func TestSummaryOfCommand(t *testing.T) {
	gib := func(v float64) *int64 { n := int64(v * runner.GiB); return &n }
	gpu := func(i int32) *int32 { return &i }
	r := &runner.Result{
		Phases: []runner.PhaseRow{
			{GPUIndex: gpu(1), Phase: runner.PhaseBaseline, StartBytes: gib(9)},
			{GPUIndex: gpu(3), Phase: runner.PhaseBaseline, StartBytes: gib(0.5), EndBytes: gib(0.75)},
			{GPUIndex: gpu(3), Phase: runner.PhaseFinal, StartBytes: gib(7), EndBytes: gib(2)},
		},
		BeyondBudget: []runner.BeyondBudget{
			{GPUIndex: 1, Sentence: "nothing to hold it against"},
			{GPUIndex: 3, HighestBytes: gib(40), Sentence: "nothing to hold it against"},
		},
	}
	render := func(engine string) string {
		r.BenchmarkParameters.Engine = engine
		var b strings.Builder
		if err := attribution.RenderSummary(&b, r); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	want := `Memory of each GPU (GiB)
    GPU  before  highest  after   left
      1    9.00        -      -      -
      3    0.50    40.00   2.00  +1.50
`
	if got := render(runner.EngineCommand); got != want {
		t.Errorf("of a command: got\n%s\nwant\n%s", got, want)
	}
	if got := render("vllm"); !strings.Contains(got, "Against the budget\n  GPU 1: nothing") || strings.Contains(got, "before") {
		t.Errorf("of an engine: got\n%s", got)
	}
}
