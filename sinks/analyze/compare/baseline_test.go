package compare

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// varied makes a night whose rows have all that a baseline keeps: settings,
// axes of each type, failures, and runs of one profile in two contexts.
func varied(execution string, seed uint64, plant ...int) []sinks.RunRow {
	rows := nightOf(execution, 20, 3, seed, plant...)
	for i := range rows {
		version, gpu, dtype, util, eager := "0.26.0", "H100", "bfloat16", 0.9, i%2 == 0
		rows[i].VLLMVersion, rows[i].GPUName, rows[i].Dtype, rows[i].GPUMemoryUtilization = &version, &gpu, &dtype, &util
		rows[i].EnforceEager = &eager
		cache := []string{"cold", "warm"}[i%2]
		rows[i].CompileCache = &cache
		rows[i].Axes = map[string]any{"share": 0.5 + float64(i/3), "count": int64(i / 3), "kind": "a", "on": true}
	}
	detail := "CUDA out of memory"
	rows[5].Outcome, rows[5].OutcomeDetail, rows[5].PeakMemoryBytes = "oom", &detail, nil
	return rows
}

// Comparing with a baseline file is comparing with the rows.
func TestBaselineEqualsRows(t *testing.T) {
	base, fresh := varied("a", 1), varied("b", 2, 3)
	fresh[30].Outcome = "timeout"
	slices.Reverse(fresh) // the order of rows says nothing
	var file bytes.Buffer
	if err := WriteBaseline(&file, base, BaselineInfo{Version: "test", From: []string{"x"}, Now: time.Unix(0, 0)}); err != nil {
		t.Fatal(err)
	}
	if !IsBaseline(file.Bytes()[:200]) || IsBaseline([]byte(`{"schema_version":"3"`)) || IsBaseline([]byte("PAR1")) {
		t.Error("a baseline is not reported from other files")
	}
	back, err := ReadBaseline(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	for _, across := range [][]string{nil, {"enforce_eager"}, {"vllm_version"}} {
		want, err := Run("a", base, "b", fresh, Options{Across: across})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Run("a", back, "b", fresh, Options{Across: across})
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(got)
		if !bytes.Equal(a, b) {
			t.Errorf("across %v: with the file\n%s\nwith the rows\n%s", across, b, a)
		}
		if len(want.Regressions) == 0 || len(want.NewFailures) == 0 {
			t.Errorf("across %v: nothing was found, so nothing was tested: %s", across, a)
		}
	}
	var again bytes.Buffer
	if err := WriteBaseline(&again, back, BaselineInfo{Version: "test", From: []string{"x"}, Now: time.Unix(0, 0)}); err != nil || again.String() != file.String() {
		t.Errorf("written again it is another file (%v)", err)
	}
}

func TestReadBaselineRefusals(t *testing.T) {
	var file bytes.Buffer
	if err := WriteBaseline(&file, varied("a", 1)[:2], BaselineInfo{}); err != nil {
		t.Fatal(err)
	}
	whole := file.String()
	for name, c := range map[string]struct{ text, want string }{
		"cut off":        {whole[:len(whole)/2], "EOF"},
		"newer":          {strings.Replace(whole, `baseline":1`, `baseline":2`, 1), "its format is 2"},
		"twice":          {strings.Replace(whole, "p000-r1", "p000-r0", 1), "twice"},
		"new setting":    {strings.Replace(whole, `"dtype"`, `"warp_size"`, 1), "warp_size"},
		"wrong type":     {strings.Replace(whole, `"batch_size":1`, `"batch_size":"x"`, 1), "batch_size"},
		"no such place":  {strings.Replace(whole, `"context":1`, `"context":7`, 1), "context 7"},
		"no id":          {strings.Replace(whole, `"profile_id":"p000",`, "", 1), "profile_id"},
		"nothing":        {`{"vramsweep_baseline":1}`, "no runs"},
		"an odd axis":    {strings.Replace(whole, `"share":0.5`, `"share":[1]`, 1), "axis share"},
		"something else": {`[1]`, "cannot unmarshal"},
	} {
		text := c.text
		if name == "twice" {
			text = strings.ReplaceAll(whole, "p000-r1", "p000-r0")
		}
		if _, err := ReadBaseline(strings.NewReader(text)); !errors.Is(err, ErrBaseline) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrBaseline with %q", name, err, c.want)
		}
	}
	mixed := varied("a", 1)
	mixed[0].Synthetic = false
	if err := WriteBaseline(&file, mixed, BaselineInfo{}); !errors.Is(err, frame.ErrMixed) {
		t.Errorf("synthetic beside measured: %v", err)
	}
	if err := WriteBaseline(&file, nil, BaselineInfo{}); !errors.Is(err, frame.ErrNoRuns) {
		t.Errorf("no runs: %v", err)
	}
}

func FuzzReadBaseline(f *testing.F) {
	var file bytes.Buffer
	if err := WriteBaseline(&file, varied("a", 1)[:4], BaselineInfo{}); err != nil {
		f.Fatal(err)
	}
	f.Add(file.String())
	f.Add(`{"vramsweep_baseline":1,"contexts":[{}],"profiles":[{"settings":{"profile_id":"p"},"axes":{"a":1e999},"runs":[{"run":{"run_id":"r","execution":"e","outcome":"ok"},"context":0,"figures":{"measure_energy_j":1}}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := ReadBaseline(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrBaseline) {
				t.Errorf("%v is no ErrBaseline", err)
			}
			return
		}
		var first, second bytes.Buffer
		if err := WriteBaseline(&first, rows, BaselineInfo{}); err != nil {
			t.Fatal(err)
		}
		back, err := ReadBaseline(bytes.NewReader(first.Bytes()))
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, first.String())
		}
		if err := WriteBaseline(&second, back, BaselineInfo{}); err != nil || first.String() != second.String() {
			t.Errorf("not the same again (%v):\n%s\n%s", err, first.String(), second.String())
		}
		if _, err := Run("a", rows, "b", back, Options{}); !errors.Is(err, ErrSame) {
			t.Errorf("compared with itself: %v, want ErrSame", err)
		}
	})
}

func TestParseThresholds(t *testing.T) {
	got, err := ParseThresholds([]string{"memory=128MiB", "peak_memory_bytes=1%", "avg_latency_s=3se", "measure_mean_power_w=15", "kv_cache_bytes=1.5GiB"})
	if err != nil {
		t.Fatal(err)
	}
	peak, kv := got["peak_memory_bytes"], got["kv_cache_bytes"]
	if *peak.Absolute != 128*frame.MiB || *peak.Relative != 0.01 || *kv.Absolute != 1.5*frame.GiB || *got["avg_latency_s"].Noise != 3 || *got["measure_mean_power_w"].Absolute != 15 {
		t.Errorf("thresholds %+v", got)
	}
	for _, text := range []string{"peak", "nonsense=1MiB", "peak_memory_bytes=big", "peak_memory_bytes=-1MiB", "avg_latency_s=1MiB", "memory=NaN%", "memory="} {
		if _, err := ParseThresholds([]string{text}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want an error that names it", text, err)
		}
	}
}

// A threshold decides, and so does the noise that it asks for.
func TestCompareThresholds(t *testing.T) {
	base, fresh := nightOf("a", 50, 3, 2), nightOf("b", 50, 3, 102, 11)
	for text, want := range map[string]bool{"peak_memory_bytes=150MiB": true, "peak_memory_bytes=300MiB": false, "peak_memory_bytes=5%": false, "peak_memory_bytes=3se": true, "peak_memory_bytes=50se": false} {
		thresholds, err := ParseThresholds([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Run("a", base, "b", fresh, Options{Thresholds: thresholds})
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(c.Regressions, func(x Change) bool { return x.Figure == "peak_memory_bytes" })
		if found != want {
			t.Errorf("%s: found %v, want %v", text, found, want)
		}
	}
}

// A test report has one test a profile, and its totals are those of its tests.
func TestJUnit(t *testing.T) {
	base, fresh := nightOf("a", 10, 2, 1), nightOf("b", 9, 2, 2, 3)
	for i := range 2 {
		fresh[i].Outcome = "oom"
		detail := "\x1b[31mno memory ]]> <b>"
		fresh[i].OutcomeDetail = &detail
	}
	c, err := Run("a", base, "b", fresh, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.JUnit(&out); err != nil {
		t.Fatal(err)
	}
	var report junitReport
	if err := xml.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	names, failures := map[string]bool{}, 0
	for _, one := range report.Suite.Cases {
		names[one.Name] = true
		if one.Failure != nil {
			failures++
		}
	}
	if report.Tests != 11 || len(names) != 11 || failures != 3 || report.Failures != 3 || report.Suite.Failures != 3 {
		t.Errorf("%d tests, %d names, %d failures, totals %d and %d; want 11, 11 and 3\n%s", report.Tests, len(names), failures, report.Failures, report.Suite.Failures, out.String())
	}
}

func TestCompareOutcomesOfRepeats(t *testing.T) {
	set := func(rows []sinks.RunRow, outcomes ...string) []sinks.RunRow {
		for i, o := range outcomes {
			rows[i].Outcome = o
		}
		return rows
	}
	for name, c := range map[string]struct {
		base, fresh      []string
		failed, recovers int
	}{
		"one of three fails now":      {[]string{"ok", "ok", "ok"}, []string{"ok", "oom", "ok"}, 1, 0},
		"now and then, now always":    {[]string{"ok", "oom", "ok"}, []string{"oom", "oom", "oom"}, 1, 0},
		"now and then, still":         {[]string{"ok", "oom", "ok"}, []string{"oom", "oom", "ok"}, 0, 0},
		"measured, now skipped":       {[]string{"ok", "ok", "ok"}, []string{"skipped", "skipped", "skipped"}, 1, 0},
		"skipped, now out of memory":  {[]string{"skipped", "skipped", "skipped"}, []string{"oom", "oom", "oom"}, 0, 0},
		"always failed, now measured": {[]string{"oom", "oom", "oom"}, []string{"ok", "ok", "ok"}, 0, 1},
	} {
		got, err := Run("a", set(nightOf("a", 1, 3, 1), c.base...), "b", set(nightOf("b", 1, 3, 1), c.fresh...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.NewFailures) != c.failed || len(got.Recovered) != c.recovers {
			t.Errorf("%s: %d new failures, %d recovered; want %d and %d", name, len(got.NewFailures), len(got.Recovered), c.failed, c.recovers)
		}
	}
}

// What differs besides is named: a new driver explains more than a figure.
func TestCompareSaysWhatElseDiffers(t *testing.T) {
	base, fresh := varied("a", 1), varied("b", 2)
	version := "0.29.0"
	for i := range fresh {
		fresh[i].VLLMVersion = &version
	}
	c, err := Run("a", base, "b", fresh, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(c.Notes, "\n"); !strings.Contains(notes, "vllm_version too: 0.26.0, now 0.29.0") || strings.Contains(notes, "gpu too") {
		t.Errorf("notes: %s", notes)
	}
	if c, err = Run("a", base, "b", fresh, Options{Across: []string{"vllm_version"}}); err != nil || strings.Contains(strings.Join(c.Notes, ""), "vllm_version") {
		t.Errorf("a difference that is meant is noted (%v): %v", err, c.Notes)
	}
}

// Blind runs keep their outcome and lose their figures; a baseline leaves them out.
func TestBlindRuns(t *testing.T) {
	base, fresh := nightOf("a", 4, 1, 1), nightOf("b", 4, 1, 2)
	for i := range fresh {
		fresh[i].PeakMemoryBytes = new(*base[i].PeakMemoryBytes)
	}
	fresh[0].Quality, fresh[0].PeakMemoryBytes = new("blind"), new(int64(90*frame.GiB))
	fresh[1].Quality = new("sparse")
	c, err := Run("a", base, "b", fresh, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Regressions {
		if r.Profile == fresh[0].ProfileID {
			t.Errorf("a figure of a blind run counts: %+v", r)
		}
	}
	notes := strings.Join(c.Notes, "\n")
	if c.Matched != 4 || len(c.Vanished) > 0 || !strings.Contains(notes, "1 blind runs are left out") ||
		!strings.Contains(notes, "1 sparse runs count") {
		t.Errorf("%d matched, %v vanished; notes:\n%s", c.Matched, c.Vanished, notes)
	}
	alone := slices.Clone(fresh[:1])
	if _, err := Run("a", base[:1], "b", alone, Options{}); !errors.Is(err, ErrBlind) {
		t.Errorf("a blind run alone: %v, want ErrBlind", err)
	}
	var file bytes.Buffer
	if err := WriteBaseline(&file, fresh, BaselineInfo{}); err != nil {
		t.Fatal(err)
	}
	back, err := ReadBaseline(&file)
	if err != nil || len(back) != 3 {
		t.Errorf("%d runs in the baseline, %v", len(back), err)
	}
}
