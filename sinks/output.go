package sinks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// WriteFile writes a file that a user named, whole or not at all: under a temporary name beside it, synced, renamed
// over what is there, whose mode stays. A link stays: what it leads to is written. Only a regular file of this user
// is replaced; a pipe, a terminal, /dev/null, anything below /dev and /proc, and the file of another user are written
// into, as a shell does, and the rest is refused.
func WriteFile(name string, write func(io.Writer) error) error {
	err := writeFile(name, write)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; the folder must exist", err)
	}
	if err != nil {
		err = fmt.Errorf("writing %s: %w", name, err)
	}
	return err
}

func writeFile(name string, write func(io.Writer) error) error {
	target, err := linkTarget(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return replaceFile(target, 0, write)
	case err != nil:
		return err
	case info.Mode().IsRegular() && ownFile(info) && !special(target):
		return replaceFile(target, info.Mode().Perm(), write)
	case info.Mode().IsRegular(), info.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0:
		return writeInto(target, write)
	}
	return fmt.Errorf("it is no file (%v); name another", info.Mode().Type())
}

// linkTarget follows the links that a name itself is, up to those of /dev and /proc, which the kernel follows.
func linkTarget(name string) (string, error) {
	target, err := filepath.Abs(name)
	for range 40 {
		if err != nil || special(target) {
			return target, err
		}
		link, lerr := os.Readlink(target)
		if lerr != nil {
			return target, nil // no link
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(target), link)
		}
		target = filepath.Clean(link)
	}
	return "", &fs.PathError{Op: "write", Path: name, Err: syscall.ELOOP}
}

func special(path string) bool {
	return strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/dev/shm/") || strings.HasPrefix(path, "/proc/")
}

func ownFile(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// writeInto writes into what is there. A FIFO that nobody reads is not waited for.
func writeInto(name string, write func(io.Writer) error) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if errors.Is(err, syscall.ENXIO) {
		return errors.New("nobody reads this FIFO; start its reader first")
	}
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(file)
	return errors.Join(write(buffered), buffered.Flush(), file.Close())
}

// replaceFile writes a new file and puts it in the place of another; mode 0: there is none. The temporary name is
// this process's own, and is that of a leftover to Recover.
func replaceFile(name string, mode fs.FileMode, write func(io.Writer) error) error {
	tmp := tmpName(name) + "-" + strconv.Itoa(os.Getpid())
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(file)
	err = errors.Join(write(buffered), buffered.Flush())
	if mode != 0 {
		err = errors.Join(err, file.Chmod(mode))
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
