package simulate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// EnvConfig is the environment variable that carries a Config, as JSON, to the
// simulated vllm.
const EnvConfig = "VRAMSWEEP_SIM"

// DefaultGPU is the catalogue name of the GPU that is simulated by default.
const DefaultGPU = "h100-80gb"

// A Config says how the simulated vllm behaves. Its zero value is a quiet
// H100 and vLLM 0.26, with every run the same.
type Config struct {
	// Key names the run among others: with the same Seed, Key and Repeat all
	// figures are the same. Usually the id of the profile. "": the arguments.
	Key    string `json:"key,omitempty"`
	Repeat int    `json:"repeat,omitempty"` // from 1
	Seed   int64  `json:"seed"`
	// Noise is the relative standard deviation of latencies, times and power.
	// Memory varies with Noise x 3,000 MiB, so that 1 % is 30 MiB.
	Noise float64 `json:"noise,omitempty"`
	// TimeScale is simulated seconds a second of wall time; 0: every phase is
	// shrunk so that the whole takes two to three seconds.
	TimeScale float64 `json:"time_scale,omitempty"`

	Version     string `json:"version,omitempty"`      // of vLLM; DefaultVersion
	ModelRunner string `json:"model_runner,omitempty"` // "v1", "v2", "auto"
	Defaults    string `json:"defaults,omitempty"`     // "serve": the API server's token and sequence limits

	// Model is what is simulated. It travels as Entry, an entry of a catalogue.
	Model *models.Architecture `json:"-"`
	Entry json.RawMessage      `json:"model,omitempty"`
	// HubModel is the --model that was looked up. With it and without Entry
	// nobody knows the model, and the hub does not either; with neither, the
	// folder or the entry of the built-in catalogue that --model names is it.
	HubModel string      `json:"hub_model,omitempty"`
	GPU      *models.GPU `json:"gpu,omitempty"` // nil: DefaultGPU
	// GPUs are the indexes that the ranks run on; nil: CUDA_VISIBLE_DEVICES,
	// or 0, 1, ...
	GPUs []int `json:"gpus,omitempty"`
	// GPUCount is how many GPUs the simulated machine has; 0: 8.
	GPUCount int `json:"gpu_count,omitempty"`
	// StateDir is where the simulated processes publish what they hold; "":
	// nowhere.
	StateDir string `json:"state_dir,omitempty"`
	// Reexec is the command that starts this program again as VLLM does, to
	// which arguments are appended; nil: no child processes, all is one.
	Reexec []string `json:"reexec,omitempty"`

	Plant Plant `json:"plant,omitzero"`

	// Stay is how long, of the wall clock, a run that fails holds what it held then.
	Stay time.Duration `json:"stay,omitempty"`

	// Start is the profile that starts an engine of session mode; its chaos is
	// the engine's. Key is then of the engine.
	Start *sessionRequest `json:"start,omitempty"`

	active []Chaos // of this start
	words  *words  // of Version
}

// A Plant is what is put into a simulated run on purpose: changes that an
// analysis must find again, and misbehaviour that a runner must survive.
type Plant struct {
	Changes []Change `json:"changes,omitempty"`
	// MemoryNoise replaces the standard deviation of memory, in bytes.
	MemoryNoise *Bytes `json:"memory_noise,omitempty"`
	// LatencyNoise replaces the relative standard deviation of latencies.
	LatencyNoise *float64 `json:"latency_noise,omitempty"`
	Chaos        []Chaos  `json:"chaos,omitempty"`
}

// A Change moves one figure of the runs that it applies to.
type Change struct {
	Component string  `json:"component"`        // one of Components
	Bytes     Bytes   `json:"bytes,omitempty"`  // added to a memory component of every rank
	Factor    float64 `json:"factor,omitempty"` // multiplies a component; 0 is 1
	// When must match the run's settings: name to a value, or to a list of
	// which any may match. nil: every run.
	When map[string]any `json:"when,omitempty"`
}

// Components are the figures that a Change can move. The memory components
// are those of the breakdown; "growth" is what the engine takes back of its
// activation, and beyond it, while requests run.
func Components() []string {
	return []string{
		"weights", "activations", "non_torch", "cuda_graphs", "context", "buffers", "growth",
		"latency", "power", "load_time", "compile_time",
	}
}

// Chaos is one way to misbehave.
type Chaos struct {
	Do string `json:"do"` // one of Misbehaviours
	// At is the phase in which it happens; "": at a moment drawn from the seed,
	// or the only moment that makes sense.
	At     string   `json:"at,omitempty"`
	Bytes  Bytes    `json:"bytes,omitempty"`  // of "flood", or what a stray process holds
	For    Duration `json:"for,omitempty"`    // how long "linger" and "slow" take; 0: their default
	Code   int      `json:"code,omitempty"`   // of "exit"; 0 means 1
	Signal string   `json:"signal,omitempty"` // what "die" dies of; "" is SIGKILL
	// Share of the runs that misbehave, drawn from the seed; 0: all.
	Share float64 `json:"share,omitempty"`
	// Attempts: only the first so many starts of the same run misbehave, which
	// are counted in the state directory; 0: all.
	Attempts int `json:"attempts,omitempty"`
	// When is as in Change.
	When map[string]any `json:"when,omitempty"`
}

// Misbehaviours are what a Chaos can do; docs/simulator.md says what then
// happens.
func Misbehaviours() []string {
	return strings.Fields(`broken_result die double_fork empty_result exit fail_assertion fail_device fail_hub fail_nccl
		fail_oom fail_port fifo_result flood foreign_process garbage hang hang_busy ignore_sigterm kill_worker linger
		long_line no_result orphans pipe_garbage pipe_print setsid silent slow`)
}

// Bytes is a size that may be written as a number or with a unit ("200MiB").
type Bytes int64

// Duration is a time.Duration that may be written as text ("2s").
type Duration time.Duration

// UnmarshalJSON reads 209715200, "209715200" and "200MiB".
func (b *Bytes) UnmarshalJSON(data []byte) error {
	n, err := parseBytes(strings.Trim(strings.TrimSpace(string(data)), `"`))
	if err != nil {
		return err
	}
	*b = Bytes(n)
	return nil
}

// UnmarshalJSON reads "2s" and, as nanoseconds, a number.
func (d *Duration) UnmarshalJSON(data []byte) error {
	text := strings.TrimSpace(string(data))
	if !strings.HasPrefix(text, `"`) {
		return json.Unmarshal(data, (*int64)(d))
	}
	v, err := time.ParseDuration(strings.Trim(text, `"`))
	if err != nil {
		return fmt.Errorf("%s is not a duration such as \"2s\": %w", text, err)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON writes the text form.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}

// parseBytes reads a number of bytes with an optional unit.
func parseBytes(s string) (int64, error) {
	if v, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(v) < 1<<62 {
		return int64(v), nil
	}
	text, negative := strings.CutPrefix(strings.Replace(s, "kB", "KB", 1), "-")
	n, err := sweep.ParseSize(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size such as 209715200 or \"200MiB\"", s)
	}
	if negative {
		return -n, nil
	}
	return n, nil
}

// ParsePlant reads the plant of an `engine "simulator"` block. It takes the
// short form of one change ({component, bytes, factor, when}) and the long one
// ({changes, chaos, memory_noise, latency_noise}); chaos may be one or a list.
// A name or value that it does not know is an error that says what it knows.
func ParsePlant(plant map[string]any) (Plant, error) {
	if len(plant) == 0 {
		return Plant{}, nil
	}
	if _, short := plant["component"]; short {
		plant = map[string]any{"changes": []any{plant}}
	}
	long := map[string]any{}
	for name, value := range plant {
		if one, ok := value.(map[string]any); ok && (name == "changes" || name == "chaos") {
			value = []any{one}
		}
		long[name] = value
	}
	data, err := json.Marshal(long)
	if err != nil {
		return Plant{}, fmt.Errorf("plant: %w", err)
	}
	var p Plant
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Plant{}, fmt.Errorf("plant: %w; expected changes, chaos, memory_noise, latency_noise, "+
			"or one change with component", err)
	}
	return p, p.check()
}

// check says what of a plant cannot be done.
func (p Plant) check() error {
	var errs []error
	for i, c := range p.Changes {
		if err := c.check(); err != nil {
			errs = append(errs, fmt.Errorf("plant: changes[%d]: %w", i, err))
		}
	}
	for i, c := range p.Chaos {
		if err := c.check(); err != nil {
			errs = append(errs, fmt.Errorf("plant: chaos[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// check says what of a change cannot be done.
func (c *Change) check() error {
	switch {
	case !slices.Contains(Components(), c.Component):
		return fmt.Errorf("component %q is unknown; expected one of %s", c.Component, strings.Join(Components(), ", "))
	case c.Bytes == 0 && (c.Factor == 0 || c.Factor == 1):
		return errors.New("neither bytes nor factor changes anything")
	case c.Bytes != 0 && !isMemory(c.Component):
		return fmt.Errorf("%s is no memory, bytes do not apply; use factor", c.Component)
	case c.Factor < 0:
		return fmt.Errorf("factor = %g is negative", c.Factor)
	}
	return nil
}

// check says what of a misbehaviour cannot be done.
func (c *Chaos) check() error {
	if does := Misbehaviours(); !slices.Contains(does, c.Do) {
		return fmt.Errorf("%q is unknown; expected one of %s", c.Do, strings.Join(does, ", "))
	}
	if c.At != "" && !slices.Contains(phases(), runner.Phase(c.At)) {
		return fmt.Errorf("at = %q is no phase of a run", c.At)
	}
	if c.Share < 0 || c.Share > 1 {
		return fmt.Errorf("share = %g lies outside 0 to 1", c.Share)
	}
	_, err := signalNamed(c.Signal)
	return err
}

// isMemory reports whether a component is counted in bytes.
func isMemory(component string) bool {
	return !slices.Contains([]string{"latency", "power", "load_time", "compile_time"}, component)
}

// configFrom reads the Config from an environment; none there is the default.
func configFrom(env []string) (Config, error) {
	var c Config
	if value := envMap(env)[EnvConfig]; value != "" {
		dec := json.NewDecoder(strings.NewReader(value))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&c); err != nil {
			return Config{}, fmt.Errorf("%s does not hold a simulator's settings: %w", EnvConfig, err)
		}
	}
	c.Version = strings.TrimPrefix(cmp.Or(c.Version, DefaultVersion), "v")
	return c, c.check()
}

// check says what of the settings cannot be simulated.
func (c *Config) check() error {
	var errs []error
	if _, err := wordsOf(c.Version); err != nil {
		errs = append(errs, err)
	}
	switch c.ModelRunner {
	case "", "auto", "v1", "v2":
	default:
		errs = append(errs, fmt.Errorf("model_runner %q is unknown; expected v1, v2 or auto", c.ModelRunner))
	}
	if c.Noise < 0 || c.Noise > 1 {
		errs = append(errs, fmt.Errorf("noise = %g lies outside 0 to 1", c.Noise))
	}
	if c.TimeScale < 0 {
		errs = append(errs, fmt.Errorf("time_scale = %g is negative; it is simulated seconds a second", c.TimeScale))
	}
	return errors.Join(append(errs, c.Plant.check())...)
}

// environment renders the Config as the entry of an environment.
func (c *Config) environment() (string, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("settings of the simulator: %w", err)
	}
	return EnvConfig + "=" + string(data), nil
}
