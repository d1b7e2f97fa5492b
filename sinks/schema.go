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
	switch t.Kind() {
	case reflect.Int32:
		return "INTEGER"
	case reflect.Int64:
		return "BIGINT"
	case reflect.Float64:
		return "DOUBLE"
	case reflect.Bool:
		return "BOOLEAN"
	default:
		return "VARCHAR"
	}
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
	for i, t := range Tables() {
		sep := "\n"
		if i == 0 {
			sep = ""
		}
		if _, err := fmt.Fprintf(w, "%s%s: %s\n", sep, t, Grain(t)); err != nil {
			return err
		}
		tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, c := range Columns(t) {
			null := ""
			if c.Nullable {
				null = "null"
			}
			if c.Key {
				null = strings.TrimSpace("key " + null)
			}
			fmt.Fprintf(tab, "  %s\t%s\t%s\t%s\t%s\n", c.Name, c.Type, null, c.Unit, c.Doc) //nolint:errcheck // Flush reports it
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
	fmt.Fprintf(&b, "-- Tables of vramsweep, schema %s. The files themselves are read without this:\n", runner.SchemaVersion)
	for _, t := range Tables() {
		fmt.Fprintf(&b, "--   CREATE VIEW %s AS SELECT * FROM read_parquet('results/%s');\n", t, tableGlob(t))
	}
	for _, t := range Tables() {
		fmt.Fprintf(&b, "\nCREATE TABLE %s (\n", t)
		columns := Columns(t)
		for i, c := range columns {
			fmt.Fprintf(&b, "  %s %s", c.Name, c.Type)
			if !c.Nullable {
				b.WriteString(" NOT NULL")
			}
			if i < len(columns)-1 {
				b.WriteByte(',')
			}
			b.WriteByte('\n')
		}
		b.WriteString(");\n")
		fmt.Fprintf(&b, "COMMENT ON TABLE %s IS %s;\n", t, sqlText(Grain(t)+" Key: "+strings.Join(Keys(t), ", ")+"."))
		for _, c := range columns {
			doc := c.Doc
			if c.Unit != "" {
				doc = "[" + c.Unit + "] " + doc
			}
			fmt.Fprintf(&b, "COMMENT ON COLUMN %s.%s IS %s;\n", t, c.Name, sqlText(doc))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func sqlText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
