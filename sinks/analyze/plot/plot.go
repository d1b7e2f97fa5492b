// Package plot draws a run: the memory of each GPU over time with the phases
// shaded, vLLM's account beside the driver's as levels, a close-up of what
// lies between the KV allocation and the end of measuring, and the power
// below. It draws from a Result and its samples, to SVG and PNG.
//
// It uses gonum/plot's canvases and the Liberation fonts that come with it;
// no font of the system. Lines differ in dash as well as in colour, and
// colours in lightness, so that a picture holds in grey.
package plot

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/font/liberation"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/vramsweep/vramsweep/runner"
)

// Options of a picture. The zero value is good.
type Options struct {
	WidthPx int // of the PNG; 0: 1200. Heights follow from the number of GPUs.
}

// ErrNoSamples says that there is nothing to draw.
var ErrNoSamples = errors.New("the run has no samples of memory: nothing to draw")

const (
	defaultWidthPx = 1200
	dpi            = 96
)

// A Picture is a drawn run.
type Picture struct {
	SVG []byte // its fonts are in it
	PNG []byte
}

// Draw draws a run. samples yields its samples ordered by time; it is read
// once. The error is ErrNoSamples, or that of samples or of a canvas.
func Draw(r *runner.Result, samples runner.SampleReader, o Options) (*Picture, error) {
	if o.WidthPx <= 0 {
		o.WidthPx = defaultWidthPx
	}
	if r == nil || samples == nil {
		return nil, ErrNoSamples
	}
	s, err := newScene(r, samples, o)
	if err != nil {
		return nil, err
	}
	w, h := pixels(o.WidthPx), pixels(s.heightPx())
	img := vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(dpi))
	s.draw(draw.New(img))
	var png bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: img}).WriteTo(&png); err != nil {
		return nil, fmt.Errorf("drawing the PNG: %w", err)
	}
	vec := vgsvg.NewWith(vgsvg.UseWH(w, h), vgsvg.EmbedFonts(true))
	s.draw(draw.New(vec))
	var svg bytes.Buffer
	if _, err := vec.WriteTo(&svg); err != nil {
		return nil, fmt.Errorf("drawing the SVG: %w", err)
	}
	return &Picture{SVG: svg.Bytes(), PNG: png.Bytes()}, nil
}

func pixels(n int) vg.Length { return vg.Length(n) * vg.Inch / dpi }

// A scene is all that is drawn, in figures.
type scene struct {
	o      Options
	r      *runner.Result
	tracks []*track
	power  bool
	kind   string
	from   float64 // seconds, of the whole run
	to     float64
	closeX [2]float64 // seconds, of the close-up
	close  bool
	text   text.Handler
	fonts  *font.Cache
}

func newScene(r *runner.Result, samples runner.SampleReader, o Options) (*scene, error) {
	fonts := font.NewCache(liberation.Collection())
	s := &scene{o: o, r: r, fonts: fonts, text: text.Plain{Fonts: fonts}}
	if err := s.gather(samples); err != nil {
		return nil, fmt.Errorf("reading the samples to draw: %w", err)
	}
	if len(s.tracks) == 0 {
		return nil, ErrNoSamples
	}
	s.from, s.to = math.Inf(1), math.Inf(-1)
	for _, t := range s.tracks {
		s.power = s.power || t.hasPower
		s.from, s.to = min(s.from, t.cols.first), max(s.to, t.cols.last)
	}
	if s.to <= s.from {
		s.to = s.from + 1
	}
	if m := r.MemoryTimeline; m != nil {
		s.kind = m.Extended.Power.Kind
	}
	s.closeUp()
	return s, nil
}

// closeUp spans from just before the KV allocation to just after measuring.
func (s *scene) closeUp() {
	begin, end := math.NaN(), math.NaN()
	for _, ph := range s.tracks[0].phases {
		switch ph.phase {
		case runner.PhaseKVAlloc:
			begin = ph.from
		case runner.PhaseTeardown:
			end = ph.from
		}
	}
	if math.IsNaN(begin) || math.IsNaN(end) || end <= begin {
		return
	}
	pad := (end - begin) * 0.03
	s.closeX, s.close = [2]float64{begin - pad, end + pad}, true
}

const (
	titlePx   = 62
	stripPx   = 80
	memoryPx  = 330
	powerPx   = 120
	axisPx    = 44
	captionPx = 40
)

func (s *scene) heightPx() int {
	lines := len(s.sentences(pixels(s.o.WidthPx) - 28))
	h := titlePx + captionPx + axisPx + 16*lines
	for range s.tracks {
		h += stripPx + memoryPx
	}
	if s.power {
		h += powerPx + 26
	}
	return h
}

func (s *scene) title() string {
	b := &s.r.BenchmarkParameters
	parts := []string{cmp.Or(s.r.ModelInfo.Model, s.r.Run.RunID)}
	if b.BatchSize > 0 {
		parts = append(parts, fmt.Sprintf("batch %d, %d in, %d out", b.BatchSize, b.InputLen, b.OutputLen))
	}
	if b.TensorParallelSize > 1 {
		parts = append(parts, fmt.Sprintf("TP %d", b.TensorParallelSize))
	}
	if v := s.r.EngineMetadata.VLLMVersion; v != nil {
		parts = append(parts, "vLLM "+*v)
	}
	if len(s.r.GPUInfo) > 0 && s.r.GPUInfo[0].Name != "" {
		parts = append(parts, s.r.GPUInfo[0].Name)
	}
	return strings.Join(parts, "  ·  ")
}

// subtitle says what the run is, and whether it was simulated.
func (s *scene) subtitle() string {
	t := fmt.Sprintf("run %s, %s", s.r.Run.RunID, s.r.Run.Outcome)
	if s.r.Run.Synthetic {
		t = "SIMULATED, not measured  ·  " + t
	}
	return t
}
