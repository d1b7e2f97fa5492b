package gpu

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// stateEvery is how often a sampler in the helper says how it is.
const stateEvery = 250 * time.Millisecond

// sampleAMD samples AMD cards until ctx ends, as the source does in a process of
// its own: a card whose firmware hangs must not hold this program up, and a
// process with one thread of Go code wakes up for half the cost.
func (h *nvmlHelper) sampleAMD(ctx context.Context) int {
	epoch := time.Now()
	base := monotonic() - time.Since(epoch)
	var body []byte
	emit := func(samples []runner.Sample) {
		body = body[:0]
		for i := range samples {
			samples[i].Offset += base
			body = appendSample(body, &samples[i])
		}
		h.frame(frameTick, body)
	}
	run := Run{Interval: time.Duration(h.cfg.Interval), Epoch: epoch}
	m := newMeter(run.Interval, epoch, emit)
	all, _ := findAMD(Options{Sys: h.cfg.Sys, Dev: h.cfg.Dev})
	var cards []*amdCard
	for _, want := range h.cfg.Cards {
		for _, c := range all {
			if c.bdf == want.BDF {
				c.index = want.Index
				cards = append(cards, c)
			}
		}
	}
	src := newAMDSource(Options{Sys: h.cfg.Sys, Dev: h.cfg.Dev}, run, cards, nil)
	src.alone = true
	told := 0
	var was []byte
	tell := func() {
		s := m.state(&told)
		src.mu.Lock()
		s.PowerKind = src.kind
		src.mu.Unlock()
		b, err := json.Marshal(s)
		if err != nil || bytes.Equal(b, was) && len(s.Notes) == 0 && len(s.Misses) == 0 {
			h.frame(frameState, nil) // nothing new, but alive
			return
		}
		was = b
		h.frame(frameState, b)
	}
	done := make(chan struct{})
	go func() {
		for sleep(ctx, stateEvery) {
			tell()
		}
		close(done)
	}()
	err := src.sample(ctx, m)
	if err != nil {
		return h.fail(err)
	}
	<-done
	tell()
	return 0
}
