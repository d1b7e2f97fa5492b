package sinks

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// A columnSpec says what a column is and where its values are in a row: in a
// field, or in the map of axes.
type columnSpec struct {
	name   string
	node   parquet.Node
	zip    *compressors
	limits *columnLimits
	kind   reflect.Type // of the field: a pointer where the column is nullable
	offset uintptr
	axes   []axisColumn // nil: in a field
	axis   int

	direct   bool // no pointer: where it is nullable, its zero is null
	instants bool // *time.Time
}

func newColumnData(spec columnSpec) (columnData, error) {
	kind := spec.kind
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	spec.direct = spec.kind.Kind() != reflect.Pointer
	if !spec.direct && !spec.node.Optional() {
		return nil, fmt.Errorf("column %s: the schema and the type %s do not agree on whether it is nullable", spec.name, spec.kind)
	}
	if spec.instants = kind == reflect.TypeFor[time.Time](); spec.instants {
		return newColumn(spec, format.Int64, appendInt64, cmp.Compare[int64]), nil
	}
	switch kind.Kind() {
	case reflect.Int32:
		return newColumn(spec, format.Int32, appendInt32, cmp.Compare[int32]), nil
	case reflect.Int64:
		return newColumn(spec, format.Int64, appendInt64, cmp.Compare[int64]), nil
	case reflect.Float64:
		return newColumn(spec, format.Double, appendFloat64, cmp.Compare[float64]), nil
	case reflect.Bool:
		return newColumn(spec, format.Boolean, appendBool, compareBool), nil
	case reflect.String:
		return newColumn(spec, format.ByteArray, appendString, cmp.Compare[string]), nil
	default:
		return nil, fmt.Errorf("column %s: there is no Parquet type for %s", spec.name, spec.kind)
	}
}

func appendInt32(b []byte, v int32) []byte     { return binary.LittleEndian.AppendUint32(b, uint32(v)) }
func appendInt64(b []byte, v int64) []byte     { return binary.LittleEndian.AppendUint64(b, uint64(v)) }
func appendString(b []byte, v string) []byte   { return append(b, v...) }
func appendFloat64(b []byte, v float64) []byte { return appendInt64(b, int64(math.Float64bits(v))) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// A rowColumn gathers values of one type. Those of a dictionary are kept as places
// in it, the others as they are.
type rowColumn[V comparable] struct {
	columnSpec
	physical format.Type
	appended func([]byte, V) []byte // the bytes of a value in plain encoding, without the length
	compare  func(a, b V) int
	nullable bool
	delta    bool
	better   bool // a higher level of compression pays

	levels []byte // of the page: 1 where there is a value
	nulls  int
	values []V
	places []int32

	dict    *dictionary[V] // nil: there is none, or it paid no more
	useDict bool

	chunk   *columnChunk
	rows    int64 // in the chunk before this page
	low     []V   // of each page with bounds
	high    []V
	data    []byte
	encoded []byte
}

func newColumn[V comparable](spec columnSpec, physical format.Type, appended func([]byte, V) []byte, compare func(a, b V) int) *rowColumn[V] {
	c := &rowColumn[V]{columnSpec: spec, physical: physical, appended: appended, compare: compare, nullable: spec.node.Optional()}
	if e := spec.node.Encoding(); e != nil {
		c.delta, c.useDict = e.Encoding() == format.DeltaBinaryPacked, e.Encoding() == format.RLEDictionary
	}
	c.better = spec.node.Compression() != nil
	c.begin()
	return c
}

// begin begins a chunk.
func (c *rowColumn[V]) begin() {
	var pages []byte
	if c.chunk != nil {
		pages = c.chunk.pages[:0]
	}
	c.chunk = &columnChunk{pages: pages, meta: format.ColumnMetaData{Type: c.physical, PathInSchema: []string{c.name}, Codec: format.Zstd}}
	c.rows, c.low, c.high = 0, c.low[:0], c.high[:0]
	if c.dict = nil; c.useDict {
		c.dict = &dictionary[V]{places: map[V]int32{}}
	}
	if c.nullable {
		c.chunk.meta.SizeStatistics.DefinitionLevelHistogram = []int64{0, 0}
	}
}

func (c *rowColumn[V]) gather(rows unsafe.Pointer, n int, rowSize uintptr) {
	switch {
	case c.axes != nil:
		for i := range uintptr(n) {
			c.take(c.axisValue((*RunRow)(unsafe.Add(rows, i*rowSize))))
		}
	case c.instants || c.nullable && c.direct:
		for i := range uintptr(n) {
			c.take(c.converted(unsafe.Add(rows, i*rowSize+c.offset)))
		}
	case c.nullable && c.dict != nil:
		for i := range uintptr(n) {
			c.take(*(**V)(unsafe.Add(rows, i*rowSize+c.offset)))
		}
	case c.nullable:
		for i := range uintptr(n) {
			v := *(**V)(unsafe.Add(rows, i*rowSize+c.offset))
			if v == nil {
				c.levels, c.nulls = append(c.levels, 0), c.nulls+1
				continue
			}
			c.levels, c.values = append(c.levels, 1), append(c.values, *v)
		}
	case c.dict != nil:
		for i := range uintptr(n) {
			c.places = append(c.places, c.dict.place(*(*V)(unsafe.Add(rows, i*rowSize+c.offset))))
		}
	default:
		for i := range uintptr(n) {
			c.values = append(c.values, *(*V)(unsafe.Add(rows, i*rowSize+c.offset)))
		}
	}
}

// converted is the value of a field that is none of V's pointers.
func (c *rowColumn[V]) converted(field unsafe.Pointer) *V {
	if c.instants {
		t := *(**time.Time)(field)
		if t == nil {
			return nil
		}
		at, _ := any(t.UnixMicro()).(V)
		return &at
	}
	if v := (*V)(field); *v != *new(V) {
		return v
	}
	return nil
}

// take is gather for one nullable value.
func (c *rowColumn[V]) take(v *V) {
	switch {
	case v == nil:
		c.levels, c.nulls = append(c.levels, 0), c.nulls+1
	case c.dict != nil:
		c.levels, c.places = append(c.levels, 1), append(c.places, c.dict.place(*v))
	default:
		c.levels, c.values = append(c.levels, 1), append(c.values, *v)
	}
}

func (c *rowColumn[V]) axisValue(run *RunRow) *V {
	v := run.Axes[c.axes[c.axis].Axis]
	if columnFor(c.axes, c.axes[c.axis].Axis, v) != c.axis {
		return nil
	}
	if value, ok := as(c.axes[c.axis].Kind, v).(V); ok {
		return &value
	}
	return nil
}

// endPage implements columnData.
func (c *rowColumn[V]) endPage() error {
	present := len(c.values) + len(c.places)
	total := present + c.nulls
	if total == 0 {
		return nil
	}
	c.noteBounds(present, total)
	c.encoded = c.encoded[:0]
	encoding := format.Plain
	var err error
	switch {
	case c.dict != nil && len(c.dict.values) > 0: // as long as all is null there is none
		encoding = format.RLEDictionary
		c.data, err = new(rle.DictionaryEncoding).EncodeInt32(c.data, c.places)
	case c.delta:
		encoding = format.DeltaBinaryPacked
		c.data, err = encodeDelta(c.data, c.values)
	default:
		c.data = c.plain(c.data[:0], c.values)
	}
	if err != nil {
		return err
	}
	if c.nullable {
		if c.encoded, err = encodeLevels(c.encoded, c.levels, c.nulls); err != nil {
			return err
		}
	}
	if err := c.addDataPage(encoding, total); err != nil {
		return err
	}
	c.rows += int64(total)
	c.levels, c.values, c.places, c.nulls = c.levels[:0], c.values[:0], c.places[:0], 0
	if c.dict != nil && c.dict.bytes > c.limits.dictionary { // it pays no more: what comes now is plain
		return c.endDictionary()
	}
	return nil
}

func (c *rowColumn[V]) addDataPage(encoding format.Encoding, total int) error {
	header := &format.PageHeader{Type: format.DataPageV2, DataPageHeaderV2: thrift.New(format.DataPageHeaderV2{
		NumValues: int32(total), NumNulls: int32(c.nulls), NumRows: int32(total), Encoding: encoding,
		DefinitionLevelsByteLength: int32(len(c.encoded)), IsCompressed: thrift.New(true)})}
	before := len(c.chunk.pages)
	var err error
	if c.chunk.pages, err = c.chunk.addPage(c.chunk.pages, header, c.encoded, c.data, c.zip, c.better); err != nil {
		return err
	}
	c.chunk.index.offsets.PageLocations = append(c.chunk.index.offsets.PageLocations, format.PageLocation{
		Offset: int64(before), CompressedPageSize: int32(len(c.chunk.pages) - before), FirstRowIndex: c.rows})
	c.chunk.addStats(format.DataPageV2, encoding)
	m := &c.chunk.meta
	m.NumValues += int64(total)
	m.Statistics.NullCount += int64(c.nulls)
	if c.nullable {
		h := m.SizeStatistics.DefinitionLevelHistogram
		h[0], h[1] = h[0]+int64(c.nulls), h[1]+int64(total-c.nulls)
	}
	return nil
}

// noteBounds notes the lowest and the highest value of a page.
func (c *rowColumn[V]) noteBounds(present, total int) {
	index := &c.chunk.index.columns
	index.NullPages = append(index.NullPages, present == 0)
	index.NullCounts = append(index.NullCounts, int64(c.nulls))
	if c.nullable {
		index.DefinitionLevelHistogram = append(index.DefinitionLevelHistogram, int64(c.nulls), int64(total-c.nulls))
	}
	if present == 0 {
		index.MinValues, index.MaxValues = append(index.MinValues, nil), append(index.MaxValues, nil)
		return
	}
	low, high := c.bounds()
	c.low, c.high = append(c.low, low), append(c.high, high)
	index.MinValues, index.MaxValues = append(index.MinValues, c.appended(nil, low)), append(index.MaxValues, c.appended(nil, high))
}

// bounds of the page: the spec leaves NaN out, and wants -0 below and 0 above.
func (c *rowColumn[V]) bounds() (low, high V) {
	if c.dict != nil {
		low, high = c.dict.bounds(c.places, c.compare)
	} else {
		switch values := any(c.values).(type) {
		case []int32:
			low, high = boundsOf[V](values)
		case []int64:
			low, high = boundsOf[V](values)
		default:
			low, high = c.values[0], c.values[0]
			for _, v := range c.values[1:] {
				low, high = widen(low, high, v, c.compare)
			}
		}
	}
	return boundsOfFloats(low, high)
}

// boundsOf is fast: it compares without a call.
func boundsOf[V any, N int32 | int64](values []N) (low, high V) {
	l, h := values[0], values[0]
	for _, v := range values {
		l, h = min(l, v), max(h, v)
	}
	low, _ = any(l).(V)
	high, _ = any(h).(V)
	return low, high
}

func boundsOfFloats[V any](low, high V) (V, V) {
	l, ok := any(low).(float64)
	h, _ := any(high).(float64)
	if !ok {
		return low, high
	}
	if math.IsNaN(l) || math.IsNaN(h) {
		l, h = math.Inf(-1), math.Inf(1)
	}
	if l == 0 {
		l = math.Copysign(0, -1)
	}
	if h == 0 {
		h = 0
	}
	low, _ = any(l).(V)
	high, _ = any(h).(V)
	return low, high
}

// plain encodes values as Parquet's plain encoding has them.
func (c *rowColumn[V]) plain(dst []byte, values []V) []byte {
	switch values := any(values).(type) {
	case []bool:
		for i, v := range values {
			if i%8 == 0 {
				dst = append(dst, 0)
			}
			if v {
				dst[len(dst)-1] |= 1 << (i % 8)
			}
		}
	case []string:
		for _, v := range values {
			dst = append(binary.LittleEndian.AppendUint32(dst, uint32(len(v))), v...)
		}
	case []float64:
		for _, v := range values {
			dst = appendFloat64(dst, v)
		}
	default:
		for _, v := range values.([]V) {
			dst = c.appended(dst, v)
		}
	}
	return dst
}

func encodeDelta[V any](dst []byte, values []V) ([]byte, error) {
	switch values := any(values).(type) {
	case []int32:
		return new(delta.BinaryPackedEncoding).EncodeInt32(dst, values)
	case []int64:
		return new(delta.BinaryPackedEncoding).EncodeInt64(dst, values)
	default:
		return dst, fmt.Errorf("delta encoding is for whole numbers, not %T", values)
	}
}

// endChunk implements columnData.
func (c *rowColumn[V]) endChunk() (*columnChunk, error) {
	if err := c.endPage(); err != nil {
		return nil, err
	}
	if c.dict != nil {
		if err := c.endDictionary(); err != nil {
			return nil, err
		}
	}
	chunk := c.chunk
	chunk.meta.Encoding = append(chunk.meta.Encoding, format.RLE) // of the levels
	if len(c.low) > 0 {
		s := &chunk.meta.Statistics
		s.MinValue, s.MaxValue = c.appended([]byte{}, slices.MinFunc(c.low, c.compare)), c.appended([]byte{}, slices.MaxFunc(c.high, c.compare))
	}
	if slices.IsSortedFunc(c.low, c.compare) && slices.IsSortedFunc(c.high, c.compare) {
		chunk.index.columns.BoundaryOrder = format.Ascending
	}
	c.begin()
	return chunk, nil
}

// endDictionary writes the dictionary of the chunk; pages that follow are plain.
func (c *rowColumn[V]) endDictionary() error {
	values := c.dict.values
	c.dict = nil
	if len(values) == 0 {
		return nil // nothing but nulls: no page names a place in it
	}
	header := &format.PageHeader{Type: format.DictionaryPage, DictionaryPageHeader: thrift.New(format.DictionaryPageHeader{
		NumValues: int32(len(values)), Encoding: format.Plain})}
	c.data = c.plain(c.data[:0], values)
	var err error
	c.chunk.dictionary, err = c.chunk.addPage(nil, header, nil, c.data, c.zip, c.better)
	c.chunk.addStats(format.DictionaryPage, format.Plain)
	return err
}

// A dictionary numbers the values of a chunk in the order in which they come.
type dictionary[V comparable] struct {
	places map[V]int32
	values []V
	last   int32 // values mostly repeat the one before
	bytes  int   // about what they take
	seen   []bool
}

func (d *dictionary[V]) place(v V) int32 {
	if len(d.values) > 0 && d.values[d.last] == v {
		return d.last
	}
	at, ok := d.places[v]
	if !ok {
		at = int32(len(d.values))
		d.places[v], d.values, d.seen = at, append(d.values, v), append(d.seen, false)
		d.bytes += int(unsafe.Sizeof(v))
		if s, ok := any(v).(string); ok {
			d.bytes += len(s)
		}
	}
	d.last = at
	return at
}

// bounds are the lowest and the highest of the values at these places.
func (d *dictionary[V]) bounds(places []int32, compare func(a, b V) int) (low, high V) {
	clear(d.seen)
	low, high = d.values[places[0]], d.values[places[0]]
	before := places[0]
	for _, at := range places {
		if at == before || d.seen[at] {
			continue
		}
		before, d.seen[at] = at, true
		low, high = widen(low, high, d.values[at], compare)
	}
	return low, high
}

// widen is for bounds that v is to lie within. The specification leaves NaN out.
func widen[V comparable](low, high, v V, compare func(a, b V) int) (V, V) {
	nan := func(x V) bool { return x != x }
	switch {
	case nan(v):
	case nan(low):
		return v, v
	case compare(v, low) < 0:
		return v, high
	case compare(v, high) > 0:
		return low, v
	}
	return low, high
}
