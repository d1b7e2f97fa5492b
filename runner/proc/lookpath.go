package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNotFound is wrapped by the error of Start and LookPath when the program
// does not exist.
var ErrNotFound = errors.New("no such program")

// LookPath finds name on the PATH of env, as Start does. A name with a slash
// is taken as it is, relative to dir. The error names the folders that were
// searched.
func LookPath(name string, env []string, dir string) (string, error) {
	if name == "" {
		return "", errors.New("start: the program's name is empty")
	}
	if strings.ContainsRune(name, '/') {
		path := name
		if !filepath.IsAbs(path) && dir != "" {
			path = filepath.Join(dir, path)
		}
		if err := executable(path); err != nil {
			return "", fmt.Errorf("start %s: %w", name, err)
		}
		return filepath.Abs(path)
	}
	list := lookup(env, "PATH")
	var denied error
	for _, d := range filepath.SplitList(list) {
		if d == "" || !filepath.IsAbs(d) {
			continue // as os/exec: nothing is run from the working directory by accident
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, ErrNotFound) {
			denied = err
		}
	}
	if denied != nil {
		return "", fmt.Errorf("start %s: %w", name, denied)
	}
	if list == "" {
		return "", fmt.Errorf("start %s: %w: PATH is empty", name, ErrNotFound)
	}
	return "", fmt.Errorf("start %s: %w in the folders of PATH (%d)", name, ErrNotFound, len(filepath.SplitList(list)))
}

func executable(path string) error {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s", ErrNotFound, path)
	case err != nil:
		return err
	case fi.IsDir():
		return fmt.Errorf("%s is a folder, not a program", path)
	case fi.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable (mode %v): %w", path, fi.Mode().Perm(), fs.ErrPermission)
	}
	return nil
}

// lookup gives the value of name in env; the last one counts, as for execve's
// users.
func lookup(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(env[i], "="); ok && k == name {
			return v
		}
	}
	return ""
}

// setenv gives env with name set to value, once.
func setenv(env []string, name, value string) []string {
	out := make([]string, 0, len(env)+1)
	for _, e := range env {
		if k, _, _ := strings.Cut(e, "="); k != name {
			out = append(out, e)
		}
	}
	return append(out, name+"="+value)
}

// Interpreter is the command of a Python script's first line ("#!/usr/bin/env
// python3" gives two words); nil where a file is no Python script. An error says
// that it cannot be read.
func Interpreter(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("interpreter of a script: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	head := make([]byte, 512)
	n, err := file.Read(head)
	if err != nil && n == 0 {
		return nil, fmt.Errorf("interpreter of a script: read %s: %w", path, err)
	}
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	command, ok := strings.CutPrefix(line, "#!")
	if !ok || !strings.Contains(command, "python") {
		return nil, nil
	}
	return strings.Fields(command), nil
}
