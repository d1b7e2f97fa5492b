package overhead

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// ErrDatabase says that a file is no overhead database of this version.
var ErrDatabase = errors.New("no overhead database")

// A file is a database as it is read: entries are not, they follow from the runs.
type file struct {
	Version   int             `json:"version"`
	Synthetic bool            `json:"synthetic"`
	Runs      []Run           `json:"runs"`
	Skipped   []string        `json:"skipped"`
	Models    json.RawMessage `json:"models"`
}

// Read reads a database and computes its entries. It fails with
// ErrDatabase.
func Read(in io.Reader) (*Database, error) {
	var file file
	if err := json.NewDecoder(in).Decode(&file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDatabase, err)
	}
	if file.Version != Version {
		return nil, fmt.Errorf("%w of version %d: it says version %d; build it again with `vramsweep overhead build`",
			ErrDatabase, Version, file.Version)
	}
	if len(file.Runs) == 0 {
		return nil, fmt.Errorf("%w: it has no runs", ErrDatabase)
	}
	db := &Database{Version: file.Version, Synthetic: file.Synthetic, Runs: file.Runs, Skipped: file.Skipped,
		arcs: map[string]*models.Architecture{}}
	if len(file.Models) > 0 && string(file.Models) != "null" {
		text := fmt.Sprintf(`{"schema":%q,"models":%s}`, models.CatalogueSchema, file.Models)
		catalogue, err := models.ParseCatalogue([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%w: its architectures: %w", ErrDatabase, err)
		}
		for _, name := range catalogue.Names() {
			db.arcs[name], _ = catalogue.Lookup(name)
		}
	}
	for i := range db.Runs {
		if err := db.Runs[i].check(); err != nil {
			return nil, fmt.Errorf("%w: run %d: %w", ErrDatabase, i+1, err)
		}
	}
	db.settle()
	return db, nil
}

// check refuses a run that no machine can have had; what the arithmetic would
// otherwise compute from it means nothing.
func (run *Run) check() error {
	const (
		mostCount = 1 << 32
		mostBytes = 1 << 50
	)
	for _, c := range []struct {
		name string
		n    *int64
		most int64
	}{
		{"tensor_parallel_size", &run.TP, 1 << 16}, {"pipeline_parallel_size", &run.PP, 1 << 12},
		{"max_num_batched_tokens", run.Tokens, mostCount}, {"max_num_seqs", run.Seqs, mostCount},
		{"max_model_len", run.MaxModelLen, mostCount}, {"block_size", run.BlockSize, 1 << 20},
		{"kv_cache_memory_bytes", run.KVBytes, mostBytes},
		{"input_len", &run.InputLen, mostCount}, {"batch_size", &run.BatchSize, mostCount},
	} {
		if c.n != nil && (*c.n < 0 || *c.n > c.most) {
			return fmt.Errorf("%s: %s is %d, expected 0 to %d", run.RunID, c.name, *c.n, c.most)
		}
	}
	switch {
	case run.RunID == "":
		return errors.New("it has no run_id")
	case run.Model == "" || run.GPU == "" || run.VLLM == "":
		return fmt.Errorf("%s: model, gpu or vllm_version is missing", run.RunID)
	case run.Utilization != nil && !(*run.Utilization > 0 && *run.Utilization <= 1):
		return fmt.Errorf("%s: gpu_memory_utilization is %g, expected more than 0 and at most 1", run.RunID, *run.Utilization)
	}
	for _, of := range []map[string]int64{run.Figures, run.Check} {
		for name, n := range of {
			if n != min(max(n, -mostBytes), mostBytes) {
				return fmt.Errorf("%s: %s is %d bytes, expected less than 2^50", run.RunID, name, n)
			}
		}
	}
	return nil
}

// Write writes the database as JSON: an entry a line would be unreadable, so it
// is indented by one space.
func (db *Database) Write(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(db); err != nil {
		return fmt.Errorf("writing the overhead database: %w", err)
	}
	return nil
}

// Rows are the entries as columns and rows for a Parquet file: one row an
// entry, with what its runs and residuals were.
func (db *Database) Rows() (columns []string, rows [][]any) {
	columns = []string{"model", "family", "dtype", "quantization", "tensor_parallel_size", "pipeline_parallel_size",
		"gpu", "vllm_version", "model_runner", "compile", "component", "law", "at", "coefficient", "low", "high",
		"runs", "mean_bytes", "worst_residual_bytes", "run_ids", "synthetic"}
	for i := range db.Entries {
		e := &db.Entries[i]
		var ids []string
		mean, worst := e.summary()
		for _, o := range e.Observed {
			ids = append(ids, o.RunID)
		}
		var low, high any
		if e.Low != nil {
			low, high = *e.Low, *e.High
		}
		rows = append(rows, []any{e.Model, e.Family, e.Dtype, e.Quantization, e.TP, e.PP, e.GPU, e.VLLM, e.Runner, e.Compile,
			e.Component, e.Law, e.At, e.Coefficient, low, high, int64(e.Runs), mean, worst, strings.Join(ids, " "),
			db.Synthetic})
	}
	return columns, rows
}
