package log

import (
	"bytes"
	"encoding/csv"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew); got\n%s", path, got)
	}
}

func TestRenderText(t *testing.T) {
	for _, run := range []string{
		"h100-v0.26/llama-3.1-8b", "h100-v0.26/qwen3-30b-a3b", "h100-v0.26/tp2-llama-3.1-8b", "h100-v0.26/fail-no-kv-util15",
		"h100-v0.26/fail-oom-load-70b", "h100-v0.26/fail-bad-util", "vllm-cpu-0.29/tiny",
	} {
		t.Run(run, func(t *testing.T) {
			a, _ := readPaths(t, filepath.Join("testdata", run, "stdout.log"), filepath.Join("testdata", run, "stderr.log"))
			var b bytes.Buffer
			if err := RenderText(&b, NamedAccount{Log: run, Account: a}, false); err != nil {
				t.Fatal(err)
			}
			golden(t, strings.ReplaceAll(run, "/", "_")+".txt", b.Bytes())
		})
	}
}

func TestRenderLines(t *testing.T) {
	a, _ := readPaths(t, filepath.Join("testdata", "h100-v0.26/llama-3.1-8b", "stdout.log"))
	var b bytes.Buffer
	if err := RenderText(&b, NamedAccount{Account: a}, true); err != nil {
		t.Fatal(err)
	}
	golden(t, "lines.txt", b.Bytes())
}

func TestRenderCSV(t *testing.T) {
	var rows []NamedAccount
	for _, run := range []string{"h100-v0.26/tp2-llama-3.1-8b", "h100-v0.26/fail-no-kv-util15"} {
		a, _ := readPaths(t, filepath.Join("testdata", run, "stdout.log"), filepath.Join("testdata", run, "stderr.log"))
		rows = append(rows, NamedAccount{Log: run, Account: a})
	}
	var b bytes.Buffer
	if err := RenderCSV(&b, rows); err != nil {
		t.Fatal(err)
	}
	golden(t, "accounts.csv", b.Bytes())
	table, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(table) != 3 || len(table[0]) != len(table[2]) {
		t.Errorf("%v, %d rows", err, len(table))
	}
}
