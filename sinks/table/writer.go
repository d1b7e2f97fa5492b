package table

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	packed "github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// Row groups end at the end of a run, as soon as they hold groupRows: what one
// query wants lies together, and a reader can skip the rest. Only a run longer
// than groupLimit is split.
const (
	groupRows  = 512 << 10
	groupLimit = 2 << 20
)

// dictionaryLimit ends a dictionary that pays no more: a gauge whose every
// reading differs is written plain.
const dictionaryLimit = 1 << 20

// pageBytes is what is gathered of a column before it is encoded: less memory
// for tables of many columns, and a look-up reads little beside its run.
const pageBytes = 128 << 10

// The keys of a file's metadata.
const (
	metaSchema     = "vramsweep.schema_version"
	metaVersion    = "vramsweep.version"
	metaTable      = "vramsweep.table"
	metaUnits      = "vramsweep.units"      // JSON: column: unit
	metaExecutions = "vramsweep.executions" // JSON: []Mark
	metaAxes       = "vramsweep.axes"       // JSON: column: axis
)

// A Mark names an execution in a file, and whether more of it can come.
type Mark struct {
	Execution string `json:"execution"`
	Shard     string `json:"shard,omitempty"` // of the execution, as "3/6"; "": all of it
	Final     bool   `json:"final"`
}

// Same reports whether two marks are about the same part of an execution.
func (m Mark) Same(o Mark) bool { return m.Execution == o.Execution && m.Shard == o.Shard }

// Options say what a file is, beside its rows.
type Options struct {
	Table   string
	Schema  string   // its version
	Version string   // of vramsweep
	Sorted  []string // columns by which the rows are sorted
	Axes    []Axis
	Marks   []Mark
	Sealed  bool // Seal follows
}

func (o *Options) writerOptions(row reflect.Type) []parquet.WriterOption {
	var sorting []parquet.SortingColumn
	for _, column := range o.Sorted {
		sorting = append(sorting, parquet.Ascending(column))
	}
	options := []parquet.WriterOption{
		SchemaOf(row, o.Axes),
		parquet.Compression(&checkedZstd{}),
		parquet.DictionaryMaxBytes(dictionaryLimit),
		parquet.PageBufferSize(pageBytes),
		parquet.SortingWriterConfig(parquet.SortingColumns(sorting...)),
		parquet.CreatedBy("vramsweep", o.Version, ""),
	}
	for key, text := range o.Metadata(row) {
		options = append(options, parquet.KeyValueMetadata(key, text))
	}
	if o.Sealed {
		options = append(options, parquet.KeyValueMetadata(metaSeal, noSeal()))
	}
	return options
}

// Metadata are what a file says of itself, in Parquet and in Arrow.
func (o *Options) Metadata(row reflect.Type) map[string]string {
	meta := map[string]string{
		metaSchema: o.Schema, metaVersion: o.Version, metaTable: o.Table, metaUnits: jsonText(unitsOf(row)),
	}
	if len(o.Marks) > 0 {
		meta[metaExecutions] = jsonText(o.Marks)
	}
	if len(o.Axes) > 0 {
		names := map[string]string{}
		for _, a := range o.Axes {
			names[a.Column] = a.Axis
		}
		meta[metaAxes] = jsonText(names)
	}
	return meta
}

// jsonText is the JSON of a value that has one.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// A Writer writes rows of one table to a file.
type Writer[T any] struct {
	out      *parquet.GenericWriter[T]
	plain    *parquet.Schema // of the rows without axes
	axes     []Axis
	axesOf   func(*T) map[string]any
	oneByOne bool // rows are taken apart here
	inGroup  int
	rows     int64
}

// NewWriter begins a file. axesOf gives the axes of a row; it is nil where the
// table has none.
func NewWriter[T any](w io.Writer, o Options, axesOf func(*T) map[string]any) *Writer[T] {
	row := reflect.TypeFor[T]()
	return &Writer[T]{out: parquet.NewGenericWriter[T](w, o.writerOptions(row)...), plain: rowSchema(row),
		axes: o.Axes, axesOf: axesOf, oneByOne: len(o.Axes) > 0 || slices.ContainsFunc(Fields(row), zeroIsNull)}
}

// zeroIsNull says whether the zero of a column stands for null. parquet-go 0.32
// writes batches of such columns wrong: of zero, value, zero the last is no null.
func zeroIsNull(f reflect.StructField) bool {
	return Nullable(f) && f.Type.Kind() != reflect.Pointer
}

// Rows is how many rows were written.
func (w *Writer[T]) Rows() int64 { return w.rows }

// Write adds rows.
func (w *Writer[T]) Write(rows []T) error {
	for len(rows) > 0 {
		n := min(len(rows), groupLimit-w.inGroup)
		var err error
		if w.oneByOne {
			err = w.writeOneByOne(rows[:n])
		} else {
			_, err = w.out.Write(rows[:n])
		}
		if err != nil {
			return err
		}
		rows, w.inGroup, w.rows = rows[n:], w.inGroup+n, w.rows+int64(n)
		if w.inGroup == groupLimit {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeOneByOne writes rows one at a time: a row struct has no field for an axis.
func (w *Writer[T]) writeOneByOne(rows []T) error {
	first := len(w.plain.Columns())
	var row parquet.Row
	for i := range rows {
		row = w.plain.Deconstruct(row[:0], &rows[i])
		if len(w.axes) > 0 {
			for a, v := range AxisValues(w.axes, w.axesOf(&rows[i])) {
				value, level := parquet.NullValue(), 0
				if v != nil {
					value, level = parquet.ValueOf(v), 1
				}
				row = append(row, value.Level(0, level, first+a))
			}
		}
		if _, err := w.out.WriteRows([]parquet.Row{row}); err != nil {
			return err
		}
	}
	return nil
}

// EndRun ends the row group, if it is long enough.
func (w *Writer[T]) EndRun() error {
	if w.inGroup < groupRows {
		return nil
	}
	return w.flush()
}

func (w *Writer[T]) flush() error {
	w.inGroup = 0
	return w.out.Flush()
}

// Close writes the footer.
func (w *Writer[T]) Close() error { return w.out.Close() }

// checkedZstd is parquet-go's Zstandard with a checksum in every frame: readers
// that pass over the checksums of pages notice by it that one is damaged.
type checkedZstd struct {
	codec packed.Codec // unpacks
	once  sync.Once
	enc   *zstd.Encoder
	err   error
}

func (c *checkedZstd) String() string                            { return c.codec.String() }
func (c *checkedZstd) CompressionCodec() format.CompressionCodec { return c.codec.CompressionCodec() }
func (c *checkedZstd) Decode(dst, src []byte) ([]byte, error)    { return c.codec.Decode(dst, src) }
func (c *checkedZstd) Encode(dst, src []byte) (_ []byte, err error) {
	c.once.Do(func() {
		c.enc, c.err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true),
			zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true))
	})
	if c.err != nil {
		return dst, errors.Join(errors.New("starting the compressor"), c.err)
	}
	return c.enc.EncodeAll(src, dst[:0]), nil
}
