package sinks

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// `make attack` gives -attack: the long form.
var attack = flag.Bool("attack", false, "the long form of the attacks")

// figures are the rows of all tables of a folder, as far as they can be read.
func figures(t *testing.T, s *Store) map[string]bool {
	t.Helper()
	rows := map[string]bool{}
	for _, table := range Tables() {
		var b bytes.Buffer
		_, _ = s.Export(table, "jsonl", Predicate{}, &b) // what is damaged is not there
		for line := range strings.Lines(b.String()) {
			rows[string(table)+" "+line] = true
		}
	}
	return rows
}

// TestAttackFlippedBytes changes one byte of a finished folder again and again: verify finds it, or no figure changes;
// no wrong row is published; recover and compact --rebuild give a folder without a fault.
func TestAttackFlippedBytes(t *testing.T) {
	n := 6
	if *attack {
		n = 500
	}
	sound := soundFolder(t)
	var files []string
	err := filepath.WalkDir(sound, func(name string, e fs.DirEntry, err error) error {
		if info, ierr := e.Info(); err == nil && ierr == nil && e.Type().IsRegular() && info.Size() > 0 {
			files = append(files, strings.TrimPrefix(name, sound+"/"))
		}
		return err
	})
	s, verr := View(sound, Options{})
	if err := errors.Join(err, verr); err != nil {
		t.Fatal(err)
	}
	want := figures(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	found := 0
	for range n {
		name := files[rng.IntN(len(files))]
		dir := t.TempDir()
		b, err := os.ReadFile(filepath.Join(sound, name))
		if err = errors.Join(err, os.CopyFS(dir, os.DirFS(sound))); err != nil {
			t.Fatal(err)
		}
		at, bit := rng.IntN(len(b)), byte(1)<<rng.IntN(8)
		b[at] ^= bit
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if flipped(t, dir, want) {
			found++
		}
		if t.Failed() {
			t.Fatalf("byte %d of %s, bit %#x (seed %d)", at, name, bit, seed)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d bytes flipped: %d found by verify, %d without effect", n, found, n-found)
}

// flipped reports whether verify finds a fault.
func flipped(t *testing.T, dir string, want map[string]bool) bool {
	t.Helper()
	view, err := View(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	faults := faultsOf(t, view)
	if len(faults) == 0 && !maps.Equal(figures(t, view), want) {
		t.Error("verify finds nothing, and figures changed")
	}
	_, err = view.Rebuild()
	checkRows(t, view, want, "after compact --rebuild")
	if err = errors.Join(err, view.Close()); err != nil {
		t.Logf("compact --rebuild: %v", err)
	}
	s := openStore(t, dir)
	report, err := s.Recover()
	if err = errors.Join(err, s.Quarantine(report)); err != nil {
		t.Errorf("recover: %v", err)
	}
	if _, err := s.Rebuild(); err != nil {
		t.Errorf("compact --rebuild after recover: %v", err)
	}
	checkRows(t, s, want, "after recover")
	if left := faultsOf(t, s); len(left) > 0 {
		t.Errorf("found %v; after recover and compact --rebuild there still is\n%s", faults, strings.Join(left, "\n"))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return len(faults) > 0
}

// checkRows finds rows that were never measured. A run that was read again has its own checksum.
func checkRows(t *testing.T, s *Store, want map[string]bool, when string) {
	t.Helper()
	have := figures(t, s)
	for row := range have {
		if !want[row] {
			t.Errorf("%s there is a row that was never measured: %.200s", when, row)
			return
		}
	}
	if runs := len(slices.Collect(maps.Keys(have))); runs < len(want)*3/4 {
		t.Errorf("%s there are %d rows of %d: one byte cost more than a run", when, runs, len(want))
	}
}
