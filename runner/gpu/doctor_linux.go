package gpu

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// clockSynchronised asks the kernel whether something disciplines the clock.
func clockSynchronised() (bool, error) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return false, fmt.Errorf("the kernel does not say whether the clock is synchronised: %w", err)
	}
	return state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0, nil
}

// blockSize is the unit of a file system's block counts, in bytes.
func blockSize(st *unix.Statfs_t) int64 { return st.Bsize }
