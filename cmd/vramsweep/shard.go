package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

// exitPlacement is EX_TEMPFAIL of sysexits.h: this job's place cannot be used (a GPU
// is missing), another may be.
const exitPlacement = 75

// A part is what this process runs of an execution: all of it, or a shard.
type part struct {
	execution string // "": the Runner names it
	shard     string // "3/6"; "": all
	digest    string // of the whole plan and how it is cut
}

// A scheduler says by environment variables which element of a job this is.
type scheduler struct {
	name         string
	index, count string
	from         string // the variable with the index of the first element; "": first
	first        int
	id           []string // the variables that name the job for all of its elements
	prefix       string
}

func schedulers() []scheduler {
	return []scheduler{
		{name: "a Slurm array", index: "SLURM_ARRAY_TASK_ID", count: "SLURM_ARRAY_TASK_COUNT", from: "SLURM_ARRAY_TASK_MIN",
			id: []string{"SLURM_ARRAY_JOB_ID"}, prefix: "slurm"},
		{name: "an indexed Kubernetes Job", index: "JOB_COMPLETION_INDEX", count: "JOB_COMPLETIONS",
			id: []string{"JOB_NAME"}, prefix: "k8s"},
		{name: "a parallel Buildkite step", index: "BUILDKITE_PARALLEL_JOB", count: "BUILDKITE_PARALLEL_JOB_COUNT",
			id: []string{"BUILDKITE_PIPELINE_SLUG", "BUILDKITE_BUILD_NUMBER"}, prefix: "buildkite"},
		{name: "a parallel GitLab job", index: "CI_NODE_INDEX", count: "CI_NODE_TOTAL", first: 1,
			id: []string{"CI_PIPELINE_ID"}, prefix: "gitlab"},
	}
}

// scheduler finds the one that started this process; nil: none that is known.
func (w *world) scheduler() *scheduler {
	for _, s := range schedulers() {
		if w.getenv(s.index) != "" {
			return &s
		}
	}
	return nil
}

// numbers are the element of the scheduler's job, from 1, and how many there are;
// count is that of the flag, 0 where it names none.
func (s *scheduler) numbers(w *world, count int) (i, n int, err error) {
	first := s.first
	if from := w.getenv(s.from); s.from != "" && from != "" {
		if first, err = strconv.Atoi(from); err != nil {
			return 0, 0, fmt.Errorf("%s=%s is no number", s.from, from)
		}
	}
	if i, err = strconv.Atoi(w.getenv(s.index)); err != nil {
		return 0, 0, fmt.Errorf("%s=%s is no number", s.index, w.getenv(s.index))
	}
	n = count
	if n == 0 {
		if n, err = strconv.Atoi(w.getenv(s.count)); err != nil {
			return 0, 0, fmt.Errorf("this is element %d of %s, but %s does not say of how many: name them, --shard auto/6",
				i, s.name, s.count)
		}
	}
	return i - first + 1, n, nil
}

// shardNumbers reads --shard: I/N, auto, or auto/N.
func (w *world) shardNumbers(flag string) (i, n int, err error) {
	first, count, _ := strings.Cut(flag, "/")
	if count != "" {
		if n, err = strconv.Atoi(count); err != nil || n < 1 {
			return 0, 0, fmt.Errorf("%q is no number of shards", count)
		}
	}
	switch s := w.scheduler(); {
	case first != "auto":
		i, err = strconv.Atoi(first)
		if err != nil || n == 0 {
			return 0, 0, errors.New("it is I/N, from 1/N to N/N, or auto")
		}
	case s == nil:
		return 0, 0, errors.New("no scheduler that is known has started this process: there is none of " +
			"SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, BUILDKITE_PARALLEL_JOB and CI_NODE_INDEX in the environment; " +
			"name the shard, --shard 3/6")
	default:
		if i, n, err = s.numbers(w, n); err != nil {
			return 0, 0, err
		}
	}
	if i < 1 || i > n {
		return 0, 0, fmt.Errorf("shard %d of %d: shards go from 1 to %d", i, n, n)
	}
	return i, n, nil
}

var executionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// part resolves --shard and --execution, and cuts the plan.
func (w *world) part(plan *sweep.Plan, f *runFlags) (*sweep.Plan, part, error) {
	p := part{execution: f.execution}
	if p.execution != "" && !executionName.MatchString(p.execution) {
		return nil, p, usageError("It becomes part of the names of files.",
			"--execution %s: expected letters, digits, hyphens and underscores, 64 at most", p.execution)
	}
	if f.shard == "" {
		return plan, p, nil
	}
	i, n, err := w.shardNumbers(f.shard)
	if err != nil {
		return nil, p, usageError("", "--shard %s: %w", f.shard, err)
	}
	if s := w.scheduler(); p.execution == "" && s != nil {
		words := []string{s.prefix}
		for _, name := range s.id {
			words = append(words, w.getenv(name))
		}
		if name := strings.Join(words, "-"); executionName.MatchString(name) && words[len(words)-1] != "" {
			p.execution = name
		}
	}
	if p.execution == "" {
		return nil, p, usageError("All shards of a night name the same one.",
			"--shard %s: --execution NAME is missing, and no scheduler sets a job id", f.shard)
	}
	shards := planner.Cut(plan, n)
	plans := make([]*sweep.Plan, n)
	for i, s := range shards {
		plans[i] = s.Plan
	}
	p.shard, p.digest = fmt.Sprintf("%d/%d", i, n), runner.Digest(plans...)
	return plans[i-1], p, nil
}

// suffix tells the marks and folders of shards apart; "" where there is none.
func (p *part) suffix() string {
	if p.shard == "" {
		return ""
	}
	return fmt.Sprintf(".%x", sha256.Sum256([]byte(p.execution+"\x00"+p.shard)))[:9]
}

// copyEvery is how often a runner looks whether another copy of its shard has ended.
const copyEvery = time.Second

// openPart opens the output folder for a part of an execution. A scheduler can start
// an element twice (a node that it cannot reach runs on): the second copy waits for
// the first, and then does what is left.
func (w *world) openPart(ctx context.Context, dir, what string, p *part) (*sinks.Store, error) {
	host, _ := os.Hostname() // only words
	options := sinks.Options{Version: version, Host: host, What: what, Masker: w.secrets(),
		Execution: p.execution, Shard: p.shard}
	for tries := 0; ; tries++ {
		store, err := sinks.Open(dir, options)
		var locked *sinks.LockedError
		switch {
		case err == nil:
			return store, nil
		case p.shard == "" || !errors.As(err, &locked) || !locked.Copy && tries == 5: // not just looked at
			return nil, folderError(err)
		case locked.Note != "" && locked.Holder.Host != host:
			return nil, &exitError{code: exitPlacement, err: err}
		case tries == 0 && locked.Copy:
			fmt.Fprintf(w.stderr, "note: waiting for another copy of shard %s: %v\n", p.shard, err)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(quiet(exitInterrupted), context.Cause(ctx))
		case <-time.After(copyEvery):
		}
	}
}

// publishExecution hands a finished execution to the command of --publish.
func (w *world) publishExecution(ctx context.Context, command, dir string, s *runner.Summary) error {
	if command == "" || s.State != runner.StateComplete {
		return nil
	}
	whole := false
	err := viewStore(dir, func(store *sinks.Store) error {
		e, err := store.Execution(s.Execution)
		whole = err == nil && e.State == runner.StateComplete
		return err
	})
	if err != nil || !whole { // the last shard does it
		return err
	}
	argv := append(strings.Fields(command), dir, s.Execution)
	p, err := proc.Start(ctx, proc.Spec{Argv: argv, Env: w.env, Stdout: w.stderr, Stderr: w.stderr})
	if err != nil {
		return fmt.Errorf("--publish: %w", err)
	}
	exit, err := p.Wait()
	if err == nil && (exit.Code == nil || *exit.Code != 0) {
		err = fmt.Errorf("%s failed for execution %s: what was measured is in %s; run it again by hand",
			strings.Join(argv, " "), s.Execution, dir)
	}
	if err != nil {
		return fmt.Errorf("--publish: %w", err)
	}
	return nil
}
