// Package recorded unpacks the project's own recordings of real vLLM on real
// GPUs for tests. Each is an output folder of today's schema, without tables
// (`vramsweep compact` or `reparse` makes those), kept as testdata/NAME.tar.zst:
//
//	h100-v0.26    24 runs, vLLM 0.26.0, H100. Recorded by a script, without the
//	              arrival times of log lines: these were placed once, from the
//	              lines' whole-second stamps and the samples, and
//	              log_events.uncertainty_s says how well.
//	h100x2-v0.26  the folders that docs/measured/h100x2-vllm-0.26 reports on
//	h200-v0.33    23 runs, vLLM 0.33.0, H200
//
// Only tests import it.
package recorded

import (
	"archive/tar"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

//go:embed testdata/*.tar.zst
var archives embed.FS

// Folder unpacks a recording into a temporary folder of the test and returns
// the path of its output folder.
func Folder(t testing.TB, name string) string {
	t.Helper()
	dir, err := Unpack(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Unpack writes a recording below dir and returns the path of its output folder.
func Unpack(dir, name string) (string, error) {
	archive, err := archives.Open("testdata/" + name + ".tar.zst")
	if err != nil {
		return "", fmt.Errorf("recording %q: %w", name, err)
	}
	defer archive.Close() //nolint:errcheck // only read
	z, err := zstd.NewReader(archive)
	if err != nil {
		return "", err
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), errors.Join(extract(root, tar.NewReader(z)), root.Close())
}

func extract(root *os.Root, archive *tar.Reader) error {
	for {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch head.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(filepath.Clean(head.Name), 0o755)
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(archive); err == nil {
				err = root.WriteFile(head.Name, data, 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
}
