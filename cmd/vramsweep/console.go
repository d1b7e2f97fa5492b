package main

import (
	"bufio"
	"io"
	"sync"

	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

// A console is standard output or standard error as people see it: secrets are taken out, and what could steer a
// terminal (of a log, a model's name, a file of others) is shown as text. What this program itself draws on a
// terminal goes to raw.
type console struct {
	mu     sync.Mutex
	raw    io.Writer
	masked io.WriteCloser
}

// newConsole folds lines to width columns; 0: to none.
func newConsole(raw io.Writer, m *proc.Masker, width int) *console {
	return &console{raw: raw, masked: m.Writer(visible{raw, width})}
}

// Write writes whole lines; the rest waits for its end.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.masked.Write(p)
}

// flush writes what waits.
func (c *console) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.masked.Close() // a terminal that went away is no reason to fail
}

// rawOf is where the bytes of a console go.
func rawOf(out io.Writer) io.Writer {
	if c, ok := out.(*console); ok {
		return c.raw
	}
	return out
}

// visible writes control characters as text, and lines no wider than width; 0: as
// they are.
type visible struct {
	out   io.Writer
	width int
}

func (v visible) Write(p []byte) (int, error) {
	text := sweep.Printable(string(p))
	if v.width > 0 {
		text = planner.Fold(text, v.width)
	}
	if _, err := io.WriteString(v.out, text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// secrets is the one Masker: of the environment and, once it is read, of the plan.
func (w *world) secrets() *proc.Masker {
	if w.masker == nil {
		w.masker = proc.NewMasker(w.env)
	}
	return w.masker
}

// learn lets nothing out from now on that a plan calls a secret.
func (w *world) learn(plan *sweep.Plan) *sweep.Plan {
	w.secrets().Learn(plan.Secrets()...)
	return plan
}

// writeTo writes a text whole or not at all, without secrets; "-" is standard output, which a program may read: only
// on a terminal are controls shown as text.
func (w *world) writeTo(output string, write func(io.Writer) error) error {
	return w.writeBytes(output, func(out io.Writer) error {
		masked := w.secrets().Writer(out)
		if err := write(masked); err != nil {
			return err
		}
		return masked.Close()
	})
}

// writeBytes is writeTo for what is no text.
func (w *world) writeBytes(output string, write func(io.Writer) error) error {
	if output != "-" {
		return sinks.WriteFile(output, write)
	}
	out := rawOf(w.stdout)
	if _, tty := terminal(out); tty {
		out = w.stdout
	}
	buffered := bufio.NewWriter(out)
	if err := write(buffered); err != nil {
		return err
	}
	return buffered.Flush()
}
