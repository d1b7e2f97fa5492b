package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sinks"
)

type explainFlags struct {
	json, lines, csv bool
	parquet          string
}

const explainHelp = `Reads a vLLM log (bench, serve, docker, Kubernetes, Ray, JSON lines; plain, gzip
or zstd; - is standard input) and says where the memory went.

A stdout and a stderr of one run are one run; several other files, or a folder,
are one run each. Several engines of a log are an account each, and an array with
--json.

Exit code 4: lines look like memory figures and were not understood, or in part.
Exit code 2: the log is not vLLM's.`

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
const explainHeap = 12 << 20

func (w *world) explain(args []string, f *explainFlags) error {
	if w.getenv("GOMEMLIMIT") == "" && w.getenv("GOGC") == "" {
		debug.SetMemoryLimit(explainHeap)
		debug.SetGCPercent(20)
	}
	files, err := logFiles(args)
	if err != nil {
		return err
	}
	var named []vllmlog.NamedAccount
	unread, broken := int64(0), error(nil)
	for _, run := range vllmlog.PairLogs(files) {
		log, err := w.readLogs(run, vllmlog.ReadAccounts)
		name := strings.Join(run, " and ")
		switch {
		case log == nil:
			return err
		case err != nil: // what was read before it counts
			broken = errors.Join(broken, err)
		case log.Other != "":
			fmt.Fprintf(w.stderr, "vramsweep: %s: this is a log of %s, another engine: explain reads vLLM's\n", name, log.Other)
		case len(log.Accounts) == 0:
			fmt.Fprintf(w.stderr, "vramsweep: %s: nothing of vLLM's is in it: %s\n", name, notALog(run, log))
		}
		if log.More > 0 {
			fmt.Fprintf(w.stderr, "vramsweep: %s holds %d engines more; the first %d are shown\n",
				name, log.More, len(log.Accounts))
		}
		for _, account := range log.Accounts {
			named = append(named, vllmlog.NamedAccount{Log: strings.Join(run, "+"), Account: account})
		}
		unread += log.Unread()
	}
	if err := w.printAccounts(named, f); err != nil {
		return err
	}
	switch {
	case broken != nil:
		return broken
	case len(named) == 0:
		return quiet(exitUsage)
	case unread > 0:
		fmt.Fprintf(w.stderr, "vramsweep: %s like memory figures and were not understood "+
			"(they are listed above; --json has them under unread_lines)\n", looks(unread))
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

func (w *world) printAccounts(named []vllmlog.NamedAccount, f *explainFlags) error {
	switch {
	case f.parquet != "":
		return writeAccounts(f.parquet, named)
	case f.json:
		return w.accountsJSON(named)
	case f.csv:
		return vllmlog.RenderCSV(w.stdout, named)
	}
	for i, n := range named {
		if i > 0 {
			fmt.Fprintln(w.stdout)
		}
		if len(named) == 1 {
			n.Log = "" // it needs no title
		}
		if err := vllmlog.RenderText(w.stdout, n, f.lines); err != nil {
			return err
		}
	}
	return nil
}

// accountsJSON prints one object, or an array of several.
func (w *world) accountsJSON(named []vllmlog.NamedAccount) error {
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
func writeAccounts(path string, named []vllmlog.NamedAccount) error {
	var columns []string
	var rows [][]any
	for i, n := range named {
		row := []any{n.Log}
		for _, c := range vllmlog.Columns(n.Account) {
			if i == 0 {
				columns = append(columns, c.Name)
			}
			row = append(row, c.Value)
		}
		rows = append(rows, row)
	}
	return sinks.WriteRows(path, append([]string{"log"}, columns...), rows)
}

// readLogs reads the files of one run with read: vllmlog.ReadLogs, or
// vllmlog.ReadAccounts where the moments of the run are not wanted.
func (w *world) readLogs(
	names []string, read func(...vllmlog.NamedReader) (*vllmlog.Log, error),
) (*vllmlog.Log, error) {
	var readers []vllmlog.NamedReader
	for _, name := range names {
		if name == "-" {
			readers = append(readers, vllmlog.NamedReader{Name: "stdin", R: w.stdin})
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			return nil, usageError("", "%w", err)
		}
		defer file.Close() //nolint:errcheck // only read from
		readers = append(readers, vllmlog.NamedReader{Name: filepath.Base(name), R: file})
	}
	return read(readers...)
}

// notALog says what a file without a line of vLLM's is.
func notALog(names []string, log *vllmlog.Log) string {
	if log.Bytes == 0 {
		return "the file is empty; vLLM logs to stdout, its bars and tracebacks to stderr (VLLM_LOGGING_STREAM)"
	}
	head := make([]byte, 4096)
	if len(names) == 1 && names[0] != "-" {
		file, err := os.Open(names[0])
		if err == nil {
			n, _ := io.ReadFull(file, head) // a short file is short
			head = head[:n]
			_ = file.Close() // only read from
		}
		switch {
		case bytes.HasPrefix(head, []byte{0x1f, 0x8b}), bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		case bytes.IndexByte(head, 0) >= 0 || !isText(head):
			return "this is no text: a log of vLLM is text, plain or in gzip or zstd"
		case bytes.Contains(head, []byte(`"schema_version"`)), bytes.Contains(head, []byte(`"run_id"`)),
			filepath.Base(names[0]) == "run.json":
			return "this is a result and no log: give its folder, where stdout.log and stderr.log lie; " +
				"run.json has their account as vllm_internal_metrics"
		}
	}
	return fmt.Sprintf("none of its %d lines has vLLM's version, memory or failure; docs/logs.md lists them "+
		"(was it VLLM_LOGGING_LEVEL=WARNING, or VLLM_CONFIGURE_LOGGING=0?)", log.Lines)
}

// isText reports whether b is UTF-8 but for a last character that was cut.
func isText(b []byte) bool {
	for range 3 {
		if utf8.Valid(b) || len(b) == 0 {
			return true
		}
		b = b[:len(b)-1]
	}
	return utf8.Valid(b)
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
		return nil, usageError("Logs end in .log, .txt, .out or .err, also with .gz or .zst.",
			"no log in %s", strings.Join(args, ", "))
	}
	return files, nil
}

func isLog(name string) bool {
	plain := strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	return slices.Contains([]string{".log", ".txt", ".out", ".err"}, filepath.Ext(plain))
}
