package sinks

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sinks/table"
	"github.com/vramsweep/vramsweep/sweep"
)

// everySetting is a profile that asks for every setting of the list, also for
// those that come to it later.
func everySetting(t *testing.T) *sweep.Profile {
	t.Helper()
	settings := map[string]any{}
	for i, s := range sweep.SettingInfos() {
		switch s.Zero.(type) {
		case int64:
			settings[s.Name] = int64(i + 2)
		case float64:
			settings[s.Name] = 0.5
		case bool:
			settings[s.Name] = true
		default:
			settings[s.Name] = "some-" + strings.ReplaceAll(s.Name, "_", "-")
		}
	}
	settings["model"], settings["max_model_len"], settings["kv_cache_memory_bytes"] = "Qwen/Qwen3-8B", int64(8192), "8GiB"
	settings["dtype"] = "float16"
	plan, err := sweep.Single(sweep.SingleOptions{Settings: settings,
		Flags: map[string]string{"max_lora_rank": "16", "swap_space": "0.5"}})
	if err != nil {
		t.Fatal(err)
	}
	return plan.Sweeps[0].Profiles[0]
}

// cellOf is the value of a row's column; nil for null.
func cellOf(t *testing.T, row any, column string) any {
	t.Helper()
	for _, f := range table.Fields(reflect.TypeOf(row)) {
		if table.ColumnName(f) == column {
			return plain(reflect.ValueOf(row).FieldByIndex(f.Index), table.Nullable(f))
		}
	}
	t.Fatalf("the table has no column %s", column)
	return nil
}

// jsonOf is a field of a section of a run.json.
func jsonOf(t *testing.T, file, section, field string) any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var sections map[string]json.RawMessage
	var fields map[string]any
	if err := json.Unmarshal(b, &sections); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(sections[section], &fields); err != nil {
		t.Fatal(err)
	}
	v, ok := fields[field]
	if !ok {
		t.Fatalf("%s has no %s.%s", file, section, field)
	}
	return v
}

// TestEverySettingGoesAllTheWay: each setting of the list is a flag of vLLM, a
// field of run.json and a column of runs, and comes back from all of them: from a
// finished run, from an attempt that was killed, after reparse, and from the
// command line of a recording.
func TestEverySettingGoesAllTheWay(t *testing.T) {
	p := everySetting(t)
	argv, err := vllm.Args(p, vllm.Paths{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := openStore(t, dir)
	n := night(0)[0]
	job := n.job(1)
	job.Profile, job.RunID = p, fmt.Sprintf("%s-%s-%s-r1", n.execution, p.Sweep, p.ID)
	if err := s.BeginExecution(&Execution{ID: n.execution, StartedAt: n.started, Runs: 1}); err != nil {
		t.Fatal(err)
	}
	want := runner.NewResult(job)
	killed := recoverAttempt(t, s, job)
	sink, err := s.Begin(job)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Finish(runner.NewResult(job)); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "runs/*/*/run.json"))
	if len(files) != 1 {
		t.Fatalf("%v", files)
	}
	check := func(when string, r *runner.Result, row *RunRow) {
		for _, part := range []struct{ want, got any }{
			{want.BenchmarkParameters, r.BenchmarkParameters}, {want.DtypeMetadata, r.DtypeMetadata},
			{want.ModelInfo, r.ModelInfo}, {want.EngineMetadata, r.EngineMetadata},
		} {
			if diff := cmp.Diff(asJSON(t, part.want), asJSON(t, part.got)); diff != "" {
				t.Errorf("%s: %T (-want +got):\n%s", when, part.want, diff)
			}
		}
		for _, info := range sweep.SettingInfos() {
			v := p.SettingValues()[info.Name]
			if got := cellOf(t, *row, info.Name); v == nil || got != v {
				t.Errorf("%s: column %s is %v, want %v", when, info.Name, got, v)
			}
		}
	}
	finished := func() (*runner.Result, *RunRow) {
		r, err := ReadResult(files[0])
		if err != nil {
			t.Fatal(err)
		}
		rows := collect[RunRow](t, Predicate{}, dir)
		if len(rows) != 1 {
			t.Fatalf("%d rows", len(rows))
		}
		return r, &rows[0]
	}
	check("killed and recovered", killed, &RowsOf(killed).Run)
	finish(t, s, n.execution)
	r, row := finished()
	check("written", r, row)
	for _, info := range sweep.SettingInfos() {
		if !slices.Contains(argv, "--"+strings.ReplaceAll(info.Name, "_", "-")) {
			t.Errorf("%s is no flag of %v", info.Name, argv)
		}
		v := p.SettingValues()[info.Name]
		section := "benchmark_parameters"
		if info.Name == "model" {
			section = "model_info"
		}
		if got := jsonOf(t, files[0], section, info.Name); fmt.Sprint(got) != jsonNumber(v) {
			t.Errorf("run.json: %s is %v, want %v", info.Name, got, v)
		}
	}

	m := runner.Remeasure(r, p.Model, nil, nil, s.Samples("runs"))
	if diff := cmp.Diff(p.Settings, m.Job.Profile.Settings); diff != "" {
		t.Errorf("measured again (-want +got):\n%s", diff)
	}
	rel, _ := filepath.Rel(dir, filepath.Dir(files[0]))
	if err := s.Replace(rel, r); err != nil {
		t.Fatal(err)
	}
	r, row = finished()
	check("reparsed", r, row)

	var read sweep.Settings
	read.Read(flagsOf(argv))
	read.Model = p.Settings.Model
	if diff := cmp.Diff(p.Settings, read); diff != "" {
		t.Errorf("read from %v (-want +got):\n%s", argv, diff)
	}
}

// recoverAttempt begins an attempt, is killed, and gives what Recover made of it.
func recoverAttempt(t *testing.T, s *Store, job *runner.Job) *runner.Result {
	t.Helper()
	sink, err := s.Begin(job)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.(interface{ Close() error }).Close(); err != nil {
		t.Fatal(err)
	}
	report, err := s.Recover()
	if err != nil || len(report.Attempts) != 1 {
		t.Fatalf("%v %+v", err, report)
	}
	r, err := ReadResult(filepath.Join(s.Dir(), report.Attempts[0].Dir, resultName))
	if err != nil || r.Run.Outcome != runner.OutcomeInterrupted {
		t.Fatalf("%v %+v", err, r)
	}
	return r
}

// flagsOf reads a command line as an importer does.
func flagsOf(argv []string) map[string]string {
	flags := map[string]string{}
	for i, arg := range argv {
		if name, ok := strings.CutPrefix(arg, "--"); ok {
			flags[name] = ""
			if i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "--") {
				flags[name] = argv[i+1]
			}
		}
	}
	return flags
}

// jsonNumber is a value as a JSON reader prints it.
func jsonNumber(v any) string {
	if n, ok := v.(int64); ok {
		return fmt.Sprint(float64(n))
	}
	return fmt.Sprint(v)
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
