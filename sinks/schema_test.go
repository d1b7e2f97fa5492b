package sinks

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/google/go-cmp/cmp"
	"github.com/google/jsonschema-go/jsonschema"
	"github.com/parquet-go/parquet-go"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

var update = flag.Bool("update", false, "write golden files and the generated parts of docs/")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); `go test ./sinks -update` writes it:\n%s", name, diff)
	}
}

func TestSchemaIsPrinted(t *testing.T) {
	for _, format := range []string{"text", "json", "sql"} {
		var b bytes.Buffer
		if err := WriteSchema(&b, format); err != nil {
			t.Fatal(err)
		}
		golden(t, "testdata/schema."+format, b.Bytes())
	}
	if err := WriteSchema(io.Discard, "xml"); err == nil || !strings.Contains(err.Error(), "text, json and sql") {
		t.Errorf("an unknown format: %v", err)
	}
}

// TestRulesOfColumns holds every row struct to the rules of rows.go.
func TestRulesOfColumns(t *testing.T) {
	for _, def := range registry() {
		own := def.def().name
		for _, c := range Columns(own) {
			if c.Doc == "" {
				t.Errorf("%s.%s has no doc", own, c.Name)
			}
		}
		for _, f := range table.Fields(def.rowType()) {
			name, tag := table.ColumnName(f), f.Tag.Get("parquet")
			options := strings.Split(tag, ",")[1:]
			has := func(o string) bool {
				return strings.Contains(","+strings.Join(options, ",")+",", ","+o+",")
			}
			pointer := f.Type.Kind() == reflect.Pointer
			base := f.Type
			if pointer {
				base = f.Type.Elem()
			}
			switch {
			case pointer && !has("optional"):
				t.Errorf("%s.%s: a pointer is a nullable column, tagged optional", own, name)
			case has("optional") && !pointer && base.Kind() != reflect.String && base.Kind() != reflect.Int64:
				t.Errorf("%s.%s: the zero of %v stands for no null", own, name, base)
			case has("split") && base.Kind() != reflect.Float64 && base.Kind() != reflect.Float32:
				t.Errorf("%s.%s: split on %v cannot be read by DuckDB", own, name, base)
			case (base == reflect.TypeFor[Micros]() || base == reflect.TypeFor[time.Time]()) != has("timestamp(microsecond)"):
				t.Errorf("%s.%s: an instant is tagged timestamp(microsecond)", own, name)
			case strings.HasSuffix(name, "_bytes") && (base.Kind() != reflect.Int64 || f.Tag.Get("unit") != "bytes"):
				t.Errorf("%s.%s: bytes are int64 with that unit", own, name)
			}
		}
		if _, ok := table.SchemaOf(def.rowType(), nil).Lookup("month"); ok {
			t.Errorf("%s: month is a key of the path and stands in no file", own)
		}
	}
}

func TestDocsNameEveryColumn(t *testing.T) {
	const name = "../docs/tables.md"
	doc, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)<!-- columns (\w+) -->\n.*?<!-- end -->`)
	seen := 0
	got := section.ReplaceAllStringFunc(string(doc), func(s string) string {
		seen++
		table := Table(section.FindStringSubmatch(s)[1])
		if _, err := lookup(table); err != nil {
			t.Fatal(err)
		}
		return "<!-- columns " + string(table) + " -->\n" + docTable(table) + "<!-- end -->"
	})
	if seen != len(Tables()) {
		t.Errorf("%s has %d of %d tables", name, seen, len(Tables()))
	}
	golden(t, name, []byte(got))
}

func docTable(table Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s Key: `%s`.\n\n| column | type | unit | null | meaning |\n|---|---|---|---|---|\n", Grain(table), strings.Join(Keys(table), "`, `"))
	for _, c := range Columns(table) {
		null := ""
		if c.Nullable {
			null = "yes"
		}
		typ := strings.Replace(c.Type, "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ", 1)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", c.Name, typ, c.Unit, null, strings.ReplaceAll(c.Doc, "|", "\\|"))
	}
	return b.String()
}

// TestResultSchema publishes the JSON Schema of run.json, with the comments of
// the Go types as descriptions.
func TestResultSchema(t *testing.T) {
	types := map[reflect.Type]*jsonschema.Schema{}
	structsOf(reflect.TypeFor[runner.Result](), types)
	types[reflect.TypeFor[time.Time]()] = &jsonschema.Schema{Type: "string", Format: "date-time"}
	types[reflect.TypeFor[map[int]int64]()] = &jsonschema.Schema{
		Types:                []string{"null", "object"},
		PatternProperties:    map[string]*jsonschema.Schema{"^[0-9]+$": {Type: "integer"}},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}},
	}
	docs := comments(t, "../runner")
	schema := &jsonschema.Schema{
		Schema: "https://json-schema.org/draft/2020-12/schema", ID: "urn:vramsweep:run:" + runner.SchemaVersion,
		Title: "run.json of vramsweep, schema " + runner.SchemaVersion, Ref: "#/$defs/Result",
		Defs: map[string]*jsonschema.Schema{},
	}
	for typ, ref := range types {
		if ref.Ref == "" {
			continue
		}
		others := maps.Clone(types)
		delete(others, typ)
		for i := range typ.NumField() {
			if f := typ.Field(i); f.Anonymous {
				delete(others, f.Type)
			}
		}
		def, err := jsonschema.ForType(typ, &jsonschema.ForOptions{TypeSchemas: others})
		if err != nil {
			t.Fatal(err)
		}
		def.Description, def.AdditionalProperties = docs[typ.Name()], nil
		for _, f := range reflect.VisibleFields(typ) {
			if property := def.Properties[jsonName(f)]; property != nil && !f.Anonymous {
				if ref := types[f.Type]; ref != nil { // also where the type is embedded as well
					*property = *ref
				}
				describe(property, typ, f, docs)
			}
		}
		schema.Defs[typ.Name()] = def
	}
	b, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	b = regexp.MustCompile(`"type": \[\s*"null",\s*"(\w+)"\s*\]`).ReplaceAll(b, []byte(`"type": ["$1", "null"]`))
	golden(t, "../docs/run.schema.json", append(b, '\n'))
}

// structsOf notes the structs that a type holds, each as a reference to its
// definition; the fields of embedded ones are those of the struct around them.
func structsOf(t reflect.Type, types map[reflect.Type]*jsonschema.Schema) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		structsOf(t.Elem(), types)
	case reflect.Struct:
		if types[t] != nil || t == reflect.TypeFor[time.Time]() {
			return
		}
		types[t] = &jsonschema.Schema{Ref: "#/$defs/" + t.Name()}
		for _, f := range reflect.VisibleFields(t) {
			if !f.Anonymous {
				structsOf(f.Type, types)
			}
		}
	}
}

// describe adds what the inference leaves out: null for what is nil in Go
// (missing has a name), and the comment or the doc tag of the field.
func describe(property *jsonschema.Schema, in reflect.Type, f reflect.StructField, docs map[string]string) {
	switch {
	case property.Ref != "" && f.Type.Kind() == reflect.Pointer:
		*property = jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Ref: property.Ref}, {Type: "null"}}}
	case f.Type.Kind() == reflect.Slice && property.Items.Ref != "":
		property.Items.Types = nil // of pointers none is nil
	case f.Type.Kind() == reflect.Map:
		property.Type, property.Types = "", []string{"null", "object"}
	}
	for len(f.Index) > 1 { // promoted: its comment stands in the embedded type
		in, f.Index = in.Field(f.Index[0]).Type, f.Index[1:]
	}
	doc := docs[in.Name()+"."+f.Name]
	if doc == "" {
		doc = f.Tag.Get("doc") // of rows and settings it is for the tables, too
	}
	if doc == "" && f.Tag.Get("parquet") != "" {
		doc = askedDoc(jsonName(f), f.Type.Kind() == reflect.Pointer)
	}
	property.Description = doc
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// comments are those of the types of a package and of their fields, by Type and
// Type.Field.
func comments(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	docs := map[string]string{}
	text := func(groups ...*ast.CommentGroup) string {
		for _, g := range groups {
			if s := strings.TrimSpace(g.Text()); s != "" {
				return strings.ReplaceAll(s, "\n", " ")
			}
		}
		return ""
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok || decl.Tok != token.TYPE {
				return true
			}
			for _, spec := range decl.Specs {
				typ := spec.(*ast.TypeSpec)
				docs[typ.Name.Name] = text(typ.Doc, decl.Doc)
				if s, ok := typ.Type.(*ast.StructType); ok {
					for _, field := range s.Fields.List {
						for _, name := range field.Names {
							docs[typ.Name.Name+"."+name.Name] = text(field.Doc, field.Comment)
						}
					}
				}
			}
			return false
		})
	}
	return docs
}

// resultSchema is the published schema.
func resultSchema(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	b, err := os.ReadFile("../docs/run.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

func TestResultsKeepTheSchema(t *testing.T) {
	schema := resultSchema(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	runs := night(0)
	runs[2].outcome, runs[3].axes = runner.OutcomeOOM, map[string]any{"point": map[string]any{"a": 1, "b": "x"}, "on": true}
	write(t, s, runs[:4])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "runs/*/*/run.json"))
	if err != nil || len(names) != 4 {
		t.Fatalf("%v %v", names, err)
	}
	validate := func(b []byte) error {
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		return schema.Validate(v)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{strings.Replace(string(b), `"repeat": 1`, `"repeat": "1"`, 1), strings.Replace(string(b), `"run_id"`, `"run_ie"`, 1)} {
		if validate([]byte(bad)) == nil {
			t.Errorf("the schema takes a wrong file")
		}
	}
}

func TestSchemasOfFiles(t *testing.T) {
	var b bytes.Buffer
	for _, def := range registry() {
		fmt.Fprintln(&b, strings.Replace(table.SchemaOf(def.rowType(), nil).String(), "message ", "message "+string(def.def().name), 1))
	}
	axes := mergeAxes(nil, []RunRow{{Axes: map[string]any{"a": int64(1), "b": "x", "c": true, "d": 0.5}}})
	columns := table.SchemaOf(reflect.TypeFor[RunRow](), axes).Columns()
	for _, c := range columns[len(columns)-4:] {
		leaf, _ := table.SchemaOf(reflect.TypeFor[RunRow](), axes).Lookup(c...)
		fmt.Fprintf(&b, "%s %v\n", c[0], leaf.Node.Type())
	}
	golden(t, "testdata/parquet.schema", b.Bytes())
	if _, ok := parquet.SchemaOf(RunRow{}).Lookup("axes"); ok {
		t.Error("the map of axes became a column")
	}
}

func TestExport(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	runs := night(0)
	for i, r := range runs {
		r.axes = map[string]any{"alpha": 0.5 * float64(i), "mode": "a,\"b"}
	}
	runs[1].outcome = runner.OutcomeOOM
	write(t, s, runs)
	for _, table := range Tables() {
		var c, j, a bytes.Buffer
		counts := map[string]int64{}
		for format, w := range map[string]*bytes.Buffer{"csv": &c, "jsonl": &j, "arrow": &a} {
			n, err := s.Export(table, format, Predicate{}, w)
			if err != nil {
				t.Fatal(err)
			}
			counts[format] = n
		}
		records, err := csv.NewReader(&c).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(j.String()), "\n")
		reader, err := ipc.NewReader(&a)
		if err != nil {
			t.Fatal(err)
		}
		meta := reader.Schema().Metadata()
		for _, key := range []string{"schema_version", "version", "table", "units"} {
			if text, ok := meta.GetValue("vramsweep." + key); !ok || text == "" && key != "version" {
				t.Errorf("%s: the export to Arrow has no vramsweep.%s", table, key)
			}
		}
		arrowRows := int64(0)
		for reader.Next() {
			arrowRows += reader.Record().NumRows()
		}
		if n := int64(len(records) - 1); n != counts["csv"] || int64(len(lines)) != n || arrowRows != n || n == 0 {
			t.Errorf("%s: csv %d, jsonl %d, arrow %d rows, %v said", table, n, len(lines), arrowRows, counts)
		}
		for i, line := range lines {
			compareExports(t, table, records[0], records[i+1], line)
		}
	}
}

// TestWriteRows: the ending of a file says its format, and all say the same.
func TestWriteRows(t *testing.T) {
	columns := []string{"name", "n", "share", "called"}
	rows := [][]any{{"a,\"b", int64(3), 0.5, true}, {"c", nil, nil, false}}
	for name, want := range map[string]string{
		"t.csv":  "name,n,share,called\n\"a,\"\"b\",3,0.5,true\nc,,,false\n",
		"t.json": `[{"name":"a,\"b","n":3,"share":0.5,"called":true},{"name":"c","n":null,"share":null,"called":false}]`,
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := WriteRows(path, columns, rows); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(name) == ".json" {
			var b bytes.Buffer
			if err := json.Compact(&b, got); err != nil {
				t.Fatal(err)
			}
			got = b.Bytes()
		}
		if string(got) != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	path := filepath.Join(t.TempDir(), "t.parquet")
	if err := WriteRows(path, columns, [][]any{{"", int64(0), 0.0, false}, {nil, nil, nil, nil}}); err != nil {
		t.Fatal(err)
	}
	type row struct {
		Name   *string  `parquet:"name,optional"`
		N      *int64   `parquet:"n,optional"`
		Share  *float64 `parquet:"share,optional"`
		Called *bool    `parquet:"called,optional"`
	}
	got, err := parquet.ReadFile[row](path)
	if err != nil {
		t.Fatal(err)
	}
	zero := row{new(""), new(int64(0)), new(0.0), new(false)}
	if len(got) != 2 || !reflect.DeepEqual(got[0], zero) || got[1] != (row{}) {
		t.Errorf("0 and null: %+v", got)
	}
	empty := filepath.Join(t.TempDir(), "t.json")
	if err := WriteRows(empty, columns, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(empty); strings.TrimSpace(string(got)) != "[]" {
		t.Errorf("no rows: %s", got)
	}
}

// compareExports checks that a CSV record and a JSON line say the same.
func compareExports(t *testing.T, table Table, header, record []string, line string) {
	t.Helper()
	object := map[string]any{}
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&object); err != nil {
		t.Fatal(err)
	}
	if len(object) != len(header) {
		t.Fatalf("%s: %d fields, %d columns", table, len(object), len(header))
	}
	for i, name := range header {
		v, ok := object[name]
		text := fmt.Sprint(v)
		if v == nil {
			text = ""
		}
		if n, is := v.(json.Number); is && n.String() != record[i] { // 1e+06 and 1000000
			a, aerr := n.Float64()
			b, berr := json.Number(record[i]).Float64()
			if aerr == nil && berr == nil && a == b {
				continue
			}
		}
		if !ok || text != record[i] {
			t.Errorf("%s.%s: CSV %q, JSON %q", table, name, record[i], text)
		}
	}
}
