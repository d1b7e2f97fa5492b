package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sinks"
)

type explainFlags struct {
	json, lines, csv bool
	parquet          string
}

const explainHelp = `Reads a vLLM log (bench, serve, docker, Kubernetes, Ray, JSON lines; plain, gzip
or zstd; - is standard input) and says where the memory went.

A stdout and a stderr of one run are one run; several other files, or a folder,
are one run each.

Exit code 4: lines look like memory figures and were not understood.`

// explainVerb reads logs that anybody has kept.
func (w *world) explainVerb() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain LOG|FOLDER|- ...",
		Short: "Where the memory went, from a vLLM log that anybody has kept",
		Long:  explainHelp,
		Args:  minArgs("LOG"),
		RunE:  func(_ *cobra.Command, args []string) error { return w.explain(args, &f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.json, "json", false, "print the accounts as JSON")
	flags.BoolVar(&f.lines, "lines", false, "print the line that each figure was read from")
	flags.BoolVar(&f.csv, "csv", false, "print a row an engine")
	flags.StringVar(&f.parquet, "parquet", "", "write a row an engine to FILE")
	return cmd
}

// explainHeap keeps explain within 32 MiB resident, its own code included, on a
// log of any length.
const explainHeap = 14 << 20

func (w *world) explain(args []string, f *explainFlags) error {
	if w.getenv("GOMEMLIMIT") == "" && w.getenv("GOGC") == "" {
		debug.SetMemoryLimit(explainHeap)
		debug.SetGCPercent(40)
	}
	files, err := logFiles(args)
	if err != nil {
		return err
	}
	var named []vllm.NamedAccount
	unread := int64(0)
	for _, run := range vllm.PairLogs(files) {
		log, err := w.readLogs(run)
		if err != nil {
			return err
		}
		if len(log.Accounts) == 0 {
			fmt.Fprintf(w.stderr, "vramsweep: %s: nothing of vLLM's is in it (%d lines)\n", strings.Join(run, " and "), log.Lines)
		}
		if log.More > 0 {
			fmt.Fprintf(w.stderr, "vramsweep: %s holds %d engines more; the first %d are told\n", strings.Join(run, " and "), log.More, len(log.Accounts))
		}
		for _, account := range log.Accounts {
			named = append(named, vllm.NamedAccount{Log: strings.Join(run, "+"), Account: account})
		}
		unread += log.Unread()
	}
	if err := w.printAccounts(named, f); err != nil {
		return err
	}
	switch {
	case len(named) == 0:
		return quiet(exitUsage)
	case unread > 0:
		fmt.Fprintf(w.stderr, "vramsweep: %s like memory figures and were not understood (they are listed above; --json has them under unread_lines)\n", looks(unread))
		return quiet(exitFindings)
	}
	return nil
}

func looks(n int64) string {
	if n == 1 {
		return "1 line looks"
	}
	return fmt.Sprintf("%d lines look", n)
}

func (w *world) printAccounts(named []vllm.NamedAccount, f *explainFlags) error {
	switch {
	case f.parquet != "":
		return writeAccounts(f.parquet, named)
	case f.json:
		return w.accountsJSON(named)
	case f.csv:
		return vllm.RenderCSV(w.stdout, named)
	}
	for i, n := range named {
		if i > 0 {
			fmt.Fprintln(w.stdout)
		}
		options := vllm.TextOptions{Lines: f.lines}
		if len(named) > 1 {
			options.Title = n.Log
		}
		if err := vllm.RenderText(w.stdout, []*runner.Account{n.Account}, options); err != nil {
			return err
		}
	}
	return nil
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

// writeAccounts writes a row an account as Parquet.
func writeAccounts(path string, named []vllm.NamedAccount) error {
	var columns []string
	var rows [][]any
	for i, n := range named {
		row := []any{n.Log}
		for _, c := range vllm.Columns(n.Account) {
			if i == 0 {
				columns = append(columns, c.Name)
			}
			row = append(row, c.Value)
		}
		rows = append(rows, row)
	}
	return sinks.WriteRows(path, append([]string{"log"}, columns...), rows)
}

// readLogs reads the files of one run.
func (w *world) readLogs(names []string) (*vllm.Log, error) {
	var readers []vllm.NamedReader
	for _, name := range names {
		if name == "-" {
			readers = append(readers, vllm.NamedReader{Name: "stdin", R: w.stdin})
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return nil, usageError("", "%w", err)
		}
		defer file.Close() //nolint:errcheck // only read from
		readers = append(readers, vllm.NamedReader{Name: filepath.Base(name), R: file})
	}
	log, err := vllm.ReadAccounts(readers...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", strings.Join(names, " and "), err)
	}
	return log, nil
}

// logFiles lists the files of the arguments; of a folder, what looks like a log.
func logFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		if arg == "-" {
			files = append(files, arg)
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			return nil, usageError("", "%w", err)
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		err = filepath.WalkDir(arg, func(name string, entry os.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() && isLog(name) {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, usageError("Logs end in .log, .txt, .out or .err, also with .gz or .zst.", "no log in %s", strings.Join(args, ", "))
	}
	return files, nil
}

func isLog(name string) bool {
	plain := strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	return slices.Contains([]string{".log", ".txt", ".out", ".err"}, filepath.Ext(plain))
}
