package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp compares what --help of every verb says with testdata/help; -update
// rewrites that. A file of a verb that is no more fails.
func TestHelp(t *testing.T) {
	const dir = "testdata/help"
	w := &world{stdout: io.Discard, stderr: io.Discard, dir: t.TempDir(), self: "vramsweep"}
	left := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		left[file] = true
	}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		path := strings.Fields(cmd.CommandPath())
		file := filepath.Join(dir, strings.Join(path, "-")+".txt")
		delete(left, file)
		var out bytes.Buffer
		says := *w
		says.stdout, says.args = &out, append(path[1:], "--help")
		if code := run(&says); code != exitOK {
			t.Errorf("%s --help: exit code %d", cmd.CommandPath(), code)
		}
		if *updateScripts {
			if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("%v: -update writes it", err)
		} else if got := out.String(); got != string(want) {
			t.Errorf("%s --help says (-update accepts it)\n%s\nwant\n%s", cmd.CommandPath(), got, want)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(w))
	for file := range left {
		t.Errorf("%s is of no verb", file)
	}
}
