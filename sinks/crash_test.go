package sinks

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// childDir makes this test binary the process that is killed.
const childDir = "VRAMSWEEP_SINKS_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child runs nights for ever, as `run --resume` does, and says on stdout what
// has become durable.
func child(dir string) {
	must := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	s, err := Open(dir, Options{Version: "test", What: "child"})
	must(err)
	_, err = s.Recover()
	must(err)
	executions, err := s.Executions()
	must(err)
	n := len(executions)
	if n > 0 && executions[n-1].State != StateComplete {
		n--
	}
	for ; ; n++ {
		runs := night(n)
		must(s.BeginExecution(&Execution{ID: runs[0].execution, StartedAt: runs[0].started, Runs: len(runs), Synthetic: true}))
		done, err := s.Finished(runs[0].execution)
		must(err)
		for _, r := range runs {
			job := r.job(1)
			if done[job.RunID] != nil {
				continue
			}
			sink, err := s.Begin(job)
			must(err)
			for i, sample := range r.samples() {
				must(sink.Samples([]runner.Sample{sample}))
				if i%20 == 19 {
					must(sink.(*RunSink).flush())
					fmt.Println("samples", job.RunID, i+1)
				}
			}
			must(sink.Finish(r.result()))
			fmt.Println("run", job.RunID)
		}
		must(s.FinishExecution(runs[0].execution, StateComplete, nil))
		fmt.Println("execution", runs[0].execution)
		_, err = s.Compact()
		must(err)
	}
}

func (r *RunSink) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.flush()
}

// TestKilledAtAnyMoment kills the writer again and again and expects after each
// time that recovery gives a folder without a fault, in which every run that
// was durable stands once and every acknowledged sample of the attempt that was cut off is kept.
func TestKilledAtAnyMoment(t *testing.T) {
	kills := 6
	if n, err := strconv.Atoi(os.Getenv("VRAMSWEEP_SINKS_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	durable := map[string]bool{}
	for kill := range kills {
		acked := runChild(t, dir, time.Duration(20+rng.IntN(1200))*time.Millisecond, durable)
		s := openStore(t, dir)
		report, err := s.Recover()
		if err != nil {
			t.Fatalf("kill %d: %v", kill, err)
		}
		for _, a := range report.Attempts {
			if a.Samples < acked[a.RunID] {
				t.Errorf("kill %d: %d samples of %s were recovered, %d were durable", kill, a.Samples, a.RunID, acked[a.RunID])
			}
			r, err := ReadResult(filepath.Join(dir, a.Dir, resultName))
			if err != nil || r.Run.Outcome != runner.OutcomeInterrupted || r.Run.RunID != a.RunID {
				t.Errorf("kill %d: attempt %s: %v %+v", kill, a.Dir, err, r)
			}
		}
		if faults := faultsOf(t, s); len(faults) > 0 {
			t.Fatalf("kill %d:\n%s", kill, strings.Join(faults, "\n"))
		}
		rows := map[string]int{}
		for _, row := range collect[RunRow](t, Predicate{}, dir) {
			rows[row.RunID]++
		}
		for id := range durable {
			if rows[id] != 1 {
				t.Fatalf("kill %d: run %s has %d rows", kill, id, rows[id])
			}
		}
		for id, n := range rows {
			if n != 1 {
				t.Fatalf("kill %d: run %s has %d rows", kill, id, n)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d runs durable", kills, len(durable))
}

// runChild lets a child write until it is killed; it adds the runs that became
// durable and returns the samples that did.
func runChild(t *testing.T, dir string, after time.Duration, durable map[string]bool) map[string]int64 {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended by an error, which it prints
	defer timer.Stop()
	acked := map[string]int64{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var id string
		var n int64
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "run "):
			durable[strings.TrimPrefix(line, "run ")] = true
		case strings.HasPrefix(line, "samples "):
			if _, err := fmt.Sscanf(line, "samples %s %d", &id, &n); err == nil {
				acked[id] = n
			}
		case strings.HasPrefix(line, "error "):
			t.Fatalf("the child: %s", line)
		}
	}
	cmd.Wait() //nolint:errcheck // it was killed
	return acked
}
