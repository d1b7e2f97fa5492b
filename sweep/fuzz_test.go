package sweep

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/vramsweep/vramsweep/sweep/models"
)

func builtin(f *testing.F) *models.Catalogue {
	f.Helper()
	c, err := models.Builtin()
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// seeds are the files of all golden cases and examples.
func seeds(f *testing.F, add func(name string, data []byte)) {
	f.Helper()
	for _, pattern := range []string{"testdata/*/*.txtar", "../examples/*.hcl"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				f.Fatal(err)
			}
			if filepath.Ext(p) == ".hcl" {
				add(p, b)
				continue
			}
			for _, file := range txtar.Parse(b).Files {
				if file.Name != "want" {
					add(file.Name, file.Data)
				}
			}
		}
	}
}

func fuzzLoad(t *testing.T, c *models.Catalogue, path string, in Inputs, sizes map[string]int) {
	t.Helper()
	plan, err := loadWith(path, in, c)
	if (plan == nil) == (err == nil) {
		t.Fatalf("plan %v and error %v", plan != nil, err)
	}
	if err == nil {
		checkPlan(t, plan)
		return
	}
	e, ok := asError(err)
	if !ok {
		t.Fatalf("not an *Error: %v", err)
	}
	list := e.Diagnostics()
	if len(list) == 0 {
		t.Fatal("an error without a message")
	}
	for i := range list {
		d := &list[i]
		checkShape(t, d, e)
		if d.Range != nil {
			if size, known := sizes[d.Range.Filename]; known && d.Range.End.Byte > size {
				t.Errorf("range %+v is outside of %s", d.Range, d.Range.Filename)
			}
		}
	}
	for _, o := range []RenderOptions{{}, {Color: true, Width: 30}} {
		if err := e.Render(io.Discard, o); err != nil {
			t.Fatal(err)
		}
	}
}

// checkPlan checks what readers of a plan rely on.
func checkPlan(t *testing.T, plan *Plan) {
	t.Helper()
	for _, s := range plan.Sweeps {
		if !isName(s.Name) {
			t.Errorf("sweep %q", s.Name)
		}
		seen := map[string]bool{}
		for _, p := range s.Profiles {
			st := &p.Settings
			if seen[p.ID] || len(p.ID) != 16 {
				t.Errorf("id %q", p.ID)
			}
			seen[p.ID] = true
			if st.Model == "" || st.HFModelID == "" ||
				min(st.InputLen, st.OutputLen, st.BatchSize, st.TensorParallelSize) < 1 {
				t.Errorf("settings %+v", st)
			}
			for _, f := range p.Engine.Flags {
				if !isIdentifier(f.Name) || f.Value == nil {
					t.Errorf("flag %+v", f)
				}
			}
			_ = p.Request()
		}
	}
}

// FuzzLoad reads any text as a sweep file, in both syntaxes. Nothing panics,
// hangs or eats the memory; an error has a message whose place is in the file.
func FuzzLoad(f *testing.F) {
	seeds(f, func(name string, data []byte) { f.Add(data, isJSON(name)) })
	f.Add([]byte("locals {\n  a = [for x in range(1000) : [for y in range(1000) : [for z in range(1000) : "+
		"\"${x}${y}${z}\"]]]\n}\n"), false)
	f.Add([]byte("locals {\n  a = \"xxxxxxxxxx\"\n  b = \"${local.a}${local.a}${local.a}\"\n  c = replace(local.b, "+
		"\"x\", local.b)\n}\n"), false)
	f.Add([]byte("locals {\n  a = tostring(pow(10, 1000000))\n  b = format(\"%0100000d\", 1)\n  c = "+
		"setproduct(range(1000), range(1000), range(1000))\n}\n"), false)
	catalogue := builtin(f)
	f.Fuzz(func(t *testing.T, data []byte, json bool) {
		dir, name := t.TempDir(), "sweep.hcl"
		if json {
			name += ".json"
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		fuzzLoad(t, catalogue, name, Inputs{WorkDir: dir}, map[string]int{name: len(data)})
	})
}

// FuzzFormat checks that formatting is idempotent and keeps what a file means:
// it stays parsable, and what was refused is returned as an *Error.
func FuzzFormat(f *testing.F) {
	seeds(f, func(_ string, data []byte) { f.Add(data) })
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := Format("sweep.hcl", data)
		if err != nil {
			if _, ok := asError(err); !ok {
				t.Fatalf("not an *Error: %v", err)
			}
			return
		}
		twice, err := Format("sweep.hcl", once)
		if err != nil {
			t.Fatalf("it cannot be read again: %v\n%s", err, once)
		}
		if !bytes.Equal(once, twice) {
			t.Errorf("a second round changes it:\n%q\n%q", once, twice)
		}
	})
}

// FuzzVars gives any text as the value of a variable, by flag, environment and
// file, and as a filter.
func FuzzVars(f *testing.F) {
	for _, s := range []string{"1", "0.5", "true", "abc", `"abc"`, "[1, 2]", `{ a = 1 }`, "[for i in range(9) : i]",
		"var.x", "${", "null", "\x00", "1e400",
		"x = 1\ny = [2]", "variable \"x\" {}",
		"matrix.batch_size > 1 && profile.input_len < 9 || model.num_layers == 3 && sweep.name != \"x\""} {
		f.Add(s)
	}
	text := `
variable "x" {
  default = 1
}
variable "n" {
  type    = number
  default = 1
}
variable "l" {
  type    = list(object({ a = optional(number, 3), b = string }))
  default = []
}
variable "secret" {
  default   = "none"
  sensitive = true
}
sweep "s" {
  matrix {
    model      = ["Qwen/Qwen3-0.6B"]
    batch_size = [1, 2]
  }
  engine "vllm" {
    x = try(tostring(var.x), "?")
    n = var.n
    l = length(var.l)
  }
  env {
    A = try(tostring(var.secret), "?")
  }
}
`
	catalogue := builtin(f)
	f.Fuzz(func(t *testing.T, value string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "sweep.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "v.vars"), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, in := range []Inputs{
			{Vars: []string{"x=" + value}}, {Vars: []string{"n=" + value}}, {Env: []string{"VRAMSWEEP_VAR_l=" + value}},
			{Vars: []string{value}},
			{Vars: []string{"secret=" + value}}, {VarFiles: []string{"v.vars"}}, {Filter: value},
		} {
			in.WorkDir = dir
			fuzzLoad(t, catalogue, "sweep.hcl", in, map[string]int{"v.vars": len(value)})
		}
	})
}
