package sinks

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"

	"github.com/parquet-go/parquet-go"
)

// WriteRows writes rows of columns that are only known at run time as one file,
// through a temporary name: CSV (a header, empty for null) where path ends in
// .csv, a JSON array of an object a row where it ends in .json, else Parquet. A
// value is a string, int64, float64, bool or nil; in Parquet a column has the type
// of its first value, and one without any is a string.
func WriteRows(path string, columns []string, rows [][]any) error {
	write := writeParquetRows
	switch filepath.Ext(path) {
	case ".csv":
		write = writeCSVRows
	case ".json":
		write = writeJSONRows
	}
	return WriteFile(path, func(w io.Writer) error { return write(w, columns, rows) })
}

func writeParquetRows(w io.Writer, columns []string, rows [][]any) error {
	group := parquet.Group{}
	for i, name := range columns {
		group[name] = parquet.Optional(nodeOf(rows, i))
	}
	schema := parquet.NewSchema("rows", group)
	writer := parquet.NewGenericWriter[any](w, schema, parquet.Compression(&parquet.Zstd))
	leaves := schema.Columns() // sorted by name
	for _, row := range rows {
		line := make(parquet.Row, len(leaves)) // as values: of a map, 0 and false would be null
		for at, leaf := range leaves {
			line[at] = parquet.NullValue().Level(0, 0, at)
			if v := row[slices.Index(columns, leaf[0])]; v != nil {
				line[at] = parquet.ValueOf(v).Level(0, 1, at)
			}
		}
		if _, err := writer.WriteRows([]parquet.Row{line}); err != nil {
			return err
		}
	}
	return writer.Close()
}

func writeCSVRows(w io.Writer, columns []string, rows [][]any) error {
	out := &csvExporter{w: csv.NewWriter(w), cells: make([]string, len(columns))}
	if err := out.w.Write(columns); err != nil {
		return err
	}
	for _, row := range rows {
		if err := out.row(row); err != nil {
			return err
		}
	}
	return out.close()
}

func writeJSONRows(w io.Writer, columns []string, rows [][]any) error {
	out := &jsonExporter{w: w, names: columns}
	objects := make([]json.RawMessage, len(rows))
	for i, row := range rows {
		if err := out.object(row); err != nil {
			return err
		}
		objects[i] = slices.Clone(out.line)
	}
	text, err := json.MarshalIndent(objects, "", " ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// nodeOf is the type of a column.
func nodeOf(rows [][]any, i int) parquet.Node {
	for _, row := range rows {
		switch row[i].(type) {
		case int64:
			return parquet.Leaf(parquet.Int64Type)
		case float64:
			return parquet.Leaf(parquet.DoubleType)
		case bool:
			return parquet.Leaf(parquet.BooleanType)
		case string:
			return parquet.String()
		}
	}
	return parquet.String()
}
