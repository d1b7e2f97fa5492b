//go:build !linux

package gpu

import (
	"errors"

	"golang.org/x/sys/unix"
)

func clockSynchronised() (bool, error) { return false, errors.ErrUnsupported }

// blockSize is the unit of a file system's block counts, in bytes.
func blockSize(st *unix.Statfs_t) int64 { return int64(st.Bsize) }
