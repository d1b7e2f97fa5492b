package gpu

import (
	"context"
	"encoding/json"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// remote samples through the helper child and watches it until ctx ends or it
// fails.
func (s *amdSource) remote(ctx context.Context, m *meter) error {
	st := newAMDStream(s, m)
	cfg := nvmlConfig{Source: SourceAMDGPU, Interval: int64(s.r.Interval), Sys: s.o.Sys, Dev: s.o.Dev}
	for _, c := range s.cards {
		cfg.Cards = append(cfg.Cards, nvmlConfigAMD{c.bdf, c.index})
	}
	cpu, err := watchHelper(ctx, m, s.o, helperRun{cfg: cfg, out: &st.frameSink, first: 5 * time.Second, stale: 5 * time.Second, lastWord: true, beside: st.readProcesses})
	s.mu.Lock()
	s.toolCPU += cpu
	s.mu.Unlock()
	return err
}

// An amdStream turns the helper's frames into ticks.
type amdStream struct {
	frameSink
	s     *amdSource
	m     *meter
	shift time.Duration

	samples []runner.Sample
	fresh   []amdOwn // by card: what no sample has carried yet
}

// amdOwn is the memory of the run's own processes on a card.
type amdOwn struct {
	index int32
	bytes int64
	ok    bool
}

func newAMDStream(s *amdSource, m *meter) *amdStream {
	st := &amdStream{s: s, m: m, shift: m.offset(time.Now()) - monotonic(), samples: make([]runner.Sample, 0, 16)}
	for _, c := range s.cards {
		st.fresh = append(st.fresh, amdOwn{index: int32(c.index)})
	}
	st.takes(st.frame)
	return st
}

func (st *amdStream) frame(kind byte, body []byte) {
	st.last.Store(int64(st.m.offset(time.Now())))
	switch kind {
	case frameTick:
		st.tick(body)
	case frameState:
		if len(body) == 0 {
			return // nothing new
		}
		var s helperState
		if json.Unmarshal(body, &s) == nil {
			st.m.adopt(&s)
			st.s.mu.Lock()
			st.s.kind = worstKind(st.s.kind, s.PowerKind)
			st.s.mu.Unlock()
		}
	case frameError:
		st.failure = string(body)
	}
}

func (st *amdStream) tick(body []byte) {
	st.samples = st.samples[:0]
	for ; len(body) >= sampleSize; body = body[sampleSize:] {
		st.samples = append(st.samples, runner.Sample{})
		s := &st.samples[len(st.samples)-1]
		decodeSample(body, s)
		s.Source = SourceAMDGPU
		s.Offset += st.shift
		for i := range st.fresh {
			if f := &st.fresh[i]; f.ok && f.index == s.GPU {
				s.ProcessMemory = f.bytes
				s.Has |= runner.HasProcessMemory
				f.ok = false
			}
		}
	}
	st.m.tick(st.samples)
}

// readProcesses keeps asking KFD for the memory of the run's own processes:
// which these are is known here only.
func (st *amdStream) readProcesses(ctx context.Context) {
	if st.s.r.PIDs == nil {
		return
	}
	for {
		for i, c := range st.s.cards {
			sum, ok := st.s.kfdOwn(c, st.m)
			st.mu.Lock()
			if ok {
				st.fresh[i].bytes, st.fresh[i].ok = sum, true
			}
			st.mu.Unlock()
		}
		if !sleep(ctx, processInterval) {
			return
		}
	}
}
