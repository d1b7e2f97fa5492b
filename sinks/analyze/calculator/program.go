package calculator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Question is what a calculator that is a program is asked about one profile:
// a JSON object on its standard input. Columns of the runs table keep their
// names; what is not known or was left to vLLM is not there.
type Question struct {
	Format       int            `json:"format"` // 1
	ProfileID    string         `json:"profile_id"`
	HFModelID    string         `json:"hf_model_id"`
	Architecture map[string]any `json:"architecture"` // family, params, num_layers, ...
	Settings     map[string]any `json:"settings"`     // as asked
	Axes         map[string]any `json:"axes,omitempty"`
	Effective    map[string]any `json:"effective"` // as vLLM said that it used them
	Engine       map[string]any `json:"engine"`    // vllm_version, model_runner, compile_cache, ...
	GPU          QuestionGPU    `json:"gpu"`
	Components   []string       `json:"components"` // that an answer may hold, with _bytes or _gib
}

// QuestionGPU are the GPUs of the run.
type QuestionGPU struct {
	Name  string `json:"name,omitempty"`
	Count int32  `json:"count"`
	// TotalBytes of one, as torch counts it; from the catalogue.
	TotalBytes int64 `json:"total_bytes,omitempty"`
}

// ErrAnswer says that a program's answer cannot be used.
var ErrAnswer = errors.New("unusable answer")

// ErrStop ends the questions: the program cannot be started at all, or the
// user has had enough.
var ErrStop = errors.New("no further questions")

// A Fault is a profile that the program gave no usable answer for.
type Fault struct {
	Profile, Label string
	Err            error
}

func (f Fault) Error() string {
	return fmt.Sprintf("profile %s (%s): %v", f.Profile, f.Label, f.Err)
}

// Ask asks a program about each profile of the runs that ended well, once
// for runs that differ in nothing that it is told. ask gets the question as
// JSON and returns the answer: an object with COMPONENT_bytes or
// COMPONENT_gib, or {"reason": "..."} where it predicts nothing. Faults name the
// profiles without a usable answer; the others are judged all the same. It fails
// where ask fails with ErrStop.
func Ask(name string, rows []sinks.RunRow, ask func(question []byte) ([]byte, error)) (Predictor, []Fault, error) {
	type answer struct {
		parts  map[string]float64
		reason string
	}
	answers, fields := map[string]answer{}, frame.Fields()
	var faults []Fault
	questions := map[*sinks.RunRow]string{}
	for i := range rows {
		r := &rows[i]
		if r.Outcome != "ok" {
			continue
		}
		question, err := questionOf(r, fields)
		if err != nil {
			return Predictor{}, nil, fmt.Errorf("run %s: %w", r.RunID, err)
		}
		questions[r] = string(question)
		if _, known := answers[string(question)]; known {
			continue
		}
		var a answer
		out, err := ask(question)
		if errors.Is(err, ErrStop) {
			return Predictor{}, faults, err
		}
		if err == nil {
			a.parts, a.reason, err = readAnswer(out)
		}
		if err != nil {
			a = answer{reason: "its program gave no usable answer"}
			faults = append(faults, Fault{Profile: r.ProfileID, Label: frame.Label(r), Err: err})
		}
		answers[string(question)] = a
	}
	predict := func(r *sinks.RunRow) (map[string]float64, string) {
		a := answers[questions[r]]
		return a.parts, a.reason
	}
	says := fmt.Sprintf("a program, asked about %d profiles", len(answers))
	return Predictor{Name: name, Says: says, Predict: predict}, faults, nil
}

// questionOf is the question about a run. Equal profiles of equal surroundings
// make equal questions.
func questionOf(r *sinks.RunRow, fields map[string][]int) ([]byte, error) {
	columns := func(names ...string) map[string]any { return frame.ValuesOf(r, fields, names) }
	q := Question{Format: 1, ProfileID: r.ProfileID, HFModelID: r.HFModelID, Axes: r.Axes,
		Settings: columns(frame.Settings()...), Components: Components(),
		Architecture: columns("architecture", "family", "params", "num_layers", "num_heads", "num_kv_heads", "head_dim",
			"hidden_size", "vocab_size", "weight_bytes_per_param", "kv_bytes_per_token"),
		Effective: columns("effective_dtype", "effective_kv_cache_dtype", "effective_quantization",
			"effective_max_model_len", "effective_max_num_seqs", "effective_max_num_batched_tokens",
			"effective_gpu_memory_utilization", "effective_block_size"),
		Engine: columns("vllm_version", "torch_version", "model_runner", "attention_backend", "compile_cache", "engine_mode"),
		GPU:    QuestionGPU{Name: frame.Deref(r.GPUName), Count: frame.Deref(r.GPUCount)}}
	if g, ok := models.LookupGPU(q.GPU.Name); ok && q.GPU.Name != "" {
		q.GPU.TotalBytes = g.TotalBytes
	}
	return json.Marshal(q)
}

// readAnswer reads a program's answer. It fails with ErrAnswer.
func readAnswer(text []byte) (parts map[string]float64, reason string, err error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, "", fmt.Errorf(`%w: it printed nothing; expected a JSON object such as {"weights_gib": 15.0}`, ErrAnswer)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, "", fmt.Errorf("%w: it is no JSON object (%w): %s", ErrAnswer, err, excerpt(text))
	}
	if decoder.More() {
		return nil, "", fmt.Errorf("%w: something stands behind the JSON object: %s",
			ErrAnswer, excerpt(text[decoder.InputOffset():]))
	}
	if why, ok := object["reason"]; ok {
		text, isText := why.(string)
		if !isText || text == "" || len(object) > 1 {
			return nil, "", fmt.Errorf("%w: \"reason\" is a text, and stands alone where nothing is predicted", ErrAnswer)
		}
		return nil, text, nil
	}
	p := prediction{parts: map[string]float64{}}
	for _, column := range frame.SortedKeys(object) {
		if object[column] == nil {
			continue // null: not told
		}
		value, isNumber := object[column].(json.Number)
		known, err := p.part(column, value.String())
		switch {
		case !known:
			return nil, "", fmt.Errorf("%w: %q is no COMPONENT_bytes or COMPONENT_gib; components are %s",
				ErrAnswer, column, strings.Join(Components(), ", "))
		case !isNumber:
			return nil, "", fmt.Errorf("%w: %s is no number", ErrAnswer, column)
		case err != nil:
			return nil, "", fmt.Errorf("%w: %w", ErrAnswer, err)
		}
	}
	if len(p.parts) == 0 {
		return nil, "", fmt.Errorf("%w: it predicts nothing and gives no \"reason\"", ErrAnswer)
	}
	return p.parts, "", nil
}

// excerpt is the beginning of a text for a message.
func excerpt(text []byte) string {
	text = bytes.TrimSpace(text)
	return fmt.Sprintf("%q", text[:min(len(text), 120)])
}
