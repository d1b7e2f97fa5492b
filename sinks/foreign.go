package sinks

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// WriteTable writes rows as a file of the tables of an output folder that has no
// runs/: tables made of other data, or for a benchmark. month is "2026-11", name
// is free and unique in it; marks are the executions of the rows, which come in
// their order. The manifest takes the file up when the folder is next compacted.
func WriteTable[T Row](dir, month, name, version string, marks []Mark, rows iter.Seq[[]T]) error {
	folder := filepath.Join(dir, tablesDir, string(tableOf[T]()), "month="+month)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("writing a table: %w", err)
	}
	path := filepath.Join(folder, name+".parquet")
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing a table: %w", err)
	}
	w := newRowWriter[T](file, version, nil, marks)
	for chunk := range rows {
		if err = w.write(chunk); err != nil {
			break
		}
		if err = w.endRun(); err != nil {
			break
		}
	}
	if err := errors.Join(err, w.close(), file.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}

// TableExecutions are the executions that the table runs has, oldest first: also
// those of which executions/ has no note, in a folder that was copied without it.
func (s *Store) TableExecutions() ([]string, error) {
	files, err := s.tableFiles(TableRuns)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, name := range files {
		marks, merr := s.fileMarks(name)
		err = errors.Join(err, merr)
		for _, m := range marks {
			seen[m.Execution] = true
		}
	}
	return slices.Sorted(maps.Keys(seen)), err
}
