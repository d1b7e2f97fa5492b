package sinks

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks/table"
)

// Samplers run side by side and a slow tool delivers late: samples are put in
// order within reorderWindow, so that a run of hours needs no memory of hours.
const reorderWindow = 10 * time.Second

var errStopped = errors.New("the caller has read enough")

// batches yields samples in the order of writing, as often as it is called.
type batches = func(func([]runner.Sample) error) error

// inOrder yields samples by time. keep says which
// samples count.
func inOrder(each batches, keep func(*runner.Sample) bool, yield func([]runner.Sample) error) error {
	var held []runner.Sample
	var newest time.Duration
	release := func(until time.Duration) error {
		slices.SortStableFunc(held, func(a, b runner.Sample) int {
			return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.GPU, b.GPU))
		})
		n := sort.Search(len(held), func(i int) bool { return held[i].Offset > until })
		if n == 0 {
			return nil
		}
		err := yield(held[:n])
		held = slices.Delete(held, 0, n)
		return err
	}
	err := each(func(batch []runner.Sample) error {
		for i := range batch {
			if keep(&batch[i]) {
				held = append(held, batch[i])
				newest = max(newest, batch[i].Offset)
			}
		}
		if len(held) > 0 && newest-reorderWindow > held[0].Offset {
			return release(newest - reorderWindow)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return release(newest)
}

// A timelineWriter turns the samples of one GPU after another into rows.
type timelineWriter struct {
	key   Key
	uuids map[int32]*string
	out   *table.Writer[TimelineRow]
	cells []timelineCells
	rows  []TimelineRow

	// Of the GPU whose samples come.
	phases []runner.PhaseRow
	at     int    // the phase of the last sample
	last   Micros // when it was taken
}

// timelineCells are what the pointers of a row point to: kept apart and reused,
// so that a row costs no allocation.
type timelineCells struct {
	sample runner.Sample
	phase  string
	readUS int64
}

const timelineChunk = 1024

func newTimelineWriter(r *runner.Result, out *table.Writer[TimelineRow]) *timelineWriter {
	w := &timelineWriter{key: keyOf(r), uuids: map[int32]*string{}, out: out,
		cells: make([]timelineCells, timelineChunk), rows: make([]TimelineRow, 0, timelineChunk)}
	for _, d := range r.GPUInfo {
		w.uuids[int32(d.Index)] = text(d.UUID)
	}
	return w
}

// phasesOf are the phases of a GPU; the phases of a run are the same moments on
// every GPU, so those of any other serve where it has none of its own.
func phasesOf(r *runner.Result, gpu int32) []runner.PhaseRow {
	phases := map[int32][]runner.PhaseRow{}
	for _, p := range r.Phases {
		of := int32(runner.HostGPU)
		if p.GPUIndex != nil {
			of = *p.GPUIndex
		}
		if p.StartedAt != nil && p.EndedAt != nil {
			phases[of] = append(phases[of], p)
		}
	}
	if phases[gpu] == nil && len(phases) > 0 {
		gpu = slices.Min(slices.Collect(maps.Keys(phases)))
	}
	return phases[gpu]
}

// phaseAt is the phase in which a sample was taken: mostly that of the one before.
func (w *timelineWriter) phaseAt(s *runner.Sample) *runner.PhaseRow {
	for n := range w.phases {
		i := (w.at + n) % len(w.phases)
		if p := &w.phases[i]; !s.TS.Before(*p.StartedAt) && s.TS.Before(*p.EndedAt) {
			w.at = i
			return p
		}
	}
	return nil
}

// add takes samples of one GPU, in order of time.
func (w *timelineWriter) add(samples []runner.Sample) error {
	for i := range samples {
		w.row(&samples[i])
		if len(w.rows) == timelineChunk {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *timelineWriter) flush() error {
	err := w.out.Write(w.rows)
	w.rows = w.rows[:0]
	return err
}

func (w *timelineWriter) row(s *runner.Sample) {
	c := &w.cells[len(w.rows)]
	c.sample = *s
	ts := MicrosOf(s.TS)
	if ts == w.last {
		ts++ // two instruments in one microsecond: the key stays one row
	}
	w.last = ts
	w.rows = append(w.rows, TimelineRow{Key: w.key, TS: ts, TOffsetUS: s.Offset.Microseconds(),
		Source: s.Source, Gap: s.Gap})
	row := &w.rows[len(w.rows)-1]
	if s.GPU != runner.HostGPU {
		row.GPUIndex, row.GPUUUID = &c.sample.GPU, w.uuids[s.GPU]
	}
	if p := w.phaseAt(s); p != nil {
		c.phase = string(p.Phase)
		row.Phase = &c.phase
	}
	if s.Read > 0 {
		c.readUS = s.Read.Microseconds()
		row.ReadUS = &c.readUS
	}
	figuresToRow(row, &c.sample)
}

// writeTimeline writes the samples of a run, sorted by GPU and time, the host last.
func writeTimeline(r *runner.Result, each batches, out *table.Writer[TimelineRow]) error {
	gpus, err := gpusOf(each)
	if err != nil {
		return err
	}
	w := newTimelineWriter(r, out)
	for _, gpu := range gpus {
		keep := func(s *runner.Sample) bool { return s.GPU == gpu }
		w.phases, w.at, w.last = phasesOf(r, gpu), 0, 0
		if err := inOrder(each, keep, w.add); err != nil {
			return err
		}
	}
	return w.flush()
}

// gpusOf are the GPUs that samples are about, the host last.
func gpusOf(each batches) ([]int32, error) {
	seen := map[int32]bool{}
	err := each(func(batch []runner.Sample) error {
		for i := range batch {
			seen[batch[i].GPU] = true
		}
		return nil
	})
	return slices.SortedFunc(maps.Keys(seen), func(a, b int32) int { return cmp.Compare(uint32(a), uint32(b)) }), err
}

// sampleOf makes s the sample that a row was made from, but for the nanoseconds.
func sampleOf(s *runner.Sample, row *TimelineRow) {
	*s = runner.Sample{TS: row.TS.Time(), Offset: time.Duration(row.TOffsetUS) * time.Microsecond,
		GPU: runner.HostGPU, Gap: row.Gap, Source: row.Source}
	if row.GPUIndex != nil {
		s.GPU = *row.GPUIndex
	}
	if row.ReadUS != nil {
		s.Read = time.Duration(*row.ReadUS) * time.Microsecond
	}
	figuresFromRow(s, row)
}
