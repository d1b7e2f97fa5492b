package log

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

// essence is an account without what names places in files, and without the
// processes' ids where a wrapper has its own.
func essence(t *testing.T, a *runner.Account, pids bool) map[string]any {
	t.Helper()
	if !pids {
		for i := range a.Ranks {
			a.Ranks[i].PID = nil
			delete(a.Missing, fmt.Sprintf("ranks[%d].pid", i))
		}
	}
	m := asJSON(t, a)
	delete(m, "sources")
	delete(m, "unread_lines")
	if e, ok := m["error"].(map[string]any); ok {
		delete(e, "line")
		delete(e, "file")
		delete(e, "rests_on")
	}
	return m
}

func essences(t *testing.T, pids bool, files ...NamedReader) []map[string]any {
	t.Helper()
	log, err := readAll(files...)
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string]any
	for _, a := range log.Accounts {
		out = append(out, essence(t, a, pids))
	}
	return out
}

// sharedReader lends its rules to the readers of a thousand small logs.
var sharedReader = NewReader(ReaderOptions{})

// readAll is ReadLogs with the rules that the tests share.
func readAll(files ...NamedReader) (*Log, error) {
	return readLogs(sharedReader.reader(ReaderOptions{}), files...)
}

// differences names the fields that differ.
func differences(got, want []map[string]any) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d engines, want %d", len(got), len(want))
	}
	var out []string
	for i := range want {
		for k, w := range want[i] {
			if g := got[i][k]; !reflect.DeepEqual(g, w) {
				out = append(out, fmt.Sprintf("%s = %v, want %v", k, g, w))
			}
		}
	}
	return strings.Join(out, "\n")
}

// eachLine applies f to every line; the last may lack its end.
func eachLine(f func(n int, line string) string) func(string) string {
	return func(text string) string {
		var b strings.Builder
		n := 0
		for line := range strings.Lines(text) {
			body := strings.TrimSuffix(line, "\n")
			n++
			b.WriteString(f(n, body))
			b.WriteString("\n")
		}
		return b.String()
	}
}

func prefixed(prefix string) func(string) string {
	return eachLine(func(_ int, l string) string { return prefix + l })
}

var headRE = regexp.MustCompile(`^(\((?:[^()]*)pid=\d+[^()]*\) )?(DEBUG|INFO|WARNING|ERROR)( \d\d-\d\d \d\d:\d\d:\d\d )(\[?[\w./]+:\d+\])`)

// disguises are what collectors, terminals and shells make of a log. None of
// them changes what vLLM said.
var disguises = []struct {
	name string
	to   func(string) string
}{
	{"CRLF", eachLine(func(_ int, l string) string { return l + "\r" })},
	{"docker time stamps", prefixed("2026-11-23T19:00:20.123456789Z ")},
	{"container runtime", prefixed("2026-11-23T19:00:20.123456789+00:00 stdout F ")},
	{"kubectl --prefix", prefixed("[pod/vllm-7d9c5f7b9-x2x4v/vllm] ")},
	{"kubectl --prefix --timestamps", prefixed("[pod/vllm-7d9c5f7b9-x2x4v/vllm] 2026-11-23T19:00:20.123456789Z ")},
	{"stern", prefixed("vllm-7d9c5f7b9-x2x4v vllm ")},
	{"docker compose", prefixed("vllm-1  | ")},
	{"docker compose, coloured", prefixed("\x1b[36mvllm-1  | \x1b[0m")},
	{"docker compose with times", prefixed("vllm-1  | 2026-11-23T19:00:20.123456789Z ")},
	{"journald", prefixed("Nov 23 19:00:20 gpu-01 vllm[2594]: ")},
	{"journald -o short-iso", prefixed("2026-11-23T19:00:20+0000 gpu-01 python3[2594]: ")},
	{"systemd of Ubuntu", prefixed("2026-11-23T19:00:20.123456+00:00 gpu-01 serve.sh[2594]: ")},
	{"ts", prefixed("Nov 23 19:00:20 ")},
	{"ts -s", prefixed("00:12:01 ")},
	{"srun --label", prefixed("0: ")},
	{"mpirun --tag-output", prefixed("[1,0]<stdout>:")},
	{"torchrun", prefixed("[default0]:")},
	{"GitHub Actions", prefixed("2026-11-23T19:00:20.1234567Z ")},
	{"Buildkite", prefixed("\x1b_bk;t=1732388420123\x07")},
	{"grep -n", eachLine(func(n int, l string) string { return fmt.Sprintf("%d:%s", n, l) })},
	{"cat -n", eachLine(func(n int, l string) string { return fmt.Sprintf("%6d\t%s", n, l) })},
	{"quoted in a mail", prefixed("> ")},
	{"indented", prefixed("        ")},
	{"a table of markdown", eachLine(func(_ int, l string) string { return "| " + l })},
	{"a sidecar's tag", prefixed("vLLM STDOUT: ")},
	{"SkyPilot", prefixed("(task, pid=4411) ")},
	{"SkyPilot, two nodes", prefixed("(head, rank=0, pid=4411) ")},
	{"Ray's driver", prefixed("\x1b[36m(run_engine pid=4411)\x1b[0m ")},
	{"coloured by vLLM 0.12", eachLine(func(_ int, l string) string {
		return headRE.ReplaceAllString(l, "\x1b[0;36m$1\x1b[0;0m\x1b[32m$2\x1b[0m\x1b[90m$3\x1b[0m\x1b[90m$4\x1b[0m")
	})},
	{"every prefix bold", eachLine(func(_ int, l string) string {
		return headRE.ReplaceAllString(l, "\x1b[1;36m$1\x1b[0;0m$2$3$4")
	})},
	{"docker json-file", eachLine(func(_ int, l string) string {
		b, _ := json.Marshal(map[string]string{"log": l + "\n", "stream": "stdout", "time": "2026-11-23T19:00:20.123456789Z"})
		return string(b)
	})},
	{"Loki", eachLine(func(_ int, l string) string {
		b, _ := json.Marshal(map[string]any{"line": l, "timestamp": "1732388420123456789", "fields": map[string]string{"pod": "vllm-0"}})
		return string(b)
	})},
	{"Cloud Logging", eachLine(func(_ int, l string) string {
		b, _ := json.Marshal(map[string]any{"textPayload": l, "severity": "INFO", "timestamp": "2026-11-23T19:00:20.123456789Z", "resource": map[string]any{"type": "k8s_container", "labels": map[string]string{"pod_name": "vllm-0"}}})
		return string(b)
	})},
	{"CloudWatch", eachLine(func(_ int, l string) string {
		b, _ := json.Marshal(map[string]any{"timestamp": 1732388420123, "message": l, "ingestionTime": 1732388420999})
		return string(b)
	})},
	{"Fluent Bit", eachLine(func(_ int, l string) string {
		b, _ := json.Marshal(map[string]any{"date": 1732388420.1, "stream": "stdout", "logtag": "F", "log": l, "kubernetes": map[string]string{"pod_name": "vllm-0"}})
		return string(b)
	})},
	{"journalctl -o json", eachLine(func(_ int, l string) string {
		b, _ := json.Marshal(map[string]any{"MESSAGE": l, "_PID": "2594", "SYSLOG_IDENTIFIER": "vllm"})
		return string(b)
	})},
	{"UTF-8 mark at the start", func(s string) string { return "\ufeff" + s }},
	{"no end of the last line", func(s string) string { return strings.TrimSuffix(s, "\n") }},
	{"blank lines between", eachLine(func(_ int, l string) string { return l + "\n" })},
	{"a busy server behind it", func(s string) string {
		return s + strings.Repeat("(APIServer pid=1) INFO:     10.0.0.1:3000 - \"GET /metrics HTTP/1.1\" 200 OK\n", 100)
	}},
	{"bars between", eachLine(func(n int, l string) string {
		if n%7 == 0 {
			return "\rLoading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.20s/it]\r" + l
		}
		return l
	})},
}

// TestCorpusInDisguise: what a log yields does not hang on how it was kept. The
// logs share the disguises between them: a short one wears seven, a long one or
// one of a campaign one.
func TestCorpusInDisguise(t *testing.T) {
	for _, pattern := range []string{"vllm-logs/*.log", "h100-v0.19/*.log", "h100-v0.26/*/stdout.log"} {
		for n, path := range corpus(t, pattern) {
			name, _ := filepath.Rel(corpusDir, path)
			t.Run(name, func(t *testing.T) {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				for i, d := range disguises {
					if alike := len(b) > 20_000 || pattern[0] == 'h'; alike && i != (n+len(b))%len(disguises) || !alike && i%6 != n%6 {
						continue
					}
					pids := !strings.HasPrefix(d.name, "Ray")
					want := essences(t, pids, NamedReader{Name: "x", R: bytes.NewReader(b)})
					got := essences(t, pids, NamedReader{Name: "x", R: strings.NewReader(d.to(string(b)))})
					if diff := differences(got, want); diff != "" {
						t.Errorf("%s:\n%s", d.name, diff)
					}
				}
			})
		}
	}
}

// TestCorpusInTwoStreams: records on one stream and everything else on the
// other, in either order, are the same run.
func TestCorpusInTwoStreams(t *testing.T) {
	for _, path := range corpus(t, "vllm-logs/*.log") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var records, rest strings.Builder
			for line := range strings.Lines(string(b)) {
				if headRE.MatchString(line) || strings.Contains(line, "\x1b[") {
					records.WriteString(line)
				} else {
					rest.WriteString(line)
				}
			}
			want := essences(t, true, NamedReader{Name: "x", R: bytes.NewReader(b)})
			got := essences(t, true, NamedReader{Name: "stdout", R: strings.NewReader(records.String())}, NamedReader{Name: "stderr", R: strings.NewReader(rest.String())})
			if diff := differences(got, want); diff != "" {
				t.Errorf("stdout first: %s", diff)
			}
			got = essences(t, true, NamedReader{Name: "stderr", R: strings.NewReader(rest.String())}, NamedReader{Name: "stdout", R: strings.NewReader(records.String())})
			if diff := differences(got, want); diff != "" {
				t.Errorf("stderr first: %s", diff)
			}
		})
	}
}

// TestCorpusCut: of a log that begins late or ends early nothing is told that
// the whole log tells otherwise; what is cut off is null.
func TestCorpusCut(t *testing.T) {
	for _, pattern := range []string{"vllm-logs/*.log", "h100-v0.19/*tp[24]pp1*.log", "h100-v0.26/*/stdout.log"} {
		for n, path := range corpus(t, pattern) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			whole := essences(t, true, NamedReader{Name: "x", R: bytes.NewReader(b)})
			lines := strings.SplitAfter(string(b), "\n")
			if len(whole) == 0 {
				continue
			}
			at := len(lines) * (1 + n%7) / 8
			checkCut(t, path+" from "+fmt.Sprint(at), strings.Join(lines[at:], ""), whole[0])
			checkCut(t, path+" to "+fmt.Sprint(at), strings.Join(lines[:at], ""), whole[0])
		}
	}
}

func checkCut(t *testing.T, name, text string, whole map[string]any) {
	t.Helper()
	log, err := readAll(NamedReader{Name: "x", R: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range log.Accounts {
		for field, v := range essence(t, a, true) {
			switch field {
			case "missing", "derived", "ranks", "budget", "unread_count", "error":
				continue
			case "free_memory_gb", "available_kv_cache_gb", "total_gpu_kv_cache_gb", "compile_seconds":
				if len(a.Ranks) > 1 {
					continue // the smallest of the ranks that are left, or a sum of several models
				}
			case "gpu_memory_utilization":
				if w, ok := whole[field].(float64); ok && v != nil && math.Abs(v.(float64)-w) <= 0.005 {
					continue // the rounded figure of another line
				}
			}
			if v != nil && !same(v, whole[field]) {
				t.Errorf("%s: %s = %v, the whole log says %v (%s; %s)", name, field, v, whole[field], a.Sources[field].Text, a.Derived[field])
			}
		}
	}
}

// TestCorpusTwoInOne: two logs in one file, one after the other or mixed by
// their containers, are their engines.
func TestCorpusTwoInOne(t *testing.T) {
	var texts []string
	for _, pattern := range []string{"vllm-logs/0[1-4]*.log", "h100-v0.26/*/stdout.log"} {
		for _, path := range corpus(t, pattern) {
			if b, err := os.ReadFile(path); err == nil && len(b) < 60_000 {
				texts = append(texts, string(b))
			}
		}
	}
	mixes := []struct {
		name string
		to   func(a, b string) string
	}{
		{"compose", interleave},
		{"kubectl --prefix", zip("[pod/vllm-a-7d9c5f7b9-x2x4v/vllm] ", "[pod/vllm-b-66b5c7f57b-jn5vd/vllm] ")},
		{"stern", zip("vllm-a-7d9c5f7b9-x2x4v vllm ", "vllm-b-66b5c7f57b-jn5vd vllm ")},
		{"journald", zip("Nov 23 19:00:20 gpu-01 vllm[2594]: ", "Nov 23 19:00:20 gpu-01 vllm[3111]: ")},
	}
	for i := range texts {
		a, b := texts[i], texts[(i+1)%len(texts)]
		want := append(essences(t, true, NamedReader{Name: "x", R: strings.NewReader(a)}), essences(t, true, NamedReader{Name: "x", R: strings.NewReader(b)})...)
		m := mixes[i%len(mixes)]
		got := essences(t, true, NamedReader{Name: "x", R: strings.NewReader(m.to(a, b))})
		if diff := differences(got, want); diff != "" && differences(got, []map[string]any{want[1], want[0]}) != "" { // by their first line
			t.Errorf("%d and the next in %s: %s", i, m.name, diff)
		}
	}
}

// zip mixes two logs by lines, each with its prefix.
func zip(pa, pb string) func(a, b string) string {
	return func(a, b string) string {
		var out strings.Builder
		as, bs := strings.Split(strings.TrimSuffix(a, "\n"), "\n"), strings.Split(strings.TrimSuffix(b, "\n"), "\n")
		for i := range max(len(as), len(bs)) {
			if i < len(as) {
				out.WriteString(pa + as[i] + "\n")
			}
			if i < len(bs) {
				out.WriteString(pb + bs[i] + "\n")
			}
		}
		return out.String()
	}
}
