package simulate

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseArgs(t *testing.T) {
	r, err := parseArgs("vllm bench latency", strings.Fields(`--model=m --input_len 7 --batch-size=3 -tp 4
		--max-model-len 8k --gpu-mem 0.5 --enforce-eager --no-enable-prefix-caching --cuda-graph-sizes 1 2 4
		--compilation-config.mode=3 -q fp8 --kv-cache-memory 100 --num-iters-warmup 0`))
	if err != nil {
		t.Fatal(err)
	}
	if r.model != "m" || r.inputLen != 7 || r.outputLen != 128 || r.batchSize != 3 || r.tp != 4 || *r.maxLen != 8000 ||
		*r.util != 0.5 || !r.eager || r.quantization != "fp8" || *r.kvBytes != 100 || r.numWarmup != 0 || r.numIters != 30 {
		t.Errorf("read as %+v", r)
	}
	if r.flag("enable-prefix-caching") != "False" || r.flag("cuda-graph-sizes") != "1 2 4" {
		t.Errorf("flags read as %+v", r.given)
	}
}

func TestParseArgsErrors(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--modell m --foo", "vllm: error: unrecognized arguments: --modell m --foo"},
		{"--input-len x", "vllm bench latency: error: argument --input-len: invalid int value: 'x'"},
		{"--gpu-memory-utilization x", "vllm bench latency: error: argument --gpu-memory-utilization: invalid float value: 'x'"},
		{"--model", "vllm bench latency: error: argument --model: expected one argument"},
		{"--served-model-name --model m", "vllm bench latency: error: argument --served-model-name: expected at least one argument"},
		{"--enforce-eager=1", "vllm bench latency: error: argument --enforce-eager: ignored explicit argument '1'"},
		{"--dtype int3", "vllm bench latency: error: argument --dtype: invalid choice: 'int3' (choose from 'auto', "},
		{"--kv-cache-dtype int3", "vllm bench latency: error: argument --kv-cache-dtype: invalid choice: 'int3' (choose from 'auto', "},
		{"--num 3", "vllm: error: unrecognized arguments: --num 3"},
	} {
		_, err := parseArgs("vllm bench latency", strings.Fields(test.args))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.args, err, test.want)
		}
	}
}

// TestVerbs checks what is not a run: exit codes and texts.
func TestVerbs(t *testing.T) {
	for _, test := range []struct {
		args, env, stdout, stderr string
		code                      int
	}{
		{"--version", "", DefaultVersion + "\n", "", 0},
		{"--version", `{"version":"0.26.0"}`, "0.26.0\n", "", 0},
		{"--help", "", "usage: vllm", "", 0},
		{"bench latency --help", "", "usage: vllm bench latency", "", 0},
		{"serve m", "", "", "vllm: error: argument subparser: invalid choice: 'serve'", 2},
		{"bench serve", "", "", "vllm bench: error: argument bench_type: invalid choice: 'serve'", 2},
		{"bench latency --foo", "", "", "vllm: error: unrecognized arguments: --foo", 2},
		{"bench latency --model x/y", `{"time_scale":1000}`, "", "OSError: x/y is not a local folder and is not", 1},
		{"--version", `{"versoin":"0.33.0"}`, "", `unknown field "versoin"`, 2},
		{"--version", `{"version":"0.4.0"}`, "", "the simulator speaks as vLLM 0.26 or 0.33", 2},
		{"--version", `{"noise":7}`, "", "noise = 7 lies outside 0 to 1", 2},
		{"--version", `{"plant":{"changes":[{"component":"weight","bytes":1}]}}`, "",
			`component "weight" is unknown; expected one of weights, `, 2},
	} {
		var stdout, stderr bytes.Buffer
		code := VLLM(context.Background(), strings.Fields(test.args), []string{EnvConfig + "=" + test.env}, &stdout, &stderr)
		said := strings.Contains(stdout.String(), test.stdout) && strings.Contains(stderr.String(), test.stderr)
		if code != test.code || !said {
			t.Errorf("%s %s: code %d, want %d\nstdout %s\nwant   %s\nstderr %s\nwant   %s",
				test.args, test.env, code, test.code, &stdout, test.stdout, &stderr, test.stderr)
		}
	}
}

func TestWordsOf(t *testing.T) {
	for text, want := range map[string]string{
		"": DefaultVersion, "v0.26.1rc0": "0.26.1rc0", "0.33.0": "0.33.0", "0.33.1.dev46+gc4e7": "0.33.1.dev46+gc4e7",
	} {
		w, err := wordsOf(text)
		if err != nil || w.version != want || w.v33 != strings.HasPrefix(want, "0.33") || len(w.of("banner", "v2")) != 1 {
			t.Errorf("%q is %+v (%v), want %s", text, w, err, want)
		}
	}
	for _, text := range []string{"x", "0", "0.26", "0.260.0", "0.29.0", "0.6.6", "1.33.0"} {
		if w, err := wordsOf(text); err == nil || !strings.Contains(err.Error(), "speaks as vLLM 0.26 or 0.33; name") {
			t.Errorf("%q was read as %+v (%v)", text, w, err)
		}
	}
}

// TestWords: every moment of 0.26 is one of 0.33, and no placeholder is left
// in what is printed.
func TestWords(t *testing.T) {
	known := map[string]bool{}
	for _, w := range wordingsIn("0.33") {
		known[w.moment], known[strings.TrimSuffix(strings.TrimSuffix(w.moment, ".v1"), ".v2")] = true, true
	}
	for _, w := range wordingsIn("0.26") {
		if !known[w.moment] && !known[strings.TrimSuffix(w.moment, ".v1")] {
			t.Errorf("0.33 has nothing to say at %s", w.moment)
		}
	}
	for _, version := range knownVersions() {
		for _, runnerName := range []string{"v1", "v2"} {
			c := testConfig(t, version+".0", runnerName)
			for _, line := range []string{"", "--kv-cache-memory-bytes 10737418240", "-tp 2 --load-format auto"} {
				more := strings.Fields(line)
				s := scriptOf(c, testRequest(t, c, more...), map[string]string{"VLLM_LOGGING_LEVEL": "DEBUG"}, nil)
				stdout, stderr := rendered(s)
				if left := regexp.MustCompile(`\{[a-z_]+\}`).FindAll(slices.Concat(stdout, stderr), -1); left != nil {
					t.Errorf("%s %s %v: left are %s", version, runnerName, more, left)
				}
			}
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add("--model m --input-len 3")
	f.Add("--max-model-len 1e99k -tp --x.y=3 --cuda-graph-sizes 1 2")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseArgs("vllm bench latency", strings.Fields(line))
		if err == nil && r == nil {
			t.Error("neither a request nor an error")
		}
	})
}

func FuzzPlant(f *testing.F) {
	f.Add(`{"changes":[{"component":"weights","bytes":"200MiB","when":{"batch_size":[1,8]}}],
		"chaos":[{"do":"hang","for":"2s"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := configFrom([]string{EnvConfig + `={"plant":` + text + `}`})
		if err == nil && c.check() != nil {
			t.Error("read without an error, but it is not right")
		}
	})
}

func FuzzHolding(f *testing.F) {
	h := holding{PID: 7, Bytes: 1 << 30}
	data, err := h.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := decodeHolding(data); err == nil {
			again, err := h.encode()
			if err != nil || !bytes.Equal(again, data) {
				t.Errorf("%x was read as %x", data, again)
			}
		}
	})
}
