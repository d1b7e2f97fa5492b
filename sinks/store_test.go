package sinks

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRunsComeBack(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	runs := night(0)
	write(t, s, runs)

	check := func(when string) {
		t.Helper()
		if got := collect[RunRow](t, Predicate{}, dir); len(got) != len(runs) {
			t.Fatalf("%s: %d runs, expected %d", when, len(got), len(runs))
		}
		lines := collect[TimelineRow](t, Predicate{RunID: runs[3].job(1).RunID}, dir)
		if len(lines) != len(runs[3].samples()) {
			t.Fatalf("%s: %d samples, expected %d", when, len(lines), len(runs[3].samples()))
		}
		want := RowsOf(runs[3].result())
		if diff := cmp.Diff(want.Breakdowns, collect[BreakdownRow](t, Predicate{RunID: want.Run.RunID}, dir)); diff != "" {
			t.Errorf("%s: breakdowns (-want +got):\n%s", when, diff)
		}
		got := collect[RunRow](t, Predicate{RunID: want.Run.RunID}, dir)
		want.Run.JSONSHA256 = got[0].JSONSHA256
		if diff := cmp.Diff([]RunRow{want.Run}, got); diff != "" {
			t.Errorf("%s: runs (-want +got):\n%s", when, diff)
		}
	}
	check("while it runs")
	if err := s.Publish(runs[0].execution); err != nil {
		t.Fatal(err)
	}
	check("published half way")
	finish(t, s, runs[0].execution)
	check("finished")
	if _, err := s.Compact(); err != nil {
		t.Fatal(err)
	}
	check("compacted")
}

func TestCompactMerges(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	total := 0
	for n := range 4 {
		runs := night(n)
		for i, r := range runs {
			if n == 1 {
				r.axes = map[string]any{"alpha": int64(i), "mode": "x"}
			}
			if n == 2 {
				r.axes = map[string]any{"alpha": 0.5 * float64(i), "on": i%2 == 0}
			}
		}
		write(t, s, runs)
		finish(t, s, runs[0].execution)
		total += len(runs)
	}
	before := collect[RunRow](t, Predicate{}, dir)
	lines := len(collect[TimelineRow](t, Predicate{}, dir))
	report, err := s.Compact()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", report)
	after := collect[RunRow](t, Predicate{}, dir)
	if diff := cmp.Diff(before, after); diff != "" || len(after) != total {
		t.Errorf("%d rows of %d; diff:\n%s", len(after), total, diff)
	}
	if got := len(collect[TimelineRow](t, Predicate{}, dir)); got != lines {
		t.Errorf("%d samples, expected %d", got, lines)
	}
	for _, name := range Tables() {
		if files, err := s.tableFiles(name); err != nil || len(files) != 1 {
			t.Errorf("files after compact: %v %v", files, err)
		}
	}
	axes := map[string]map[string]any{}
	for _, row := range after {
		axes[row.RunID] = row.Axes
	}
	want := map[string]any{"alpha": int64(3), "mode": "x"} // a whole number stays one
	if got := axes[night(1)[3].job(1).RunID]; !cmp.Equal(got, want) {
		t.Errorf("axes of night 1: %v, expected %v", got, want)
	}
	want = map[string]any{"alpha": 2.0, "on": true} // among 0.5 and 1.5 it is a double
	if got := axes[night(2)[4].job(1).RunID]; !cmp.Equal(got, want) {
		t.Errorf("axes of night 2: %v, expected %v", got, want)
	}
}
