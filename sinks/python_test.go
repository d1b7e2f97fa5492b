package sinks

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// python finds an interpreter with the packages, or skips.
func python(t *testing.T, packages ...string) string {
	t.Helper()
	name := os.Getenv("VRAMSWEEP_TEST_PYTHON")
	if name == "" {
		name = "python3"
	}
	if out, err := exec.Command(name, "-c", "import "+strings.Join(packages, ", ")).CombinedOutput(); err != nil {
		testenv.Skip(t, "%s lacks one of %s (set VRAMSWEEP_TEST_PYTHON to an interpreter that has them): %v %s", name, strings.Join(packages, ", "), err, lastLine(out))
	}
	return name
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// resultsFolder makes results/ in a working directory: three nights, compacted
// but for the last, one of them with axes and failures. VRAMSWEEP_TEST_RESULTS names a folder to
// take instead, e.g. one that a real sweep has made.
func resultsFolder(t *testing.T) string {
	t.Helper()
	work := t.TempDir()
	if given := os.Getenv("VRAMSWEEP_TEST_RESULTS"); given != "" {
		given, err := filepath.Abs(given)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(given, filepath.Join(work, "results")); err != nil {
			t.Fatal(err)
		}
		return work
	}
	s := openStore(t, filepath.Join(work, "results"))
	for n := range 3 {
		runs := night(n)
		for i, r := range runs {
			if n > 0 {
				r.axes = map[string]any{"ratio": 0.25 * float64(i), "kind": "warm", "seed": int64(i), "pinned": i%2 == 0}
			}
			if r.drift = n; i == 3 {
				r.outcome = runner.OutcomeOOM
			}
		}
		write(t, s, runs)
		finish(t, s, runs[0].execution)
		if n == 1 {
			if _, err := s.Compact(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return work
}

func TestTypesThatReadersSee(t *testing.T) {
	interpreter := python(t, "duckdb", "pandas", "polars", "pyarrow")
	script, err := filepath.Abs("testdata/reader_types.py")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{script}
	for _, table := range Tables() {
		args = append(args, string(table))
	}
	cmd := exec.Command(interpreter, args...)
	cmd.Dir = resultsFolder(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if want, err := os.ReadFile("testdata/types.txt"); err == nil && !*update && firstLine(want) != firstLine(out) {
		t.Skipf("the golden file is of %s, here are %s", firstLine(want), firstLine(out))
	}
	golden(t, "testdata/types.txt", out)
}

func TestCookbook(t *testing.T) {
	doc, err := os.ReadFile("../docs/cookbook.md")
	if err != nil {
		t.Fatal(err)
	}
	type block struct {
		Title  string `json:"title"`
		SQL    string `json:"sql"`
		Python string `json:"python"`
	}
	var book struct {
		Start     block   `json:"start"`
		Questions []block `json:"questions"`
	}
	code := regexp.MustCompile("(?s)```(sql|python)\n(.*?)```")
	for _, section := range strings.Split(string(doc), "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		b := block{Title: title}
		for _, m := range code.FindAllStringSubmatch(section, -1) {
			if m[1] == "sql" {
				b.SQL = m[2]
			} else {
				b.Python = m[2]
			}
		}
		switch {
		case title == "Start":
			book.Start = b
		case b.SQL != "" && b.Python != "":
			book.Questions = append(book.Questions, b)
		case b.SQL != "" || b.Python != "":
			t.Errorf("%q has only one of the two answers", title)
		}
		if cast := regexp.MustCompile(`(?i)\bcast\(|::|\.astype\(|to_numeric|to_datetime`).FindString(section); cast != "" {
			t.Errorf("%q needs a cast: %s", title, cast)
		}
	}
	if len(book.Questions) != 12 {
		t.Errorf("%d questions, expected twelve", len(book.Questions))
	}
	interpreter := python(t, "duckdb", "pandas", "pyarrow", "numpy")
	in, err := json.Marshal(book)
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/cookbook.py")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter, script)
	cmd.Dir, cmd.Stdin = resultsFolder(t), bytes.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func TestNotebook(t *testing.T) {
	interpreter := python(t, "nbclient", "ipykernel", "pandas", "pyarrow", "matplotlib")
	script, err := filepath.Abs("testdata/notebook.py")
	if err != nil {
		t.Fatal(err)
	}
	notebook, err := filepath.Abs("../examples/notebook/memory.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter, script, notebook)
	cmd.Dir = resultsFolder(t)
	cmd.Env = append(os.Environ(), "VRAMSWEEP_RESULTS=results", "MPLBACKEND=module://matplotlib_inline.backend_inline")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
