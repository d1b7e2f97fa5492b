package sweep

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// asError is the *Error in err's chain, if there is one.
func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// allCodes are the codes that codes.go declares.
func allCodes(t *testing.T) []code {
	t.Helper()
	src, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []code
	for _, m := range regexp.MustCompile(`code = "(S\d{3} [^"]+)"`).FindAllStringSubmatch(string(src), -1) {
		all = append(all, code(m[1]))
	}
	if len(all) < 50 {
		t.Fatalf("codes.go declares %d codes", len(all))
	}
	return all
}

// A goldenCase is a txtar archive: its comment may hold a line "args: ...",
// its files are laid out in a folder, and "want" is what comes out.
type goldenCase struct {
	path    string
	archive *txtar.Archive
	load    string
	in      Inputs
	want    string
}

func readCase(t *testing.T, path string) *goldenCase {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &goldenCase{path: path, archive: a, load: "sweep.hcl", in: Inputs{WorkDir: dir}}
	for line := range strings.Lines(string(a.Comment)) {
		if args, ok := strings.CutPrefix(strings.TrimSpace(line), "args: "); ok {
			for _, arg := range strings.Split(args, "; ") {
				c.arg(t, arg)
			}
		}
	}
	for _, f := range a.Files {
		if f.Name == "want" {
			c.want = string(f.Data)
			continue
		}
		writeFile(t, dir, f.Name, string(f.Data))
	}
	return c
}

func (c *goldenCase) arg(t *testing.T, arg string) {
	t.Helper()
	k, v, _ := strings.Cut(arg, "=")
	switch k {
	case "path":
		c.load = v
	case "var":
		c.in.Vars = append(c.in.Vars, v)
	case "var-file":
		c.in.VarFiles = append(c.in.VarFiles, v)
	case "env":
		c.in.Env = append(c.in.Env, v)
	case "only":
		c.in.Only = append(c.in.Only, v)
	case "filter":
		c.in.Filter = v
	default:
		t.Fatalf("%s: no argument %q", c.path, k)
	}
}

// check compares, or rewrites with -update.
func (c *goldenCase) check(t *testing.T, got string) {
	t.Helper()
	if *update {
		files := c.archive.Files[:0:0]
		for _, f := range c.archive.Files {
			if f.Name != "want" {
				files = append(files, f)
			}
		}
		c.archive.Files = append(files, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(c.path, txtar.Format(c.archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != c.want {
		t.Errorf("%s: got\n%s\nwant\n%s", c.path, got, c.want)
	}
}

func eachCase(t *testing.T, dir string, f func(t *testing.T, c *goldenCase)) int {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases in testdata/%s (%v)", dir, err)
	}
	for _, p := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(p), ".txtar"), func(t *testing.T) { f(t, readCase(t, p)) })
	}
	return len(paths)
}

// TestWrong loads what is at fault in every way that we could think of and
// compares each message whole: code, range and text.
func TestWrong(t *testing.T) {
	codes := map[string]bool{}
	n := eachCase(t, "wrong", func(t *testing.T, c *goldenCase) {
		_, err := Load(c.load, c.in)
		e, ok := asError(err)
		if !ok {
			t.Fatalf("got %v, want an *Error", err)
		}
		var b bytes.Buffer
		if err := e.Render(&b, RenderOptions{}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String()+e.Error(), "hunter2") {
			t.Error("the messages give a secret away")
		}
		for _, d := range e.Diagnostics() {
			codes[d.Code] = true
			checkShape(t, &d, e)
		}
		c.check(t, strings.ReplaceAll(b.String(), c.in.WorkDir, "WORKDIR"))
	})
	if n < 80 {
		t.Errorf("%d wrong files, want 80 at least", n)
	}
	for _, c := range allCodes(t) {
		if c[1] != '9' && c != codeFlagMissing && !codes[c.id()] {
			t.Errorf("no wrong file leads to %s", c)
		}
	}
}

// checkShape checks what readers of the JSON rely on.
func checkShape(t *testing.T, d *Diagnostic, e *Error) {
	t.Helper()
	if d.Code == "" || d.Summary == "" || d.Detail == "" {
		t.Errorf("incomplete: %+v", d)
	}
	if d.Range == nil {
		return
	}
	if d.Range.Start.Line < 1 || d.Range.Start.Column < 1 || d.Range.End.Byte < d.Range.Start.Byte {
		t.Errorf("range %+v", d.Range)
	}
	s := d.Snippet
	if s.HighlightStartOffset > s.HighlightEndOffset || s.HighlightEndOffset > len(s.Code) {
		t.Errorf("snippet %+v", s)
	}
	if place := fmt.Sprintf("%s:%d:%d: ", d.Range.Filename, d.Range.Start.Line,
		d.Range.Start.Column); d.Severity == SeverityError && !strings.Contains(e.Error(), place) {
		t.Errorf("Error() lacks %q", place)
	}
}

// TestWarn does the same for what is no fault but looks wrong.
func TestWarn(t *testing.T) {
	codes := map[string]bool{}
	eachCase(t, "warn", func(t *testing.T, c *goldenCase) {
		plan, err := Load(c.load, c.in)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := RenderDiagnostics(&b, plan.Warnings, RenderOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, d := range plan.Warnings {
			codes[d.Code] = true
		}
		c.check(t, b.String())
	})
	for _, c := range allCodes(t) {
		if c[1] == '9' && !codes[c.id()] {
			t.Errorf("no file leads to %s", c)
		}
	}
}
