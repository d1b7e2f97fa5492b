package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vramsweep/vramsweep/runner/proc"
)

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// killPatience is how long the program may take to end what it started after the
// second signal.
const killPatience = 5 * time.Second

// plainPatience is how long a verb that supervises nothing may go on after the
// first signal.
const plainPatience = time.Second

// withSignals returns a context that the first SIGINT, SIGTERM or SIGHUP ends:
// the run stops cleanly and all that was measured is written. A second signal
// kills the engine and ends the program at once; the folder stays recoverable,
// because samples are journalled and every file appears by rename.
//
// A verb that only reads and computes has nothing to end: it gets a moment to take
// away its temporary files.
func withSignals(parent context.Context, stderr io.Writer, supervises bool) (context.Context, func()) {
	kill, killNow := context.WithCancelCause(context.WithoutCancel(parent))
	ctx, cancel := context.WithCancelCause(proc.WithKill(parent, kill))
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	// A reader that went away (a closed pipe, a lost ssh) must not end a sweep:
	// writes fail with EPIPE and are ignored where they are only words.
	signal.Ignore(syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			select {
			case <-done:
				return
			case got := <-signals:
				if !first {
					fmt.Fprintf(stderr, "\nvramsweep: %v again: ending at once; `vramsweep recover` fixes the folder\n", got)
					killNow(fmt.Errorf("%w by a second %v", errInterrupted, got))
					time.AfterFunc(killPatience, func() { os.Exit(exitInterrupted) })
					continue
				}
				if supervises {
					fmt.Fprintf(stderr,
						"\nvramsweep: %v: ending the run and writing what was measured (once more ends at once)\n", got)
				} else {
					time.AfterFunc(plainPatience, func() { os.Exit(exitInterrupted) })
				}
				cancel(fmt.Errorf("%w by %v", errInterrupted, got))
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
		killNow(nil)
	}
}
