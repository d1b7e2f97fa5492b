package sinks

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// exchange swaps two folders in one step. It reports false where the file
// system cannot.
func exchange(root *os.Root, a, b string) (bool, error) {
	dir, err := root.Open(".")
	if err != nil {
		return false, err
	}
	fd := int(dir.Fd())
	err = unix.Renameat2(fd, a, fd, b, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTSUP):
		return false, dir.Close()
	case err != nil:
		return false, errors.Join(&os.LinkError{Op: "exchange", Old: a, New: b, Err: err}, dir.Close())
	}
	return true, dir.Close()
}
