package sinks

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
)

// WriteTable writes rows as a file of the tables of an output folder that has no
// runs/: tables made of other data, or for a benchmark. month is "2026-11", name
// is free and unique in it; marks are the executions of the rows, which come in
// their order, run by run.
func WriteTable[T Row](dir, month, name, version string, marks []Mark, rows iter.Seq[[]T]) error {
	t := tableOf[T]()
	folder := filepath.Join(dir, tablesDir, string(t.name), "month="+month)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("writing a table: %w", err)
	}
	path := filepath.Join(folder, name+".parquet")
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing a table: %w", err)
	}
	w := t.writer(file, version, nil, marks)
	for chunk := range rows {
		if err = errors.Join(w.Write(chunk), w.EndRun()); err != nil {
			break
		}
	}
	if err := errors.Join(err, w.Close(), file.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}
