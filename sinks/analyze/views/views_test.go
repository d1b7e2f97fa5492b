package views

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner/attribution"
	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep/models"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// asked are checks of the views against the tables: each gives a single true.
const asked = `
import sys, duckdb
db = duckdb.connect()
db.execute(sys.stdin.read())
for view in ("runs_main", "runs_power", "run_gpus", "parts", "steps_main", "samples"):
    assert db.execute(f"SELECT count(*) FROM {view}").fetchone()[0] > 0, view
checks = {
    "a row a run": "SELECT (SELECT count(*) FROM runs_main) = (SELECT count(*) FROM runs)",
    "about 25 columns": "SELECT count(*) BETWEEN 20 AND 27 FROM (DESCRIBE runs_main)",
    "parts add up": "SELECT max(abs(gib - net)) < 1e-6 FROM (SELECT run_id, sum(gib) AS gib FROM parts GROUP BY run_id) JOIN (SELECT run_id, net_increase_bytes / 2**30 AS net FROM runs) USING (run_id)",
    "a row a run and GPU": "SELECT count(*) = count(DISTINCT (run_id, gpu_index)) AND max(gpu_index) > 0 FROM run_gpus",
    "the peak of a GPU": "SELECT max(abs(g.peak - r.peak_max_gpu_gib)) < 1e-6 FROM (SELECT run_id, max(peak_gib) AS peak FROM run_gpus GROUP BY run_id) AS g JOIN runs_main AS r USING (run_id) WHERE r.outcome = 'ok'",
    "energy of all GPUs": "SELECT max(abs(g.e - m.measure_energy_j)) < 1e-6 FROM (SELECT run_id, sum(energy_j) AS e FROM run_gpus GROUP BY run_id) AS g JOIN runs_power AS m USING (run_id)",
    "comments": "SELECT count(*) > 100 FROM duckdb_columns() WHERE comment IS NOT NULL",
}
for name, sql in checks.items():
    assert db.execute(sql).fetchone()[0] is True, name
`

func TestViewsInDuckDB(t *testing.T) {
	python := os.Getenv("VRAMSWEEP_TEST_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import duckdb").CombinedOutput(); err != nil {
		testenv.Skip(t, "%s lacks duckdb (VRAMSWEEP_TEST_PYTHON names another): %v %s", python, err, out)
	}
	measured := recorded.Folder(t, "h100x2-v0.26")
	reparse(t, filepath.Join(measured, "tensor-parallel"))
	reparse(t, filepath.Join(measured, "graphs"))
	var sql bytes.Buffer
	if err := Write(&sql, filepath.Join(measured, "tensor-parallel"), filepath.Join(measured, "graphs")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", asked)
	cmd.Stdin = &sql
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// reparse derives the results of a recording anew and publishes their tables.
func reparse(t *testing.T, dir string) {
	t.Helper()
	store, err := sinks.Open(dir, sinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	catalogue, err := models.Builtin()
	for rel, r := range store.Results(sinks.Predicate{}) {
		m, failed := store.Measured(rel, r, catalogue)
		(&attribution.Attributor{}).Attribute(r, m)
		err = errors.Join(err, failed, store.Replace(rel, r))
	}
	_, failed := store.Rebuild()
	if err = errors.Join(err, failed, store.Close()); err != nil {
		t.Fatal(err)
	}
}

// A folder without tables has views without rows, and an axis is a column.
func TestViewsOfNothing(t *testing.T) {
	var sql bytes.Buffer
	if err := Write(&sql, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if text := sql.String(); !strings.Contains(text, "NULL::BIGINT AS net_increase_bytes") || strings.Contains(text, "{{") {
		t.Errorf("views of an empty folder:\n%.300s", text)
	}
}
