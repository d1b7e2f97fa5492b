//go:build !linux

package nvidia

import (
	"bufio"

	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// Help exists on Linux only.
func Help([]byte, *bufio.Reader, *sampling.Wire) int { return 2 }
