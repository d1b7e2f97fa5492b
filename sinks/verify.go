package sinks

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// A Fault is something in an output folder that is not as it was written.
type Fault struct {
	File  string `json:"file"`  // relative to the output folder
	Place string `json:"place"` // "row group 3, column power_w", "line 12", ...; "" for the file as a whole
	What  string `json:"what"`
}

func (f Fault) String() string {
	if f.Place == "" {
		return f.File + ": " + f.What
	}
	return f.File + ": " + f.Place + ": " + f.What
}

// checkPages reads every page of a Parquet file: parquet-go compares each with
// its checksum.
func (s *Store) checkPages(name string) []Fault {
	pf, file, err := s.f.openTable(name)
	if err != nil {
		return []Fault{{File: name, What: strings.ReplaceAll(err.Error(), "\n", "; ")}}
	}
	defer file.Close()
	var faults []Fault
	rows := int64(0)
	for g, group := range pf.RowGroups() {
		rows += group.NumRows()
		for c, chunk := range group.ColumnChunks() {
			column := ""
			if paths := pf.Schema().Columns(); c < len(paths) {
				column = strings.Join(paths[c], ".")
			}
			if err := readPages(chunk, group.NumRows()); err != nil {
				faults = append(faults, Fault{File: name, Place: fmt.Sprintf("row group %d, column %s", g, column), What: err.Error()})
			}
		}
	}
	if rows != pf.NumRows() {
		faults = append(faults, Fault{File: name, Place: "footer", What: fmt.Sprintf("it claims %d rows, its row groups have %d", pf.NumRows(), rows)})
	}
	return faults
}

func readPages(chunk parquet.ColumnChunk, rows int64) (err error) {
	defer rescue(&err)
	pages := chunk.Pages()
	defer func() { err = errors.Join(err, pages.Close()) }()
	read := int64(0)
	values := make([]parquet.Value, readChunk)
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		read += page.NumRows()
		in := page.Values()
		for {
			n, err := in.ReadValues(values)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if n == 0 {
				return io.ErrNoProgress
			}
		}
		parquet.Release(page)
	}
	if read != rows {
		return fmt.Errorf("its pages have %d rows of %d", read, rows)
	}
	return nil
}
