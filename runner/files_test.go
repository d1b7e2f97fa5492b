package runner

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestCreateFile: what stands in a log's place is neither followed, nor waited
// for, nor changed.
func TestCreateFile(t *testing.T) {
	dir := t.TempDir()
	treasure := filepath.Join(dir, "treasure")
	if err := os.WriteFile(treasure, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(string) error{
		"link":          func(path string) error { return os.Symlink(treasure, path) },
		"dangling link": func(path string) error { return os.Symlink(filepath.Join(dir, "new"), path) },
		"FIFO":          func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"folder":        func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		path := filepath.Join(dir, name, "stdout.log")
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		if f, err := CreateFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names %s", name, err, path)
			_ = f.Close()
		}
	}
	if b, err := os.ReadFile(treasure); err != nil || string(b) != "mine" {
		t.Errorf("the file behind the link holds %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "new")); err == nil {
		t.Error("a file was made behind a dangling link")
	}
	old := filepath.Join(dir, "old.log")
	if err := os.WriteFile(old, []byte("of an earlier attempt"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := CreateFile(old)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("an old log is not begun anew: %v, %v", info.Size(), err)
	}
}
