package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tourSweep is what a new user writes on the first day.
const tourSweep = `
sweep "first" {
  description = "lengths and batches"
  matrix {
    model          = ["Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B-Instruct"]
    kv_cache_dtype = ["auto", "fp8"]
    input_len      = [128, 512]
    batch_size     = [1, 4]
  }
  engine "simulator" {
    max_model_len          = 1024
    num_iters              = 3
    gpu_memory_utilization = matrix.model == "Qwen/Qwen3-0.6B" ? 0.9 : 0.18
  }
  limits { skip = ["dominated"] }
  sample { interval = "20ms" }
}
`

// tourStep is a command of the tour with its exit code, as operations.md documents.
type tourStep struct {
	code int
	args string
}

// tour is a new user's first day: 60 commands, right and wrong ones.
func tour() []tourStep {
	return []tourStep{
		{0, ""}, {0, "help"}, {0, "--help"}, {0, "--version"}, {0, "version"}, {0, "help run"}, {2, "help nosuch"},
		{0, "help S306"}, {2, "help S999"}, {2, "nosuch"}, {2, "pln first.hcl"},
		{0, "validate first.hcl"}, {2, "validate missing.hcl"}, {2, "validate wrong.hcl"}, {2, "validate"},
		{2, "validate first.hcl --filter a=8"}, {0, "list first.hcl"}, {0, "fmt --check first.hcl --diff"}, {2, "fmt missing.hcl"},
		{0, "plan first.hcl"}, {0, "plan first.hcl --gpu l4"}, {2, "plan first.hcl --gpu l44"}, {0, "plan first.hcl --limit 2"},
		{2, "plan first.hcl --lmit 2"}, {0, "plan first.hcl --filter matrix.batch_size==4"}, {2, "plan first.hcl --profile zzz"},
		{0, "models list"}, {0, "models show Qwen/Qwen3-8B"}, {2, "models show qwen3"}, {2, "models add missing"},
		{0, "models add own"}, {0, "models add own --into own.json"}, {0, "--models own.json models show own"},
		{0, "run first.hcl --dry-run"}, {2, "run first.hcl --resume=never"}, {3, "run first.hcl --output-dir out"},
		{3, "run first.hcl --output-dir out --resume"}, {0, "run first.hcl --output-dir out --resume=only"},
		{2, "run missing.hcl"}, {0, "profile --engine simulator --model Qwen/Qwen3-0.6B --batch-size 1 --interval 20ms --num-iters 9"},
		{2, "profile --engine simulator"}, {2, "profile --model a/b --hf-model-id c/d"},
		{0, "summary out"}, {0, "summary out@previous --markdown"}, {2, "summary missing"}, {2, "summary out@nosuch"},
		{0, "compare out@previous out@last --threshold memory=2GiB --threshold measure_energy_j=900% --threshold measure_mean_power_w=900% --threshold avg_latency_s=90%"}, {2, "compare out@last out@last"}, {0, "compare save out@last -o b.json"},
		{2, "compare b.json out@last"}, {0, "report out@last -o r.html"}, {2, "report missing"}, {0, "correlate out --questions"},
		{0, "export out --table latencies"}, {2, "export out --table latency"}, {0, "verify out"}, {0, "recover out"},
		{0, "compact out"}, {0, "schema"}, {0, "gpus"}, {2, "explain missing.log"}, {2, "monitor -- no-such-program"},
	}
}

// TestTour: the first day of a new user, in a pipe and on terminals of 80 and 120
// columns: every exit code as documented, no line wider than the terminal, none
// printed twice in a row, no system call in a message.
func TestTour(t *testing.T) {
	if testing.Short() {
		t.Skip("runs 180 commands")
	}
	bin := buildProgram(t)
	if n := len(tour()); n < 60 {
		t.Fatalf("the tour has %d commands", n)
	}
	for _, width := range []int{0, 80, 120} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeTour(t, dir)
			for _, step := range tour() {
				cmd := exec.Command(bin, strings.Fields(step.args)...)
				cmd.Dir, cmd.Env = dir, append(os.Environ(), "NO_COLOR=1", "HOME="+dir, "GORACE=atexit_sleep_ms=0")
				out := onTerminal(t, cmd, width)
				if code := cmd.ProcessState.ExitCode(); code != step.code {
					t.Errorf("%s: exit code %d, want %d\n%s", step.args, code, step.code, out)
				}
				checkLines(t, step.args, out, width)
			}
		})
	}
}

func writeTour(t *testing.T, dir string) {
	t.Helper()
	own := `{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":2048,"num_hidden_layers":16,` +
		`"num_attention_heads":32,"num_key_value_heads":8,"intermediate_size":8192,"vocab_size":128256,` +
		`"torch_dtype":"bfloat16","tie_word_embeddings":true,"max_position_embeddings":131072}`
	if err := os.Mkdir(dir+"/own", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"first.hcl": strings.TrimLeft(tourSweep, "\n"), "own/config.json": own,
		"wrong.hcl": "sweep \"s\" {\n  matrix {\n    model = \"Qwen/Qwen3-0.6B\"\n  }\n  engine {\n  }\n}\n",
	} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// onTerminal runs a command with both its outputs on a terminal of so many columns,
// or in one pipe (0), and returns what stands there at the end.
func onTerminal(t *testing.T, cmd *exec.Cmd, width int) string {
	t.Helper()
	if width == 0 {
		out, _ := cmd.CombinedOutput() // the exit code is looked at
		return string(out)
	}
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close() //nolint:errcheck // a terminal
	fd := int(control.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: uint16(width)}); err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = terminal, terminal
	var out bytes.Buffer
	read := make(chan struct{})
	go func() { _, _ = io.Copy(&out, control); close(read) }() // it ends with EIO, when nobody has the terminal
	_ = cmd.Run()
	_ = terminal.Close()
	<-read
	return out.String()
}

// escape is a sequence that moves the cursor or clears a line.
var escape = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// checkLines looks at each line as it stands on the terminal: what a carriage return
// overwrote must have fitted too.
func checkLines(t *testing.T, args, out string, width int) {
	t.Helper()
	before := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		for part := range strings.SplitSeq(escape.ReplaceAllString(line, "\r"), "\r") {
			part = strings.TrimRight(part, " ")
			words := len(strings.Fields(part))
			if n := len([]rune(part)); width > 0 && n > width && words > 1 && !wide(args) {
				t.Errorf("%s: %d columns on a terminal of %d: %s", args, n, width, part)
			}
		}
		if line == before && len(line) > 12 && strings.HasPrefix(line, "vramsweep") {
			t.Errorf("%s: printed twice: %s", args, line)
		}
		before = line
	}
	for _, raw := range []string{"stat ", "open ", "lstat ", "vramsweep: vramsweep", "There are none", "panic"} {
		if strings.Contains(out, "vramsweep: "+raw) || raw == "panic" && strings.Contains(out, "panic:") {
			t.Errorf("%s: %q in %s", args, raw, out)
		}
	}
}

// wide are commands whose output is data: a table, a command line, a page, that a
// terminal wraps or a pager cuts.
func wide(args string) bool {
	for _, verb := range []string{"export", "schema", "run first.hcl --dry-run", "fmt", "summary out@previous --markdown"} {
		if strings.HasPrefix(args, verb) {
			return true
		}
	}
	return false
}
