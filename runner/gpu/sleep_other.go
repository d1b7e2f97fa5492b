//go:build !linux

package gpu

import "time"

// sleepUntil sleeps until a time on the monotonic clock.
func sleepUntil(at time.Time) { time.Sleep(time.Until(at)) }
