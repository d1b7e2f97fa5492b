package sinks

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// ExportFormats are the formats that Export writes.
func ExportFormats() []string { return []string{"csv", "jsonl", "arrow"} }

// Export writes one table: "csv" (a header, empty for null, instants in RFC
// 3339, an apostrophe before a text that a spreadsheet would take for a formula),
// "jsonl" (an object a row, null kept) or "arrow" (an IPC stream). It returns the
// number of rows. Memory does not depend on it.
func (s *Store) Export(name Table, format string, where Predicate, w io.Writer) (int64, error) {
	t, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return t.export(s, format, where, w)
}

// An exporter writes rows of one format.
type exporter interface {
	row(values []any) error
	close() error
}

func (t *rowTable[T]) export(s *Store, format string, where Predicate, w io.Writer) (rows int64, err error) {
	fields := table.Fields(t.rowType())
	axes, err := t.exportAxes(s, where)
	if err != nil {
		return 0, err
	}
	buffered := bufio.NewWriterSize(w, 64<<10)
	meta, err := t.exportMeta(s, where, axes)
	if err != nil {
		return 0, err
	}
	out, err := newExporter(format, buffered, t.name, axes, meta)
	if err != nil {
		return 0, err
	}
	values := make([]any, len(fields), len(fields)+len(axes))
	ReadStore(s, where, func(row T, rerr error) bool {
		if err = rerr; err != nil {
			return false
		}
		v := reflect.ValueOf(&row).Elem()
		for i, f := range fields {
			values[i] = plain(v.FieldByIndex(f.Index), table.Nullable(f))
		}
		line := values
		if t.axes != nil {
			line = append(line, table.AxisValues(axes, *t.axes(&row))...)
		}
		rows++
		err = out.row(line)
		return err == nil
	})
	if err == nil {
		err = errors.Join(out.close(), buffered.Flush())
	}
	if err != nil {
		err = fmt.Errorf("exporting table %s as %s: %w", t.name, format, err)
	}
	return rows, err
}

// exportAxes are the axis columns of the rows that will be exported.
func (t *rowTable[T]) exportAxes(s *Store, where Predicate) ([]table.Axis, error) {
	if t.axes == nil {
		return nil, nil
	}
	var axes []map[string]any
	var failed error
	ReadStore(s, where, func(row T, err error) bool {
		failed = err
		axes = append(axes, *t.axes(&row))
		return err == nil
	})
	return table.MergeAxes(nil, axes), failed
}

// exportMeta is what the files of the rows that will be exported say of themselves.
func (t *rowTable[T]) exportMeta(s *Store, where Predicate, axes []table.Axis) (map[string]string, error) {
	o := table.Options{Table: string(t.name), Schema: runner.SchemaVersion, Version: s.opts.Version, Axes: axes}
	files, err := s.footers(t.name)
	for _, f := range files {
		for _, m := range f.marks {
			if where.Execution == "" || where.Execution == m.Execution {
				o.Marks = append(o.Marks, m)
			}
		}
	}
	return o.Metadata(t.rowType()), err
}

// plain is nil, or the value behind a pointer; instants become time.Time.
func plain(v reflect.Value, nullable bool) any {
	if nullable && v.IsZero() {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.String {
		return v.String()
	}
	if m, ok := v.Interface().(Micros); ok {
		return m.Time()
	}
	return v.Interface()
}

func newExporter(
	format string, w io.Writer, t Table, axes []table.Axis, meta map[string]string,
) (exporter, error) {
	var names []string
	for _, c := range Columns(t) {
		names = append(names, c.Name)
	}
	for _, a := range axes {
		names = append(names, a.Column)
	}
	switch format {
	case "csv":
		c := &csvExporter{w: csv.NewWriter(w), cells: make([]string, len(names))}
		return c, c.w.Write(names)
	case "jsonl":
		return &jsonExporter{w: w, names: names}, nil
	case "arrow":
		return newArrowExporter(w, t, axes, arrow.MetadataFrom(meta)), nil
	default:
		return nil, fmt.Errorf("there is no export format %q; the formats are %v", format, ExportFormats())
	}
}

const exportTime = "2006-01-02T15:04:05.000000Z"

type csvExporter struct {
	w     *csv.Writer
	cells []string
}

func (c *csvExporter) row(values []any) error {
	for i, v := range values {
		switch v := v.(type) {
		case nil:
			c.cells[i] = ""
		case time.Time:
			c.cells[i] = v.Format(exportTime)
		case float64:
			c.cells[i] = strconv.FormatFloat(v, 'g', -1, 64)
		case string: // a text of others must be no formula where a spreadsheet opens the file
			if c.cells[i] = v; v != "" && strings.Contains("=+-@\t\r", v[:1]) {
				c.cells[i] = "'" + v
			}
		default:
			c.cells[i] = fmt.Sprint(v)
		}
	}
	return c.w.Write(c.cells)
}

func (c *csvExporter) close() error {
	c.w.Flush()
	return c.w.Error()
}

type jsonExporter struct {
	w     io.Writer
	names []string
	line  []byte
}

func (j *jsonExporter) row(values []any) error {
	if err := j.object(values); err != nil {
		return err
	}
	_, err := j.w.Write(append(j.line, '\n'))
	return err
}

// object puts a row into line.
func (j *jsonExporter) object(values []any) error {
	j.line = append(j.line[:0], '{')
	for i, v := range values {
		if i > 0 {
			j.line = append(j.line, ',')
		}
		if t, ok := v.(time.Time); ok {
			v = t.Format(exportTime)
		}
		name, err := json.Marshal(j.names[i])
		if err != nil {
			return err
		}
		value, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("column %s: %w", j.names[i], err)
		}
		j.line = append(append(append(j.line, name...), ':'), value...)
	}
	j.line = append(j.line, '}')
	return nil
}

func (j *jsonExporter) close() error { return nil }

// arrowBatch is the number of rows of a batch.
const arrowBatch = 64 << 10

type arrowExporter struct {
	w     *ipc.Writer
	build *array.RecordBuilder
	rows  int
}

func newArrowExporter(w io.Writer, t Table, axes []table.Axis, meta arrow.Metadata) *arrowExporter {
	var fields []arrow.Field
	for _, c := range Columns(t) {
		fields = append(fields, arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: c.Nullable,
			Metadata: arrow.MetadataFrom(map[string]string{"unit": c.Unit, "doc": c.Doc})})
	}
	for _, a := range axes {
		fields = append(fields, arrow.Field{Name: a.Column, Type: arrowType(a.Kind.SQLType()), Nullable: true})
	}
	schema := arrow.NewSchema(fields, &meta)
	return &arrowExporter{build: array.NewRecordBuilder(memory.DefaultAllocator, schema),
		w: ipc.NewWriter(w, ipc.WithSchema(schema), ipc.WithLZ4())}
}

func arrowType(sql string) arrow.DataType {
	types := map[string]arrow.DataType{"INTEGER": arrow.PrimitiveTypes.Int32, "BIGINT": arrow.PrimitiveTypes.Int64,
		"DOUBLE": arrow.PrimitiveTypes.Float64, "BOOLEAN": arrow.FixedWidthTypes.Boolean, "VARCHAR": arrow.BinaryTypes.String}
	if t, ok := types[sql]; ok {
		return t
	}
	return arrow.FixedWidthTypes.Timestamp_us
}

func (a *arrowExporter) row(values []any) error {
	for i, v := range values {
		if t, ok := v.(time.Time); ok {
			v = arrow.Timestamp(t.UnixMicro())
		}
		appendValue(a.build.Field(i), v)
	}
	if a.rows++; a.rows == arrowBatch {
		return a.flush()
	}
	return nil
}

// appendValue adds a value, or what a pointer points to; nil is null.
func appendValue(b array.Builder, v any) {
	switch b := b.(type) {
	case *array.Int32Builder:
		appendTo(b, v, b.Append)
	case *array.Int64Builder:
		appendTo(b, v, b.Append)
	case *array.Float64Builder:
		appendTo(b, v, b.Append)
	case *array.BooleanBuilder:
		appendTo(b, v, b.Append)
	case *array.StringBuilder:
		appendTo(b, v, b.Append)
	case *array.TimestampBuilder:
		appendTo(b, v, b.Append)
	}
}

func appendTo[V any](b array.Builder, v any, add func(V)) {
	switch v := v.(type) {
	case V:
		add(v)
	case *V:
		add(*v)
	default:
		b.AppendNull()
	}
}

func (a *arrowExporter) flush() error {
	batch := a.build.NewRecord()
	defer batch.Release()
	a.rows = 0
	return a.w.Write(batch)
}

func (a *arrowExporter) close() error {
	defer a.build.Release()
	if err := a.flush(); err != nil {
		return err
	}
	return a.w.Close()
}
