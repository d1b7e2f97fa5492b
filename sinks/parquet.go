package sinks

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"reflect"
	"strings"
	"unsafe"

	"github.com/parquet-go/parquet-go"

	"github.com/vramsweep/vramsweep/runner"
)

// Row groups end at the end of a run, as soon as they hold groupRows: what one
// query wants lies together, and a reader can skip the rest. Only a run longer
// than groupLimit is split.
const (
	groupRows  = 512 << 10
	groupLimit = 2 << 20
)

// The keys of a file's metadata.
const (
	metaSchema     = "vramsweep.schema_version"
	metaVersion    = "vramsweep.version"
	metaTable      = "vramsweep.table"
	metaUnits      = "vramsweep.units"      // JSON: column: unit
	metaExecutions = "vramsweep.executions" // JSON: []Mark
	metaAxes       = "vramsweep.axes"       // JSON: column: axis
)

// A Mark names an execution in a file of tables/, and whether more of it can come.
type Mark struct {
	Execution string `json:"execution"`
	Final     bool   `json:"final"`
}

// tableOf names the table that a row belongs to.
func tableOf[T Row]() Table {
	var row T
	switch any(row).(type) {
	case RunRow:
		return TableRuns
	case RankRow:
		return TableRanks
	case TimelineRow:
		return TableTimelines
	case PhaseRow:
		return TablePhases
	case BreakdownRow:
		return TableBreakdowns
	case StepRow:
		return TableSteps
	default:
		return TableLatencies
	}
}

// rowType is the struct of a table's row.
func rowType(t Table) reflect.Type {
	switch t {
	case TableRuns:
		return reflect.TypeFor[RunRow]()
	case TableRanks:
		return reflect.TypeFor[RankRow]()
	case TableTimelines:
		return reflect.TypeFor[TimelineRow]()
	case TablePhases:
		return reflect.TypeFor[PhaseRow]()
	case TableBreakdowns:
		return reflect.TypeFor[BreakdownRow]()
	case TableSteps:
		return reflect.TypeFor[StepRow]()
	default:
		return reflect.TypeFor[LatencyRow]()
	}
}

// sortColumns are the columns by which a table's files are sorted. Phases, steps
// and components stand in the order of a run, not of their names.
func sortColumns(t Table) []string {
	switch t {
	case TablePhases, TableBreakdowns, TableSteps:
		return keyColumns(t)[:2]
	default:
		return keyColumns(t)
	}
}

// keyColumns are the columns that identify a row.
func keyColumns(t Table) []string {
	switch t {
	case TableRuns:
		return []string{"run_id"}
	case TableRanks:
		return []string{"run_id", "rank"}
	case TableTimelines:
		return []string{"run_id", "gpu_index", "ts"}
	case TablePhases:
		return []string{"run_id", "gpu_index", "phase"}
	case TableBreakdowns:
		return []string{"run_id", "rank", "component"}
	case TableSteps:
		return []string{"run_id", "gpu_index", "step"}
	default:
		return []string{"run_id", "iteration"}
	}
}

// flatFields are the fields of a row, embedded ones in place.
func flatFields(t reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous && f.Tag.Get("parquet") != "-" {
			fields = append(fields, f)
		}
	}
	return fields
}

func columnName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("parquet"), ",")
	return name
}

// An axisColumn is a column of the table runs that holds a free axis.
type axisColumn struct {
	Column string // axis_NAME, or axis_NAME_double where axis_NAME already has another type
	Axis   string
	Kind   axisKind
}

// axisKind is the type of an axis column; it never changes.
type axisKind string

const (
	kindString axisKind = "string"
	kindInt    axisKind = "int"
	kindDouble axisKind = "double"
	kindBool   axisKind = "bool"
)

func (k axisKind) goType() reflect.Type {
	switch k {
	case kindInt:
		return reflect.TypeFor[*int64]()
	case kindDouble:
		return reflect.TypeFor[*float64]()
	case kindBool:
		return reflect.TypeFor[*bool]()
	default:
		return reflect.TypeFor[*string]()
	}
}

// schemaOf is the schema of a table; axes are the further columns of runs.
// They stand behind the others, so that plain readers of several files agree.
func schemaOf(t Table, axes []axisColumn) *parquet.Schema {
	if t != TableTimelines && len(axes) == 0 {
		return parquet.SchemaOf(reflect.New(rowType(t)).Interface())
	}
	var fields []reflect.StructField
	for _, f := range flatFields(rowType(t)) {
		field := reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag}
		if f.Tag.Get("enc") == "delta" { // the schema alone: rows keep their pointers, and so their nulls
			field.Type = f.Type.Elem()
			field.Tag = reflect.StructTag(fmt.Sprintf("parquet:%q", f.Tag.Get("parquet")+",delta"))
		}
		fields = append(fields, field)
	}
	for i, a := range axes {
		tag := a.Column + ",optional"
		if a.Kind == kindString || a.Kind == kindInt {
			tag += ",dict"
		}
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("Axis%d", i), Type: a.Kind.goType(),
			Tag: reflect.StructTag(fmt.Sprintf("parquet:%q", tag))})
	}
	return parquet.SchemaOf(reflect.New(reflect.StructOf(fields)).Interface())
}

// writerOptions are the schema and the metadata of a file: what it holds, and the
// units of its columns.
func writerOptions(t Table, version string, axes []axisColumn, marks []Mark) []parquet.WriterOption {
	options := []parquet.WriterOption{
		schemaOf(t, axes),
		parquet.CreatedBy("vramsweep", version, ""),
		parquet.KeyValueMetadata(metaSchema, runner.SchemaVersion),
		parquet.KeyValueMetadata(metaVersion, version),
		parquet.KeyValueMetadata(metaTable, string(t)),
		parquet.KeyValueMetadata(metaUnits, jsonText(unitsOf(t))),
	}
	if len(marks) > 0 {
		options = append(options, parquet.KeyValueMetadata(metaExecutions, jsonText(marks)))
	}
	if len(axes) > 0 {
		names := map[string]string{}
		for _, a := range axes {
			names[a.Column] = a.Axis
		}
		options = append(options, parquet.KeyValueMetadata(metaAxes, jsonText(names)))
	}
	return options
}

func unitsOf(t Table) map[string]string {
	units := map[string]string{}
	for _, f := range flatFields(rowType(t)) {
		if unit := f.Tag.Get("unit"); unit != "" {
			units[columnName(f)] = unit
		}
	}
	return units
}

// jsonText is the JSON of a value that has one.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// A rowWriter writes rows of one table to a file.
type rowWriter[T Row] struct {
	file    *columnFile
	failed  error // making it
	inGroup int
	total   int64
}

func newRowWriter[T Row](w io.Writer, version string, axes []axisColumn, marks []Mark) *rowWriter[T] {
	t := tableOf[T]()
	file, err := newColumnFile(w, reflect.TypeFor[T](), schemaOf(t, axes), axes, sortColumns(t), writerOptions(t, version, axes, marks))
	return &rowWriter[T]{file: file, failed: err}
}

func (w *rowWriter[T]) write(rows []T) error {
	if w.failed != nil {
		return w.failed
	}
	for len(rows) > 0 {
		n := min(len(rows), groupLimit-w.inGroup)
		if err := w.file.write(unsafe.Pointer(unsafe.SliceData(rows)), n); err != nil {
			return err
		}
		rows, w.inGroup, w.total = rows[n:], w.inGroup+n, w.total+int64(n)
		if w.inGroup == groupLimit {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// endRun ends the row group, if it is long enough.
func (w *rowWriter[T]) endRun() error {
	if w.inGroup < groupRows {
		return nil
	}
	return w.flush()
}

func (w *rowWriter[T]) flush() error {
	w.inGroup = 0
	return w.file.flush()
}

func (w *rowWriter[T]) close() error {
	if w.failed != nil {
		return w.failed
	}
	return w.file.close()
}

// columnFor is the one column that holds a value of an axis: that of its own
// kind, or for a whole number one of doubles; -1 where there is none.
func columnFor(axes []axisColumn, axis string, v any) int {
	if v == nil {
		return -1
	}
	kind, double := kindOf(v), -1
	for i, a := range axes {
		switch {
		case a.Axis != axis:
		case a.Kind == kind:
			return i
		case a.Kind == kindDouble && kind == kindInt:
			double = i
		}
	}
	return double
}

// A sumWriter counts what passes and sums it up.
type sumWriter struct {
	w     io.Writer
	sum   hash.Hash32
	bytes int64
}

func newSumWriter(w io.Writer) *sumWriter {
	return &sumWriter{w: w, sum: crc32.New(castagnoli())}
}

func (s *sumWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.sum.Write(p[:n])
	s.bytes += int64(n)
	return n, err
}

// openParquet opens a file that may be damaged. It reads the footer alone: what
// else is Thrift is looked at by soundChunk before parquet-go decodes it.
func openParquet(r io.ReaderAt, size int64) (file *parquet.File, err error) {
	defer rescue(&err)
	const least = 12 // two magics and the length of the footer
	if size < least {
		return nil, fmt.Errorf("it has %d bytes and is no Parquet file", size)
	}
	var tail [8]byte
	if _, err := r.ReadAt(tail[:], size-8); err != nil {
		return nil, err
	}
	if string(tail[4:]) != "PAR1" {
		return nil, errors.New("its end is cut off: the closing PAR1 is missing")
	}
	n := int64(binary.LittleEndian.Uint32(tail[:4]))
	if n > size-least {
		return nil, fmt.Errorf("its footer is damaged: it claims %d bytes of %d", n, size)
	}
	if err := checkFooter(r, size, n); err != nil {
		return nil, err
	}
	return parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
}

// rescue turns a panic into an error: parquet-go panics on some damaged files.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("it is damaged: %v", p)
	}
}

// marksOf are the executions in a file of tables/.
func marksOf(file *parquet.File) []Mark {
	var marks []Mark
	if text, ok := file.Lookup(metaExecutions); ok && json.Unmarshal([]byte(text), &marks) != nil {
		return nil
	}
	return marks
}

// axesOf are the axis columns of a file of runs.
func axesOf(file *parquet.File) []axisColumn {
	names := map[string]string{}
	if text, ok := file.Lookup(metaAxes); ok && json.Unmarshal([]byte(text), &names) != nil {
		return nil
	}
	var axes []axisColumn
	for _, c := range file.Root().Columns() {
		axis, ok := names[c.Name()]
		if !ok || !c.Leaf() {
			continue
		}
		kind := kindString
		switch c.Type().Kind() {
		case parquet.Int64:
			kind = kindInt
		case parquet.Double:
			kind = kindDouble
		case parquet.Boolean:
			kind = kindBool
		}
		axes = append(axes, axisColumn{Column: c.Name(), Axis: axis, Kind: kind})
	}
	return axes
}
