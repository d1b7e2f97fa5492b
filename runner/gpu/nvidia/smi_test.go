package nvidia

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// TestSMIDatesBatches feeds rows that waited in the pipe: they are dated by the
// tool's stamps; rows with no stamp to believe are spread over the wait.
func TestSMIDatesBatches(t *testing.T) {
	r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
	if err != nil {
		t.Fatal(err)
	}
	var got []time.Duration
	src := newSMISource(sampling.Options{}, r, []smiDevice{{index: 0}})
	src.query.cols = pick("timestamp", "index", "memory.used")
	st := newSMIStream(src, sampling.NewMeter(r.Interval, r.Epoch, func(s []runner.Sample) { got = append(got, s[0].Offset) }))
	batch := func(now time.Time, shift time.Duration, ages ...time.Duration) {
		got = nil
		for _, age := range ages {
			st.line([]byte(now.Add(-age-shift).UTC().Format("2006/01/02 15:04:05.000")+", 0, 100"), now)
		}
		st.Drained(now)
	}
	now := r.Epoch.Add(time.Second)
	batch(now, 0, 45*time.Millisecond, 35*time.Millisecond, 25*time.Millisecond, 15*time.Millisecond, 5*time.Millisecond)
	for i, off := range got {
		if want := time.Second - time.Duration(45-10*i)*time.Millisecond; off < want-2*time.Millisecond || off > want+2*time.Millisecond {
			t.Errorf("row %d is dated %v, want %v", i, off, want)
		}
	}
	if !st.Patient() {
		t.Fatal("stamps that agree are not believed")
	}
	now = now.Add(50 * time.Millisecond)
	batch(now, time.Hour, 45*time.Millisecond, 35*time.Millisecond, 25*time.Millisecond) // the clock was set an hour back
	if st.Patient() {
		t.Error("a clock that was set is believed")
	}
	for i := 1; i < len(got); i++ {
		if d := got[i] - got[i-1]; d < 9*time.Millisecond || d > 11*time.Millisecond {
			t.Errorf("rows that waited together are %v apart", d)
		}
	}
	now = now.Add(10 * time.Millisecond)
	batch(now, time.Hour, 0)
	if got[0] != now.Sub(r.Epoch) {
		t.Errorf("dated %v, want its arrival %v", got[0], now.Sub(r.Epoch))
	}
}

// TestSMIFrozenRows feeds rows that are repeated: with one stamp of milliseconds
// they are no samples at once, with one of seconds after a second.
func TestSMIFrozenRows(t *testing.T) {
	r, err := sampling.Run{}.Check()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		stamp, used string
		want        int
	}{
		{"2026/12/01 03:00:00.123", "100", 1}, {"2026/12/01 03:00:00", "100", 11}, {"[N/A]", "100", 20},
		{"2026/12/01 03:00:00.123", "", 20}, // figures that move are no frozen rows
	} {
		src := newSMISource(sampling.Options{}, r, []smiDevice{{index: 0}})
		src.query.cols = pick("timestamp", "index", "memory.used")
		n := 0
		m := sampling.NewMeter(r.Interval, r.Epoch, func(s []runner.Sample) { n += len(s) })
		st := newSMIStream(src, m)
		for i := range 20 {
			used := tt.used
			if used == "" {
				used = strconv.Itoa(i)
			}
			st.line([]byte(tt.stamp+", 0, "+used), r.Epoch.Add(time.Duration(i)*r.Interval))
		}
		if n != tt.want {
			t.Errorf("%s: %d samples of 20 rows, want %d", tt.stamp, n, tt.want)
		}
	}
}

// TestSMIRecordedStream feeds what a real nvidia-smi -lms 10 wrote on two H100s
// through the stream, in pieces of several sizes.
func TestSMIRecordedStream(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "nvidia-smi_query-gpu-lms10_H100x2_580.csv"))
	if err != nil {
		t.Fatal(err)
	}
	cols := pick("timestamp", "index", "memory.used", "utilization.gpu", "power.draw.instant", "temperature.gpu")
	for _, piece := range []int{1, 7, 100, 4096, len(data)} {
		r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
		if err != nil {
			t.Fatal(err)
		}
		src := newSMISource(sampling.Options{}, r, []smiDevice{{index: 0}, {index: 1}})
		src.query.cols = cols
		var got []runner.Sample
		ticks := 0
		st := newSMIStream(src, sampling.NewMeter(r.Interval, r.Epoch, func(s []runner.Sample) { got = append(got, s...); ticks++ }))
		for b := data; len(b) > 0; {
			n := min(piece, len(b))
			if _, err := st.Write(b[:n]); err != nil {
				t.Fatal(err)
			}
			b = b[n:]
		}
		st.close()
		if len(got) != 200 || ticks != 100 {
			t.Fatalf("pieces of %d: %d samples in %d ticks, want 200 in 100", piece, len(got), ticks)
		}
		if s := got[0]; s.Power != 71.24 || s.Temperature != 37 || s.MemoryUsed != 0 || s.Has&runner.HasMemoryUsed == 0 {
			t.Errorf("first sample %+v", s)
		}
		peak := int64(0)
		for _, s := range got {
			peak = max(peak, s.MemoryUsed)
		}
		if want := recordedPeak(data); peak != want<<20 {
			t.Errorf("peak %d MiB, want %d", peak>>20, want)
		}
	}
}

// recordedPeak is the highest memory.used, found without the code under test.
func recordedPeak(data []byte) int64 {
	peak := int64(0)
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		v, err := strconv.ParseInt(strings.Split(line, ", ")[2], 10, 64)
		if err == nil {
			peak = max(peak, v)
		}
	}
	return peak
}

func pick(names ...string) []smiColumn {
	var out []smiColumn
	for _, n := range names {
		for _, c := range smiColumns() {
			if c.name == n {
				out = append(out, c)
			}
		}
	}
	return out
}

func FuzzSMIRow(f *testing.F) {
	f.Add("2026/11/23 18:55:49.600, 0, 00000000:00:06.0, 0, 480, 81559, 71.24, 71.22, 37, 39, 0, 0, 345, 2619, 0x0000000000000001")
	f.Add("2026/11/23 18:55:49.600, 0, x, [N/A], [GPU requires reset], 81559 MiB, ERR!, -1, 37, 39, 0 %, 0, 345, 2619, 1")
	f.Fuzz(func(t *testing.T, line string) {
		var row smiRow
		if !parseSMIRow([]byte(line), smiColumns(), &row, func(runner.Fields, []byte) {}) {
			return
		}
		s := row.sample
		if s.Has&runner.HasMemoryUsed == 0 && s.MemoryUsed != 0 {
			t.Errorf("%q: memory without its bit", line)
		}
		if s.Has&sampling.MemoryFields == sampling.MemoryFields && s.MemoryUsed > s.MemoryTotal+s.MemoryTotal/64 {
			t.Errorf("%q: more in use than there is", line)
		}
	})
}

// The parts of a tick without the operating system.

func BenchmarkSMIRow(b *testing.B) {
	line := []byte("2026/11/23 18:55:49.600, 0, 00000000:00:06.0" + benchRow)
	cols := smiColumns()
	var row smiRow
	miss := func(runner.Fields, []byte) {}
	b.ReportAllocs()
	for b.Loop() {
		if !parseSMIRow(line, cols, &row, miss) {
			b.Fatal("no row")
		}
	}
}

const benchRow = ", 12345, 480, 81559, 71.24, 71.22, 37, 39, 50, 25, 1980, 2619, 0x0000000000000004"

// BenchmarkSMITick is a tick of 8 GPUs from bytes to samples.
func BenchmarkSMITick(b *testing.B) {
	r, err := sampling.Run{Interval: 10 * time.Millisecond}.Check()
	if err != nil {
		b.Fatal(err)
	}
	var devices []smiDevice
	var ticks [2][]byte // one after the other: a row that is repeated is no sample
	for g := range 8 {
		devices = append(devices, smiDevice{index: int32(g), busID: "00000000:0" + strconv.Itoa(g) + ":00.0"})
		n := strconv.Itoa(g)
		for i := range ticks {
			row := "2026/11/23 18:55:49.6" + strconv.Itoa(i) + "0, " + n + ", 00000000:0" + n + ":00.0" + benchRow + "\n"
			ticks[i] = append(ticks[i], row...)
		}
	}
	src := newSMISource(sampling.Options{}, r, devices)
	src.query.cols = smiColumns()
	n := 0
	st := newSMIStream(src, sampling.NewMeter(r.Interval, r.Epoch, func(s []runner.Sample) { n += len(s) }))
	b.ReportAllocs()
	loops := 0
	for b.Loop() {
		if _, err := st.Write(ticks[loops%2]); err != nil {
			b.Fatal(err)
		}
		loops++
	}
	if n != 8*loops {
		b.Fatalf("%d samples of %d ticks", n, loops)
	}
}
