package attribution

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/vramsweep/vramsweep/runner"
)

// RenderSummary prints what a reader of the console wants to know of one run:
// vLLM's own metrics, both accounts side by side, where the memory went, the
// timeline, and the sentence on use beyond the budget. Sizes are GiB with two
// decimals; "-" is a figure that is missing (run.json says why). Of a command that
// is no engine (runner.EngineCommand) it prints what the samplers saw alone:
// there is no account of vLLM's to hold against it. The error is that of w.
func RenderSummary(w io.Writer, r *runner.Result) error {
	if r == nil {
		return nil
	}
	var b bytes.Buffer
	if r.BenchmarkParameters.Engine == runner.EngineCommand {
		renderLevels(&b, r)
		renderTimeline(&b, r)
	} else {
		renderMetrics(&b, r)
		renderAccounts(&b, r)
		renderTree(&b, r)
		renderTimeline(&b, r)
		renderPhases(&b, r)
		renderBudget(&b, r)
		if q := r.Run.Quality; q != "" && q != runner.QualityFull {
			fmt.Fprintf(&b, "Quality of the samples: %s: %s\n", q, r.Run.QualityDetail)
		}
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("summary of run %s could not be written: %w", r.Run.RunID, err)
	}
	return nil
}

// renderLevels is the memory of each GPU in steps: before the command, at most,
// and after it.
func renderLevels(b *bytes.Buffer, r *runner.Result) {
	if len(r.BeyondBudget) == 0 {
		return
	}
	fmt.Fprintln(b, "Memory of each GPU (GiB)")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "  GPU\tbefore\thighest\tafter\tleft\t")
	for i := range r.BeyondBudget {
		gpu := r.BeyondBudget[i].GPUIndex
		var before, after *int64
		for k := range r.Phases {
			p := &r.Phases[k]
			switch {
			case p.GPUIndex == nil || int(*p.GPUIndex) != gpu:
			case p.Phase == runner.PhaseBaseline:
				before = p.StartBytes
			case p.Phase == runner.PhaseFinal:
				after = p.EndBytes
			}
		}
		var left *int64
		if before != nil && after != nil {
			d := *after - *before
			left = &d
		}
		fmt.Fprintf(
			t,
			"  %d\t%s\t%s\t%s\t%s\t\n",
			gpu,
			size(before),
			size(r.BeyondBudget[i].HighestBytes),
			size(after),
			signed(left),
		)
	}
	flush(t)
}

// renderBudget is the sentence on use beyond the budget, for each GPU.
func renderBudget(b *bytes.Buffer, r *runner.Result) {
	for i := range r.BeyondBudget {
		if i == 0 {
			fmt.Fprintln(b, "Against the budget")
		}
		fmt.Fprintf(b, "  GPU %d: %s\n", r.BeyondBudget[i].GPUIndex, r.BeyondBudget[i].Sentence)
	}
}

func renderMetrics(b *bytes.Buffer, r *runner.Result) {
	a := r.VLLMInternalMetrics
	if a == nil {
		return
	}
	fmt.Fprintln(b, "vLLM's own figures (per GPU)")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintf(t, "  %s\n", strings.Join(cells, "\t")) }
	row(
		"version "+text(a.VLLMVersion),
		"engine "+text(a.Engine),
		"runner "+text(a.ModelRunner),
		"attention "+text(a.AttentionBackend),
	)
	row(
		"blocks "+count(a.NumGPUBlocks),
		"block size "+count(a.BlockSize),
		"KV tokens "+count(a.TotalGPUKVCacheTokens),
		"concurrency "+decimal(a.MaxConcurrency, "x"),
	)
	row(
		"weights "+decimal(a.ModelWeightsGB, ""),
		"non-torch "+decimal(a.NonTorchGB, ""),
		"graphs "+decimal(a.GraphCaptureGB, ""),
		"activation "+activation(a),
	)
	row(
		"KV available "+decimal(a.AvailableKVCacheGB, ""),
		"requested "+decimal(a.RequestedMemoryGB, ""),
		"free at start "+decimal(a.FreeMemoryGB, ""),
		"of "+decimal(a.TotalGPUMemoryGB, " GiB"),
	)
	row(
		"utilization "+share(a.GPUMemoryUtilization),
		"max length "+count(a.MaxModelLen),
		"batched tokens "+count(a.MaxNumBatchedTokens),
		"compile cache "+text(a.CompileCache),
	)
	flush(t)
	for i := range a.Budget {
		renderRankBudget(b, &a.Budget[i], len(a.Budget) > 1)
	}
	if a.Error != nil {
		fmt.Fprintf(b, "  error: %s: %s\n", a.Error.Kind, strings.Join(strings.Fields(a.Error.Message), " "))
	}
}

// activation is the peak without the graph estimate, and beside it what vLLM
// prints where that has the estimate in it.
func activation(a *runner.Account) string {
	text := decimal(a.ActivationsGB, "")
	joined := len(a.Ranks) > 0 && a.Ranks[0].ConsumedGB != nil
	if joined && a.ActivationsGB != nil && a.GraphEstimateGB != nil && *a.GraphEstimateGB > 0 {
		text += fmt.Sprintf(" (printed %.2f, with the graph estimate)", *a.ActivationsGB+*a.GraphEstimateGB)
	}
	return text
}

// renderRankBudget is how vLLM's own figures add up to what it requested.
func renderRankBudget(b *bytes.Buffer, k *runner.RankBudget, several bool) {
	if k.Requested == nil || k.Consumed == nil || k.Headroom == nil || k.AvailableKV == nil {
		return
	}
	estimate := 0.0
	if k.GraphEstimate != nil {
		estimate = *k.GraphEstimate
	}
	rank := ""
	if several {
		rank = fmt.Sprintf("rank %d: ", k.Rank)
	}
	fmt.Fprintf(b, "  %sconsumed %.2f + activation %.2f + graph estimate %s + KV %.2f = %.2f GiB of %.2f requested\n", rank,
		*k.Consumed, *k.Headroom, decimal(k.GraphEstimate, ""), *k.AvailableKV,
		*k.Consumed+*k.Headroom+estimate+*k.AvailableKV, *k.Requested)
}

// share prints a share as it was asked, with two digits at least: of 0.9, 0.90 and
// 0.985, 0.98 the later in the alphabet has the digits.
func share(v *float64) string {
	if v == nil {
		return "-"
	}
	return max(fmt.Sprintf("%.2f", *v), strconv.FormatFloat(math.Round(*v*1e4)/1e4, 'f', -1, 64))
}

// renderAccounts is the table of both accounts.
func renderAccounts(b *bytes.Buffer, r *runner.Result) {
	if len(r.Steps) == 0 {
		return
	}
	fmt.Fprintln(b, "Where the memory went, by both accounts (GiB)")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "  GPU\tstep\tdriver\tvLLM\tdifference\t")
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Bytes == nil && s.VLLMBytes == nil {
			continue
		}
		fmt.Fprintf(
			t,
			"  %d\t%s\t%s\t%s\t%s\t\n",
			s.GPUIndex,
			s.Step,
			size(s.Bytes),
			size(s.VLLMBytes),
			signed(s.DifferenceBytes),
		)
	}
	flush(t)
}

type branch struct {
	name, field string
	value       *float64
}

// renderTree is the breakdown of the net increase, with shares and confidence.
func renderTree(b *bytes.Buffer, r *runner.Result) {
	d := r.MemoryBreakdown
	if d == nil || d.NetIncreaseGB == nil {
		return
	}
	fmt.Fprintf(b, "Breakdown: %s in use at the highest sample, baseline %s, net increase %s GiB\n",
		decimal(d.TotalMeasuredGB, ""), decimal(d.BaselineGB, ""), decimal(d.NetIncreaseGB, ""))
	branches := []branch{
		{"model weights", "model_weights_gb", d.ModelWeightsGB}, {"KV cache", "kv_cache_gb", d.KVCacheGB},
		{"CUDA graphs", "graph_capture_gb", d.GraphCaptureGB}, {"non-torch", "non_torch_gb", d.NonTorchGB},
		{"context", "context_gb", d.ContextGB}, {"runner's buffers", "buffers_gb", d.BuffersGB},
		{"activation in use", "activations_gb", d.ActivationsGB}, {"growth excess", "growth_excess_gb", d.GrowthExcessGB},
		{"framework overhead", "framework_overhead_gb", d.FrameworkOverheadGB},
	}
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for i, br := range branches {
		stem := "├─"
		if i == len(branches)-1 {
			stem = "└─"
		}
		share := "-"
		if br.value != nil && *d.NetIncreaseGB > 0 {
			share = fmt.Sprintf("%.1f %%", 100**br.value / *d.NetIncreaseGB)
		}
		confidence := string(d.ConfidenceLevels[br.field])
		if confidence == "" {
			confidence = "missing: " + r.Missing["memory_breakdown."+br.field]
		}
		fmt.Fprintf(t, "  %s %s\t%8s\t%8s\t%s\n", stem, br.name, decimal(br.value, ""), share, confidence)
	}
	flush(t)
	if d.KVCacheUsedGB != nil {
		fmt.Fprintf(b, "  of the KV cache %s GiB used by this batch (%s); ", decimal(d.KVCacheUsedGB, ""), d.KVUsedSource)
	} else {
		fmt.Fprint(b, "  ")
	}
	fmt.Fprintf(
		b,
		"activation reserved %s, never used %s GiB\n",
		decimal(d.ActivationsReservedGB, ""),
		decimal(d.HeadroomUnusedGB, ""),
	)
	for _, f := range d.Flags {
		fmt.Fprintf(b, "  ! %s\n", f)
	}
}

func renderTimeline(b *bytes.Buffer, r *runner.Result) {
	m := r.MemoryTimeline
	if m == nil {
		return
	}
	fmt.Fprintf(b, "Timeline (%s, %d samples of %d", m.Window.What, m.NumSamples, m.WholeRun.NumSamples)
	if m.Missed > 0 {
		fmt.Fprintf(b, ", %d missed", m.Missed)
	}
	fmt.Fprintln(b, ")")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "  \tmin\tmean\tmedian\tp95\tmax\t")
	fmt.Fprintf(
		t,
		"  memory GiB\t%s\t%s\t%s\t%s\t%s\t\n",
		decimal(m.MinGB, ""),
		decimal(m.MeanGB, ""),
		decimal(m.MedianGB, ""),
		decimal(m.P95GB, ""),
		decimal(m.MaxGB, ""),
	)
	x := &m.Extended
	row := func(name string, least, mean, most *float64) {
		if mean != nil {
			fmt.Fprintf(t, "  %s\t%s\t%s\t\t\t%s\t\n", name, tenth(least), tenth(mean), tenth(most))
		}
	}
	kind := ""
	if x.Power.Kind == powerAveraged {
		kind = " (1 s average)"
	}
	row("power W"+kind, x.Power.MinW, x.Power.MeanW, x.Power.MaxW)
	row("temperature C", x.Temperature.MinC, x.Temperature.MeanC, x.Temperature.MaxC)
	row("utilization %", x.Utilization.MinPct, x.Utilization.MeanPct, x.Utilization.MaxPct)
	flush(t)
	if x.EnergyJ != nil {
		fmt.Fprintf(b, "  energy %.0f J (%s)\n", *x.EnergyJ, x.EnergyFrom)
	}
}

// renderPhases is one line: where the time went.
func renderPhases(b *bytes.Buffer, r *runner.Result) {
	if len(r.Phases) == 0 {
		return
	}
	first := r.Phases[0].GPUIndex
	var parts []string
	for i := range r.Phases {
		p := &r.Phases[i]
		if p.DurationS != nil && *p.DurationS >= 0.05 && (first == nil || p.GPUIndex != nil && *p.GPUIndex == *first) {
			parts = append(parts, fmt.Sprintf("%s %.1f", p.Phase, *p.DurationS))
		}
	}
	fmt.Fprintf(b, "Time by phase (s): %s\n", strings.Join(parts, ", "))
}

// flush writes a table into its buffer, which never fails.
func flush(t *tabwriter.Writer) { _ = t.Flush() }

func text(s *string) string {
	if s == nil || *s == "" {
		return "-"
	}
	return *s
}

func count(v *int64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}

func decimal(v *float64, unit string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f%s", *v, unit)
}

func tenth(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", *v)
}

func size(v *int64) string {
	if v == nil {
		return "-"
	}
	return bare(*v)
}

func signed(v *int64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%+.2f", float64(*v)/runner.GiB)
}
