package sinks

import (
	"io"

	"github.com/parquet-go/parquet-go"
)

// WriteRows writes rows of columns that are only known at run time as one
// Parquet file, through a temporary name. A value is a string, int64, float64,
// bool or nil; a column has the type of its first value, and one without any is
// a string.
func WriteRows(path string, columns []string, rows [][]any) error {
	group := parquet.Group{}
	for i, name := range columns {
		group[name] = parquet.Optional(nodeOf(rows, i))
	}
	schema := parquet.NewSchema("rows", group)
	return WriteFile(path, func(w io.Writer) error {
		writer := parquet.NewGenericWriter[map[string]any](w, schema, parquet.Compression(&parquet.Zstd))
		for _, row := range rows {
			record := map[string]any{}
			for i, name := range columns {
				if row[i] != nil {
					record[name] = row[i]
				}
			}
			if _, err := writer.Write([]map[string]any{record}); err != nil {
				return err
			}
		}
		return writer.Close()
	})
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
