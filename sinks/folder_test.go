//go:build linux

package sinks

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestSecondRunnerIsToldWhoHoldsTheFolder(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	_, err := Open(dir, Options{Host: "other"})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.Holder.PID != os.Getpid() || locked.Holder.Host != "lab-1" || locked.Holder.Since.IsZero() {
		t.Fatalf("the second: %v", err)
	}
	for _, want := range []string{dir, "pid", "lab-1", "since", "choose another output folder"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, []byte("keep"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := night(0)[0]
	link := func(dir, name string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(outside, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"runs", "runs/" + run.execution, "runs/" + run.execution + "/" + RunName(run.job(1)), "executions", "tables", ".staging"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			link(dir, name)
			err := func() error {
				s, err := Open(dir, Options{})
				if err != nil {
					return err
				}
				defer s.Close()
				if err := s.BeginExecution(&Execution{ID: run.execution, StartedAt: run.started}); err != nil {
					return err
				}
				sink, err := s.Begin(run.job(1))
				if err != nil {
					return err
				}
				if err := errors.Join(sink.Samples(run.samples()), sink.Finish(run.result())); err != nil {
					return err
				}
				return s.FinishExecution(run.execution, StateComplete, nil)
			}()
			if name != ".staging" && (err == nil || !strings.Contains(err.Error(), "symbolic link")) {
				t.Errorf("expected an error about the link, got %v", err)
			}
			entries, rerr := os.ReadDir(outside)
			if rerr != nil || len(entries) != 1 {
				t.Errorf("something was written through the link: %v %v", entries, rerr)
			}
		})
	}
	t.Run("files", func(t *testing.T) { // a link in the place of a file is replaced, not followed
		dir := t.TempDir()
		s := openStore(t, dir)
		job := run.job(1)
		sink, err := s.Begin(job)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{resultName, timelineName} {
			if err := os.Symlink(precious, filepath.Join(job.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(sink.Samples(run.samples()), sink.Finish(run.result())); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(precious); err != nil || string(b) != "keep" {
			t.Errorf("the file behind the link: %q, %v", b, err)
		}
	})
}

func TestNamesStayInside(t *testing.T) {
	for _, name := range []string{"../../etc", "..", "/etc/passwd", "a/b", "", ".", "-rf", "Qwen/Qwen3 8B", "\x00", strings.Repeat("ü", 300)} {
		safe := safeName(name)
		if safe == "" || strings.ContainsAny(safe, "/\x00 ") || strings.HasPrefix(safe, ".") || strings.HasPrefix(safe, "-") || len(safe) > 200 {
			t.Errorf("safeName(%q) = %q", name, safe)
		}
	}
	if safeName("a/b") == safeName("a_b") || safeName("a/b") == safeName("a:b") {
		t.Error("two texts share a name")
	}
	dir := t.TempDir()
	s := openStore(t, dir)
	run := night(0)[0]
	run.sweep = "../../../escape"
	sink, err := s.Begin(run.job(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Finish(run.result()); err != nil {
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "runs", run.execution, "*escape*", resultName)); err != nil || len(names) != 1 {
		t.Errorf("the run lies in %v, %v", names, err)
	}
	job := night(0)[1].job(1)
	job.Execution = "../x"
	if _, err := s.Begin(job); err == nil || !strings.Contains(err.Error(), "no execution id") {
		t.Errorf("an execution named ../x: %v", err)
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "results"), Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a folder in a file: %v", err)
	}
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere: the rest needs another user")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "may not write") {
		t.Errorf("a read-only folder: %v", err)
	}
}

// tmpfs mounts a small file system; only root may.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDiskLosesNothingThatIsFinished(t *testing.T) {
	dir := tmpfs(t, "size=2m")
	s := openStore(t, dir)
	runs := night(0)
	write(t, s, runs[:2])
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 4<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the ballast: %v", err)
	}
	sink, err := s.Begin(runs[2].job(1))
	if err == nil {
		err = errors.Join(sink.Samples(runs[2].samples()), sink.(*RunSink).flush(), sink.Finish(runs[2].result()))
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("a full disk: %v", err)
	}
	if got := collect[RunRow](t, Predicate{}, dir); len(got) != 2 {
		t.Errorf("%d finished runs are left of 2", len(got))
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	// There is room again: the attempt that could not be kept is recovered and repeated.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if _, err := s.Recover(); err != nil {
		t.Fatal(err)
	}
	writeRun(t, s, runs[2], 1)
	if got := collect[RunRow](t, Predicate{}, dir); len(got) != 3 {
		t.Errorf("%d runs of 3", len(got))
	}
	if faults := faultsOf(t, s); len(faults) > 0 {
		t.Errorf("faults:\n%s", strings.Join(faults, "\n"))
	}
}

func TestSamplesWaitForRoom(t *testing.T) {
	dir := tmpfs(t, "size=2m")
	s := openStore(t, dir)
	run := &testRun{execution: "20261120T020000Z-000000", started: testStart, sweep: "long", model: "m", inputLen: 1, batch: 1, repeat: 1, gpus: 4, seconds: 30}
	sink, err := s.Begin(run.job(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 4<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the ballast: %v", err)
	}
	refused := false
	for batch := range slices.Chunk(run.samples(), 50) {
		err := sink.Samples(batch)
		if ferr := sink.(*RunSink).flush(); ferr != nil || err != nil {
			refused = true
		}
	}
	if !refused {
		t.Fatal("a full disk took all samples")
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	if err := sink.Finish(run.result()); err != nil {
		t.Fatal(err)
	}
	if got := len(collect[TimelineRow](t, Predicate{}, dir)); got != len(run.samples()) {
		t.Errorf("%d samples of %d were kept", got, len(run.samples()))
	}
}
