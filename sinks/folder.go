package sinks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// tmpMark is in the name of every file that is not yet finished. Whatever
// carries it while nobody writes is a leftover.
const tmpMark = ".tmp-"

// A folder is the output folder: every path is relative to it, and neither a
// name nor a link can lead out of it. Links inside it are not followed when
// something is written, moved or deleted.
type folder struct {
	dir  string // as the user named it, for messages
	root *os.Root
}

func openFolder(dir string) (*folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &folder{dir: dir, root: root}, nil
}

func (f *folder) close() error { return f.root.Close() }

// path is how messages name a file of the folder.
func (f *folder) path(name string) string { return path.Join(f.dir, name) }

// noLinks refuses a path that has a symbolic link among its parents.
func (f *folder) noLinks(name string) error {
	for i, c := range name {
		if c != '/' {
			continue
		}
		info, err := f.root.Lstat(name[:i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link, and links inside an output folder are not followed; "+
				"replace it by a folder, or make the output folder itself the link", f.path(name[:i]))
		}
	}
	return nil
}

func (f *folder) mkdir(name string) error {
	if err := f.noLinks(name + "/"); err != nil {
		return err
	}
	return f.root.MkdirAll(name, 0o755)
}

// create opens a new file; it fails if there is anything of that name.
func (f *folder) create(name string) (*os.File, error) {
	if err := f.noLinks(name); err != nil {
		return nil, err
	}
	return f.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
}

// replace writes a file whole: under a temporary name, synced, renamed, with
// the folder synced after. Whoever reads it sees the old or the new one.
func (f *folder) replace(name string, write func(io.Writer) error) error {
	if err := f.put(name, true, write); err != nil {
		return err
	}
	return f.syncDir(path.Dir(name))
}

// put is replace without syncing the folder: a power cut may leave the old
// file, or none. Without sync it may also leave an empty one.
func (f *folder) put(name string, sync bool, write func(io.Writer) error) error {
	if err := f.stage(name, sync, write); err != nil {
		return err
	}
	return f.rename(tmpName(name), name)
}

// stage writes a file under its temporary name.
func (f *folder) stage(name string, sync bool, write func(io.Writer) error) (err error) {
	tmp := tmpName(name)
	if err := f.remove(tmp); err != nil {
		return err
	}
	file, err := f.create(tmp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove(tmp))
		}
	}()
	if err := write(file); err != nil {
		return errors.Join(err, file.Close())
	}
	if sync {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// tmpName is the name under which a file is written. It is the same every
// time, so that a crash leaves one leftover at most, which the next try removes.
func tmpName(name string) string {
	dir, base := path.Split(name)
	return dir + tmpMark + base
}

func (f *folder) rename(from, to string) error {
	if err := errors.Join(f.noLinks(from), f.noLinks(to)); err != nil {
		return err
	}
	return f.root.Rename(from, to)
}

// remove deletes a file, if it is there.
func (f *folder) remove(name string) error {
	err := f.noLinks(name)
	if err == nil {
		err = f.root.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeAll deletes a folder; links in it are deleted, not followed.
func (f *folder) removeAll(name string) error {
	if err := f.noLinks(name); err != nil {
		return err
	}
	return f.root.RemoveAll(name)
}

func (f *folder) syncDir(name string) error {
	dir, err := f.openAny(name)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // some file systems sync no folders
	}
	return errors.Join(err, dir.Close())
}

// list gives the entries of a folder, sorted; none where it does not exist.
func (f *folder) list(name string) ([]fs.DirEntry, error) {
	dir, err := f.openAny(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := dir.ReadDir(-1)
	err = errors.Join(err, dir.Close())
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

// dirs gives the names of the folders in a folder, without links and hidden ones.
func (f *folder) dirs(name string) ([]string, error) {
	entries, err := f.list(name)
	var names []string
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (f *folder) exists(name string) bool {
	_, err := f.root.Lstat(name)
	return err == nil
}

// openAny opens whatever has this name, to read; a FIFO is not waited for.
func (f *folder) openAny(name string) (*os.File, error) {
	return f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// open opens a regular file to read: whatever else stands in its place (a FIFO,
// a device, a folder) is refused, or its reader might wait for ever.
func (f *folder) open(name string) (*os.File, error) {
	file, err := f.openAny(name)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file (%v)", f.path(name), info.Mode().Type())
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (f *folder) readFile(name string) ([]byte, error) {
	file, err := f.open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(file)
	return data, errors.Join(err, file.Close())
}

// A folderError is an error of the file system with its folder and the next step.
type folderError struct {
	what, dir, hint string
	err             error
}

func (e *folderError) Error() string {
	return fmt.Sprintf("%s in %s: %v%s", e.what, e.dir, e.err, e.hint)
}

func (e *folderError) Unwrap() error { return e.err }

// explain adds the folder and the next step to an error, once.
func (f *folder) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	if inner := (*folderError)(nil); errors.As(err, &inner) {
		return fmt.Errorf("%s: %w", what, err)
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "; make room on that file system: what was finished is intact, and `run --resume` goes on"
	case errors.Is(err, syscall.EROFS):
		hint = "; the file system is read-only: choose another output folder with `output { dir = ... }`"
	case errors.Is(err, fs.ErrPermission):
		hint = "; this user may not write there: choose another output folder with `output { dir = ... }`, " +
			"or change its owner"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		hint = "; too many files are open: raise the limit (ulimit -n)"
	}
	return &folderError{what: what, dir: f.dir, hint: hint, err: err}
}
