//go:build !linux

package gpu

import (
	"io"
	"time"
)

// NVMLHelperMain exists on Linux only.
func NVMLHelperMain(io.Reader, io.Writer) int { return 2 }

// monotonic is used with the helper only.
func monotonic() time.Duration { return 0 }
