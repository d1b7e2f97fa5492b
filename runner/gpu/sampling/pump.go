package sampling

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BatchEvery is how often the output of a tool that ticks faster is fetched. A
// wake-up of this process costs as much as reading a hundred rows, and rows lose
// nothing by waiting in the pipe: they carry the time at which they were read.
const BatchEvery = 50 * time.Millisecond

// A Batched takes a tool's output in batches.
type Batched interface {
	Write(p []byte) (int, error)
	// Drained says that at this moment nothing more was in the pipe.
	Drained(at time.Time)
	// Patient reports whether rows may wait: false once their own times cannot
	// be believed and only their arrival tells when they were read.
	Patient() bool
}

// A pump fetches what a tool writes to its stdout. It owns a pipe that Go's
// poller does not know: the poller would wake this process at every write.
type pump struct {
	fd   int      // the end that is read; does not block
	w    *os.File // the tool's end
	to   Batched
	done chan struct{} // closed when all of it was read
}

func newPump(to Batched) (*pump, error) {
	var fds [2]int
	syscall.ForkLock.RLock()
	err := unix.Pipe(fds[:])
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0]) //nolint:errcheck // nothing was read from it
		unix.Close(fds[1]) //nolint:errcheck // nothing was written to it
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return &pump{fd: fds[0], w: os.NewFile(uintptr(fds[1]), "|1"), to: to, done: make(chan struct{})}, nil
}

// start reads what the program writes; nil: it could not be started.
func (p *pump) start(ended <-chan struct{}) {
	p.w.Close() //nolint:errcheck // nothing was written to it here; the program has its own
	if ended == nil {
		unix.Close(p.fd) //nolint:errcheck // nothing was read from it
		return
	}
	go func() {
		defer close(p.done)
		p.run(ended)
	}()
}

// run fetches until the tool has closed its end, or until it has ended and what
// it wrote is fetched.
func (p *pump) run(ended <-chan struct{}) {
	defer unix.Close(p.fd) //nolint:errcheck // only read from
	buf := make([]byte, 64<<10)
	timer := time.NewTimer(BatchEvery)
	defer timer.Stop()
	for {
		if !p.fetch(buf) {
			return
		}
		if !p.to.Patient() {
			p.await()
			select {
			case <-ended:
				p.fetch(buf)
				return
			default:
			}
			continue
		}
		timer.Reset(BatchEvery)
		select {
		case <-ended:
			p.fetch(buf)
			return
		case <-timer.C:
		}
	}
}

// fetch takes what is there; false at the end of output.
func (p *pump) fetch(buf []byte) bool {
	for {
		n, err := unix.Read(p.fd, buf)
		switch {
		case n > 0:
			if _, err := p.to.Write(buf[:n]); err != nil {
				return false
			}
		case errors.Is(err, unix.EAGAIN):
			p.to.Drained(time.Now())
			return true
		case !errors.Is(err, unix.EINTR):
			return false // 0 bytes: the end
		}
	}
}

// await waits for output, for a while.
func (p *pump) await() {
	fds := [1]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	unix.Poll(fds[:], 250) //nolint:errcheck // the next read tells
}
