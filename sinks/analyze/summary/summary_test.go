package summary

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/compare"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// night is 400 synthetic profiles: 2 models x 2 KV dtypes x 10 lengths x 10 batch
// sizes, of which 50 ran out of memory, 1 had a bad argument and 10 sparse samples.
// Three have weights of more bytes.
func night(execution string, more int64) (runs []*run) {
	start := time.Date(2026, 11, 30, 22, 0, 0, 0, time.UTC)
	for i := range 400 {
		model, kv, in, bs := i/200, i/100%2, i/10%10, i%10
		row := &sinks.RunRow{ProfileID: fmt.Sprintf("p%03d", i), Repeat: 1, Outcome: "ok", Quality: new("full"),
			StartedAt: new(start.Add(time.Duration(i) * time.Minute)), EndedAt: new(start.Add(time.Duration(i+1) * time.Minute)),
			WallS: new(60.0), GPUCount: new(int32(2)), GPUName: new("H100"), PeakMemoryBytes: new(int64(70 * frame.GiB)),
			ModelWeightsBytes: new(int64(15 * frame.GiB))}
		row.Key = sinks.Key{RunID: fmt.Sprintf("%s/p%03d", execution, i), Execution: execution, Sweep: "night",
			Model: []string{"Qwen/Qwen3-8B", "Qwen/Qwen3-32B"}[model], Synthetic: true}
		row.InputLen, row.BatchSize, row.TensorParallelSize = 512<<in, 1<<bs, 2
		row.KVCacheDtype, row.MaxModelLen = new([]string{"auto", "fp8"}[kv]), new(row.InputLen+128)
		r := &run{RunRow: row, log: "runs/" + row.RunID + "/stdout.log:7", safe: new(0.95)}
		switch {
		case model == 1 && in >= 5 && bs >= 5: // 2 x 5 x 5
			row.Outcome, r.failedIn = "oom", runner.PhaseMeasure
			row.ErrorLine = new(fmt.Sprintf("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate %d.00 GiB.", i))
		case i == 7:
			row.Outcome, row.ErrorLine = "bad_argument", new("vllm: error: unrecognized arguments: --nosuch")
		case model == 0 && kv == 1 && in == 3:
			row.Quality, row.QualityDetail = new("sparse"), new("4 samples of the measuring phase")
		case model == 0 && kv == 0 && in == 9 && bs >= 7:
			*row.ModelWeightsBytes += more
		}
		runs = append(runs, r)
	}
	return runs
}

func rowsOf(runs []*run) (rows []sinks.RunRow) {
	for _, r := range runs {
		rows = append(rows, *r.RunRow)
	}
	return rows
}

func sumOf(t *testing.T, runs []*run, compared ...Compared) *Summary {
	t.Helper()
	s := &Summary{Folder: "results", Execution: "b", State: "complete", Planned: len(runs), causes: map[string]string{}}
	s.of(runs, compared)
	return s
}

// A night of 400 profiles is one screen that names each kind of what went wrong.
func TestANightIsOneScreen(t *testing.T) {
	runs := night("b", 300<<20)
	c, err := compare.Run("a", rowsOf(night("a", 0)), "b", rowsOf(runs), compare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := sumOf(t, runs, Compared{Since: "results@a", Of: c})
	for _, width := range []int{0, 80, 120} {
		var out bytes.Buffer
		if err := s.Text(&out, width, planner.Fold); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
		if len(lines) > MostLines {
			t.Errorf("width %d: %d lines, %d are the most\n%s", width, len(lines), MostLines, out.String())
		}
		for _, line := range lines {
			if n := len([]rune(line)); width > 0 && n > width {
				t.Errorf("width %d: %d columns: %s", width, n, line)
			}
		}
		text := strings.Join(strings.Fields(out.String()), " ")
		for _, want := range []string{
			"349 ok, 51 failed, 0 skipped of 400 runs of 400 profiles", "in 6h40m0s", "13 GPU-hours",
			"50 × oom in measure: Qwen3-32B · in ≥ 16384 · bs ≥ 32", "runs/b/p255/stdout.log:7",
			"1 × bad_argument: Qwen3-8B · kv auto · in 512 · bs 128", "10 × sparse samples: Qwen3-8B · kv fp8 · in 4096",
			"3 × worse: weights +300 MiB (+2.0 %): Qwen3-8B · kv auto · in 262144 · bs ≥ 128",
			"vramsweep compare results@a results@b", "vramsweep explain results/runs/b/p255/stdout.log",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("width %d: it does not say %q:\n%s", width, want, out.String())
			}
		}
	}
	var markdown bytes.Buffer
	if err := s.Markdown(&markdown); err != nil || !strings.Contains(markdown.String(), "- 50 × oom in measure") {
		t.Errorf("Markdown (%v):\n%s", err, markdown.String())
	}
	if got := s.Cause("b/p255"); !strings.HasPrefix(got, "oom in measure: Qwen3-32B") {
		t.Errorf("the cause of p255 is %q", got)
	}
}

// Boxes hold all points of a set and no other, whatever the set.
func TestCoverIsExact(t *testing.T) {
	runs := night("b", 0)
	var rows []*sinks.RunRow
	for _, r := range runs {
		rows = append(rows, r.RunRow)
	}
	s := newSpace(rows)
	if len(s.axes) != 4 {
		t.Errorf("axes %+v, want model, kv, in, bs: the longest sequence follows from in", s.axes)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, share := range []float64{0.01, 0.2, 0.6, 0.95} {
		of := map[int]bool{0: true}
		for p := range s.points {
			if random.Float64() < share {
				of[p] = true
			}
		}
		held := map[int]bool{}
		for _, b := range s.cover(of) {
			for p, point := range s.points {
				held[p] = held[p] || b.has(point)
			}
		}
		for p := range s.points {
			if held[p] != of[p] {
				t.Errorf("share %v: point %d is in the boxes: %v, in the set: %v", share, p, held[p], of[p])
			}
		}
	}
}

// A diagonal is no box of all: what a text leaves out takes no point away.
func TestTextOfADiagonal(t *testing.T) {
	var rows []*sinks.RunRow
	for i := range 3 {
		r := &sinks.RunRow{ProfileID: fmt.Sprint(i)}
		r.InputLen, r.BatchSize = int64(i+1), int64(i+1)
		rows = append(rows, r)
	}
	s := newSpace(rows)
	if got := s.describe([]string{"1"}, nil); got != "in 2" && got != "bs 2" && got != "in 2 · bs 2" {
		t.Errorf("one point of a diagonal is %q", got)
	}
	if got := s.describe([]string{"0", "1", "2"}, nil); got != "all points" {
		t.Errorf("all are %q", got)
	}
}

func TestSkipsAndRepeats(t *testing.T) {
	runs := night("b", 0)[:20]
	for i, r := range runs {
		r.Outcome, r.ErrorLine, r.failedIn = "ok", nil, ""
		if i >= 15 {
			r.Outcome = "skipped"
			r.OutcomeDetail = new(fmt.Sprintf("dominated: needs at least as much as the point batch_size=%d, where the weights did not fit", i))
		}
	}
	again := *runs[0].RunRow
	again.Outcome, again.Repeat, again.RunID = "timeout", 2, "b/again"
	s := sumOf(t, append(runs, &run{RunRow: &again}))
	if len(s.Skips) != 1 || s.Skips[0].What != "dominated (a smaller point failed: the weights did not fit)" || len(s.Skips[0].Runs) != 5 {
		t.Errorf("skips %+v", s.Skips)
	}
	if len(s.Failures) != 1 || !strings.HasSuffix(s.Failures[0].Points, "(in some repeats)") {
		t.Errorf("failures %+v", s.Failures)
	}
}
