package plot_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/plot"
)

// fixed are samples that are held in memory.
type fixed []runner.Sample

func (f fixed) ReadSamples(yield func([]runner.Sample) error) error {
	for i := range f {
		if err := yield(f[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

func recording(t testing.TB) (*runner.Result, runner.SampleReader) {
	t.Helper()
	store, err := sinks.View(recorded.Folder(t, "h100-v0.26"), sinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	const dir = "runs/recording/recording-llama-3.1-8b-r1"
	r, err := sinks.ReadResult(filepath.Join(store.Dir(), dir, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	return r, store.Samples(dir)
}

// words are the texts of an SVG, joined; it must be well-formed.
func words(t testing.TB, svg []byte) string {
	t.Helper()
	var b strings.Builder
	d := xml.NewDecoder(bytes.NewReader(svg))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatalf("the SVG is not well-formed: %v", err)
		}
		if c, ok := tok.(xml.CharData); ok && len(c) < 2000 {
			b.Write(c)
			b.WriteByte('\n')
		}
	}
}

func TestDrawRecording(t *testing.T) {
	r, samples := recording(t)
	p, err := plot.Draw(r, samples, plot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(p.PNG))
	if err != nil {
		t.Fatal(err)
	}
	if w := img.Bounds().Dx(); w != 1200 {
		t.Errorf("the PNG is %d pixels wide, expected 1200", w)
	}
	text := words(t, p.SVG)
	for _, want := range []string{
		"engine_init", "load", "profile", "kv_alloc", "capture", "engine_warmup", "bench_warmup", "measure", "teardown",
		"loaded 16.22", "KV 72.19", "captured 73.18", "ready 73.97", "72.84 asked", "74.22 highest, driver", "72.57 vLLM's account",
		"GPU 0: memory in use, GiB", "power, W (the driver's average over a second)", "proved safe", "llama-3.1-8b",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	if !bytes.Contains(p.SVG, []byte("@font-face")) {
		t.Error("the SVG needs fonts of the system")
	}
	small, err := plot.Draw(r, samples, plot.Options{WidthPx: 300})
	if err != nil {
		t.Fatal(err)
	}
	again, err := plot.Draw(r, samples, plot.Options{WidthPx: 300})
	if err != nil || !bytes.Equal(small.PNG, again.PNG) || !bytes.Equal(small.SVG, again.SVG) {
		t.Errorf("the same run drawn twice differs (%v)", err)
	}
}

func TestDrawSaysSimulated(t *testing.T) {
	r, samples := recording(t)
	r.Run.Synthetic, r.ModelInfo.Model = true, "a <model> & more"
	p, err := plot.Draw(r, samples, plot.Options{WidthPx: 600})
	if err != nil {
		t.Fatal(err)
	}
	text := words(t, p.SVG)
	if !strings.Contains(text, "SIMULATED, not measured") || !strings.Contains(text, "a <model> & more") {
		t.Errorf("the picture says neither that it was simulated nor its title:\n%s", text)
	}
}

func TestDrawNothing(t *testing.T) {
	for name, samples := range map[string]runner.SampleReader{"no reader": nil, "no samples": fixed{}, "none of memory": fixed{{GPU: 0, Has: runner.HasPower}}} {
		if _, err := plot.Draw(&runner.Result{}, samples, plot.Options{}); !errors.Is(err, plot.ErrNoSamples) {
			t.Errorf("%s: error %v, expected ErrNoSamples", name, err)
		}
	}
}

type broken struct{}

var errBroken = errors.New("page CRC differs")

func (broken) ReadSamples(func([]runner.Sample) error) error { return errBroken }

func TestDrawBrokenSamples(t *testing.T) {
	if _, err := plot.Draw(&runner.Result{}, broken{}, plot.Options{}); !errors.Is(err, errBroken) {
		t.Errorf("error %v, expected the reader's", err)
	}
}

// TestDrawHost draws a machine without a GPU, from one sample too.
func TestDrawHost(t *testing.T) {
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	r := &runner.Result{Run: runner.RunInfo{StartedAt: start, EndedAt: start.Add(time.Minute), RunID: "cpu"}}
	var samples fixed
	for i := range 50 {
		samples = append(samples, runner.Sample{
			GPU: runner.HostGPU, TS: start.Add(time.Duration(i) * time.Second), Offset: time.Duration(i) * time.Second,
			Has: runner.HasHostRSS, HostRSS: int64(i) << 25,
		})
		if i != 0 && i != 49 {
			continue
		}
		p, err := plot.Draw(r, samples, plot.Options{WidthPx: 400})
		if err != nil {
			t.Fatalf("%d samples: %v", len(samples), err)
		}
		if text := words(t, p.SVG); !strings.Contains(text, "process tree: resident memory, GiB") {
			t.Errorf("%d samples: the picture does not say what it shows:\n%s", len(samples), text)
		}
	}
}

var update = flag.Bool("update", false, "draw the picture of the documentation anew")

// TestPicture draws the picture of docs/attribution.md; it is not compared to
// the pixel, because floating point differs between machines.
func TestPicture(t *testing.T) {
	const path = "../../../docs/attribution.png"
	r, samples := recording(t)
	p, err := plot.Draw(r, samples, plot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, p.PNG, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update draws it", err)
	}
	want, err := png.DecodeConfig(bytes.NewReader(p.PNG))
	if err != nil {
		t.Fatal(err)
	}
	got, err := png.DecodeConfig(bytes.NewReader(kept))
	if err != nil || got.Width != want.Width || got.Height != want.Height {
		t.Errorf("the picture of the documentation is stale (%v, %v): go test -update draws it anew", got, err)
	}
}

// TestPeakIsKept: one sample's peak in an hour of samples is in the picture's
// points, whatever the width.
func TestPeakIsKept(t *testing.T) {
	start := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	r := &runner.Result{Run: runner.RunInfo{StartedAt: start, EndedAt: start.Add(time.Hour)}, GPUInfo: []runner.Device{{}}}
	var samples fixed
	for i := range 36_000 {
		s := runner.Sample{Offset: time.Duration(i) * 100 * time.Millisecond, Has: runner.HasMemoryUsed, MemoryUsed: 1 << 30}
		s.TS = start.Add(s.Offset)
		if i == 17_017 {
			s.MemoryUsed = 64 << 30
		}
		samples = append(samples, s)
	}
	p, err := plot.Draw(r, samples, plot.Options{WidthPx: 400})
	if err != nil {
		t.Fatal(err)
	}
	if text := words(t, p.SVG); !strings.Contains(text, "60") {
		t.Errorf("the axis does not reach the peak of 64 GiB:\n%s", text)
	}
}

func BenchmarkDraw(b *testing.B) {
	r, samples := recording(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := plot.Draw(r, samples, plot.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
