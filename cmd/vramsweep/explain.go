package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/vllm"
)

type explainFlags struct {
	json, lines, csv bool
	parquet          string
}

// explainVerb reads logs that anybody has kept.
func (w *world) explainVerb() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain LOG ...",
		Short: "Where the memory went, from a vLLM log that anybody has kept",
		Long: `Reads a vLLM log (bench, serve, docker, Kubernetes, Ray, JSON lines; plain, gzip
or zstd; - is standard input) and says where the memory went.

Two files called stdout and stderr (or NAME.out and NAME.err) are one run;
several other files, or a folder, are one run each.

Exit code 4: lines look like memory figures and were not understood.`,
		Args: minArgs("LOG"),
		RunE: func(_ *cobra.Command, args []string) error { return w.explain(args, &f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.json, "json", false, "print the accounts as JSON")
	flags.BoolVar(&f.lines, "lines", false, "print the line that each figure was read from")
	flags.BoolVar(&f.csv, "csv", false, "print a row an engine")
	flags.StringVar(&f.parquet, "parquet", "", "write a row an engine to FILE")
	return cmd
}

// A runLog is the files of one run.
type runLog struct {
	name  string
	files []string
}

func (w *world) explain(args []string, f *explainFlags) error {
	logs, err := w.runLogs(args)
	if err != nil {
		return err
	}
	var named []vllm.NamedAccount
	unread := int64(0)
	for _, log := range logs {
		read, err := w.readLog(log)
		if err != nil {
			return err
		}
		for _, account := range read.Accounts {
			named = append(named, vllm.NamedAccount{Name: log.name, Account: account})
		}
		unread += read.Unread()
		if len(read.Accounts) == 0 {
			fmt.Fprintf(w.stderr, "vramsweep: %s: nothing of vLLM's is in it (%d lines)\n", log.name, read.Lines)
		}
	}
	if err := w.printAccounts(named, f); err != nil {
		return err
	}
	switch {
	case len(named) == 0:
		return quiet(exitUsage)
	case unread > 0:
		fmt.Fprintf(w.stderr, "vramsweep: %d lines look like memory figures and were not understood (--lines shows them)\n", unread)
		return quiet(exitFindings)
	}
	return nil
}

func (w *world) printAccounts(named []vllm.NamedAccount, f *explainFlags) error {
	switch {
	case f.json:
		return w.accountsJSON(named)
	case f.csv:
		return vllm.RenderCSV(w.stdout, named)
	case f.parquet != "":
		return writeAccounts(f.parquet, named)
	}
	return vllm.RenderText(w.stdout, named, vllm.TextOptions{Lines: f.lines})
}

// accountsJSON prints one object, or an array of several.
func (w *world) accountsJSON(named []vllm.NamedAccount) error {
	if len(named) == 1 {
		return printJSON(w.stdout, named[0].Account)
	}
	accounts := make([]*runner.Account, len(named))
	for i, n := range named {
		accounts[i] = n.Account
	}
	return printJSON(w.stdout, accounts)
}

// readLog reads the files of one run.
func (w *world) readLog(log runLog) (*vllm.Log, error) {
	var readers []vllm.NamedReader
	for _, name := range log.files {
		if name == "-" {
			readers = append(readers, vllm.NamedReader{Name: "stdin", R: w.stdin})
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return nil, usageError("", "%w", err)
		}
		defer file.Close() //nolint:errcheck // only read from
		readers = append(readers, vllm.NamedReader{Name: streamOf(name), R: file})
	}
	read, err := vllm.ReadLogs(readers...)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", log.name, err)
	}
	return read, nil
}

// streamOf names a file by the stream that it is of.
func streamOf(name string) string {
	base := filepath.Base(name)
	for _, stream := range []string{"stdout", "stderr"} {
		if strings.HasPrefix(base, stream) {
			return stream
		}
	}
	return base
}

// runLogs puts the files of the arguments together to runs.
func (w *world) runLogs(args []string) ([]runLog, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		switch {
		case arg == "-":
			files = append(files, arg)
		case err != nil:
			return nil, usageError("", "%w", err)
		case info.IsDir():
			found, err := logsIn(arg)
			if err != nil {
				return nil, err
			}
			files = append(files, found...)
		default:
			files = append(files, arg)
		}
	}
	var logs []runLog
	at := map[string]int{}
	for _, file := range files {
		run := runOf(file)
		i, ok := at[run]
		if !ok {
			i = len(logs)
			at[run] = i
			logs = append(logs, runLog{name: run})
		}
		logs[i].files = append(logs[i].files, file)
	}
	if len(logs) == 0 {
		return nil, usageError("Logs end in .log, .txt, .out or .err, also with .gz or .zst.", "no log in %s", strings.Join(args, ", "))
	}
	return logs, nil
}

// runOf is the run that a file belongs to: stdout and stderr of one folder, or
// NAME.out and NAME.err, are one.
func runOf(file string) string {
	dir, base := filepath.Dir(file), filepath.Base(file)
	if streamOf(file) != base {
		return dir
	}
	plain := strings.TrimSuffix(strings.TrimSuffix(base, ".gz"), ".zst")
	for _, ending := range []string{".out", ".err", ".stdout", ".stderr"} {
		if name, ok := strings.CutSuffix(plain, ending); ok {
			return filepath.Join(dir, name)
		}
	}
	return file
}

// logsIn lists the logs below a folder, sorted.
func logsIn(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		plain := strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
		if entry.Type().IsRegular() && slices.Contains([]string{".log", ".txt", ".out", ".err"}, filepath.Ext(plain)) {
			files = append(files, name)
		}
		return nil
	})
	return files, err
}
