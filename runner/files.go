package runner

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// CreateFile opens a file of a run's folder to write, empty. It follows no link
// and waits for no FIFO: what stands there under that name and is no regular
// file, or has a second name somewhere (a hard link), is an error, and stays as it is.
func CreateFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%w: the run's folder must exist and be writable, and hold no link or FIFO of that name", err)
	}
	if info, err := f.Stat(); err != nil || !SoleFile(info) {
		return nil, errors.Join(fmt.Errorf("%s is no regular file of this folder alone: remove it", path), err, f.Close())
	}
	return f, f.Truncate(0)
}

// SoleFile reports whether a file is regular and has one name: writing into it changes nothing elsewhere.
func SoleFile(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return info.Mode().IsRegular() && (!ok || st.Nlink == 1)
}

// OpenFile opens a regular file of a run's folder to read; a link is none of its files, whatever it leads to, and a
// FIFO or a device might never end.
func OpenFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a link, and links are not followed there", path)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err, f.Close())
	}
	return f, nil
}
