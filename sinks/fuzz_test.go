package sinks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// journalBytes is a sound journal and its index.
func journalBytes(t testing.TB, samples []runner.Sample, batch int) (data, index []byte) {
	t.Helper()
	dir := t.TempDir()
	files := make([]*os.File, 2)
	for i, name := range []string{journalName, journalIndex} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[i] = f
	}
	j, err := newJournal(files[0], files[1])
	if err != nil {
		t.Fatal(err)
	}
	for len(samples) > 0 {
		n := min(batch, len(samples))
		if err := j.add(samples[:n], 0); err != nil {
			t.Fatal(err)
		}
		if err := j.flush(); err != nil {
			t.Fatal(err)
		}
		samples = samples[n:]
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile(filepath.Join(dir, journalName))
	if err == nil {
		index, err = os.ReadFile(filepath.Join(dir, journalIndex))
	}
	if err != nil {
		t.Fatal(err)
	}
	return data, index
}

func readAll(t testing.TB, data, index []byte) ([]runner.Sample, JournalReport) {
	t.Helper()
	var got []runner.Sample
	report, err := readJournal(bytes.NewReader(data), int64(len(data)), index, func(b []runner.Sample) error {
		got = append(got, b...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, report
}

func TestJournalKeepsSamplesExactly(t *testing.T) {
	samples := (&testRun{started: testStart, inputLen: 7, batch: 3, gpus: 3, seconds: 20}).samples()
	data, index := journalBytes(t, samples, 31)
	got, report := readAll(t, data, index)
	if diff := cmp.Diff(samples, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if report.Reason != "" || report.Lost != 0 || report.Samples != int64(len(samples)) {
		t.Errorf("%+v", report)
	}
}

// sameSample is cmp.Equal, and fast.
func sameSample(a, b runner.Sample) bool {
	same := a.TS.Equal(b.TS)
	a.TS = b.TS
	return same && a == b
}

// TestJournalCutAnywhere cuts at every byte: what is whole comes back, in order,
// unchanged.
func TestJournalCutAnywhere(t *testing.T) {
	samples := (&testRun{started: testStart, inputLen: 7, batch: 3, gpus: 1, seconds: 1}).samples()
	const batch = 4 // three batches, the last one shorter
	data, index := journalBytes(t, samples, batch)
	for cut := range data {
		got, report := readAll(t, data[:cut], index)
		whole := 0
		for e := index; len(e) >= indexEntry; e = e[indexEntry:] {
			if int(binary.LittleEndian.Uint64(e))+int(binary.LittleEndian.Uint32(e[8:])) <= cut {
				whole++
			}
		}
		want := min(len(samples), max(0, whole-1)*batch) // the first chunk is the schema
		if len(got) != want || !slices.EqualFunc(got, samples[:want], sameSample) {
			t.Fatalf("cut at %d: %d samples, expected %d", cut, len(got), want)
		}
		if report.Reason == "" {
			t.Fatalf("cut at %d: the report says nothing", cut)
		}
	}
	for cut := range index {
		if got, _ := readAll(t, data, index[:cut]); !slices.EqualFunc(got, samples[:min(len(got), len(samples))], sameSample) {
			t.Fatalf("index cut at %d: other samples", cut)
		}
	}
}

// TestJournalKeepsWhatFollowsDamage: a flipped byte costs the batch that it is in, and no other.
func TestJournalKeepsWhatFollowsDamage(t *testing.T) {
	samples := (&testRun{started: testStart, inputLen: 7, batch: 3, gpus: 1, seconds: 6}).samples()
	const batch = 4
	data, index := journalBytes(t, samples, batch)
	for at := range data {
		d := bytes.Clone(data)
		d[at] ^= 0x10
		got, report := readAll(t, d, index)
		if len(got) < len(samples)-batch || report.Reason == "" {
			t.Fatalf("a byte at %d of %d changed: %d samples of %d, %q", at, len(data), len(got), len(samples), report.Reason)
		}
	}
	for at := range index {
		i := bytes.Clone(index)
		i[at] ^= 0x10
		if got, _ := readAll(t, data, i); len(got) < len(samples)-batch {
			t.Fatalf("byte %d of the index changed: %d samples of %d", at, len(got), len(samples))
		}
	}
}

// FuzzJournal damages a sound journal: whatever comes back stood in it, and
// nothing panics. A changed sample that is accepted would be a wrong number.
func FuzzJournal(f *testing.F) {
	samples := (&testRun{started: testStart, inputLen: 7, batch: 3, gpus: 1, seconds: 6}).samples()
	data, index := journalBytes(f, samples, 11)
	f.Add(uint32(100), []byte{1}, uint32(0), []byte{}, uint32(0))
	f.Add(uint32(len(data)-50), bytes.Repeat([]byte{0}, 50), uint32(0), []byte{}, uint32(0))
	f.Add(uint32(0), []byte{}, uint32(20), []byte{0xff}, uint32(100))
	f.Fuzz(func(t *testing.T, at uint32, xor []byte, indexAt uint32, indexXor []byte, cut uint32) {
		d, i := bytes.Clone(data), bytes.Clone(index)
		for n, b := range xor {
			d[(int(at%uint32(len(d)))+n)%len(d)] ^= b
		}
		for n, b := range indexXor {
			i[(int(indexAt%uint32(len(i)))+n)%len(i)] ^= b
		}
		d = d[:len(d)-int(cut%uint32(len(d)))]
		got, _ := readAll(t, d, i)
		next := 0
		for n := range got { // what is lost is lost as a whole batch; the rest keeps its order
			for next < len(samples) && !sameSample(samples[next], got[n]) {
				next++
			}
			if next == len(samples) {
				t.Fatalf("sample %d of %d is none of those that were written", n, len(got))
			}
			next++
		}
	})
}

// FuzzJournalBytes reads any bytes whose checksums are right: only Arrow's own
// decoding stands between them and a crash.
func FuzzJournalBytes(f *testing.F) {
	samples := (&testRun{started: testStart, inputLen: 7, batch: 3, gpus: 1, seconds: 1}).samples()
	data, index := journalBytes(f, samples, 5)
	f.Add(data, index)
	f.Add([]byte("ARROW1"), []byte{})
	f.Fuzz(func(t *testing.T, data, index []byte) {
		readAll(t, data, index)
	})
}

// FuzzParquet damages a file of the table runs and one of timelines.
func FuzzParquet(f *testing.F) {
	runs := parquetBytes(f, []RunRow{RowsOf(night(0)[0].result()).Run, RowsOf(night(0)[1].result()).Run}, mergeAxes(nil, []RunRow{{Axes: map[string]any{"a": int64(1), "b": "x"}}}))
	lines := timelineBytes(f)
	f.Add(uint32(500), []byte{1}, uint32(0), true)
	f.Add(uint32(len(lines)-100), []byte{0xff, 0xff, 0xff}, uint32(0), false)
	f.Add(uint32(4), []byte{0x7f}, uint32(9), false)
	f.Fuzz(func(t *testing.T, at uint32, xor []byte, cut uint32, first bool) {
		b := lines
		if first {
			b = runs
		}
		b = bytes.Clone(b)
		for n, x := range xor {
			b[(int(at%uint32(len(b)))+n)%len(b)] ^= x
		}
		b = b[:len(b)-int(cut%uint32(len(b)))]
		scan[RunRow](b)
		scan[TimelineRow](b)
	})
}

// scan reads bytes as a table; errors are as good as rows, panics are not.
func scan[T Row](b []byte) {
	f, err := table.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	f.Marks()
	_ = tableOf[T]().read(f, Predicate{Execution: "20261120T020000Z-000000"}, func([]T) error { return nil })
	f.Check()
}

func parquetBytes[T Row](t testing.TB, rows []T, axes []table.Axis) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tableOf[T]().writer(&b, "test", axes, []Mark{{Execution: "e", Final: true}})
	if err := errors.Join(w.Write(rows), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func timelineBytes(t testing.TB) []byte {
	t.Helper()
	run := &testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "s", model: "m", inputLen: 7, batch: 3, gpus: 2, seconds: 10}
	var b bytes.Buffer
	w := tableOf[TimelineRow]().writer(&b, "test", nil, nil)
	samples := run.samples()
	err := writeTimeline(run.result(), func(yield func([]runner.Sample) error) error { return yield(samples) }, w)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// FuzzResult reads any JSON as run.json: what is read can be written, read
// again and turned into rows.
func FuzzResult(f *testing.F) {
	var b bytes.Buffer
	if err := EncodeResult(&b, night(0)[0].result()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"schema_version":"3.0","run":{"axes":{"a":1e400,"b":[1],"c":null,"d":9007199254740993}}}`))
	f.Add([]byte(`{"schema_version":"3.1","run":{"axes":{"a":{"x":0.5}}},"phases":[{"started_at":"0001-01-01T00:00:00Z"}],"latency_stats":{"percentiles":{"p99":1}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeResult(bytes.NewReader(b))
		if err != nil {
			return
		}
		rows := RowsOf(r)
		var again bytes.Buffer
		if err := EncodeResult(&again, r); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		r2, err := DecodeResult(bytes.NewReader(again.Bytes()))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if diff := cmp.Diff(rows, RowsOf(r2)); diff != "" {
			t.Errorf("the rows changed (-first +second):\n%s", diff)
		}
		parquetBytes(t, []RunRow{rows.Run}, mergeAxes(nil, []RunRow{rows.Run}))
	})
}

func TestChecksumIsCastagnoli(t *testing.T) {
	if crc32.Checksum([]byte("123456789"), castagnoli()) != 0xe3069283 { // the check value of CRC-32C
		t.Error("not CRC-32C")
	}
}
