// Package proc runs a program and all that it starts, until nothing of it is
// left. It is the only package that starts processes; it never uses a shell.
package proc

import (
	"io"
	"os"
	"time"
)

// A Spec is a program to run.
type Spec struct {
	Argv []string // Argv[0] is looked up on the PATH of Env
	Env  []string // the whole environment; nil: that of this process
	Dir  string
	// Mark is put into the child's environment (as VRAMSWEEP_RUN, with a suffix
	// that makes each Start its own) so that descendants which left the process
	// group are found again, also after this process was killed. "" makes one up.
	Mark string
	// Grace is how long the tree may take to end after SIGTERM; default 10 s.
	Grace time.Duration
	// Settle is how long descendants may outlive the program before they count
	// as left behind; default 2 s (Python's resource tracker takes some ms).
	Settle time.Duration
	Stdin  io.Reader
	Root   string // of /proc; "": /proc
	// ExtraFiles become the program's file descriptors 3, 4, ... The caller closes
	// its own copies.
	ExtraFiles []*os.File
	// NoCgroup leaves the cgroups alone; else a cgroup v2 is used where one may
	// be made.
	NoCgroup bool
	// CPUs are those that the program and all that it starts may use; empty: those
	// of this process. Linux only.
	CPUs []int
	// Beside is how many programs are watched side by side, this one included: each is
	// looked at so much more seldom. 0: it alone.
	Beside int
	// Alone: the program is known to start nothing of its own (an instrument, not
	// an engine), so its tree is not looked for while it runs; at its end it is.
	Alone bool

	// Fork, where it is set, starts the program in place of execve.
	Fork Fork

	// Line is called for each line of output, one call at a time, in the order
	// of arrival. nil: output is only kept raw.
	Line func(Line)
	// Stdout and Stderr get every byte of output as it comes. nil: dropped.
	Stdout, Stderr io.Writer
	// StdoutFile becomes the program's stdout itself: nothing of it is read here,
	// Line and Stdout get none of it. The caller closes its own copy.
	StdoutFile *os.File
}

// A Fork has another process start a program: Python that has imported it
// already. The process whose PID it returns is a child of this one by then, and
// does nothing of the program before release is called.
type Fork func(f *Forked) (pid int, release func() error, err error)

// A Forked is what execve would be given.
type Forked struct {
	Path  string // of the program, as found on the PATH
	Argv  []string
	Env   []string // with Mark
	Mark  string
	Dir   string
	Files []*os.File // descriptors 1, 2, 3, ...; standard input is empty
}

// A Line is a line of output, without its end. A line of over 1 MiB comes in
// pieces. A tqdm bar that ends in CR is a line of its own.
type Line struct {
	Stream  string    // "stdout", "stderr"
	Text    []byte    // valid during the call
	Arrived time.Time // when the last byte of Text was read
	Number  int       // of its stream, from 1; pieces and CR lines count with the line that they belong to
	CR      bool
	More    bool // a piece of a line that goes on
}

// A Process is a running program.
type Process interface {
	PID() int
	// Tree lists the program and all that it started and that is alive.
	Tree() []int
	// Pause stops all of the tree (SIGSTOP), and Resume lets it go on.
	Pause()
	Resume()
	// Stop asks the tree to end (SIGTERM, grace, SIGKILL). It does not wait.
	// The first reason counts.
	Stop(reason string)
	// Kill ends the tree at once (SIGKILL). It does not wait.
	Kill(reason string)
	// Wait returns once nothing of the tree is left, all output has been
	// delivered and what left the group has been ended.
	Wait() (*Exit, error)
}

// An Exit is how a program ended.
type Exit struct {
	Code      *int   // nil if a signal ended it
	Signal    string // "killed", ...; "" if it exited
	StartedAt time.Time
	EndedAt   time.Time
	Stopped   string // the reason given to Stop, or the cause of the context; "" if it ended by itself
	CPU       time.Duration
	MaxRSS    int64 // bytes, of the largest process that was waited for
	Leftovers []Leftover
}

// A Leftover outlived the program and was ended.
type Leftover struct {
	PID  int
	Name string
	// How it was found: "process group", "child", "session", "environment mark",
	// "re-parented", "cgroup", "output pipe".
	How  string
	Left bool // it could not be ended
}
