package sampling

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A Source reads one instrument. Run returns nil when ctx has ended, else why
// the instrument fails; it may be run again. What the source knows of itself it
// tells the meter.
type Source interface {
	Name() string
	Run(ctx context.Context, m *Meter) error
}

// ErrUnusable says that another try of the same source is of no use.
var ErrUnusable = errors.New("unusable")

// A Sampler keeps sources going: it restarts one that fails, with growing
// pauses, and goes over to the next one when that does not help. It implements
// runner.Sampler.
type Sampler struct {
	run     Run
	sources []Source
	// Pauses before the second, third, ... try of a source; after the last the
	// next source has its turn. Where there is no other, the last one repeats.
	Pauses []time.Duration
}

// A source that has worked for this long has earned its full number of tries
// again.
const provenAfter = 10 * time.Second

// NewSampler makes the sampler of a run; the first source is the first choice.
func NewSampler(run Run, sources []Source) *Sampler {
	return &Sampler{run: run, sources: sources,
		Pauses: []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}}
}

// Sample implements runner.Sampler.
func (s *Sampler) Sample(ctx context.Context, emit func([]runner.Sample)) (*runner.SamplerReport, error) {
	m := NewMeter(s.run.Interval, s.run.Epoch, emit)
	var failures []error
	cur, tries := 0, 0
	used := map[int]bool{0: true}
	for {
		src := s.sources[cur]
		before, began := m.tickCount(), time.Now()
		err := src.Run(ctx, m)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		err = fmt.Errorf("%s: %w", src.Name(), err)
		if len(failures) < maxNotes {
			failures = append(failures, err)
		}
		if m.tickCount() > before && time.Since(began) >= provenAfter {
			tries = 0
		}
		m.Because(err.Error())
		next := s.next(cur, tries, err)
		m.Note("%s at %s: %s", err, m.Now(), s.plan(cur, next))
		if next != cur {
			cur, tries = next, 0
			used[cur] = true
		}
		if !Sleep(ctx, s.Pauses[min(tries, len(s.Pauses)-1)]) {
			break
		}
		tries++
	}
	return s.close(m, used, failures)
}

// next is the source to try now: the same one until its tries are used up.
func (s *Sampler) next(cur, tries int, err error) int {
	if tries < len(s.Pauses) && !errors.Is(err, ErrUnusable) {
		return cur
	}
	return (cur + 1) % len(s.sources)
}

func (s *Sampler) plan(cur, next int) string {
	if next == cur {
		return "started again"
	}
	return s.sources[next].Name() + " replaces it"
}

func (s *Sampler) close(m *Meter, used map[int]bool, failures []error) (*runner.SamplerReport, error) {
	var names []string
	for i, src := range s.sources {
		if used[i] {
			names = append(names, src.Name())
		}
	}
	r := m.Report(strings.Join(names, ", then "), time.Now())
	if r.Ticks == 0 && len(failures) > 0 {
		return r, fmt.Errorf("no sample of the GPUs: %w", errors.Join(failures...))
	}
	return r, nil
}
