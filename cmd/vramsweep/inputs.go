package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner/simulate"
	"github.com/vramsweep/vramsweep/sweep"
)

// inputFlags are the flags of every verb that reads a sweep file.
type inputFlags struct {
	vars     []string
	varFiles []string
	only     []string
	filter   string
	strict   bool
}

func (f *inputFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.vars, "var", nil, "set a variable: NAME=VALUE (repeatable)")
	flags.StringArrayVar(&f.varFiles, "var-file", nil, "read variables from FILE (repeatable)")
	flags.StringArrayVar(&f.only, "only", nil, "this sweep alone (repeatable)")
	flags.StringVar(&f.filter, "filter", "", "only points for which this holds: 'matrix.batch_size > 8'")
	flags.BoolVar(&f.strict, "strict", false, "warnings are errors")
}

// quick lets the heap grow further before it is collected, unless the user says
// how far: a verb that ends in a moment spends its time better than on that.
func (w *world) quick() {
	if w.getenv("GOGC") == "" {
		debug.SetGCPercent(300)
	}
}

// load reads a configuration. Its diagnostics are printed, as JSON on standard
// output if asJSON; the error then only carries the exit code.
func (w *world) load(path string, f *inputFlags, asJSON bool) (*sweep.Plan, error) {
	catalogue, err := w.catalogue()
	if err != nil {
		return nil, err
	}
	plan, err := sweep.Load(path, sweep.Inputs{
		Models: catalogue, Env: w.env, VarFiles: f.varFiles, Vars: f.vars,
		Only: f.only, Filter: f.filter, WorkDir: w.dir, CheckPlant: checkPlant,
	})
	if err != nil {
		return nil, w.sayDiagnostics(err, asJSON)
	}
	w.learn(plan)
	if len(plan.Warnings) > 0 && !asJSON {
		_ = w.render(func(out io.Writer, o sweep.RenderOptions) error {
			return sweep.RenderDiagnostics(out, plan.Warnings, o)
		})
	}
	if f.strict && len(plan.Warnings) > 0 {
		if asJSON {
			return nil, errors.Join(quiet(exitUsage), printJSON(w.stdout, diagnosticsJSON(false, plan.Warnings)))
		}
		return nil, usageError("Leave --strict out to go on in spite of them.", "%s: %s", path,
			plural(len(plan.Warnings), "warning"))
	}
	return plan, nil
}

// checkPlant says what the simulator cannot do with a plant, in the words of a
// sweep file.
func checkPlant(plant map[string]any) error {
	_, err := simulate.ParsePlant(plant)
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("%q of the plant holds a value of the wrong type: a %s",
			kind.Field[strings.LastIndex(kind.Field, ".")+1:], kind.Value)
	}
	if err == nil {
		return nil
	}
	text := strings.NewReplacer("plant: ", "", "json: ", "", "\n", "; ").Replace(err.Error())
	return errors.New(text)
}

// sayDiagnostics prints what is wrong with a configuration.
func (w *world) sayDiagnostics(err error, asJSON bool) error {
	var wrong *sweep.Error
	if !errors.As(err, &wrong) {
		return &exitError{code: exitUsage, err: err}
	}
	if asJSON {
		printErr := printJSON(w.stdout, diagnosticsJSON(false, wrong.Diagnostics()))
		return errors.Join(quiet(exitUsage), printErr)
	}
	if err := w.render(wrong.Render); err != nil {
		return err
	}
	return quiet(exitUsage)
}

// A validation is `validate --json`, in Terraform's shape.
type validation struct {
	Valid        bool               `json:"valid"`
	ErrorCount   int                `json:"error_count"`
	WarningCount int                `json:"warning_count"`
	Diagnostics  []sweep.Diagnostic `json:"diagnostics"`
}

func diagnosticsJSON(valid bool, diagnostics []sweep.Diagnostic) validation {
	out := validation{Valid: valid, Diagnostics: orEmpty(diagnostics)}
	for _, d := range diagnostics {
		if d.Severity == sweep.SeverityError {
			out.ErrorCount++
		} else {
			out.WarningCount++
		}
	}
	return out
}

// render prints diagnostics, which are printable as they are, with their secrets blanked.
func (w *world) render(print func(io.Writer, sweep.RenderOptions) error) error {
	width, tty := terminal(w.stderr)
	o := sweep.RenderOptions{Color: tty && w.getenv("NO_COLOR") == "", Width: width}
	if o.Color {
		return print(rawOf(w.stderr), o)
	}
	return print(w.stderr, o)
}

// terminal says how wide out is and whether it is a terminal at all.
func terminal(out io.Writer) (width int, tty bool) {
	file, ok := rawOf(out).(*os.File)
	if !ok {
		return 100, false
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 100, false
	}
	if size.Col < 40 {
		return 80, true
	}
	return int(size.Col), true
}

// getenv reads the environment of the world; the last setting wins.
func (w *world) getenv(name string) string {
	for i := len(w.env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(w.env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
