package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vramsweep/vramsweep"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// verbOf is a verb as messages name it: without the program.
func verbOf(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "vramsweep ") }

// flagError says which flag there is in place of one that there is not.
func flagError(cmd *cobra.Command, err error) error {
	hint := cmd.CommandPath() + " --help lists the flags."
	if name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --"); unknown {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := sweep.Nearest(name, names); near != "" {
			hint = fmt.Sprintf("Did you mean --%s? ", near) + hint
		}
	}
	return usageError(hint, "%s: %w", verbOf(cmd), err)
}

// missingHint is where to look for what an operand should be.
func missingHint(cmd *cobra.Command) string {
	if cmd.HasExample() {
		return cmd.CommandPath() + " --help shows examples."
	}
	return "Usage: " + cmd.UseLine()
}

// helpText is the help of a verb, without the values that a switch may be given.
func helpText(cmd *cobra.Command, _ []string) {
	text := strings.TrimSpace(cmd.Long)
	if text == "" {
		text = cmd.Short
	}
	if cmd.Runnable() || cmd.HasSubCommands() {
		text += "\n\n" + cmd.UsageString()
	}
	const values = "[=true|false]"
	text = strings.ReplaceAll(text, values, strings.Repeat(" ", len(values)))
	text = strings.ReplaceAll(text, ` only[="next"]`, "[=only]       ")
	var out bytes.Buffer
	for line := range strings.Lines(text) {
		out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	_, _ = cmd.OutOrStdout().Write(out.Bytes())
}

// helpVerb shows the help of a verb, or the page of a code.
func (w *world) helpVerb() *cobra.Command {
	return verb("help [VERB|CODE]", "Help about a verb, or the page of a diagnostic's code", cobra.ArbitraryArgs,
		func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && codeName.MatchString(args[0]) {
				return w.explainCode(args[0])
			}
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 && found == cmd.Root() {
				return knownVerb(cmd.Root(), args)
			}
			return found.Help()
		})
}

// codeName is what a diagnostic's code looks like.
var codeName = regexp.MustCompile(`^[Ss][0-9]{3}$`)

// explainCode prints the page of a code: what it means, with a wrong and a right file.
func (w *world) explainCode(code string) error {
	_, page, known := strings.Cut(vramsweep.Messages, "\n### "+strings.ToUpper(code)+" ")
	if !known {
		return usageError("docs/messages.md lists them all.", "no diagnostic has the code %s", strings.ToUpper(code))
	}
	end := regexp.MustCompile(`\n##+ `).FindStringIndex(page)
	if end != nil {
		page = page[:end[0]]
	}
	_, err := fmt.Fprintf(w.stdout, "%s %s\n", strings.ToUpper(code), strings.TrimSpace(page))
	return err
}

// plainly is the text of an error without the system call that met it.
func plainly(err error) (text, hint string) {
	text = err.Error()
	var path *fs.PathError
	if !errors.As(err, &path) {
		return text, ""
	}
	if errors.Is(err, fs.ErrNotExist) {
		return strings.Replace(text, path.Error(), "no such file or folder: "+path.Path, 1),
			"Check the path; one that is relative counts from the working folder."
	}
	return strings.Replace(text, path.Error(), fmt.Sprintf("%s: %v", path.Path, path.Err), 1), ""
}

// completions tells the shell what operands and flags can be.
func (w *world) completions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		w.completions(sub)
	}
	if cmd.ValidArgsFunction == nil && strings.Contains(cmd.Use, "DIR") || cmd.Name() == "compare" {
		cmd.ValidArgsFunction = w.completeFolder
	}
	for name, values := range map[string]func(args []string) []string{
		"model":     func([]string) []string { return w.modelNames() },
		"gpu":       func([]string) []string { return gpuNames() },
		"only":      w.sweepNames,
		"table":     func([]string) []string { return tableNames() },
		"format":    func([]string) []string { return sinks.ExportFormats() },
		"mode":      func([]string) []string { return []string{"latency", "session"} },
		"engine":    func([]string) []string { return []string{"vllm", "simulator"} },
		"execution": w.executionNames,
	} {
		if cmd.Flags().Lookup(name) == nil {
			continue
		}
		_ = cmd.RegisterFlagCompletionFunc(name, // it fails where a verb has its own
			func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
				return values(args), cobra.ShellCompDirectiveNoFileComp
			})
	}
}

// completeFolder completes FOLDER@EXECUTION, and leaves folders to the shell.
func (w *world) completeFolder(_ *cobra.Command, _ []string, so string) ([]string, cobra.ShellCompDirective) {
	dir, _, at := strings.Cut(so, "@")
	if !at {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var names []string
	for _, execution := range w.executionNames([]string{dir}) {
		names = append(names, dir+"@"+execution)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (w *world) executionNames(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	all, err := w.executions(args[0])
	if err != nil {
		return nil
	}
	return append([]string{"last", "previous"}, all...)
}

func (w *world) sweepNames(args []string) (names []string) {
	if len(args) == 0 {
		return nil
	}
	plan, err := sweep.Load(args[0], sweep.Inputs{Env: w.env, WorkDir: w.dir})
	if err != nil {
		return nil
	}
	for _, s := range plan.Sweeps {
		names = append(names, s.Name)
	}
	return names
}

func (w *world) modelNames() []string {
	catalogue, err := w.catalogue()
	if err != nil {
		return nil
	}
	return catalogue.Names()
}

func gpuNames() (names []string) {
	for _, g := range models.GPUs() {
		names = append(names, g.Name)
	}
	return names
}

func tableNames() (names []string) {
	for _, t := range sinks.Tables() {
		names = append(names, string(t))
	}
	return names
}

// nearestOf adds what was meant to a hint, if a name is near.
func nearestOf(name string, names []string, hint string) string {
	if near := sweep.Nearest(name, names); near != "" && !slices.Contains(names, name) {
		return strings.TrimSpace(fmt.Sprintf("Did you mean %s? %s", near, hint))
	}
	return hint
}

// foldsLines reports whether the output of a verb is text for people, which is folded
// to the width of a terminal: not data, commands to paste, or another program's.
func foldsLines(verb *cobra.Command, args []string) bool {
	data := []string{"--json", "--csv", "--dry-run", "--markdown", "--junit", "--format", "--version"}
	switch verb.Name() {
	case "monitor", "export", "schema", "fmt", "completion", "__complete", simulatedVLLM, nvmlHelper:
		return false
	}
	return !slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.Contains(data, name)
	})
}
