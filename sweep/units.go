package sweep

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var errNoUnit = errors.New("no unit")

// ParseDuration reads "30m", "1h30m", "500ms" or "2d". A unit is needed, and a
// duration is never negative.
func ParseDuration(s string) (time.Duration, error) {
	t := strings.TrimSpace(s)
	if _, err := strconv.ParseFloat(t, 64); err == nil && t != "0" {
		return 0, errNoUnit
	}
	if days, ok := strings.CutSuffix(t, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || math.IsNaN(n) || n < 0 || n > 3650 {
			return 0, fmt.Errorf("%q is no number of days between 0 and 3650", days)
		}
		return time.Duration(n * 24 * float64(time.Hour)), nil
	}
	d, err := time.ParseDuration(t)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative", s)
	}
	return d, nil
}

// ParseSize reads "79.18GiB", "512 MiB" or "80GB" (10^9) into bytes, rounded to
// a whole one. A unit is needed.
func ParseSize(s string) (int64, error) {
	t := strings.TrimSpace(s)
	if _, err := strconv.ParseFloat(t, 64); err == nil {
		return 0, errNoUnit
	}
	for _, u := range []struct { // the longer name first
		name  string
		bytes float64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
	} {
		num, ok := strings.CutSuffix(t, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || n < 0 || math.IsNaN(n) || n*u.bytes > 1<<60 {
			return 0, fmt.Errorf("%q is no size", s)
		}
		return int64(math.Round(n * u.bytes)), nil
	}
	return 0, fmt.Errorf("%q is no size; the units are B, KiB, MiB, GiB, TiB and, as powers of ten, KB, MB, GB, TB", s)
}
