package simulate

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// HoldVerb as the first argument makes VLLM a process that only lives, as a
// worker of vLLM does, and holds memory if it is told to:
//
//	hold [ignore] [orphan] [fork] [for=DURATION] [DIR GPU BYTES NAME]
//
// ignore: SIGTERM and SIGINT are ignored; orphan: it does not end when its
// standard input does; fork: it starts itself again without fork and ends;
// foreign: the memory is somebody else's. It always ends after an hour.
const HoldVerb = "hold"

// A child is a process that this one has started. The simulated vllm starts its
// children itself, not through runner/proc: it is the program that is
// supervised, and its children must look as vLLM's do: in the same process
// group, with the same output, and gone astray where chaos says so.
type child struct {
	process *os.Process
	stdin   *os.File // closing it ends the child
	dead    chan struct{}
}

// startChild starts this program again.
func (p *player) startChild(setsid bool, env []string, args ...string) (*child, error) {
	argv := append(append([]string{}, p.config.Reexec...), HoldVerb)
	argv = append(argv, args...)
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("simulated worker: %w", err)
	}
	defer func() { _ = read.Close() }() // the child has its own
	stdout, _ := p.stdout.(*os.File)    // children inherit it; nil (closed) where there is none
	stderr, _ := p.stderr.(*os.File)
	files := []*os.File{read, stdout, stderr}
	attr := &os.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: setsid}}
	process, err := os.StartProcess(argv[0], argv, attr)
	if err != nil {
		_ = write.Close() // there is nobody to read
		return nil, fmt.Errorf("simulated worker: %w", err)
	}
	c := &child{process: process, stdin: write, dead: make(chan struct{})}
	go func() {
		defer close(c.dead)
		// Why it ended is of no interest: that it did is seen by dead.
		_, _ = process.Wait()
	}()
	return c, nil
}

// end lets a child end and waits until it has.
func (c *child) end(limit time.Duration) {
	_ = c.stdin.Close() // closed once is enough
	select {
	case <-c.dead:
	case <-time.After(limit):
	}
}

// hold is the program of a child.
func hold(ctx context.Context, args []string, env []string, stdin io.Reader) int {
	words, rest := map[string]string{}, []string(nil)
	for i, a := range args {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "ignore", "orphan", "fork", "for", "foreign":
			words[name] = value
			continue
		}
		rest = args[i:]
		break
	}
	if _, ignore := words["ignore"]; ignore {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		ctx = context.WithoutCancel(ctx)
	}
	if _, fork := words["fork"]; fork {
		return holdFork(args, env)
	}
	limit, err := time.ParseDuration(words["for"])
	if err != nil {
		limit = time.Hour
	}
	if len(rest) == 4 {
		_, foreign := words["foreign"]
		if err := holdMemory(rest, foreign); err != nil {
			return 1
		}
	}
	end := make(chan struct{})
	if _, orphan := words["orphan"]; !orphan {
		go func() {
			defer close(end)
			_, _ = io.Copy(io.Discard, stdin) // until it is closed, however
		}()
	}
	select {
	case <-end:
		return 0
	case <-ctx.Done():
		return 143
	case <-time.After(limit):
		return 0
	}
}

// holdMemory publishes what this process holds: DIR GPU BYTES NAME.
func holdMemory(args []string, foreign bool) error {
	gpu, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("hold: GPU %q is no number", args[1])
	}
	bytes, err := parseBytes(args[2])
	if err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	h, err := newHolder(args[0], "/proc", os.Getpid(), gpu, args[3])
	if err != nil {
		return err
	}
	return h.set(time.Now(), func(s *holding) {
		s.Bytes = bytes
		if foreign {
			s.Foreign = 1
		}
	})
}

// holdFork starts the same again without fork and in a session of its own, and
// ends: the grandchild is an orphan.
func holdFork(args []string, env []string) int {
	self, err := os.Executable()
	if err != nil {
		return 1
	}
	c, err := configFrom(env)
	if err != nil {
		return 1
	}
	argv := append(append([]string{}, c.Reexec...), HoldVerb)
	if len(c.Reexec) == 0 {
		argv = []string{self, HoldVerb}
	}
	for _, a := range args {
		if a != "fork" {
			argv = append(argv, a)
		}
	}
	files := []*os.File{nil, os.Stdout, os.Stderr}
	attr := &os.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if _, err := os.StartProcess(argv[0], argv, attr); err != nil {
		return 1
	}
	return 0
}
