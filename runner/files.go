package runner

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// CreateFile opens a file of a run's folder to write, empty. It follows no link
// and waits for no FIFO: what stands there under that name and is no regular
// file is an error, and stays as it is.
func CreateFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%w: the run's folder must exist and be writable, and hold no link or FIFO of that name", err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file: remove it", path), err, f.Close())
	}
	return f, nil
}
