//go:build !linux

package sampling

import "time"

// sleepUntil sleeps until a time on the monotonic clock.
func sleepUntil(at time.Time) { time.Sleep(time.Until(at)) }

// Monotonic is used with the helper only, which Linux has.
func Monotonic() time.Duration { return 0 }
