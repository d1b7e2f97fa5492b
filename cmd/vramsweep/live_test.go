package main

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/sinktest"
)

func TestLiveLine(t *testing.T) {
	var out bytes.Buffer
	l := newLive(&out)
	tick := []runner.Sample{
		{GPU: 1, Has: runner.HasMemoryUsed, MemoryUsed: 2 << 30},
		{GPU: 0, Has: runner.HasMemoryUsed | runner.HasPower | runner.HasUtilization, MemoryUsed: 3 << 30, Power: 310.4,
			Utilization: 97},
		{GPU: runner.HostGPU, Has: runner.HasHostRSS, HostRSS: 1 << 29},
	}
	_ = l.Samples(tick)
	if out.Len() > 0 || l.over(&out) != &out {
		t.Fatalf("drawn on what is no terminal: %q", out.String())
	}
	l.width = 100
	l.begun = time.Unix(100, 0)
	l.now = func() time.Time { return time.Unix(107, 0) }
	_ = l.Samples(tick)
	_ = l.Samples([]runner.Sample{{GPU: 0, Has: runner.HasMemoryUsed, MemoryUsed: 1 << 30}})
	const first = "\r\x1b[K7s | GPU 0 3.00 GiB (max 3.00) 97% 310 W | GPU 1 2.00 GiB (max 2.00) | host 0.50 GiB"
	if out.String() != first {
		t.Errorf("got  %q\nwant %q", out.String(), first)
	}
	out.Reset()
	if _, err := l.over(&out).Write([]byte("half a line")); err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return time.Unix(109, 0) }
	_ = l.Samples(tick[:1])
	if want := "\r\x1b[Khalf a line"; out.String() != want {
		t.Errorf("the line was drawn into the command's: %q", out.String())
	}
	out.Reset()
	if _, err := l.over(&out).Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	_ = l.Samples(tick[:1])
	l.end()
	const want = "\n\r\x1b[K9s | GPU 0 1.00 GiB (max 3.00) 97% 310 W | GPU 1 2.00 GiB (max 2.00) | host 0.50 GiB\r\x1b[K"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestLiveIsASink(t *testing.T) { sinktest.Test(t, newLive(io.Discard)) }
