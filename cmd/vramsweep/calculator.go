package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/calculator"
)

type calculatorFlags struct {
	predictions     []string
	json, noBuiltin bool
	timeout         time.Duration
}

// checkCalculatorVerb holds memory calculators against measurements.
func (w *world) checkCalculatorVerb() *cobra.Command {
	var f calculatorFlags
	cmd := &cobra.Command{
		Use:   "check-calculator DIR... [-- CMD ...]",
		Short: "How far memory calculators are from what was measured, and where they bend",
		Long: `Holds predictions against the runs of output folders (or FOLDER@EXECUTION):
error of each component, by model, and the settings that explain it.

Always: parameters x bytes, the same x 1.2, and the arithmetic of plan.
--predictions FILE adds a calculator, as CSV or JSON: columns run_id, profile_id
or settings (model, batch_size, ...) say which runs a row is about; columns
COMPONENT_bytes or COMPONENT_gib are its prediction, summed over the GPUs.
-- CMD ... adds a calculator that is a program, run once a profile without a shell:
the profile as JSON on its standard input, COMPONENT_bytes or COMPONENT_gib as a
JSON object on its standard output. docs/analysis.md shows both.
Components: ` + strings.Join(calculator.Components(), ", ") + `.

Exit 3: the program gave no usable answer for some profiles; the rest is printed.`,
		Example: `  vramsweep check-calculator results --predictions mine.csv
  vramsweep check-calculator results -- python3 calculator.py --mode exact`,
		RunE: func(cmd *cobra.Command, args []string) error {
			dirs, argv := args, []string(nil)
			if at := cmd.ArgsLenAtDash(); at >= 0 {
				dirs, argv = args[:at], args[at:]
				if len(argv) == 0 {
					return usageError("", "check-calculator: CMD is missing behind --")
				}
			}
			if err := minArgs("DIR")(cmd, dirs); err != nil {
				return err
			}
			return w.checkCalculator(cmd.Context(), dirs, argv, &f)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.predictions, "predictions", nil, "FILE of predictions, CSV or JSON; may be given again")
	flags.BoolVar(&f.noBuiltin, "no-builtin", false, "leave the built-in calculators out")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long CMD may take for one profile")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

func (w *world) checkCalculator(ctx context.Context, dirs, argv []string, f *calculatorFlags) error {
	if f.timeout <= 0 {
		return usageError("", "check-calculator --timeout %v: it must be more than 0", f.timeout)
	}
	rows, err := w.runsOf(dirs, sinks.Predicate{})
	if err != nil {
		return err
	}
	var all []calculator.Predictor
	if !f.noBuiltin {
		find, err := w.architectures()
		if err != nil {
			return err
		}
		all = calculator.Builtin(find)
	}
	for _, name := range f.predictions {
		c, err := readPredictions(name)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	var faults []calculator.Fault
	if len(argv) > 0 {
		var c calculator.Predictor
		ask := func(question []byte) ([]byte, error) { return w.askProgram(ctx, argv, f.timeout, question) }
		c, faults, err = calculator.Ask(strings.Join(argv, " "), rows, ask)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	verdict, err := calculator.Check(rows, all)
	if err != nil {
		return usageError("", "%w", err)
	}
	for i, fault := range faults {
		if i == 20 {
			fmt.Fprintf(w.stderr, "vramsweep: and %d more profiles without a usable answer\n", len(faults)-i)
			break
		}
		fmt.Fprintf(w.stderr, "vramsweep: %v\n", fault)
	}
	if err = printed(w.stdout, f.json, verdict); err == nil && len(faults) > 0 {
		return quiet(exitSomeFailed)
	}
	return err
}

// What an answer may weigh, and what of the program's complaints is kept.
const (
	answerLimit    = 1 << 20
	complaintLimit = 64 << 10
)

// errNoAnswer is the cause of a context whose question took too long.
var errNoAnswer = errors.New("no answer in time")

// askProgram runs a calculator about one profile, and all that it starts to its
// end.
func (w *world) askProgram(ctx context.Context, argv []string, timeout time.Duration, question []byte) ([]byte, error) {
	limited, cancel := context.WithTimeoutCause(ctx, timeout, errNoAnswer)
	defer cancel()
	answer, complaint := capped{limit: answerLimit}, capped{limit: complaintLimit}
	p, err := proc.Start(limited, proc.Spec{Argv: argv, Env: w.env, Dir: w.dir, Stdin: bytes.NewReader(question),
		Stdout: &answer, Stderr: &complaint, Grace: time.Second, NoCgroup: true})
	if err != nil {
		return nil, errors.Join(calculator.ErrStop, usageError("", "check-calculator: %w", err))
	}
	exit, err := p.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, errors.Join(calculator.ErrStop, &exitError{code: exitInterrupted, err: context.Cause(ctx)})
	case err != nil:
		return nil, err
	case errors.Is(context.Cause(limited), errNoAnswer) && exit.Stopped != "":
		return nil, fmt.Errorf("no answer within %v (--timeout)%s", timeout, complaint.lastLine())
	case exit.Code == nil:
		return nil, fmt.Errorf("it ended by the signal %q%s", exit.Signal, complaint.lastLine())
	case *exit.Code != 0:
		return nil, fmt.Errorf("it ended with exit code %d%s", *exit.Code, complaint.lastLine())
	case answer.dropped:
		return nil, fmt.Errorf("its answer is longer than %d bytes", answerLimit)
	}
	return answer.Bytes(), nil
}

// capped keeps the beginning of what is written to it.
type capped struct {
	bytes.Buffer
	limit   int
	dropped bool
}

func (c *capped) Write(p []byte) (int, error) {
	keep := p[:min(len(p), max(c.limit-c.Len(), 0))]
	c.dropped = c.dropped || len(keep) < len(p)
	if _, err := c.Buffer.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}

// lastLine is the end of a complaint, where Python says what went wrong.
func (c *capped) lastLine() string {
	all := strings.TrimSpace(c.String())
	line := all[strings.LastIndex(all, "\n")+1:]
	if line == "" {
		return ""
	}
	return ": " + line[:min(len(line), 300)]
}

func readPredictions(name string) (calculator.Predictor, error) {
	file, err := os.Open(name)
	if err != nil {
		return calculator.Predictor{}, usageError("", "%w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	c, err := calculator.ReadPredictions(name, file)
	if err != nil {
		return calculator.Predictor{}, usageError("docs/analysis.md shows the columns.", "%w", err)
	}
	return c, nil
}
