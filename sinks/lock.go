package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// The two locks of an output folder. lockRun is held by whoever runs a sweep or
// repairs the folder, as long as it goes on; lockTables only while tables/ is
// being changed, so that `compact` works beside a running sweep.
const (
	lockRun    = ".lock"
	lockTables = ".lock-tables"
)

// A Holder says who holds a lock.
type Holder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
	What  string    `json:"what"`
}

// A LockedError means that somebody else works in the folder.
type LockedError struct {
	Dir    string
	Holder Holder // zero where the holder left no note
}

func (e *LockedError) Error() string {
	who := " that left no note of itself"
	if h := e.Holder; h.PID != 0 {
		who = fmt.Sprintf(": pid %d on %s (%s), since %s", h.PID, h.Host, h.What, h.Since.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s is in use by another vramsweep%s; wait until it ends, or choose another output folder",
		e.Dir, who)
}

// lock takes a lock that dies with this process (flock) and notes who holds it.
func (f *folder) lock(name string, me Holder) (*os.File, error) {
	info, err := f.root.Lstat(name)
	if err == nil && !runner.SoleFile(info) {
		return nil, fmt.Errorf("%s is no regular file of this folder alone (a link?); remove it", f.path(name))
	}
	file, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, f.explain("locking the output folder", err)
	}
	if err := flockSoon(file); err != nil {
		defer file.Close() //nolint:errcheck // opened to read
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w; the file system must support flock", f.path(name), err)
		}
		locked := &LockedError{Dir: f.dir}
		locked.Holder = holderOf(file)
		return nil, locked
	}
	note, err := json.Marshal(me)
	if err == nil {
		err = file.Truncate(0)
	}
	if err == nil {
		_, err = file.WriteAt(append(note, '\n'), 0)
	}
	if err != nil {
		return nil, errors.Join(f.explain("noting who holds the lock", err), file.Close())
	}
	return file, nil
}

// unlock gives the lock back. The file stays: removing it would let two others
// hold locks on two files of the same name.
func unlock(file *os.File) error {
	return errors.Join(file.Truncate(0), file.Close())
}

func flock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// flockSoon is flock, with some patience where the holder that is noted is
// dead: a program that was killed while it started a child leaves the lock with
// that child until its exec, some milliseconds later.
func flockSoon(file *os.File) error {
	for range 100 {
		err := flock(file)
		if !errors.Is(err, syscall.EWOULDBLOCK) || !holderDied(file) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return flock(file)
}

func holderDied(file *os.File) bool {
	h := holderOf(file)
	return h.PID > 0 && errors.Is(syscall.Kill(h.PID, 0), syscall.ESRCH)
}

// holderOf reads who holds a lock; zero where that is just being written.
func holderOf(file *os.File) (h Holder) {
	b, err := io.ReadAll(io.NewSectionReader(file, 0, 4096))
	if err != nil || json.Unmarshal(b, &h) != nil {
		return Holder{}
	}
	return h
}
