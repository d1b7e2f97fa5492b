package simulate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

func testDevice(t *testing.T, count int) *Device {
	t.Helper()
	gpu, err := FindGPU("")
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDevice(filepath.Join(t.TempDir(), "state"), gpu, count)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// writeHolding publishes a state of a made-up process.
func writeHolding(t *testing.T, d *Device, name string, h holding) {
	t.Helper()
	data, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, name+holdingExt), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// procDir makes a /proc with processes: pid to (state, start).
func procDir(t *testing.T, stats map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for pid, stat := range stats {
		if err := os.MkdirAll(filepath.Join(dir, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, pid, "stat"), []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// holdAs makes this process hold memory of a simulated GPU, as another program
// would. The memory is given back by release, or when the process ends.
func holdAs(d *Device, gpu int, bytes int64, name string) (release func() error, err error) {
	h, err := newHolder(d.Dir, d.ProcRoot, os.Getpid(), gpu, name)
	if err != nil {
		return nil, err
	}
	err = h.set(d.Now(), func(s *holding) { s.Bytes, s.Foreign = bytes, 1 })
	return func() error {
		return errors.Join(h.file.Close(), os.Remove(h.file.Name()))
	}, err
}

// TestDeviceCountsTheLiving: a zombie, a process that ended and a pid that was
// given to another hold nothing; torn and foreign files are passed over.
func TestDeviceCountsTheLiving(t *testing.T) {
	d := testDevice(t, 2)
	stat := func(state, start string) string {
		return "1 (a) b) " + state + strings.Repeat(" 0", 18) + " " + start + " 0 0"
	}
	d.ProcRoot = procDir(t, map[string]string{
		"self": "", "1": stat("S", "100"), "2": stat("Z", "100"), "3": stat("R", "555"), "5": "garbage",
	})
	for pid, h := range map[string]holding{
		"1": {PID: 1, Started: 100, GPU: 0, Bytes: 1 << 30}, "2": {PID: 2, Started: 100, GPU: 0, Bytes: 2 << 30},
		"3": {PID: 3, Started: 100, GPU: 0, Bytes: 4 << 30}, "4": {PID: 4, Started: 100, GPU: 0, Bytes: 8 << 30},
		"5": {PID: 5, Started: 100, GPU: 0, Bytes: 16 << 30}, "1b": {PID: 1, Started: 100, GPU: 1, Bytes: 5 << 20},
		"1c": {PID: 1, Started: 100, GPU: 9, Bytes: 5 << 20},
	} {
		writeHolding(t, d, pid, h)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "torn"+holdingExt), []byte("VRSIM1"), 0o644); err != nil {
		t.Fatal(err)
	}
	devices, err := d.Devices(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if *devices[0].UsedBytes != 1<<30 || *devices[1].UsedBytes != 5<<20 {
		t.Errorf("used %d and %d, want %d and %d", *devices[0].UsedBytes, *devices[1].UsedBytes, 1<<30, 5<<20)
	}
	if d := devices[0]; d.Vendor != "simulated" || d.Source != "simulated" || !strings.Contains(d.Name, "simulated") {
		t.Errorf("a device does not say that it is simulated: %+v", devices[0])
	}
	if devices[0].UUID == devices[1].UUID || devices[0].PCIBusID == devices[1].PCIBusID {
		t.Error("two devices are the same")
	}
	if _, err := os.Stat(filepath.Join(d.Dir, "4"+holdingExt)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state of a process that ended is still there: %v", err)
	}
}

// TestEnergyAndTemperature: the counter never falls, also when a process ends,
// and runs with the power; the temperature follows it.
func TestEnergyAndTemperature(t *testing.T) {
	d := testDevice(t, 1)
	now := time.Unix(1_700_000_000, 0)
	d.Now = func() time.Time { return now }
	d.ProcRoot = procDir(t, map[string]string{"self": "", "1": "1 (x) S" + strings.Repeat(" 0", 18) + " 100 0"})
	first, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	idle := speedOf(d.GPU).idle
	writeHolding(t, d, "1", holding{
		PID: 1, Started: 100, Power: 500, Drain: 1000 - idle,
		Since: now.UnixNano(), Until: now.Add(10 * time.Second).UnixNano(),
	})
	now = now.Add(10 * time.Second)
	second, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	if got := second[0].energy - first[0].energy; got < 9999 || got > 10001 {
		t.Errorf("10 s of 1,000 W are %g J", got)
	}
	if second[0].power != 500 || second[0].celsius < first[0].celsius+10 {
		t.Errorf("power %g W, %g °C after %g °C", second[0].power, second[0].celsius, first[0].celsius)
	}
	if err := os.RemoveAll(filepath.Join(d.ProcRoot, "1")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	third, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	if got := third[0].energy - second[0].energy; got < idle-1 || got > idle+1 {
		t.Errorf("a second after the end took %g J, want %g", got, idle)
	}
	if third[0].power != idle || third[0].bytes != 0 {
		t.Errorf("after the end: %+v", third[0])
	}
}

// TestSampler keeps an absolute schedule: late ticks are missed and marked, and
// do not move the later ones. Its clock moves where the test says.
func TestSampler(t *testing.T) {
	d := testDevice(t, 2)
	start := time.Unix(1_700_000_000, 0)
	clock := start.Add(3 * time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sampler{Device: d, Interval: 10 * time.Millisecond, GPUs: []int{1}, StartedAt: start}
	s.now = func() time.Time { return clock }
	s.wait = func(ctx context.Context, until time.Time) bool {
		clock = until.Add(time.Millisecond) // it wakes a little late each time
		return ctx.Err() != nil
	}
	var all []runner.Sample
	report, err := s.Sample(ctx, func(tick []runner.Sample) {
		if len(tick) != 1 || tick[0].GPU != 1 {
			t.Errorf("a tick of GPU 1 alone is %+v", tick)
		}
		all = append(all, tick...)
		switch len(all) {
		case 3:
			clock = clock.Add(95 * time.Millisecond) // a slow sink
		case 6:
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.Ticks != 6 || report.Missed != 9 {
		t.Errorf("ticks %d, missed %d; want 6 and 9", report.Ticks, report.Missed)
	}
	for i, want := range []time.Duration{11, 21, 31, 131, 141, 151} {
		x := all[i]
		if x.Offset != want*time.Millisecond || x.Gap != (i == 3) || !x.TS.Equal(start.Add(x.Offset)) {
			t.Errorf("tick %d is at %v (%v), gap %v; want %d ms", i, x.Offset, x.TS, x.Gap, want)
		}
		if x.Has != sampleFields || x.Source != "simulated" {
			t.Errorf("tick %d: %+v", i, x)
		}
	}
	ms := report.IntervalMS
	if ms.Asked != 10 || ms.P50 == nil || *ms.P50 != 10 || report.Missing["host_rss"] == "" {
		t.Errorf("report %+v", report)
	}
}

// TestSamplerWithoutDevice fails where it never had a sample.
func TestSamplerWithoutDevice(t *testing.T) {
	d := testDevice(t, 1)
	if err := os.RemoveAll(d.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Dir, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := (&Sampler{Device: d, Interval: time.Millisecond}).Sample(ctx, func([]runner.Sample) { t.Error("a sample") })
	if err == nil {
		t.Error("no error without a device")
	}
}

func TestNewDeviceErrors(t *testing.T) {
	gpu, err := FindGPU("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewDevice(t.TempDir(), gpu, 0); err == nil {
		t.Error("a machine without GPUs")
	}
	if _, err := FindGPU("h1000"); err == nil || !strings.Contains(err.Error(), "h100-80gb") {
		t.Errorf("an unknown GPU: %v", err)
	}
}

func BenchmarkDeviceRead(b *testing.B) {
	gpu, err := FindGPU("")
	if err != nil {
		b.Fatal(err)
	}
	d, err := NewDevice(b.TempDir(), gpu, 1)
	if err != nil {
		b.Fatal(err)
	}
	release, err := holdAs(d, 0, 1<<30, "bench")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.read(); err != nil {
			b.Fatal(err)
		}
	}
	if err := release(); err != nil {
		b.Fatal(err)
	}
}
