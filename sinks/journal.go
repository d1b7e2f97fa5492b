package sinks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/vramsweep/vramsweep/runner"
)

// The journal of a run: an Arrow IPC stream (plain utf8, LZ4), some record batches
// a second, each written with one write(2), so that a SIGKILL loses what was
// not yet written and nothing else. Arrow checks nothing when it reads: beside
// the stream stands an index of 16 bytes a chunk (offset, length, CRC32C; the
// first chunk is the schema), and only chunks that it vouches for are decoded.
const (
	journalName  = "journal.arrows"
	journalIndex = "journal.idx"
	indexEntry   = 16
	maxChunk     = 64 << 20 // a longer chunk is no chunk of ours
	maxBatchRows = 8192
	maxPending   = 32 << 20 // chunks that a full disk refused and that are tried again
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// journalSchema is the sample as it is: nanoseconds, and null for what Has
// lacks. Readers of today and of old journals go by position.
func journalSchema() *arrow.Schema {
	fields := []arrow.Field{
		{Name: "gpu_index", Type: arrow.PrimitiveTypes.Int32}, // -1: the host
		{Name: "ts", Type: &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}},
		{Name: "t_offset_ns", Type: arrow.PrimitiveTypes.Int64},
		{Name: "read_ns", Type: arrow.PrimitiveTypes.Int64},
		{Name: "gap", Type: arrow.FixedWidthTypes.Boolean},
		{Name: "source", Type: arrow.BinaryTypes.String},
	}
	for _, f := range figuresOf(&runner.Sample{}, &TimelineRow{}) {
		kind := arrowType(sqlType(reflect.TypeOf(f.value).Elem()))
		fields = append(fields, arrow.Field{Name: f.column, Type: kind, Nullable: true})
	}
	return arrow.NewSchema(fields, nil)
}

// firstFigure is the column of the first figure.
const firstFigure = 6

// A journal is open for appending, from any goroutine. Samples are taken under
// one lock and written under another, so that no tick of a sampler waits for
// a disk.
type journal struct {
	data, index *os.File

	in    sync.Mutex // of what is taken
	build *array.RecordBuilder
	rows  int       // in the builder
	ended bool      // it takes no more
	since time.Time // when the oldest row in the builder was taken
	fault error     // of the last write or sync; nil: it went well

	out         sync.Mutex // of what is written; taken before in
	buf         bytes.Buffer
	stream      *ipc.Writer // writes to buf
	end         int64       // of the last good chunk
	pending     [][]byte    // encoded, not yet written
	pendingSize int
	dropped     int64 // chunks that never found room
}

func newJournal(data, index *os.File) (*journal, error) {
	j := &journal{data: data, index: index}
	schema := journalSchema()
	j.build = array.NewRecordBuilder(memory.DefaultAllocator, schema)
	j.stream = ipc.NewWriter(&j.buf, ipc.WithSchema(schema), ipc.WithLZ4(), ipc.WithAllocator(memory.DefaultAllocator))
	return j, j.flush() // an empty batch brings the schema out
}

// add takes samples into the next batch. It writes the batch itself where that
// is large, or older than limit because the machine let nobody else do so: what
// a SIGKILL may take does not depend on the scheduler. A disk that is at work
// already is not waited for. The error is that of the last write, too.
func (j *journal) add(samples []runner.Sample, limit time.Duration) error {
	j.in.Lock()
	if j.ended {
		j.in.Unlock()
		return errEnded
	}
	before := j.fault
	if j.rows == 0 {
		j.since = time.Now()
	}
	for i := range samples {
		j.append(&samples[i])
	}
	j.rows += len(samples)
	due := j.rows >= maxBatchRows || limit > 0 && time.Since(j.since) >= limit
	j.in.Unlock()
	if !due || !j.out.TryLock() {
		return before
	}
	defer j.out.Unlock()
	return errors.Join(j.flushLocked(), before)
}

func (j *journal) append(s *runner.Sample) {
	b := j.build
	b.Field(0).(*array.Int32Builder).Append(s.GPU)
	b.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(s.TS.UnixNano()))
	b.Field(2).(*array.Int64Builder).Append(int64(s.Offset))
	b.Field(3).(*array.Int64Builder).Append(int64(s.Read))
	b.Field(4).(*array.BooleanBuilder).Append(s.Gap)
	b.Field(5).(*array.StringBuilder).Append(s.Source)
	for i, f := range figuresOf(s, &TimelineRow{}) {
		if s.Has&f.has == 0 {
			f.value = nil
		}
		appendValue(b.Field(firstFigure+i), f.value)
	}
}

// flush encodes the batch and writes it. A write that fails is tried again
// with the next flush.
func (j *journal) flush() error {
	j.out.Lock()
	defer j.out.Unlock()
	return j.flushLocked()
}

// flushLocked is flush for who holds out.
func (j *journal) flushLocked() (err error) {
	defer func() { j.fail(err) }()
	j.in.Lock()
	var batch arrow.Record
	if !j.ended && (j.rows > 0 || j.end == 0 && len(j.pending) == 0) {
		batch = j.build.NewRecord()
		j.rows = 0
	}
	j.in.Unlock()
	if batch != nil {
		if err := j.encode(batch); err != nil {
			return err
		}
	}
	for len(j.pending) > 0 {
		if err := j.write(j.pending[0]); err != nil {
			return err
		}
		j.pendingSize -= len(j.pending[0])
		j.pending = j.pending[1:]
	}
	return nil
}

// fail keeps the error of the last write or sync; nil: it went well.
func (j *journal) fail(err error) {
	j.in.Lock()
	defer j.in.Unlock()
	j.fault = err
}

func (j *journal) encode(batch arrow.Record) error {
	defer batch.Release()
	j.buf.Reset()
	if err := j.stream.Write(batch); err != nil {
		return fmt.Errorf("encoding a batch of samples: %w", err)
	}
	if j.pendingSize+j.buf.Len() > maxPending {
		j.dropped++
		return nil
	}
	j.pending = append(j.pending, bytes.Clone(j.buf.Bytes()))
	j.pendingSize += j.buf.Len()
	return nil
}

// reach flushes and says how far the journal then reaches, and how many chunks
// never found room.
func (j *journal) reach() (end, dropped int64, err error) {
	j.out.Lock()
	defer j.out.Unlock()
	err = j.flushLocked()
	return j.end, j.dropped, err
}

func (j *journal) write(chunk []byte) error {
	if _, err := j.data.WriteAt(chunk, j.end); err != nil {
		return errors.Join(err, j.data.Truncate(j.end))
	}
	entry := binary.LittleEndian.AppendUint64(nil, uint64(j.end))
	entry = binary.LittleEndian.AppendUint32(entry, uint32(len(chunk)))
	entry = binary.LittleEndian.AppendUint32(entry, crc32.Checksum(chunk, castagnoli()))
	info, err := j.index.Stat()
	if err != nil {
		return err
	}
	at := info.Size() / indexEntry * indexEntry
	if _, err := j.index.WriteAt(entry, at); err != nil {
		return errors.Join(err, j.index.Truncate(at), j.data.Truncate(j.end))
	}
	j.end += int64(len(chunk))
	return nil
}

func (j *journal) sync() error { return errors.Join(j.data.Sync(), j.index.Sync()) }

// errEnded says that samples came after the end of their run.
var errEnded = errors.New("the run is finished: it takes no more samples")

func (j *journal) close() error {
	j.out.Lock()
	defer j.out.Unlock()
	j.in.Lock()
	defer j.in.Unlock()
	if !j.ended {
		j.ended = true
		j.build.Release()
	}
	return errors.Join(j.data.Close(), j.index.Close())
}

// A chunkReader gives the chunks of a journal that its index vouches for, and
// then io.EOF. Each stands by its own checksum: one that is damaged costs its
// own samples.
type chunkReader struct {
	data    io.ReaderAt
	size    int64
	index   []byte
	good    int64 // bytes of good chunks
	from    int64 // where the next one stands at least
	chunk   []byte
	at      int
	entry   int    // of the index, the next one
	ended   bool   // nothing more is read
	stopped string // the first thing that was wrong; "": nothing
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for r.at == len(r.chunk) {
		if !r.next() {
			return 0, io.EOF
		}
	}
	n := copy(p, r.chunk[r.at:])
	r.at += n
	return n, nil
}

// next finds the next good chunk.
func (r *chunkReader) next() bool {
	for !r.ended && len(r.index) >= (r.entry+1)*indexEntry {
		ok := r.load(r.index[r.entry*indexEntry:])
		r.entry++
		if !ok && r.entry == 1 {
			r.chunk, ok = schemaChunk(), true // it is always the same
		}
		if ok {
			r.at = 0
			return true
		}
	}
	if rest := len(r.index) % indexEntry; rest > 0 && !r.ended {
		r.wrong("the index ends within an entry")
	}
	r.chunk, r.at, r.ended = nil, 0, true
	return false
}

func (r *chunkReader) load(entry []byte) bool {
	offset, length := int64(binary.LittleEndian.Uint64(entry)), int64(binary.LittleEndian.Uint32(entry[8:]))
	if offset < r.from || length == 0 || length > maxChunk || offset > r.size-length {
		return r.wrong("entry %d of the index names %d bytes at byte %d of %d", r.entry, length, offset, r.size)
	}
	r.chunk = slices.Grow(r.chunk[:0], int(length))[:length]
	if _, err := r.data.ReadAt(r.chunk, offset); err != nil {
		return r.wrong("batch %d at byte %d is cut off", r.entry, offset)
	}
	if crc32.Checksum(r.chunk, castagnoli()) != binary.LittleEndian.Uint32(entry[12:]) {
		return r.wrong("batch %d at byte %d does not match its checksum", r.entry, offset)
	}
	r.good, r.from = r.good+length, offset+length
	return true
}

// wrong notes what is wrong; the first reason counts.
func (r *chunkReader) wrong(format string, args ...any) bool {
	if r.stopped == "" {
		r.stopped = fmt.Sprintf(format, args...)
	}
	return false
}

// schemaChunk is the first chunk of every journal.
func schemaChunk() []byte {
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(journalSchema()), ipc.WithLZ4(), ipc.WithAllocator(memory.DefaultAllocator))
	build := array.NewRecordBuilder(memory.DefaultAllocator, journalSchema())
	defer build.Release()
	empty := build.NewRecord()
	defer empty.Release()
	if w.Write(empty) != nil { // a buffer takes all
		return nil
	}
	return b.Bytes()
}

// A JournalReport says how much of a journal could be read.
type JournalReport struct {
	Samples int64
	Bytes   int64  // of good batches
	Lost    int64  // bytes that are of no good batch
	Reason  string // what was wrong first; "": nothing
}

// readJournal yields the batches of a journal in the order of writing. The
// slice is reused. Damage ends the reading and stands in the report; it is not an error.
func readJournal(data io.ReaderAt, size int64, index []byte, yield func([]runner.Sample) error) (
	report JournalReport, err error,
) {
	chunks := &chunkReader{data: data, size: size, index: index}
	defer func() {
		if p := recover(); p != nil { // Arrow panics on some malformed input
			chunks.wrong("batch %d: %v", chunks.entry-1, p)
		}
		report.Bytes, report.Lost, report.Reason = chunks.good, size-chunks.good, chunks.stopped
		if report.Reason == "" && report.Lost > 0 {
			report.Reason = fmt.Sprintf("%d bytes at the end are not in the index", report.Lost)
		}
	}()
	if len(index) == 0 {
		return report, nil
	}
	reader, rerr := ipc.NewReader(chunks, ipc.WithAllocator(memory.DefaultAllocator))
	if rerr != nil {
		chunks.wrong("the schema cannot be read: %v", rerr)
		return report, nil
	}
	defer reader.Release()
	if !reader.Schema().Equal(journalSchema()) {
		chunks.wrong("the schema is not that of a journal of this version")
		return report, nil
	}
	var samples []runner.Sample
	for reader.Next() {
		samples = samplesOf(reader.Record(), samples[:0])
		if len(samples) == 0 {
			continue
		}
		report.Samples += int64(len(samples))
		if err := yield(samples); err != nil {
			return report, err
		}
	}
	if err := reader.Err(); err != nil && !errors.Is(err, io.EOF) {
		chunks.wrong("batch %d: %v", chunks.entry-1, err)
	}
	return report, nil
}

func samplesOf(rec arrow.Record, samples []runner.Sample) []runner.Sample {
	gpu, ts := rec.Column(0).(*array.Int32), rec.Column(1).(*array.Timestamp)
	offset, read := rec.Column(2).(*array.Int64), rec.Column(3).(*array.Int64)
	gap, source := rec.Column(4).(*array.Boolean), rec.Column(5).(*array.String)
	last := ""
	for i := range int(rec.NumRows()) {
		if v := source.Value(i); v != last { // v lives in the batch: copy it, once per change
			last = strings.Clone(v)
		}
		samples = append(samples, runner.Sample{GPU: gpu.Value(i), TS: time.Unix(0, int64(ts.Value(i))).UTC(),
			Offset: time.Duration(offset.Value(i)), Read: time.Duration(read.Value(i)), Gap: gap.Value(i), Source: last})
		figuresFromColumns(&samples[len(samples)-1], rec.Columns()[firstFigure:], i)
	}
	return samples
}
