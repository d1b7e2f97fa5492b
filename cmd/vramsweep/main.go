// Command vramsweep measures where the GPU memory of vLLM goes.
//
// It wires the layers together: sweep files become plans, the runner executes
// them, sinks keep what was measured, analysis reads it back. This package alone
// reads arguments and the environment, prints, and exits.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// version is set by the linker.
var version = "dev"

// A world is all that the program has of its surroundings.
type world struct {
	args   []string
	env    []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	dir    string // working directory
	self   string // path of this executable
	models string // --models
	masker *proc.Masker
}

func main() {
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	os.Exit(run(&world{
		args: os.Args[1:], env: os.Environ(),
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		dir: dir, self: self,
	}))
}

// Exit codes, a contract of every verb.
const (
	exitOK          = 0
	exitFault       = 1   // the program or the machine
	exitUsage       = 2   // the command line or the file
	exitSomeFailed  = 3   // some runs failed; fmt --check found changes
	exitFindings    = 4   // a regression, a fault in a folder, memory lines unread
	exitInterrupted = 130 // what was measured is written
)

// An exitError ends the program with code. err may be nil: all was said.
type exitError struct {
	code int
	err  error
	hint string // the next step
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is the caller's fault.
func usageError(hint, format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...), hint: hint}
}

// quiet ends with code; everything has been said already.
func quiet(code int) error {
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}

// run is the whole program; it returns the exit code.
func run(w *world) int {
	root := newRoot(w)
	verb, _, err := root.Find(w.args)
	if err != nil || !verb.Hidden {
		width, tty := terminal(w.stdout)
		if !tty || err != nil || !foldsLines(verb, w.args) {
			width = 0
		}
		out, errs := newConsole(w.stdout, w.secrets(), width), newConsole(w.stderr, w.secrets(), 0)
		defer out.flush()
		defer errs.flush()
		w.stdout, w.stderr = out, errs
	}
	ctx, stop := withSignals(context.Background(), w.stderr, err == nil && supervises(verb.Name()))
	defer stop()
	root.SetArgs(w.args)
	root.SetIn(w.stdin)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	return report(w.stderr, root.ExecuteContext(ctx))
}

// supervises reports whether a verb has programs to end and results to write
// when a signal comes.
func supervises(verb string) bool {
	switch verb {
	case "run", "profile", "monitor", "calibrate", simulatedVLLM, nvmlHelper:
		return true
	}
	return false
}

// report prints what went wrong and maps it to an exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if errors.Is(err, syscall.EPIPE) { // who reads the output has enough of it
		return exitOK
	}
	if names, group := strings.CutPrefix(err.Error(), "if any flags in the group ["); group {
		names, _, _ = strings.Cut(names, "]")
		err = usageError("Give one of them.", "--%s exclude each other", strings.Join(strings.Fields(names), " and --"))
	}
	if !errors.As(err, &exit) {
		text, _ := plainly(err)
		fmt.Fprintf(stderr, "vramsweep: %s\n", text)
		return exitFault
	}
	if exit.err == nil {
		return exit.code
	}
	text, hint := plainly(exit.err)
	text = fmt.Sprintf("vramsweep: %s\n", text)
	if hint = cmp.Or(exit.hint, hint); hint != "" {
		text += fmt.Sprintf("  %s\n", hint)
	}
	if width, tty := terminal(stderr); tty {
		text = planner.Fold(text, width)
	}
	fmt.Fprint(stderr, text)
	return exit.code
}

const rootHelp = `vramsweep runs matrices of vLLM profiles on a GPU, samples the GPU meanwhile, reads
vLLM's own log for where the memory went, and writes one JSON per run and
Parquet tables.

Exit codes: 0 all well; 1 the program or the machine is at fault; 2 the command
line or the file is; 3 some runs failed, the rest is written (fmt --check: files
would change); 4 a regression, faults in a folder, or memory lines unread; 75 GPUs
that are asked for are not here, on another host they may be; 130 interrupted, what
was measured is written.`

// newRoot builds the command tree.
func newRoot(w *world) *cobra.Command {
	root := &cobra.Command{
		Use:           "vramsweep",
		Short:         "Measures where the GPU memory of vLLM goes",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          knownVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 3
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&w.models, "models", "",
		"`FILE` with models of your own; default: ~/.config/vramsweep/models.json, if it is there")
	root.Version = version
	root.SetVersionTemplate("vramsweep {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(helpText)
	root.SetHelpCommand(w.helpVerb())
	for _, group := range w.verbs() {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title + ":"})
		for _, verb := range group.verbs {
			verb.GroupID = group.title
			root.AddCommand(verb)
		}
	}
	root.AddCommand(w.hiddenVerbs()...)
	w.completions(root)
	return root
}

// verb is one verb of the command line.
func verb(use, short string, args cobra.PositionalArgs,
	run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: run}
}

// jsonVerb is a verb that prints for people or, with --json, JSON.
func jsonVerb(use, short string, args cobra.PositionalArgs,
	run func(cmd *cobra.Command, args []string, asJSON bool) error) *cobra.Command {
	var asJSON bool
	cmd := verb(use, short, args, func(cmd *cobra.Command, args []string) error { return run(cmd, args, asJSON) })
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// A verbGroup is a heading of the help text and what stands under it.
type verbGroup struct {
	title string
	verbs []*cobra.Command
}

// knownVerb refuses operands of the program itself.
func knownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "vramsweep --help lists the verbs."
	if names := cmd.SuggestionsFor(args[0]); len(names) > 0 {
		hint = "Did you mean " + names[0] + "?"
	}
	return usageError(hint, "there is no verb %q", args[0])
}

// exactArgs asks for operands by name, so that the message can name them.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		if len(args) < len(names) {
			return usageError(missingHint(cmd), "%s: %s is missing", verbOf(cmd), names[len(args)])
		}
		return usageError("Quote names with blanks in them.", "%s: %q is one operand too many", verbOf(cmd), args[len(names)])
	}
}

// minArgs asks for at least one operand called name.
func minArgs(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error { return exactArgs(name)(cmd, args[:min(len(args), 1)]) }
}
