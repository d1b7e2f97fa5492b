package plot

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/vramsweep/vramsweep/runner"
)

// A look is a line's colour, width and dash. Lightness and dash tell the lines
// apart in grey.
type look struct {
	color  color.Color
	width  vg.Length
	dashes []vg.Length
}

func ink() color.Color   { return color.Gray{Y: 0x1c} }
func faint() color.Color { return color.Gray{Y: 0xcf} }
func shade() color.Color { return color.Gray{Y: 0xee} }
func driver() look       { return look{color.RGBA{0x12, 0x3f, 0x8c, 0xff}, 1.3, nil} }
func account() look      { return look{color.RGBA{0xd2, 0x5a, 0x00, 0xff}, 1.5, []vg.Length{5, 2.5}} }
func buffers() look      { return look{color.RGBA{0xd2, 0x5a, 0x00, 0xff}, 0.9, []vg.Length{1.5, 1.5}} }
func requested() look    { return look{color.Gray{Y: 0x30}, 0.9, []vg.Length{1.5, 2}} }
func allowed() look      { return look{color.Gray{Y: 0x30}, 0.9, []vg.Length{7, 2, 1.5, 2}} }
func powerLook(i int) look {
	return look{[]look{driver(), account()}[i%2].color, 0.9, [][]vg.Length{nil, {4, 2}, {1.5, 1.5}, {6, 2, 1, 2}}[i%4]}
}

func (l look) style() draw.LineStyle {
	return draw.LineStyle{Color: l.color, Width: l.width, Dashes: l.dashes}
}

const (
	small  = vg.Length(8.5)
	normal = vg.Length(9.5)
	large  = vg.Length(13)
)

func (s *scene) style(size vg.Length, x text.XAlignment, y text.YAlignment) text.Style {
	return text.Style{Color: ink(), Font: font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size),
		XAlign: x, YAlign: y, Handler: s.text}
}

func corners(left, low, right, high vg.Length) []vg.Point {
	return []vg.Point{{X: left, Y: low}, {X: right, Y: low}, {X: right, Y: high}, {X: left, Y: high}}
}

// A panel is a rectangle with axes.
type panel struct {
	c          draw.Canvas
	x0, x1     float64
	y0, y1     float64
	left, wide vg.Length
	low, high  vg.Length
}

func (p *panel) x(v float64) vg.Length {
	return p.left + vg.Length((v-p.x0)/(p.x1-p.x0))*p.wide
}

func (p *panel) y(v float64) vg.Length {
	return p.low + vg.Length((v-p.y0)/(p.y1-p.y0))*(p.high-p.low)
}

func (p *panel) right() vg.Length { return p.left + p.wide }

func (p *panel) fill(c color.Color, x0, x1 vg.Length) {
	x0, x1 = max(x0, p.left), min(x1, p.right())
	if x1 <= x0 {
		return
	}
	p.c.FillPolygon(c, corners(x0, p.low, x1, p.high))
}

// line draws a line as steps, clipped to the panel: memory holds until it
// changes.
func (p *panel) line(l look, points []xy, steps bool) {
	var pts []vg.Point
	add := func(x, y float64) {
		y = min(max(y, p.y0), p.y1)
		pts = append(pts, vg.Point{X: p.x(x), Y: p.y(y)})
	}
	last, inside := xy{}, false
	for i, q := range points {
		if q.x < p.x0 {
			last = q
			continue
		}
		if q.x > p.x1 {
			if len(pts) > 0 && steps {
				add(p.x1, points[i-1].y)
			}
			break
		}
		if !inside {
			inside = true
			if i > 0 && steps {
				add(p.x0, last.y)
			}
		}
		if steps && len(pts) > 0 && i > 0 {
			add(q.x, points[i-1].y)
		}
		add(q.x, q.y)
	}
	if len(pts) > 1 {
		p.c.StrokeLines(l.style(), pts)
	}
}

func (p *panel) level(l look, from, to, v float64) bool {
	from, to = max(from, p.x0), min(to, p.x1)
	if v < p.y0 || v > p.y1 || to <= from {
		return false
	}
	p.c.StrokeLine2(l.style(), p.x(from), p.y(v), p.x(to), p.y(v))
	return true
}

// frame draws the bands of the phases, the grid and the axes.
func (s *scene) frame(p *panel, phases []span, xAxis bool, unit string) {
	for i, ph := range phases {
		if i%2 == 1 {
			p.fill(shade(), p.x(ph.from), p.x(ph.to))
		}
	}
	thin := draw.LineStyle{Color: faint(), Width: 0.4}
	for _, v := range ticks(p.y0, p.y1, max(2, int((p.high-p.low)/30))) {
		p.c.StrokeLine2(thin, p.left, p.y(v), p.right(), p.y(v))
		p.c.FillText(s.style(small, text.XRight, text.YCenter), vg.Point{X: p.left - 4, Y: p.y(v)}, number(v))
	}
	edge := draw.LineStyle{Color: ink(), Width: 0.6}
	box := corners(p.left, p.low, p.right(), p.high)
	p.c.StrokeLines(edge, append(box, box[0]))
	for _, v := range ticks(p.x0, p.x1, max(2, int(p.wide/38))) {
		p.c.StrokeLine2(edge, p.x(v), p.low, p.x(v), p.low-4)
		if xAxis {
			p.c.FillText(s.style(small, text.XCenter, text.YTop), vg.Point{X: p.x(v), Y: p.low - 7}, number(v))
		}
	}
	if unit != "" {
		p.c.FillText(s.style(small, text.XLeft, text.YTop), vg.Point{X: p.left + 4, Y: p.high - 3}, unit)
	}
}

// ticks are round values in [lo, hi], at most n of them.
func ticks(lo, hi float64, n int) []float64 {
	if hi <= lo || n < 1 || math.IsInf(hi-lo, 0) {
		return nil
	}
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/float64(n))))
	for _, k := range []float64{1, 2, 2.5, 5, 10} {
		if (hi-lo)/(step*k) <= float64(n) {
			step *= k
			break
		}
	}
	var out []float64
	for i := math.Ceil(lo/step - 1e-9); i*step <= hi+step*1e-9 && len(out) <= n+1; i++ {
		out = append(out, i*step)
	}
	return out
}

func number(v float64) string {
	t := strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
	if t == "-0" {
		return "0"
	}
	return t
}

// strip writes the names of the phases above a panel, in as many rows as they
// need, each with a line down to the middle of its band.
func (s *scene) strip(p *panel, phases []span, high vg.Length) {
	st := s.style(small, text.XCenter, text.YBottom)
	const rowHeight = vg.Length(11)
	ends := slices.Repeat([]vg.Length{p.left - 8}, 5) // stripPx has room for them
	for _, ph := range phases {
		from, to := max(ph.from, p.x0), min(ph.to, p.x1)
		if to <= from || ph.phase == runner.PhaseBaseline && to-from < 1 {
			continue
		}
		name := string(ph.phase)
		half := st.Width(name) / 2
		mid := p.x((from + to) / 2)
		at := min(max(mid, p.left+half), p.right()-half)
		row := 0
		for row < len(ends)-1 && at-half < ends[row]+5 {
			row++
		}
		ends[row] = at + half
		y := high + 3 + vg.Length(row)*rowHeight
		p.c.StrokeLine2(draw.LineStyle{Color: color.Gray{Y: 0x80}, Width: 0.4}, mid, high, mid, y)
		p.c.FillText(st, vg.Point{X: at, Y: y}, name)
	}
}

// draw draws the scene from the top down.
func (s *scene) draw(c draw.Canvas) {
	c.FillPolygon(color.White, corners(c.Min.X, c.Min.Y, c.Max.X, c.Max.Y))
	top := c.Max.Y - 8
	c.FillText(s.style(large, text.XLeft, text.YTop), vg.Point{X: 14, Y: top}, s.title())
	c.FillText(s.style(normal, text.XLeft, text.YTop), vg.Point{X: 14, Y: top - 18}, s.subtitle())
	at := c.Max.Y - pixels(titlePx)
	full, near := s.stretches(c)
	for i, t := range s.tracks {
		last := i == len(s.tracks)-1 && !s.power
		high := at - pixels(stripPx)
		low := high - pixels(memoryPx) + 10
		s.memoryPanels(c, t, full, near, low, high, last)
		at -= pixels(stripPx + memoryPx)
	}
	if s.power {
		high := at - 16
		low := high - pixels(powerPx)
		s.powerPanels(c, full, near, low, high)
		at = low - pixels(axisPx) - 6
	} else {
		at -= pixels(axisPx)
	}
	s.caption(c, at)
}

// A stretch of time beside another.
type stretch struct {
	from, to   float64
	left, wide vg.Length
}

func (s *scene) panel(c draw.Canvas, t stretch, y0, y1 float64, low, high vg.Length) *panel {
	return &panel{c: c, x0: t.from, x1: t.to, y0: y0, y1: y1, left: t.left, wide: t.wide, low: low, high: high}
}

// stretches are the whole run and the close-up.
func (s *scene) stretches(c draw.Canvas) (full, near stretch) {
	all := c.Max.X - c.Min.X
	full = stretch{from: s.from, to: s.to, left: 44}
	near = stretch{from: s.closeX[0], to: s.closeX[1]}
	if !s.close {
		full.wide = all - full.left - 120
		return full, near
	}
	full.wide = all*0.44 - full.left
	near.left = all*0.44 + 46
	near.wide = all - near.left - 128
	return full, near
}

func (s *scene) memoryPanels(c draw.Canvas, t *track, full, near stretch, low, high vg.Length, axis bool) {
	most := 0.0
	for _, q := range t.cols.points {
		most = max(most, q.y)
	}
	for _, l := range t.vllm {
		most = max(most, l.gib)
	}
	p := s.panel(c, full, 0, max(most*1.06, 0.01), low, high)
	name := fmt.Sprintf("GPU %d: memory in use, GiB", t.gpu)
	if t.gpu == runner.HostGPU {
		name = "process tree: resident memory, GiB"
	}
	s.frame(p, t.phases, axis, name)
	s.strip(p, t.phases, high)
	s.curves(p, t)
	s.levelMarks(p, t, map[string]string{"load": "loaded", "profile_peak": "profiling"})
	if !s.close {
		s.levelTexts(p, t)
		return
	}
	lo, hi := s.closeY(t)
	if math.IsInf(lo, 0) || math.IsInf(hi, 0) {
		return
	}
	pad := max((hi-lo)*0.12, 0.05)
	z := s.panel(c, near, lo-pad, hi+pad, low, high)
	s.frame(z, t.phases, axis, "close-up, GiB")
	s.strip(z, t.phases, high)
	s.curves(z, t)
	s.levelMarks(z, t, map[string]string{"kv_alloc": "KV", "capture": "captured", "engine_warmup": "ready"})
	s.levelTexts(z, t)
}

// closeY spans what lies between the level of the KV cache and the highest, of
// both accounts.
func (s *scene) closeY(t *track) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, q := range t.cols.points {
		if q.x >= s.closeX[0] && q.x <= s.closeX[1] {
			hi = max(hi, q.y)
		}
	}
	for _, l := range t.levels {
		if l.step == "kv_alloc" && l.ok {
			lo = l.gib
		}
	}
	for _, l := range t.vllm {
		if l.from >= s.closeX[0] {
			lo, hi = min(lo, l.gib), max(hi, l.gib)
		}
	}
	if b := t.budget; b != nil && b.RequestedBytes != nil {
		lo, hi = min(lo, float64(*b.RequestedBytes)/runner.GiB), max(hi, s.most(b))
	}
	return lo, hi
}

// most is requested + context + graphs: what should at most be in use.
func (s *scene) most(b *runner.BeyondBudget) float64 {
	v := *b.RequestedBytes
	for _, q := range []*int64{b.ContextBytes, b.GraphsOutsideBytes} {
		if q != nil {
			v += *q
		}
	}
	return float64(v) / runner.GiB
}

func (s *scene) curves(p *panel, t *track) {
	for i, l := range t.vllm {
		p.level(account(), l.from, l.to, l.gib)
		if i > 0 && t.vllm[i-1].to == l.from && l.from > p.x0 && l.from < p.x1 {
			lo, hi := max(min(t.vllm[i-1].gib, l.gib), p.y0), min(max(t.vllm[i-1].gib, l.gib), p.y1)
			if hi > lo {
				p.c.StrokeLine2(account().style(), p.x(l.from), p.y(lo), p.x(l.from), p.y(hi))
			}
		}
	}
	p.line(driver(), t.cols.points, true)
}

// levelMarks puts a dot at the end of each step, with its level.
func (s *scene) levelMarks(p *panel, t *track, names map[string]string) {
	for _, l := range t.levels {
		name, ok := names[l.step]
		if !ok || !l.ok || l.at < p.x0 || l.at > p.x1 || l.gib < p.y0 || l.gib > p.y1 {
			continue
		}
		at := vg.Point{X: p.x(l.at), Y: p.y(l.gib)}
		p.c.DrawGlyph(draw.GlyphStyle{Color: driver().color, Radius: 2.4, Shape: draw.CircleGlyph{}}, at)
		st := s.style(small, text.XLeft, text.YTop)
		label := fmt.Sprintf("%s %.2f", name, l.gib)
		x, y := at.X+4, at.Y-4
		if l.step != "load" && l.step != "kv_alloc" { // the curve comes from below
			st.YAlign, y = text.YBottom, at.Y+4
		}
		if x+st.Width(label) > p.right() {
			st.XAlign, x = text.XRight, at.X-4
		}
		s.backing(p, st, x, y, label)
		p.c.FillText(st, vg.Point{X: x, Y: y}, label)
	}
}

// backing lightens what lies under a label.
func (s *scene) backing(p *panel, st text.Style, x, y vg.Length, label string) {
	w, h := st.Width(label), st.Height(label)
	x0 := x + vg.Length(st.XAlign)*w
	y0 := y + vg.Length(st.YAlign)*h
	p.c.FillPolygon(color.NRGBA{0xff, 0xff, 0xff, 0xc0}, corners(x0-1, y0-1, x0+w+1, y0+h+1))
}

// A note is a level's text to the right of a panel.
type note struct {
	y    vg.Length
	text string
	l    look
}

// levelTexts draws the levels of the budget across a panel and names all
// levels to its right, moved apart so that none covers another.
func (s *scene) levelTexts(p *panel, t *track) {
	var notes []note
	add := func(l look, v float64, label string, across bool) {
		if v < p.y0 || v > p.y1 {
			return
		}
		if across {
			p.level(l, p.x0, p.x1, v)
		}
		notes = append(notes, note{p.y(v), fmt.Sprintf("%.2f %s", v, label), l})
	}
	if b := t.budget; b != nil {
		if b.RequestedBytes != nil {
			add(requested(), float64(*b.RequestedBytes)/runner.GiB, "asked", true)
			if b.ContextBytes != nil {
				add(allowed(), s.most(b), "asked + context + graphs", true)
			}
		}
		if b.HighestBytes != nil {
			add(driver(), float64(*b.HighestBytes)/runner.GiB, "highest, driver", false)
		}
	}
	if k := len(t.vllm); k > 0 {
		last := t.vllm[k-1]
		add(account(), last.gib, "vLLM's account", false)
		if t.buffers > 0 && p.level(buffers(), last.from, last.to, last.gib+t.buffers) {
			add(buffers(), last.gib+t.buffers, "with the runner's buffers", false)
		}
	}
	s.notes(p, notes)
}

func (s *scene) notes(p *panel, notes []note) {
	st := s.style(small, text.XLeft, text.YCenter)
	const line, gap = vg.Length(9.5), vg.Length(2.5)
	slices.SortFunc(notes, func(a, b note) int { return cmp.Compare(a.y, b.y) })
	floor := vg.Length(-1e6)
	for _, n := range notes {
		lines := wrap(n.text, 22)
		y := max(n.y, floor+vg.Length(len(lines))*line-line/2)
		floor = y + line/2 + gap
		p.c.StrokeLine2(n.l.style(), p.right(), n.y, p.right()+10, y)
		for i, words := range lines {
			p.c.FillText(st, vg.Point{X: p.right() + 13, Y: y - vg.Length(i)*line}, words)
		}
	}
}

func (s *scene) powerPanels(c draw.Canvas, full, near stretch, low, high vg.Length) {
	most := 0.0
	for _, t := range s.tracks {
		for _, q := range t.watts.points {
			most = max(most, q.y)
		}
	}
	unit := "power, W"
	switch s.kind {
	case "averaged_1s":
		unit = "power, W (the driver's average over a second)"
	case "instant":
		unit = "power, W (instantaneous)"
	}
	panels := []*panel{s.panel(c, full, 0, max(1, most*1.15), low, high)}
	if s.close {
		panels = append(panels, s.panel(c, near, 0, max(1, most*1.15), low, high))
	}
	for i, q := range panels {
		label := unit
		if i > 0 {
			label = ""
		}
		s.frame(q, s.tracks[0].phases, true, label)
		var notes []note
		for k, t := range s.tracks {
			q.line(powerLook(k), t.watts.points, false)
			notes = append(notes, note{q.y(q.y1 * (0.75 - 0.2*float64(k))), fmt.Sprintf("GPU %d", t.gpu), powerLook(k)})
		}
		if i == len(panels)-1 && len(s.tracks) > 1 {
			s.notes(q, notes)
		}
		c.FillText(s.style(small, text.XCenter, text.YTop), vg.Point{X: q.left + q.wide/2, Y: low - 19},
			"seconds since the start of the run")
	}
}

// caption is the legend and the sentence on use beyond the budget.
func (s *scene) caption(c draw.Canvas, top vg.Length) {
	x := vg.Length(14)
	y := top
	st := s.style(small, text.XLeft, text.YCenter)
	item := func(l look, label string) {
		c.StrokeLine2(l.style(), x, y, x+26, y)
		c.FillText(st, vg.Point{X: x + 30, Y: y}, label)
		x += 30 + st.Width(label) + 18
	}
	item(driver(), "driver (sampled)")
	if len(s.tracks[0].vllm) > 0 {
		item(account(), "vLLM's account: context, weights, non-torch, activation while profiling, KV, graphs")
	}
	if s.tracks[0].budget != nil && s.tracks[0].budget.RequestedBytes != nil {
		item(requested(), "asked")
		item(allowed(), "asked + context + graphs")
	}
	y -= 15
	for _, line := range s.sentences(c.Max.X - 28) {
		c.FillText(st, vg.Point{X: 14, Y: y}, line)
		y -= 11.5
	}
}

// sentences are those on use beyond the budget, wrapped to the page.
func (s *scene) sentences(wide vg.Length) []string {
	st := s.style(small, text.XLeft, text.YCenter)
	var out []string
	for _, t := range s.tracks {
		if t.budget == nil || t.budget.Sentence == "" {
			continue
		}
		label := t.budget.Sentence
		if len(s.tracks) > 1 {
			label = fmt.Sprintf("GPU %d: %s", t.gpu, label)
		}
		n := len(label)
		for n > 20 && widest(st, wrap(label, n)) > wide {
			n -= 4
		}
		out = append(out, wrap(label, n)...)
	}
	return out
}

func widest(st text.Style, lines []string) vg.Length {
	var w vg.Length
	for _, l := range lines {
		w = max(w, st.Width(l))
	}
	return w
}

// wrap breaks a text at blanks into lines of at most n characters.
func wrap(s string, n int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && len(line)+1+len(word) > n {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
