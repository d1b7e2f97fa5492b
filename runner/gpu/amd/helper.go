package amd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// amdOrders are what the helper is to do.
type amdOrders struct {
	Source   string     `json:"source"`
	Interval int64      `json:"interval_ns"`
	Sys      string     `json:"sys"`
	Dev      string     `json:"dev"`
	Cards    []amdOrder `json:"cards"` // those that are sampled
}

// An amdOrder is a card and the index that its samples carry.
type amdOrder struct {
	BDF   string `json:"bdf"`
	Index int    `json:"index"`
}

// Run samples through the helper child and watches it until ctx ends or it fails.
// Which processes are the run's own is known here only.
func (s *amdSource) Run(ctx context.Context, m *sampling.Meter) error {
	orders := amdOrders{Source: sampling.SourceAMDGPU, Interval: int64(s.r.Interval), Sys: s.o.Sys, Dev: s.o.Dev}
	for _, c := range s.cards {
		orders.Cards = append(orders.Cards, amdOrder{c.bdf, c.index})
	}
	h := &sampling.Helper{
		Source: sampling.SourceAMDGPU, Orders: orders, Interval: s.r.Interval,
		First: 5 * time.Second, Stale: 5 * time.Second, LastWord: true,
		Threads: 1, // a second one would be woken at each tick to find that there is one goroutine
	}
	return h.Sample(ctx, m, s.o, func(ctx context.Context) {
		for s.r.PIDs != nil {
			for _, c := range s.cards {
				if sum, ok := s.kfdOwn(c, m); ok {
					h.Carry(int32(c.index), sum)
				}
			}
			if !sampling.Sleep(ctx, sampling.ProcessInterval) {
				return
			}
		}
	})
}

// stateEvery is how often a sampler in the helper says how it is.
const stateEvery = 250 * time.Millisecond

// Help is the helper child: it samples AMD cards until stdin ends, as the source
// does in a process of its own: a card whose firmware hangs must not hold the
// program up, and a process with one thread of Go code wakes up for half the
// cost.
func Help(line []byte, in *bufio.Reader, out *sampling.Wire) int {
	var orders amdOrders
	if err := json.Unmarshal(line, &orders); err != nil {
		return out.Fail(err)
	}
	ctx := sampling.UntilEOF(in)
	epoch := time.Now()
	base := sampling.Monotonic() - time.Since(epoch)
	var body []byte
	m := sampling.NewMeter(time.Duration(orders.Interval), epoch, func(samples []runner.Sample) {
		body = body[:0]
		for i := range samples {
			samples[i].Offset += base
			body = sampling.AppendSample(body, &samples[i])
		}
		out.Frame(sampling.FrameTick, body)
	})
	src := orders.source(epoch)
	told := 0
	var was []byte
	tell := func() {
		s := m.State(&told)
		b, err := json.Marshal(s)
		if err != nil || bytes.Equal(b, was) && len(s.Notes) == 0 && len(s.Misses) == 0 {
			b = nil // nothing new, but alive
		} else {
			was = b
		}
		out.Frame(sampling.FrameState, b)
	}
	done := make(chan struct{})
	go func() {
		for sampling.Sleep(ctx, stateEvery) {
			tell()
		}
		close(done)
	}()
	if err := src.sample(ctx, m); err != nil {
		return out.Fail(err)
	}
	<-done
	tell()
	return 0
}

// source is that of the cards asked for.
func (o *amdOrders) source(epoch time.Time) *amdSource {
	options := sampling.Options{Sys: o.Sys, Dev: o.Dev}
	all, _ := findAMD(options)
	var cards []*amdCard
	for _, want := range o.Cards {
		for _, c := range all {
			if c.bdf == want.BDF {
				c.index = want.Index
				cards = append(cards, c)
			}
		}
	}
	return newAMDSource(options, sampling.Run{Interval: time.Duration(o.Interval), Epoch: epoch}, cards, nil)
}
