package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
)

// `make attack` gives -attack: the long form.
var attack = flag.Bool("attack", false, "the long form of the attacks")

// hostile is an engine that does harm to the folder that it runs in, to its runner and to the machine.
const hostile = `
kind=$1
shift
while [ $# -gt 1 ]; do
  [ "$1" = --output-json ] && out=$2
  shift
done
dir=$(dirname "$out")
echo "INFO 07-24 10:00:00 [core.py:1] the engine is $kind"
case $kind in
folder_result) mkdir -p "$dir/run.json/x" "$dir/timeline.parquet/y" ;;
link_result) ln -s "$FOREIGN" "$dir/run.json"; ln -s "$FOREIGN" "$dir/timeline.parquet" ;;
folder_journal) rm -f "$dir"/journal.*; mkdir -p "$dir/journal.arrows/x" "$dir/journal.idx/x" "$dir/attempt.json" ;;
file_attempts) rm -rf "$dir/attempts"; echo x > "$dir/attempts" ;;
folder_tmp) mkdir -p "$dir/.tmp-run.json/x" "$dir/.tmp-timeline.parquet/x" ;;
link_tmp) ln -s "$FOREIGN" "$dir/.tmp-run.json" ;;
no_folder) rm -rf "$dir" ;;
link_latency) ln -s /dev/zero "$out" ;;
fifo_latency) mkfifo "$out" ;;
folder_latency) mkdir "$out" ;;
bomb_latency) head -c 3000000 /dev/zero | tr '\0' '[' > "$out" ;;
negative) echo '{"avg_latency": -1, "latencies": [-1], "percentiles": {}}' > "$out" ;;
below) echo '{"avg_latency": 0.001, "latencies": [1, 2], "percentiles": {}}' > "$out" ;;
huge) echo '{"avg_latency": 1e999, "latencies": [1], "percentiles": {}}' > "$out" ;;
long_line) head -c 3000000 /dev/zero | tr '\0' x ;;
escapes) printf '\033]0;title\007\302\233 31m\033[2J' ;;
orphan) env -i setsid sh -c 'sleep 31337 & exit' ;;
group) env -i /bin/sh -c 'set -m; sleep 31337 & exit' > /dev/null 2>&1 < /dev/null ;;
deaf) trap '' TERM INT HUP; sleep 31337 & wait; sleep 31337 ;;
closed) exec >&- 2>&-; sleep 31337 ;;
esac
exit 1
`

func hostileKinds() []string {
	var kinds []string
	for line := range strings.Lines(hostile) {
		if name, _, ok := strings.Cut(line, ") "); ok && !strings.ContainsAny(name, " $\"") {
			kinds = append(kinds, name)
		}
	}
	return kinds
}

// TestAttackEngines runs engines that do harm: each costs its own row, none outlives its limits, leaves a process or
// touches a foreign file, and the execution is complete.
func TestAttackEngines(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	kinds := hostileKinds()
	repeats := 1
	if *attack {
		repeats = 100/len(kinds) + 1
	}
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	const text = "not of vramsweep"
	script := filepath.Join(dir, "hostile.sh")
	for name, content := range map[string]string{foreign: text, script: hostile} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := writeSweep(t, dir, fmt.Sprintf(`
sweep "hostile" {
  matrix {
    model                = ["Qwen/Qwen3-0.6B"]
    tensor_parallel_size = [1]
    input_len            = [16]
    output_len           = [16]
    batch_size           = [1]
    kind                 = [%s]
  }
  repeats = %d
  engine "vllm" { command = ["/bin/sh", %q, matrix.kind] }
  env { FOREIGN = %q }
  sample { interval = "50ms" }
  limits {
    timeout = "4s"
    retries = 0
    max_failures = 100000
    same_failure = 0
    skip    = []
  }
}`, `"`+strings.Join(kinds, `", "`)+`"`, repeats, script, foreign))
	begun := time.Now()
	cmd, out := start(t, buildProgram(t), dir, "run", "--brief", "--output-dir", "out", file)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	runs := len(kinds) * repeats
	select {
	case err := <-done:
		if code := exitCode(err); code != 3 {
			t.Errorf("exit code %d, want 3\n%s", code, out)
		}
	case <-time.After(time.Duration(runs) * time.Minute):
		_ = cmd.Process.Kill()
		t.Fatalf("it hangs\n%s", out)
	}
	if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\u009b") {
		t.Errorf("an escape reached the console:\n%q", out)
	}
	hostileRows(t, filepath.Join(dir, "out"), runs)
	if b, err := os.ReadFile(foreign); err != nil || string(b) != text {
		t.Errorf("the foreign file is now %q, %v", b, err)
	}
	if pids := commandLines(t, "sleep\x0031337"); len(pids) > 0 {
		t.Errorf("processes were left: %v", pids)
	}
	t.Logf("%d hostile engines in %v", runs, time.Since(begun).Round(time.Second))
}

// hostileRows expects a failed row of each run.
func hostileRows(t *testing.T, out string, runs int) {
	t.Helper()
	store, err := sinks.View(out, sinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	executions, err := store.Executions()
	if err != nil || len(executions) != 1 || executions[0].State != runner.StateComplete {
		t.Fatalf("executions %+v, %v: want one, complete", executions, err)
	}
	rows := 0
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, out) {
		if err != nil {
			t.Fatal(err)
		}
		if rows++; !runner.Outcome(row.Outcome).Failed() {
			t.Errorf("%s: %s", row.RunID, row.Outcome)
		}
	}
	if rows != runs {
		t.Errorf("%d rows, want %d", rows, runs)
	}
}

// commandLines finds processes by their command lines.
func commandLines(t *testing.T, part string) (found []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && bytes.Contains(b, []byte(part)) {
			found = append(found, filepath.Dir(name)+" "+string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// TestAttackOutputs gives each verb that writes a file places that are no files of its own.
func TestAttackOutputs(t *testing.T) {
	dir := t.TempDir()
	bin := buildProgram(t)
	file := writeSweep(t, dir, fmt.Sprintf(killSweep, 3, "latency"))
	if cmd, out := start(t, bin, dir, "run", "--brief", "--output-dir", "out", file); exitCode(cmd.Wait()) != 0 {
		t.Fatal(out)
	}
	const text = "not of vramsweep\n"
	place := func(name string, make func(string) error) string {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := place("foreign", func(p string) error { return os.WriteFile(p, []byte(text), 0o600) })
	places := map[string]string{
		"a folder":      place("folder", func(p string) error { return os.Mkdir(p, 0o755) }),
		"a hard link":   place("hard", func(p string) error { return os.Link(foreign, p) }),
		"a dead link":   place("dead", func(p string) error { return os.Symlink("nothing/there", p) }),
		"a loop":        place("loop", func(p string) error { return os.Symlink("loop", p) }),
		"a FIFO":        place("fifo", mkfifo),
		"no folder":     filepath.Join(dir, "no", "folder"),
		"/dev/null":     "/dev/null",
		"a device link": place("null", func(p string) error { return os.Symlink("/dev/null", p) }),
	}
	verbs := [][]string{
		{"export", "out", "--output"},
		{"report", "out", "-o"},
		{"compare", "save", "out", "-o"},
		{"run", "--resume", "--brief", "--output-dir", "out", file, "--summary-json"},
	}
	n := 0
	for what, path := range places {
		for _, verb := range verbs {
			before := modeOf(path)
			cmd, out := start(t, bin, dir, append(verb[:len(verb):len(verb)], path)...)
			code := exitCode(cmd.Wait())
			n++
			if strings.Contains(out.String(), "renameat") || code < 0 || code == 2 && strings.Contains(out.String(), "goroutine") {
				t.Errorf("%s to %s: exit code %d\n%s", verb[0], what, code, out)
			}
			if after := modeOf(path); before != 0 && before&fs.ModeType != after&fs.ModeType {
				t.Errorf("%s to %s: it was %v and is %v", verb[0], what, before, after)
			}
		}
	}
	if b, err := os.ReadFile(foreign); err != nil || string(b) != text {
		t.Errorf("the foreign file is now %q, %v", b, err)
	}
	t.Logf("%d outputs", n)
}

func modeOf(path string) fs.FileMode {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return info.Mode()
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o644) }
