// Package views writes DuckDB views of output folders for people: the tables as
// they are, a narrow view of runs, joins, and memory in GiB.
package views

import (
	_ "embed"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
)

//go:embed views.sql
var views string

// Write writes SQL that makes the views of output folders in DuckDB. Folders of
// different versions and with different free axes go together.
func Write(out io.Writer, dirs ...string) error {
	var axes []string
	for _, dir := range dirs {
		for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, dir) {
			if err != nil {
				return fmt.Errorf("views of %s: %w", dir, err)
			}
			for name := range row.Axes {
				if column := ", " + identifier("axis_"+name); !slices.Contains(axes, column) {
					axes = append(axes, column)
				}
			}
		}
	}
	slices.Sort(axes)
	var sql strings.Builder
	for _, table := range sinks.Tables() {
		source, err := sourceOf(table, dirs)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sql, "CREATE OR REPLACE VIEW %s AS %s;\nCOMMENT ON VIEW %[1]s IS %[3]s;\n",
			table, source, text(sinks.Grain(table)))
		for _, c := range sinks.Columns(table) {
			unit := ""
			if c.Unit != "" {
				unit = "[" + c.Unit + "] "
			}
			fmt.Fprintf(&sql, "COMMENT ON COLUMN %s.%s IS %s;\n", table, c.Name, text(unit+c.Doc))
		}
	}
	sql.WriteString(strings.ReplaceAll(views, "{{axes}}", strings.Join(axes, "")))
	_, err := io.WriteString(out, sql.String())
	return err
}

// sourceOf is the query that a table is read by: its files, and no row with all
// columns of today, which older files lack. DuckDB refuses a pattern without a file.
func sourceOf(table sinks.Table, dirs []string) (string, error) {
	var files, columns []string
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("views: %w", err)
		}
		pattern := filepath.Join(dir, "tables", string(table), "*", "*.parquet")
		if found, err := filepath.Glob(pattern); err != nil {
			return "", fmt.Errorf("views of %s: %w", dir, err)
		} else if len(found) > 0 {
			files = append(files, text(filepath.ToSlash(pattern)))
		}
	}
	for _, c := range sinks.Columns(table) {
		columns = append(columns, fmt.Sprintf("NULL::%s AS %s", c.Type, c.Name))
	}
	today := "SELECT " + strings.Join(columns, ", ") + " WHERE false"
	if len(files) == 0 {
		return today, nil
	}
	return fmt.Sprintf("SELECT * FROM read_parquet([%s], union_by_name = true)\nUNION ALL BY NAME %s",
		strings.Join(files, ", "), today), nil
}

func text(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
