package sweep

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func loadText(t testing.TB, text string, in Inputs) *Plan {
	t.Helper()
	plan, err := Load(writeFile(t, t.TempDir(), "sweep.hcl", text), in)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func ids(p *Plan) []string {
	var out []string
	for _, s := range p.Sweeps {
		for _, pr := range s.Profiles {
			out = append(out, pr.ID)
		}
	}
	return out
}

// TestIDsStay pins ids: results of years are found again by them. Whoever makes
// this test fail has changed every id, and needs a reason that is as large.
func TestIDsStay(t *testing.T) {
	text := `
sweep "ids" {
  matrix {
    model      = ["Qwen/Qwen3-0.6B", "acme/unknown"]
    batch_size = [1, 8]
    note       = ["a", "\u00e4"]
    scale      = [1, 0.1]
  }
  exclude {
    model = "acme/unknown"
    note  = "a"
  }
  exclude { when = matrix.scale < 1 && matrix.batch_size == 8 }
  engine "vllm" {
    max_model_len          = 1024
    gpu_memory_utilization = 0.9
    enforce_eager          = true
    seed                   = matrix.scale > 0.5 ? 1 : 2
    defaults               = "serve"
    hf_overrides           = { z = [1, 2.5], a = matrix.note }
  }
}
`
	want := strings.Fields(`bdb6182b99f74361 96219f91cf1e4d9e 2e492dabfa357176 225080e031d25b92 c181f0c046f40be0
		f5b28c99fa299627 037f3d66e91a6557 557fae3ce94406dc dd4ca8659965816f`)
	got := ids(loadText(t, text, Inputs{}))
	if *update {
		t.Logf("ids: %s", strings.Join(got, " "))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
}

// TestIDsDependOn changes a configuration piece by piece: what is asked of vLLM
// changes the id, how and where it is run does not.
func TestIDsDependOn(t *testing.T) {
	base := `sweep "s" {
  matrix {
    model      = ["Qwen/Qwen3-0.6B"]
    batch_size = [8]
    free       = [1]
  }
  engine "vllm" {
    max_model_len = 1024 + matrix.free
    max_lora_rank = 16
    command       = ["vllm"]
  }
  repeats = 1
}
output {
  dir = "a"
}
`
	id := ids(loadText(t, base, Inputs{}))[0]
	for _, tc := range []struct {
		name, old, new string
		same           bool
	}{
		{"sweep name", `"s"`, `"t"`, false},
		{"axis", `[8]`, `[9]`, false},
		{"free axis", `free       = [1]`, `free       = [2]`, false},
		{"setting", `1024 +`, `2048 +`, false},
		{"flag", `= 16`, `= 32`, false},
		{"further setting", `max_lora_rank = 16`, "max_lora_rank = 16\nenforce_eager = false", false},
		{"defaults", `max_lora_rank = 16`, "max_lora_rank = 16\ndefaults = \"serve\"", false},
		{"default spelt out", `batch_size = [8]`, "batch_size = [8]\ninput_len = [32]", true},
		{"null", `max_lora_rank = 16`, "max_lora_rank = 16\nseed = null", true},
		{"command", `["vllm"]`, `["/opt/vllm"]`, true},
		{"output", `"a"`, `"b"`, true},
		{"repeats", `repeats = 1`, "repeats = 5\nenv {\n  A = 1\n}\nlimits {\n  timeout = \"1m\"\n}", true},
		{"version", `max_lora_rank = 16`, "max_lora_rank = 16\nvllm_version = \"0.26.0\"\nmodel_runner = \"v2\"", true},
		{"engine", `engine "vllm"`, `engine "simulator"`, true},
		{"order of axes", "    model      = [\"Qwen/Qwen3-0.6B\"]\n    batch_size = [8]",
			"    batch_size = [8]\n    model      = [\"Qwen/Qwen3-0.6B\"]", true},
		{"setting by the engine", "    batch_size = [8]\n", "", true}, // 8 is the default
		{"case of the model", "Qwen/Qwen3-0.6B", "qwen/qwen3-0.6b", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(base, tc.old, tc.new, 1)
			if text == base {
				t.Fatal("nothing was replaced")
			}
			if got := ids(loadText(t, text, Inputs{}))[0]; (got == id) != tc.same {
				t.Errorf("id %s, before %s, same should be %v", got, id, tc.same)
			}
		})
	}
}

// TestFolderModelID checks that a folder is known by what it holds.
func TestFolderModelID(t *testing.T) {
	config := `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,` +
		`"intermediate_size":128,"vocab_size":1000}`
	load := func(folder, config string) string {
		dir := t.TempDir()
		writeFile(t, dir, folder+"/config.json", config)
		writeFile(t, dir, "sweep.hcl", `sweep "s" {
  matrix {
    model = ["./`+folder+`"]
  }
}
`)
		plan, err := Load("sweep.hcl", Inputs{WorkDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if p := plan.Sweeps[0].Profiles[0]; p.Settings.HFModelID != dir+"/"+folder || p.Model.NumLayers != 2 {
			t.Errorf("hf_model_id %q", p.Settings.HFModelID)
		}
		return ids(plan)[0]
	}
	a, b, c := load("tiny", config), load("deep/other", config), load("tiny", config+" ")
	if a != b || a == c {
		t.Errorf("ids %s %s %s: the first two have the same config.json, the third another", a, b, c)
	}
}

// TestMatrixCounts checks, on random matrices, that a sweep has as many
// profiles as its axes multiply to, less the excluded, and that ids differ.
func TestMatrixCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		axes := []string{"input_len", "output_len", "batch_size", "a", "b"}
		product := 1
		var b strings.Builder
		b.WriteString("sweep \"s\" {\n  matrix {\n    model = [\"Qwen/Qwen3-0.6B\"]\n")
		lens := map[string]int{}
		for _, i := range r.Perm(len(axes)) {
			n := 1 + r.IntN(4)
			lens[axes[i]] = n
			product *= n
			b.WriteString("    " + axes[i] + " = range(1, " + show(int64(n+1)) + ")\n")
		}
		drop := axes[r.IntN(len(axes))]
		b.WriteString("  }\n")
		excluded := 0
		if lens[drop] > 1 {
			b.WriteString("  exclude {\n    " + drop + " = 1\n  }\n")
			excluded = product / lens[drop]
		}
		b.WriteString("  engine \"vllm\" {\n    max_lora_rank = matrix.a + matrix.b\n  }\n}\n")
		plan := loadText(t, b.String(), Inputs{})
		s := plan.Sweeps[0]
		if len(s.Profiles) != product-excluded || s.Excluded != excluded {
			t.Fatalf("%d profiles, %d excluded, want %d and %d:\n%s", len(s.Profiles), s.Excluded, product-excluded, excluded,
				b.String())
		}
		all := ids(plan)
		slices.Sort(all)
		if len(slices.Compact(all)) != len(s.Profiles) {
			t.Fatal("ids are not unique")
		}
	}
}

// TestPickIsStable checks that a choice is the same whatever the order of axes
// and that most of it stays when an axis grows.
func TestPickIsStable(t *testing.T) {
	text := func(axes ...string) string {
		return "sweep \"s\" {\n  matrix {\n    model = [\"Qwen/Qwen3-0.6B\"]\n    " + strings.Join(axes,
			"\n    ") + "\n  }\n  pick {\n    n = 50\n    seed = 3\n  }\n}\n"
	}
	in, batch := "input_len = range(1, 21)", "batch_size = range(1, 21)"
	sorted := func(p *Plan) []string {
		s := ids(p)
		slices.Sort(s)
		return s
	}
	a := sorted(loadText(t, text(in, batch), Inputs{}))
	if b := sorted(loadText(t, text(batch, in), Inputs{})); !slices.Equal(a, b) {
		t.Error("the order of axes changes the choice")
	}
	grown := sorted(loadText(t, text("input_len = range(1, 22)", batch), Inputs{}))
	same := 0
	for _, id := range grown {
		if slices.Contains(a, id) {
			same++
		}
	}
	if same < 40 {
		t.Errorf("only %d of 50 points stay when the matrix grows by a twentieth", same)
	}
}
