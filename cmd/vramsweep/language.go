package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

// validateVerb checks a configuration and nothing else.
func (w *world) validateVerb() *cobra.Command {
	var asJSON bool
	return w.fileVerb("validate", "Check a sweep file", &asJSON, "print diagnostics as JSON",
		func(_ context.Context, file string, plan *sweep.Plan) error {
			if asJSON {
				return printJSON(w.stdout, diagnosticsJSON(true, plan.Warnings))
			}
			fmt.Fprintf(w.stdout, "%s is right: %s\n", file, planner.Counts(plan))
			return nil
		})
}

func plural(n int, noun string) string { return planner.Plural(n, noun) }

// listVerb says what a file holds.
func (w *world) listVerb() *cobra.Command {
	var asJSON bool
	return w.fileVerb("list", "The sweeps of a file", &asJSON, "print JSON",
		func(_ context.Context, _ string, plan *sweep.Plan) error {
			if asJSON {
				return printJSON(w.stdout, sweepList(plan))
			}
			table := tabwriter.NewWriter(w.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(table, "SWEEP\tPROFILES\tRUNS\tAXES\tDESCRIPTION")
			for _, s := range sweepList(plan) {
				axes := strings.Join(s.Axes, " x ")
				fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\n", s.Name, s.Profiles, s.Runs, axes, headline(s.Description))
			}
			return table.Flush()
		})
}

// headline is the first line of a text, with dots where more follows.
func headline(text string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if rest != "" {
		first = strings.TrimSpace(first) + " ..."
	}
	return first
}

// A sweepSummary is one line of `list`.
type sweepSummary struct {
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Profiles    int      `json:"profiles"`
	Runs        int      `json:"runs"`
	Axes        []string `json:"axes"` // "input_len[3]"
}

func sweepList(plan *sweep.Plan) []sweepSummary {
	out := make([]sweepSummary, 0, len(plan.Sweeps))
	for _, s := range plan.Sweeps {
		entry := sweepSummary{Name: s.Name, Description: s.Description, Profiles: len(s.Profiles),
			Runs: len(s.Profiles) * s.Repeats}
		for _, axis := range s.Axes {
			entry.Axes = append(entry.Axes, fmt.Sprintf("%s[%d]", axis.Name, len(axis.Values)))
		}
		out = append(out, entry)
	}
	return out
}

// fmtVerb formats files in place.
func (w *world) fmtVerb() *cobra.Command {
	var check, showDiff, recursive bool
	cmd := verb("fmt FILE|FOLDER|- ...", "Format sweep files", minArgs("FILE"),
		func(_ *cobra.Command, args []string) error {
			f := formatter{w: w, check: check, diff: showDiff}
			for _, arg := range args {
				if err := f.arg(arg, recursive); err != nil {
					return err
				}
			}
			switch {
			case f.broken:
				return quiet(exitUsage)
			case check && f.changed:
				return quiet(exitSomeFailed)
			}
			return nil
		})
	cmd.Long = "Formats sweep files in place; - formats standard input to standard output. Comments stay.\n" +
		"With --check nothing is written, and the exit code is 3 if a file would change."
	cmd.Flags().BoolVar(&check, "check", false, "write nothing; exit 3 if a file would change")
	cmd.Flags().BoolVar(&showDiff, "diff", false, "show what changes")
	cmd.Flags().BoolVar(&recursive, "recursive", false, "the folders below as well")
	return cmd
}

// A formatter goes through files and remembers what it saw.
type formatter struct {
	w           *world
	check, diff bool
	changed     bool
	broken      bool
}

func (f *formatter) arg(path string, recursive bool) error {
	if path == "-" {
		return f.standardInput()
	}
	info, err := os.Stat(path)
	if err != nil {
		return usageError("", "%w", err)
	}
	if !info.IsDir() {
		return f.file(path)
	}
	return filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == path:
		case entry.IsDir() && (!recursive || strings.HasPrefix(entry.Name(), ".")):
			return filepath.SkipDir
		case strings.HasPrefix(entry.Name(), "."): // a configuration does not read it either
		case entry.Type().IsRegular() && strings.HasSuffix(name, ".hcl"):
			return f.file(name)
		}
		return nil
	})
}

// standardInput formats standard input to standard output.
func (f *formatter) standardInput() error {
	src, err := io.ReadAll(f.w.stdin)
	if err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	out, err := f.format("<stdin>", src)
	if err == nil && !f.check && !f.diff {
		_, err = f.w.stdout.Write(out)
	}
	return err
}

// format returns the formatted source; nil where it does not parse, which has
// then been said.
func (f *formatter) format(name string, src []byte) (out []byte, err error) {
	out, err = sweep.Format(name, src)
	var wrong *sweep.Error
	switch {
	case errors.As(err, &wrong):
		f.broken = true
		return nil, f.w.render(wrong.Render)
	case err != nil || bytes.Equal(src, out):
		return out, err
	}
	f.changed = true
	if f.diff {
		text := diff.Diff(name, src, name+" (formatted)", out)
		fmt.Fprintf(f.w.stdout, "%s\n", bytes.TrimSuffix(text, []byte("\n")))
	}
	return out, nil
}

func (f *formatter) file(path string) error {
	src, err := os.ReadFile(path)
	if err != nil {
		return usageError("", "%w", err)
	}
	out, err := f.format(path, src)
	if err != nil || out == nil || bytes.Equal(src, out) {
		return err
	}
	if !f.check {
		if err := replaceFile(path, out); err != nil {
			return fmt.Errorf("format %s: %w", path, err)
		}
	}
	fmt.Fprintln(f.w.stdout, path)
	return nil
}

// replaceFile writes a file of data at hand.
func replaceFile(path string, data []byte) error {
	return sinks.WriteFile(path, func(out io.Writer) error {
		_, err := out.Write(data)
		return err
	})
}
