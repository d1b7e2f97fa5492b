package sweep

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// maxFileBytes bounds one file, and one value given on the command line.
const maxFileBytes = 1 << 20

// sources holds the text of every file, --var and environment variable by the
// name that ranges carry, so that diagnostics can quote it.
type sources map[string][]byte

var errNoFiles = errors.New("it holds no *.hcl or *.hcl.json file")

// configFiles lists what path stands for: the file itself, or the *.hcl and
// *.hcl.json files of a folder, sorted by name. The names are those that
// diagnostics show; resolve turns them into paths.
func configFiles(path, workDir string) ([]string, error) {
	info, err := os.Stat(resolve(workDir, path))
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(resolve(workDir, path))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		n := e.Name()
		if e.IsDir() || strings.HasPrefix(n, ".") {
			continue
		}
		if strings.HasSuffix(n, ".hcl") || strings.HasSuffix(n, ".hcl.json") {
			names = append(names, filepath.Join(path, n))
		}
	}
	if len(names) == 0 {
		return nil, errNoFiles
	}
	sort.Strings(names)
	return names, nil
}

// resolve makes a path of a configuration one that the system understands:
// relative paths are relative to workDir.
func resolve(workDir, path string) string {
	if workDir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(workDir, path)
}

// readSource reads a file whole; of a file that is too large, just enough to
// see that it is.
func readSource(workDir, name string) ([]byte, error) {
	f, err := os.Open(resolve(workDir, name))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return b, err
}

// isJSON decides the syntax of a file by its name alone.
func isJSON(name string) bool { return strings.HasSuffix(name, ".json") }

// plainError is err without the operation and the path that os puts around
// it: messages name the file themselves.
func plainError(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
