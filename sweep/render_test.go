package sweep

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func loadError(t *testing.T, text string, in Inputs) *Error {
	t.Helper()
	in.WorkDir = t.TempDir()
	writeFile(t, in.WorkDir, "sweep.hcl", text)
	_, err := Load("sweep.hcl", in)
	e, ok := asError(err)
	if !ok {
		t.Fatalf("got %v, want an *Error", err)
	}
	return e
}

// TestRenderPlaces checks that the carets stand under the fault where tabs and
// wide characters precede it, and that nothing can steer the terminal.
func TestRenderPlaces(t *testing.T) {
	e := loadError(t, "sweep \"s\" {\n\tmatrix {\n\t\tmodel = [\"Qwen/Qwen3-0.6B\"]\n\t\tnote = [\"日本\", nope] # "+
		"\x1b[31m\u202e\n\t}\n}\n", Inputs{})
	var b bytes.Buffer
	if err := e.Render(&b, RenderOptions{}); err != nil {
		t.Fatal(err)
	}
	want := "   4 | \t\tnote = [\"日本\", nope] # \\u001b[31m\\u202e\n     | \t\t                ^^^^\n"
	if !strings.Contains(b.String(), want) {
		t.Errorf("got\n%q\nwant it to hold\n%q", b.String(), want)
	}
}

func TestRenderColourAndWidth(t *testing.T) {
	e := loadError(t, "sweep \"s\" {\n  matrix {\n    model = [\"nope\"]\n  }\n}\n", Inputs{})
	var plain, colour, narrow bytes.Buffer
	for b, o := range map[*bytes.Buffer]RenderOptions{&plain: {}, &colour: {Color: true}, &narrow: {Width: 30}} {
		if err := e.Render(b, o); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colour.String(), "\x1b[1;31merror[S317]\x1b[0m") {
		t.Errorf("colours: %q", colour.String())
	}
	for line := range strings.Lines(narrow.String()) {
		if len(line) > 31 {
			t.Errorf("a line of %d columns: %q", len(line)-1, line)
		}
	}
}

// TestDiagnosticJSON pins the shape that editors read, which is Terraform's.
func TestDiagnosticJSON(t *testing.T) {
	e := loadError(t, "sweep \"kv\" {\n  matrix {\n    model     = [\"Qwen/Qwen3-0.6B\"]\n    input_len = [1024]\n  "+
		"}\n  engine \"vllm\" {\n    max_model_len = matrix.input_len / 3\n  }\n}\n", Inputs{})
	got, err := json.MarshalIndent(e.Diagnostics(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `[
  {
    "severity": "error",
    "code": "S402",
    "summary": "Not a whole number",
    "detail": "max_model_len must be a whole number; this is 341.3333. Use floor() or ceil().",
    "range": {
      "filename": "sweep.hcl",
      "start": {
        "line": 7,
        "column": 21,
        "byte": 125
      },
      "end": {
        "line": 7,
        "column": 41,
        "byte": 145
      }
    },
    "snippet": {
      "context": "sweep \"kv\"",
      "code": "    max_model_len = matrix.input_len / 3",
      "start_line": 7,
      "highlight_start_offset": 20,
      "highlight_end_offset": 40,
      "values": [
        "matrix.input_len is 1024"
      ]
    }
  }
]`
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
}

// TestNoSecretAnywhere looks for the value of a sensitive variable in all that
// a plan and an error can show.
func TestNoSecretAnywhere(t *testing.T) {
	const secret = "hunter2-hunter2"
	text := `variable "token" {
  type      = string
  sensitive = true
}
sweep "s" {
  matrix {
    model = ["Qwen/Qwen3-0.6B"]
  }
  env {
    PLAIN = "x-${var.token}"
  }
}
`
	plan := loadText(t, text, Inputs{Vars: []string{"token=" + secret}})
	b, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte(secret)) {
		t.Errorf("the plan's JSON gives it away: %s", b)
	}
	if env := plan.Sweeps[0].Env; len(env) != 1 || !env[0].Sensitive || env[0].Value != "x-"+secret {
		t.Errorf("env %+v", env)
	}
	for _, bad := range []string{
		"locals {\n  a = tonumber(var.token)\n}\n", "locals {\n  a = var.token.x\n}\n",
		"locals {\n  a = { b = 1 }[var.token]\n}\n",
		"output {\n  dir = var.token\n}\n", "gpu \"g\" {\n  total_memory = var.token\n}\n",
		"model \"m\" {\n  hf_model_id = var.token\n}\n",
		"locals {\n  x = var\n}\n", "locals {\n  x = [for k in [var.token] : k + 1]\n}\n",
	} {
		e := loadError(t, text+bad, Inputs{Env: []string{"VRAMSWEEP_VAR_token=" + secret}})
		var out bytes.Buffer
		if err := e.Render(&out, RenderOptions{}); err != nil {
			t.Fatal(err)
		}
		j, err := json.Marshal(e.Diagnostics())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String()+string(j)+e.Error(), secret) {
			t.Errorf("%s\nis given away by\n%s", bad, out.String())
		}
	}
}

func TestFormat(t *testing.T) {
	got, err := Format("x.hcl",
		[]byte("# why\nsweep \"s\" {\nmatrix {\nmodel=[\"a/b\"] # one\n  batch_size   = [1,2]\n}\n}\n"))
	want := "# why\nsweep \"s\" {\n  matrix {\n    model      = [\"a/b\"] # one\n    batch_size = [1, 2]\n  }\n}\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
	for name, text := range map[string]string{"x.hcl": "sweep {", "x.hcl.json": "{}"} {
		if _, err := Format(name, []byte(text)); err == nil {
			t.Errorf("%s was formatted", name)
		} else if _, ok := asError(err); !ok {
			t.Errorf("%v is no *Error", err)
		}
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]int64{"80GiB": 80 << 30, "1.5 MiB": 3 << 19, "79.18GiB": 85018877624,
		"80GB": 80e9, "12B": 12, "0KiB": 0} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "80", "GiB", "-1GiB", "1e30GiB", "80gib", "NaNGiB", "InfB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, got)
		}
	}
	for text, want := range map[string]string{
		"30m": "30m0s", "1h30m": "1h30m0s", "2d": "48h0m0s", "0": "0s", "500ms": "500ms",
	} {
		if got, err := ParseDuration(text); err != nil || got.String() != want {
			t.Errorf("ParseDuration(%q) = %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "30", "-1s", "soon", "NaNd", "1e9d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %s", text, got)
		}
	}
}

// TestRequest checks the bridge to the arithmetic.
func TestRequest(t *testing.T) {
	p := loadText(t, `sweep "s" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [2]
    max_num_seqs         = [64]
  }
  engine "vllm" {
    dtype                  = "float16"
    kv_cache_dtype         = "fp8"
    quantization           = "fp8"
    enforce_eager          = true
    max_num_batched_tokens = 4096
    gpu_memory_utilization = 0.5
    vllm_version           = "v0.26.0"
    model_runner           = "v2"
    defaults               = "serve"
  }
}
`, Inputs{}).Sweeps[0].Profiles[0]
	r := p.Request()
	if r.Dtype != "float16" || r.KVCacheDtype != "fp8" || r.Quantization != "fp8" || !r.EnforceEager ||
		*r.MaxNumBatchedTokens != 4096 || *r.MaxNumSeqs != 64 ||
		*r.GPUMemoryUtilization != 0.5 || r.Version != "0.26.0" || r.ModelRunner != "v2" ||
		r.Defaults != "serve" || r.TensorParallelSize != 2 || r.MaxModelLen != nil {
		t.Errorf("request %+v", r)
	}
}
