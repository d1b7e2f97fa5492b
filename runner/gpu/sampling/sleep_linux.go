package sampling

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil sleeps until a time on the monotonic clock.
func sleepUntil(at time.Time) {
	ts := unix.NsecToTimespec(int64(Monotonic() + time.Until(at)))
	for errors.Is(unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil), unix.EINTR) {
	}
}

// Monotonic is the clock that time.Now's monotonic readings are from. A program
// and its helper share it.
func Monotonic() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
