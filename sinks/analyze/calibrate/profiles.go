package calibrate

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

//go:embed models/*.json
var configs embed.FS

// A Start is one engine to be measured: a model of the set with its true widths
// and some of its layers, and how it is started.
type Start struct {
	Model  string `json:"model"` // of the set
	Layers int64  `json:"layers"`
	Tokens int64  `json:"max_num_batched_tokens"`
	Seqs   int64  `json:"max_num_seqs"`
	Eager  bool   `json:"enforce_eager"`
	Check  bool   `json:"check"` // laws are not fitted to it

	Expected time.Duration `json:"-"`
	Left     string        `json:"left_out,omitempty"` // why it is not measured
}

// Names of the sweeps: laws are fitted to one, and checked on the other.
const (
	FitSweep   = "fit"
	CheckSweep = "check"
)

// Starts are the engines of a calibration, the one that says the most first:
// each kind of layer whose peak follows a law of its own (a dense model, a vocabulary so
// large that the peak is sampling, experts, a state, a latent cache), then other token and
// sequence limits and numbers of layers, which tell coefficients of one law apart. In between
// stand those that the laws are checked on, so that a short budget has some.
func Starts() []Start {
	return []Start{
		{Model: "llama-3.1-8b", Layers: 4, Tokens: 16384, Seqs: 1024},
		{Model: "gemma-3-1b", Layers: 26, Tokens: 8192, Seqs: 1024},
		{Model: "mixtral-8x7b", Layers: 2, Tokens: 16384, Seqs: 256},
		{Model: "deepseek-v2-lite", Layers: 4, Tokens: 8192, Seqs: 512},
		{Model: "nemotron-h-8b", Layers: 10, Tokens: 16384, Seqs: 256},
		{Model: "qwen3-4b", Layers: 12, Tokens: 8192, Seqs: 512, Check: true},
		{Model: "llama-3.1-8b", Layers: 16, Tokens: 8192, Seqs: 64},
		{Model: "mixtral-8x7b", Layers: 3, Tokens: 8192, Seqs: 512, Check: true},
		{Model: "llama-3.1-8b", Layers: 4, Tokens: 8192, Seqs: 256, Eager: true},
		{Model: "gemma-3-1b", Layers: 26, Tokens: 16384, Seqs: 256},
		{Model: "nemotron-h-8b", Layers: 20, Tokens: 8192, Seqs: 512, Check: true},
		{Model: "deepseek-v2-lite", Layers: 8, Tokens: 16384, Seqs: 1024},
		{Model: "deepseek-v2-lite", Layers: 6, Tokens: 8192, Seqs: 1024, Check: true},
		{Model: "nemotron-h-8b", Layers: 20, Tokens: 8192, Seqs: 1024},
		{Model: "qwen3-4b", Layers: 12, Tokens: 16384, Seqs: 1024, Eager: true, Check: true},
		{Model: "mixtral-8x7b", Layers: 4, Tokens: 8192, Seqs: 1024},
	}
}

// name is that of the start's model folder.
func (s *Start) name() string { return fmt.Sprintf("%s-%dl", s.Model, s.Layers) }

// Folder is the start's model folder within a calibration's.
func (s *Start) Folder() string { return "models/" + s.name() }

// Config is the config.json of the start's model: that of the set with fewer layers.
func (s *Start) Config() ([]byte, error) {
	data, err := configs.ReadFile(path.Join("models", s.Model+".json"))
	if err != nil {
		return nil, fmt.Errorf("model of the calibration: %w", err)
	}
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		return nil, fmt.Errorf("config.json of %s: %w", s.Model, err)
	}
	fields["num_hidden_layers"] = s.Layers
	if kinds, ok := fields["layer_types"].([]any); ok {
		fields["layer_types"] = kinds[:s.Layers]
	}
	if pattern, ok := fields["hybrid_override_pattern"].(string); ok {
		fields["hybrid_override_pattern"] = pattern[:s.Layers]
	}
	return json.MarshalIndent(fields, "", " ")
}

// Is says that a profile is of the start.
func (s *Start) Is(p *sweep.Settings) bool {
	is := func(have *int64, want int64) bool { return have != nil && *have == want }
	return path.Base(p.Model) == s.name() && is(p.MaxNumBatchedTokens, s.Tokens) && is(p.MaxNumSeqs, s.Seqs) &&
		p.EnforceEager != nil && *p.EnforceEager == s.Eager
}

// A Plan is how the starts are measured.
type Plan struct {
	Starts  []Start
	Dir     string   // the calibration's folder, absolute
	Engine  string   // "vllm" or "simulator"
	Mode    string   // "session": small and large prompts on one engine; "latency": large ones
	Command []string // stands for vllm
	GPU     string   // the simulator's
	Version string   // of vLLM; "": as it is (the simulator's default)
	GPUs    []int    // that may be used; the first is
}

// Sweeps is the plan as a sweep file.
func (p *Plan) Sweeps() string {
	var out strings.Builder
	out.WriteString("# Written by vramsweep calibrate: what laws are fitted to, and what they are checked on.\n")
	for _, name := range []string{FitSweep, CheckSweep} {
		p.sweep(&out, name)
	}
	return out.String()
}

func (p *Plan) sweep(out *strings.Builder, name string) {
	var starts strings.Builder
	for i := range p.Starts {
		if s := &p.Starts[i]; s.Left == "" && s.Check == (name == CheckSweep) {
			fmt.Fprintf(&starts,
				"      { model = %q, max_num_batched_tokens = %d, max_num_seqs = %d, enforce_eager = %t },\n",
				path.Join(p.Dir, s.Folder()), s.Tokens, s.Seqs, s.Eager)
		}
	}
	if starts.Len() == 0 {
		return
	}
	prompts := "{ batch_size = 16, input_len = 2048 }"
	if p.Mode == "session" {
		prompts = "{ batch_size = 1, input_len = 128 }, " + prompts
	}
	fmt.Fprintf(out, "\nsweep %q {\n  matrix {\n    start = [\n%s    ]\n    prompts = [%s]\n  }\n",
		name, starts.String(), prompts)
	fmt.Fprintf(out, "  engine %q {\n    mode                = %q\n", p.Engine, p.Mode)
	switch {
	case p.Engine == "simulator":
		fmt.Fprintf(out, "    gpu                 = %q\n", p.GPU)
	case len(p.Command) > 0:
		quoted, _ := json.Marshal(p.Command)
		fmt.Fprintf(out, "    command             = %s\n", quoted)
	}
	if p.Version != "" {
		fmt.Fprintf(out, "    vllm_version        = %q\n", p.Version)
	}
	out.WriteString(`    dtype               = "bfloat16"
    load_format         = "dummy"
    max_model_len       = 8192
    output_len          = 8
    num_iters           = 2
    num_iters_warmup    = 1
    skip_tokenizer_init = true
  }
`)
	if p.Engine == "simulator" { // whose runs take a second
		out.WriteString("  sample { interval = \"20ms\" }\n")
	}
	if len(p.GPUs) > 0 {
		list, _ := json.Marshal(p.GPUs)
		fmt.Fprintf(out, "  gpus = %s\n", list)
	}
	out.WriteString("}\n")
}

// Cut leaves out what the budget has no time for, the least telling first.
func Cut(starts []Start, budget time.Duration) {
	var sum time.Duration
	for i := range starts {
		s := &starts[i]
		if s.Left != "" {
			continue
		}
		if sum+s.Expected > budget {
			s.Left = "no time left in the budget"
			continue
		}
		sum += s.Expected
	}
}
