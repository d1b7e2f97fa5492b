package gpu

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil sleeps until a time on the monotonic clock.
func sleepUntil(at time.Time) {
	ts := unix.NsecToTimespec(int64(monotonic() + time.Until(at)))
	for errors.Is(unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil), unix.EINTR) {
	}
}
