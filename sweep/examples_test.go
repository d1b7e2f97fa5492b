package sweep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// planText writes a plan so that a reader can check it: every profile with its
// id and everything that is asked of vLLM.
func planText(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "output %s\n", p.OutputDir)
	for _, v := range p.Variables {
		fmt.Fprintf(&b, "variable %s = %s (%s)\n", v.Name, show(v.Value), v.From)
	}
	for _, g := range p.GPUs {
		text, _ := json.Marshal(g)
		fmt.Fprintf(&b, "gpu %s\n", text)
	}
	for _, s := range p.Sweeps {
		fmt.Fprintf(&b, "\nsweep %s: %d profiles, %d excluded, repeats %d, gpus %v\n", s.Name, len(s.Profiles), s.Excluded,
			s.Repeats, s.GPUs)
		fmt.Fprintf(&b, "sample %s, limits %+v\n", s.Sample.Interval, s.Limits)
		for _, e := range s.Env {
			value := e.Value
			if e.Sensitive {
				value = "(sensitive)"
			}
			fmt.Fprintf(&b, "env %s=%s\n", e.Name, value)
		}
		for _, p := range s.Profiles {
			b.WriteString(profileText(p) + "\n")
		}
	}
	return b.String()
}

func profileText(p *Profile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s", p.ID, p.Engine.Kind, p.Engine.Mode)
	values := p.SettingValues()
	for _, name := range SettingNames() {
		if v := values[name]; v != nil {
			fmt.Fprintf(&b, " %s=%s", name, jsonText(v))
		}
	}
	for _, f := range p.Engine.Flags {
		fmt.Fprintf(&b, " --%s=%s", f.Name, jsonText(f.Value))
	}
	for _, a := range p.Axes {
		if a.Free {
			fmt.Fprintf(&b, " axis %s=%s", a.Axis, jsonText(a.Value))
		}
	}
	e := p.Engine
	for _, own := range []struct {
		name string
		v    any
	}{{"command", e.Command}, {"benchmark", e.Benchmark}, {"vllm_version", e.VLLMVersion},
		{"model_runner", e.ModelRunner}, {"defaults", e.Defaults}, {"simulator", e.Simulator}} {
		if text := jsonText(own.v); text != "null" && text != `""` {
			fmt.Fprintf(&b, " %s %s", own.name, text)
		}
	}
	if p.Model == nil {
		b.WriteString(" (unknown model)")
	}
	return b.String()
}

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// TestExamples plans every example and compares the plan whole.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("../examples/*.hcl")
	if err != nil || len(paths) < 8 {
		t.Fatalf("%d examples (%v), want 8 at least", len(paths), err)
	}
	question := regexp.MustCompile(`^(# [^\n]*\n)*?# [^\n]*\?`)
	for _, path := range paths {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !question.Match(src) {
				t.Error("it does not start with the question that it answers")
			}
			if formatted, err := Format(name, src); err != nil || !bytes.Equal(formatted, src) {
				t.Errorf("it is not formatted (%v):\n%s", err, formatted)
			}
			plan, err := Load(name, Inputs{WorkDir: "../examples"})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range plan.Warnings {
				t.Errorf("warning: %+v", w)
			}
			for _, s := range plan.Sweeps {
				for _, p := range s.Profiles {
					if p.Model == nil {
						t.Errorf("the catalogue lacks %s", p.Settings.Model)
					}
				}
			}
			golden(t, filepath.Join("testdata", "plans", strings.TrimSuffix(name, ".hcl")+".golden"), planText(plan))
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// TestGoodConfigurations loads the archives of testdata/good, where every part
// of the language is used, and compares their plans. An archive with both
// sweep.hcl and sweep.hcl.json holds the same configuration in both syntaxes.
func TestGoodConfigurations(t *testing.T) {
	eachCase(t, "good", func(t *testing.T, c *goldenCase) {
		plan, err := Load(c.load, c.in)
		if err != nil {
			t.Fatal(err)
		}
		got := planText(plan)
		c.check(t, strings.ReplaceAll(got, c.in.WorkDir, "WORKDIR"))
		for range 10 {
			again, err := Load(c.load, c.in)
			if err != nil || planText(again) != got {
				t.Fatalf("another load gives another plan (%v)", err)
			}
		}
		twin := slices.ContainsFunc(c.archive.Files, func(f txtar.File) bool { return f.Name == "sweep.hcl.json" })
		if !twin || c.load != "sweep.hcl" {
			return
		}
		other, err := Load("sweep.hcl.json", c.in)
		if err != nil {
			t.Fatal(err)
		}
		if text := planText(other); text != got {
			t.Errorf("JSON means something else:\n%s\nHCL:\n%s", text, got)
		}
	})
}
