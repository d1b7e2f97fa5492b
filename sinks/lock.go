package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	Holder Holder // zero where the holder left no note, as shards do
	Copy   bool   // it runs the same shard of the same execution
	Note   string // the file that stands for the lock, where the file system has no flock
}

func (e *LockedError) Error() string {
	who := " that left no note of itself"
	if h := e.Holder; h.PID != 0 {
		who = fmt.Sprintf(": pid %d on %s (%s), since %s", h.PID, h.Host, h.What, h.Since.UTC().Format(time.RFC3339))
	}
	text := fmt.Sprintf("%s is in use by another vramsweep%s; wait until it ends, or choose another output folder",
		e.Dir, who)
	if e.Note != "" {
		text += "; the file system has no flock: if that process was killed, remove " + e.Note
	}
	return text
}

// A held is a lock that is held.
type held struct {
	f      *folder
	file   *os.File // nil: the file system has no flock
	shared bool
	note   string // the file that stands for the lock, where there is no flock
}

// lock takes a lock that dies with this process (flock) and notes who holds it. A
// shared one admits others that are shared, and notes nobody. Where the file
// system has no flock a file that only one can create stands for the lock: it
// outlives a process that is killed.
func (f *folder) lock(name string, me Holder, shared bool) (*held, error) {
	info, err := f.root.Lstat(name)
	if err == nil && !runner.SoleFile(info) {
		return nil, fmt.Errorf("%s is no regular file of this folder alone (a link?); remove it", f.path(name))
	}
	file, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, f.explain("locking the output folder", err)
	}
	if err := flockSoon(file, lockKind(shared)); err != nil {
		defer file.Close() //nolint:errcheck // opened to read
		if noFlock(err) {
			return f.lockByNote(name+".held", me, shared)
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", f.path(name), err)
		}
		return nil, &LockedError{Dir: f.dir, Holder: holderOf(file)}
	}
	h := &held{f: f, file: file, shared: shared}
	if shared {
		return h, nil
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
	return h, nil
}

func lockKind(shared bool) int {
	if shared {
		return syscall.LOCK_SH
	}
	return syscall.LOCK_EX
}

// lockSelf locks the folder itself: somebody may remove the file of the lock while its holder works on. Runners of
// shards share it. A file system that locks no folders has the file alone.
func (f *folder) lockSelf(how int) (*os.File, error) {
	dir, err := f.openAny(".")
	if err != nil {
		return nil, err
	}
	err = flock(dir, how)
	for range 100 { // see flockSoon
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		time.Sleep(10 * time.Millisecond)
		err = flock(dir, how)
	}
	if err == nil {
		return dir, nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, dir.Close()
	}
	return nil, errors.Join(&LockedError{Dir: f.dir}, dir.Close())
}

// noFlock tells that a file system has no flock, or its server none to give.
func noFlock(err error) bool {
	return errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOLCK)
}

// lockByNote creates the file that stands for a lock. One of a process of this
// host that is dead is taken over; of other hosts' nobody here can know.
func (f *folder) lockByNote(name string, me Holder, shared bool) (*held, error) {
	for range 2 {
		var err error
		if !shared {
			var file *os.File
			if file, err = f.create(name); err == nil {
				err = errors.Join(json.NewEncoder(file).Encode(me), file.Sync(), file.Close())
				return &held{f: f, note: name}, err
			}
		} else if !f.exists(name) {
			return &held{f: f, shared: true}, nil
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, f.explain("locking the output folder", err)
		}
		file, err := f.open(name)
		if err != nil {
			continue // given back just now
		}
		who := holderOf(file)
		_ = file.Close() // only read from
		if who.Host != me.Host || who.PID == 0 || !errors.Is(syscall.Kill(who.PID, 0), syscall.ESRCH) {
			return nil, &LockedError{Dir: f.dir, Holder: who, Note: f.path(name)}
		}
		if err := f.remove(name); err != nil {
			return nil, err
		}
	}
	return nil, &LockedError{Dir: f.dir, Note: f.path(name)}
}

// unlock gives the lock back. A file that flock holds stays: removing it would let
// two others hold locks on two files of the same name.
func (h *held) unlock() error {
	switch {
	case h.note != "":
		return h.f.remove(h.note)
	case h.file == nil:
		return nil
	case h.shared:
		return h.file.Close()
	}
	return errors.Join(h.file.Truncate(0), h.file.Close())
}

func flock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// flockSoon is flock, with some patience where the holder that is noted is
// dead: a program that was killed while it started a child leaves the lock with
// that child until its exec, some milliseconds later.
func flockSoon(file *os.File, how int) error {
	for range 100 {
		err := flock(file, how)
		if !errors.Is(err, syscall.EWOULDBLOCK) || !holderDied(file) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return flock(file, how)
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
