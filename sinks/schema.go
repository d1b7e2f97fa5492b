package sinks

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
	"github.com/vramsweep/vramsweep/sweep"
)

// A Column describes a column of a table.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"` // as DuckDB names it
	Unit     string `json:"unit,omitempty"`
	Nullable bool   `json:"nullable"`
	Key      bool   `json:"key,omitempty"` // identifies a row, together with the other keys
	Doc      string `json:"doc"`
}

// Columns are the columns of a table in their order; those of free axes
// (axis_NAME, in runs) depend on the sweeps and are not among them.
func Columns(name Table) []Column {
	t, err := lookup(name)
	if err != nil {
		return nil
	}
	var columns []Column
	for _, f := range table.Fields(t.rowType()) {
		c := Column{Name: table.ColumnName(f), Unit: f.Tag.Get("unit"), Doc: f.Tag.Get("doc"), Nullable: table.Nullable(f)}
		goType := f.Type
		if goType.Kind() == reflect.Pointer {
			goType = goType.Elem()
		}
		c.Type = sqlType(goType)
		if c.Doc == "" {
			c.Doc = askedDoc(c.Name, f.Type.Kind() == reflect.Pointer)
		}
		c.Key = slices.Contains(t.def().keys, c.Name)
		columns = append(columns, c)
	}
	return columns
}

// askedDoc describes the column of a setting.
func askedDoc(name string, open bool) string {
	for _, s := range sweep.SettingInfos() {
		switch {
		case s.Name == name && open:
			return "Asked: " + s.Doc + "; null: left to vLLM."
		case s.Name == name:
			return "Asked: " + s.Doc + "."
		}
	}
	return ""
}

func sqlType(t reflect.Type) string {
	if t == reflect.TypeFor[Micros]() || t == reflect.TypeFor[time.Time]() {
		return "TIMESTAMP WITH TIME ZONE"
	}
	types := map[reflect.Kind]string{reflect.Int32: "INTEGER", reflect.Int64: "BIGINT", reflect.Float64: "DOUBLE",
		reflect.Bool: "BOOLEAN", reflect.String: "VARCHAR"}
	return types[t.Kind()]
}

// WriteSchema prints tables and columns: "text", "json", or "sql" (DDL for DuckDB).
func WriteSchema(w io.Writer, format string) error {
	switch format {
	case "text":
		return writeSchemaText(w)
	case "json":
		return writeSchemaJSON(w)
	case "sql":
		return writeSchemaSQL(w)
	default:
		return fmt.Errorf("there is no schema format %q; the formats are text, json and sql", format)
	}
}

func writeSchemaText(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, t := range Tables() {
		if i > 0 {
			fmt.Fprintln(tab) //nolint:errcheck // Flush reports it
		}
		fmt.Fprintf(tab, "%s: %s\n", t, Grain(t)) //nolint:errcheck // Flush reports it
		for _, c := range Columns(t) {
			var notes []string
			if c.Key {
				notes = append(notes, "key")
			}
			if c.Nullable {
				notes = append(notes, "null")
			}
			fmt.Fprintf(tab, "  %s\t%s\t%s\t%s\t%s\n", //nolint:errcheck // Flush reports it
				c.Name, c.Type, strings.Join(notes, " "), c.Unit, c.Doc)
		}
		if err := tab.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func writeSchemaJSON(w io.Writer) error {
	type table struct {
		Table   Table    `json:"table"`
		Grain   string   `json:"grain"`
		Path    string   `json:"path"`
		Columns []Column `json:"columns"`
	}
	var all struct {
		SchemaVersion string  `json:"schema_version"`
		Tables        []table `json:"tables"`
	}
	all.SchemaVersion = runner.SchemaVersion
	for _, t := range Tables() {
		all.Tables = append(all.Tables, table{Table: t, Grain: Grain(t), Path: tableGlob(t), Columns: Columns(t)})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(all)
}

// tableGlob finds the files of a table in an output folder.
func tableGlob(t Table) string { return tablesDir + "/" + string(t) + "/**/*.parquet" }

func writeSchemaSQL(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "-- Tables of vramsweep, schema %s. The files themselves are read without this:\n",
		runner.SchemaVersion)
	for _, t := range Tables() {
		fmt.Fprintf(&b, "--   CREATE VIEW %s AS SELECT * FROM read_parquet('results/%s');\n", t, tableGlob(t))
	}
	for _, t := range Tables() {
		comments := fmt.Sprintf("COMMENT ON TABLE %s IS %s;\n", t,
			sqlText(Grain(t)+" Key: "+strings.Join(Keys(t), ", ")+"."))
		var columns []string
		for _, c := range Columns(t) {
			column, doc := "  "+c.Name+" "+c.Type, c.Doc
			if !c.Nullable {
				column += " NOT NULL"
			}
			if c.Unit != "" {
				doc = "[" + c.Unit + "] " + doc
			}
			columns = append(columns, column)
			comments += fmt.Sprintf("COMMENT ON COLUMN %s.%s IS %s;\n", t, c.Name, sqlText(doc))
		}
		fmt.Fprintf(&b, "\nCREATE TABLE %s (\n%s\n);\n%s", t, strings.Join(columns, ",\n"), comments)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
