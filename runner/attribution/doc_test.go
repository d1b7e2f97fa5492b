package attribution_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/attribution"
)

var update = flag.Bool("update", false, "write what the documentation and golden files should hold")

const page = "../../docs/attribution.md"

// TestPage makes the blocks of docs/attribution.md from the recording that it
// is about, and checks the sizes in its text.
func TestPage(t *testing.T) {
	all := recordings(t)
	r := all["llama-3.1-8b"]
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for name, block := range map[string]string{
		"summary": summaryBlock(t, r), "phases": phasesBlock(r), "steps": stepsBlock(r), "ranks": ranksBlock(r), "budget": budgetBlock(r),
	} {
		begin, end := fmt.Sprintf("<!-- begin %s -->\n", name), fmt.Sprintf("<!-- end %s -->", name)
		head, rest, ok := strings.Cut(text, begin)
		was, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("the page has no block %s", name)
		}
		want := "```\n" + block + "```\n"
		if was != want && !*update {
			t.Errorf("block %s of the page is stale (go test -update mends it); it has\n%s\nexpected\n%s", name, was, want)
		}
		text = head + begin + want + end + tail
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checkSizes(t, r, all["tp2-llama-3.1-8b"], text)
}

// checkSizes: every "N.NN GiB" in the text is a figure of the run, or one of
// the few of other runs and of the method.
func checkSizes(t *testing.T, r, two *runner.Result, text string) {
	t.Helper()
	figures := map[string]bool{"0.25": true} // the safety margin
	note := func(v *int64) {
		if v != nil {
			figures[fmt.Sprintf("%.2f", float64(*v)/gib)] = true
		}
	}
	for _, s := range r.Steps {
		note(s.Bytes)
		note(s.VLLMBytes)
	}
	for _, b := range r.BeyondBudget {
		note(b.RequestedBytes)
		note(b.HighestBytes)
		note(b.ContextBytes)
	}
	for _, v := range []*float64{r.MemoryBreakdown.ResidualAfterCaptureGB, r.MemoryBreakdown.NetIncreaseGB, r.VLLMInternalMetrics.TotalGPUMemoryGB} {
		figures[fmt.Sprintf("%.2f", *v)] = true
	}
	for _, s := range two.Steps {
		if s.Step == "nccl" {
			note(s.Bytes)
		}
	}
	prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	found := regexp.MustCompile(`(\d+\.\d\d) GiB`).FindAllStringSubmatch(prose, -1)
	if len(found) < 8 {
		t.Errorf("the text holds %d sizes, expected at least 8", len(found))
	}
	for _, m := range found {
		if !figures[m[1]] {
			t.Errorf("the text says %s GiB, which is no figure of the run", m[1])
		}
	}
}

func summaryBlock(t *testing.T, r *runner.Result) string {
	var b bytes.Buffer
	if err := attribution.RenderSummary(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func table(head string, rows func(w *tabwriter.Writer)) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, head)
	rows(w)
	_ = w.Flush()
	var out []string
	for _, line := range strings.Split(b.String(), "\n") {
		out = append(out, strings.TrimRight(line, " "))
	}
	return strings.Join(out, "\n")
}

func size(v *int64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(float64(*v)/gib, 'f', 3, 64)
}

func number(v *float64, digits int) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', digits, 64)
}

func phasesBlock(r *runner.Result) string {
	return table("phase\tstarts at s\t+- s\tlasts s\tmemory start\thighest\tend (GiB)\tenergy J\tmean W", func(w *tabwriter.Writer) {
		for _, p := range r.Phases {
			fmt.Fprintf(w, "%s\t%.2f\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Phase, p.StartedAt.Sub(r.Run.StartedAt).Seconds(), number(p.UncertaintyS, 2), number(p.DurationS, 2),
				size(p.StartBytes), size(p.MaxBytes), size(p.EndBytes), number(p.EnergyJ, 0), number(p.MeanPowerW, 0))
		}
	})
}

func stepsBlock(r *runner.Result) string {
	var b strings.Builder
	line := func(cells ...any) {
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%-14s %8s %8s %11s   %s", cells...), " "))
	}
	line("step (GiB)", "driver", "vLLM", "difference", "between the samples at s")
	for _, s := range r.Steps {
		at := "-"
		if s.TFrom != nil {
			at = fmt.Sprintf("%.2f and %.2f", s.TFrom.Sub(r.Run.StartedAt).Seconds(), s.TTo.Sub(r.Run.StartedAt).Seconds())
		}
		line(s.Step, size(s.Bytes), size(s.VLLMBytes), size(s.DifferenceBytes), at)
		for _, words := range fold(s.Reason, 100) {
			fmt.Fprintf(&b, "    %s\n", words)
		}
	}
	return b.String()
}

func fold(s string, n int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && len(line)+1+len(word) > n {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}

func ranksBlock(r *runner.Result) string {
	k := r.Ranks[0]
	return table("rank 0\tGiB", func(w *tabwriter.Writer) {
		for _, f := range []struct {
			name string
			v    *int64
		}{
			{"model_weights_bytes", k.ModelWeightsBytes}, {"kv_cache_bytes", k.KVCacheBytes}, {"activations_reserved_bytes", k.ActivationsReservedBytes},
			{"cuda_graphs_bytes", k.CUDAGraphsBytes}, {"non_torch_bytes", k.NonTorchBytes}, {"context_bytes", k.ContextBytes}, {"buffers_bytes", k.BuffersBytes},
			{"requested_bytes", k.RequestedBytes}, {"free_at_start_bytes", k.FreeAtStartBytes}, {"graph_estimate_bytes", k.GraphEstimateBytes}, {"budget_difference_bytes", k.BudgetDifferenceBytes},
		} {
			fmt.Fprintf(w, "%s\t%s\n", f.name, size(f.v))
		}
	})
}

func budgetBlock(r *runner.Result) string {
	b := r.BeyondBudget[0]
	return table("GPU 0\tGiB", func(w *tabwriter.Writer) {
		for _, f := range []struct {
			name string
			v    *int64
		}{
			{"requested_bytes", b.RequestedBytes}, {"highest_bytes", b.HighestBytes}, {"gross_bytes", b.GrossBytes}, {"net_bytes", b.NetBytes}, {"context_bytes", b.ContextBytes},
			{"graphs_outside_budget_bytes", b.GraphsOutsideBytes}, {"headroom_retaken_bytes", b.HeadroomRetakenBytes}, {"headroom_unused_bytes", b.HeadroomUnusedBytes},
			{"growth_excess_bytes", b.GrowthExcessBytes}, {"safe_kv_cache_memory_bytes", b.SafeKVCacheMemoryBytes},
		} {
			fmt.Fprintf(w, "%s\t%s\n", f.name, size(f.v))
		}
		fmt.Fprintf(w, "safe_utilization\t%s\nkv_tokens_gained\t%d\n", number(b.SafeUtilization, 3), *b.KVTokensGained)
	})
}
