package log

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vramsweep/vramsweep/runner"
)

func pieces(line string) []piece {
	var out []piece
	splitLine([]byte(line), piece{proc: noProcess()}, func([]byte) bool { return true }, func(p *piece) { out = append(out, *p) })
	return out
}

func TestPrefixes(t *testing.T) {
	stamp := time.Date(0, 11, 23, 19, 0, 19, 0, time.UTC)
	type w = piece
	for _, c := range []struct {
		name, line string
		want       []piece
		proc       string // name/pid/rank/dp/pp/tp of the last piece
	}{
		{"0.7", "INFO 11-23 19:00:19 worker.py:266] msg a: b", []w{{level: "INFO", source: "worker.py", msg: "msg a: b", stamp: stamp}}, "/0/-1/-1/-1/-1"},
		{"0.8", "WARNING 11-23 19:00:19 [worker.py:266] msg", []w{{level: "WARNING", source: "worker.py", msg: "msg", stamp: stamp}}, ""},
		{"DEBUG of 0.10.2", "(EngineCore pid=241) DEBUG 11-23 19:00:19 [v1/worker/gpu_worker.py:284] msg", []w{{level: "DEBUG", source: "v1/worker/gpu_worker.py", msg: "msg", stamp: stamp}}, "EngineCore/241/-1/-1/-1/-1"},
		{"shortened path", "INFO 11-23 19:00:19 [model_executor/.../utils/fp8_utils.py:777] msg", []w{{level: "INFO", source: "model_executor/.../utils/fp8_utils.py", msg: "msg", stamp: stamp}}, ""},
		{"user's prefix", "my-serverINFO 11-23 19:00:19 [a.py:1] msg", []w{{msg: "my-server"}, {level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, ""},
		{"ANSI", "\x1b[1;36m(VllmWorker TP0 pid=7)\x1b[0;0m INFO 11-23 19:00:19 [a.py:1] msg", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, "VllmWorker TP0/7/-1/-1/-1/0"},
		{"coloured record", "\x1b[32mINFO\x1b[0m \x1b[90m11-23 19:00:19\x1b[0m \x1b[90m[a.py:1]\x1b[0m msg", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, ""},
		{"rank of 0.8", "(VllmWorker rank=3 pid=99) INFO 11-23 19:00:19 [a.py:1] msg", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, "VllmWorker/99/3/-1/-1/-1"},
		{"all parts", "(Worker_DP1_PP0_TP3_EP3 pid=5) INFO 11-23 19:00:19 [a.py:1] msg", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, "Worker_DP1_PP0_TP3_EP3/5/-1/1/0/3"},
		{"ray", "\x1b[36m(RayWorkerWrapper pid=4023, ip=10.0.0.9)\x1b[0m INFO 11-23 19:00:19 a.py:1] msg", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, "RayWorkerWrapper/4023/-1/-1/-1/-1"},
		{"ray around vLLM", "(RayWorkerWrapper pid=4023) (VllmWorker rank=1 pid=33) INFO 11-23 19:00:19 [a.py:1] msg", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, "VllmWorker/33/1/-1/-1/-1"},
		{"kubernetes", "2026-11-23T19:00:20.123456789Z stdout F (EngineCore_DP0 pid=8) INFO 11-23 19:00:19 [a.py:1] msg", []w{{msg: "2026-11-23T19:00:20.123456789Z stdout F"}, {level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, "EngineCore_DP0/8/-1/0/-1/-1"},
		{"compose", "vllm-1  | INFO 11-23 19:00:19 [a.py:1] msg", []w{{msg: "vllm-1  |"}, {level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, ""},
		{"year", "INFO 2026-11-23 19:00:19 [a.py:1] msg", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, ""},
		{"bar before a record", "Loading: 100%|███| 2/2 [00:01<00:00]INFO 11-23 19:00:19 [a.py:1] msg", []w{{msg: "Loading: 100%|███| 2/2 [00:01<00:00]"}, {level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, ""},
		{"two records", "INFO 11-23 19:00:19 [a.py:1] one(Worker_TP1 pid=5) INFO 11-23 19:00:19 [b.py:2] two", []w{{level: "INFO", source: "a.py", msg: "one", stamp: stamp}, {level: "INFO", source: "b.py", msg: "two", stamp: stamp}}, "Worker_TP1/5/-1/-1/-1/1"},
		{"CR at the end", "INFO 11-23 19:00:19 [a.py:1] msg\r", []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, ""},
		{"bars", "\rA: 0%\rA: 50%\r\r", []w{{msg: "A: 0%"}, {msg: "A: 50%"}}, ""},
		{"traceback line", "(EngineCore pid=7)   File \"x\"", []w{{msg: "  File \"x\""}}, "EngineCore/7/-1/-1/-1/-1"},
		{"docker json-file", `{"log":"(EngineCore pid=7) INFO 11-23 19:00:19 [a.py:1] msg\n","stream":"stdout","time":"2026-11-23T19:00:19Z"}`, []w{{level: "INFO", source: "a.py", msg: "msg", stamp: stamp}}, "EngineCore/7/-1/-1/-1/-1"},
		{"NIM", `{"level":"INFO","time":"11-23 19:00:19.5","file_path":"/opt/a.py","line_number":"1","message":"msg"}`, []w{{level: "INFO", source: "/opt/a.py", msg: "msg"}}, ""},
		{"Anyscale", `(Engine pid=7) {"asctime": "2024-10-19 01:28:13,483", "levelname": "INFO", "message": "msg", "filename": "a.py", "lineno": 1}`, []w{{level: "INFO", source: "a.py", msg: "msg"}}, "Engine/7/-1/-1/-1/-1"},
		{"uvicorn", "INFO:     Application startup complete.", []w{{msg: "INFO:     Application startup complete."}}, ""},
		{"not JSON", `{"broken": `, []w{{msg: `{"broken": `}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := pieces(c.line)
			if len(got) != len(c.want) {
				t.Fatalf("%d pieces %+v, want %d", len(got), got, len(c.want))
			}
			for i, g := range got {
				w := c.want[i]
				if g.level != w.level || g.source != w.source || g.msg != w.msg || !g.stamp.Equal(w.stamp) {
					t.Errorf("piece %d: level %q, source %q, message %q, stamp %v; want %q %q %q %v", i, g.level, g.source, g.msg, g.stamp, w.level, w.source, w.msg, w.stamp)
				}
			}
			p := got[len(got)-1].proc
			if have := fmt.Sprintf("%s/%d/%d/%d/%d/%d", p.name, p.pid, p.rank, p.dp, p.pp, p.tp); c.proc != "" && have != c.proc {
				t.Errorf("process %s, want %s", have, c.proc)
			}
		})
	}
}

func TestRanks(t *testing.T) {
	weights := func(prefix, gib string) string {
		return prefix + "INFO 01-01 00:00:00 [m.py:1] Model loading took " + gib + " GiB and 1.000000 seconds\n"
	}
	banner := v1 + "Initializing a V%s LLM engine (v0.10.0) with config: model='m', tensor_parallel_size=%d, pipeline_parallel_size=%d\n"
	for _, c := range []struct {
		name, log string
		want      []string // weights of each rank; "" null
	}{
		{"one", fmt.Sprintf(banner, "1", 1, 1) + weights("", "5.0"), []string{"5"}},
		{"by name", fmt.Sprintf(banner, "1", 2, 1) + weights("(VllmWorker rank=1 pid=12) ", "6.0") + weights("(VllmWorker rank=0 pid=11) ", "5.0"), []string{"5", "6"}},
		{"TP and PP", fmt.Sprintf(banner, "1", 2, 2) + weights("(Worker_PP1_TP0 pid=3) ", "7.0") + weights("(Worker_PP0_TP1 pid=2) ", "6.0"), []string{"", "6", "7", ""}},
		{"by world line", fmt.Sprintf(banner, "1", 2, 1) + "(Worker pid=21) " + v1 + "world_size=2 rank=1 local_rank=1 distributed_init_method=tcp://x backend=nccl\n" + weights("(Worker pid=21) ", "6.0") + weights("(Worker pid=20) ", "5.0"), []string{"5", "6"}},
		{"V0 driver and workers", fmt.Sprintf(banner, "0", 3, 1) + weights("(VllmWorkerProcess pid=31) ", "6.0") + weights("", "5.0") + weights("(VllmWorkerProcess pid=32) ", "7.0"), []string{"5", "6", "7"}},
		{"without prefixes", fmt.Sprintf(banner, "1", 2, 1) + weights("", "5.0") + weights("", "6.0"), []string{"5", "6"}},
		{"said twice by one", fmt.Sprintf(banner, "1", 1, 1) + weights("", "5.0") + weights("", "6.0"), []string{"6"}},
		{"only rank 0 speaks", fmt.Sprintf(banner, "1", 4, 1) + weights("(Worker_TP0 pid=1) ", "5.0"), []string{"5", "", "", ""}},
		{"same process, new name", fmt.Sprintf(banner, "1", 2, 1) + weights("(Worker pid=41) ", "4.0") + weights("(Worker_TP1 pid=41) ", "5.0"), []string{"", "5"}},
		{"data parallel", "(EngineCore_DP0 pid=1) " + fmt.Sprintf(banner, "1", 1, 1) + "(EngineCore_DP1 pid=2) " + fmt.Sprintf(banner, "1", 1, 1) + weights("(EngineCore_DP1 pid=2) ", "6.0") + weights("(EngineCore_DP0 pid=1) ", "5.0"), []string{"5", "6"}},
		{"data parallel 0.9", "(EngineCore_0 pid=1) " + fmt.Sprintf(banner, "1", 1, 1) + "(EngineCore_1 pid=2) " + fmt.Sprintf(banner, "1", 1, 1) + weights("(EngineCore_1 pid=2) ", "6.0") + weights("(EngineCore_0 pid=1) ", "5.0"), []string{"5", "6"}},
		{"a draft model of V0", v1 + "Initializing a V0 LLM engine (v0.9.0) with config: model='m', speculative_config=SpeculativeConfig(method='x', model='d', num_spec_tokens=3), tensor_parallel_size=1, pipeline_parallel_size=1\n" + weights("", "5.0") + weights("", "0.5"), []string{"5.5"}},
		{"ray workers", fmt.Sprintf(banner, "1", 2, 1) + weights("(RayWorkerWrapper pid=51, ip=10.0.0.1) ", "5.0") + weights("(RayWorkerWrapper pid=51, ip=10.0.0.2) ", "6.0"), []string{"5", "6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := oneAccount(t, c.log)
			var got []string
			for i, r := range a.Ranks {
				if r.Rank != i {
					t.Errorf("rank %d at %d", r.Rank, i)
				}
				s := ""
				if r.ModelWeightsGB != nil {
					s = fmt.Sprint(*r.ModelWeightsGB)
				}
				got = append(got, s)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("weights by rank %q, want %q", got, c.want)
			}
		})
	}
}

func TestSeveralEngines(t *testing.T) {
	one := func(version, tokens string) string {
		return v1 + "non-default args: {'model': 'm', 'max_num_seqs': " + tokens + "}\n" + v1Banner(version, 1) + v1 + "GPU KV cache size: " + tokens + " tokens\n" + v1 + "init engine (profile, create kv cache, warmup model) took 1.00 s\n"
	}
	for _, c := range []struct{ name, log string }{
		{"one after the other", one("0.20.0", "100") + one("0.21.0", "200")},
		{"restart without a word", strings.Replace(one("0.20.0", "100"), "init engine", "x", 1) + one("0.21.0", "200")},
		{"restart after a failure", strings.Replace(one("0.20.0", "100"), "init engine", "x", 1) + engineTrace("ValueError: No available memory for the cache blocks.") + one("0.21.0", "200")},
		{"two engines side by side", func() string {
			a, b := one("0.20.0", "100"), one("0.21.0", "200")
			a, b = strings.ReplaceAll(strings.ReplaceAll(a, v1, "(EngineCore pid=9) "+v1), "(EngineCore pid=9) "+v1+"non-default", "(APIServer pid=8) "+v1+"non-default"), strings.ReplaceAll(b, v1, "(EngineCore pid=19) "+v1)
			b = strings.ReplaceAll(strings.ReplaceAll(b, "(EngineCore pid=9)", "(EngineCore pid=19)"), "(EngineCore pid=19) "+v1+"non-default", "(APIServer pid=18) "+v1+"non-default")
			as, bs := strings.SplitAfter(a, "\n"), strings.SplitAfter(b, "\n")
			return as[0] + as[1] + bs[0] + bs[1] + as[2] + bs[2] + bs[3] + as[3]
		}()},
		{"two containers at once", interleave(one("0.20.0", "100"), one("0.21.0", "200"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			accounts := readText(t, c.log)
			if len(accounts) != 2 {
				t.Fatalf("%d accounts, want 2", len(accounts))
			}
			for i, want := range []struct {
				version string
				tokens  int64
			}{{"0.20.0", 100}, {"0.21.0", 200}} {
				if a := accounts[i]; a.Model == nil || a.MaxNumSeqs == nil || *a.MaxNumSeqs != want.tokens || str(a.VLLMVersion) != want.version || a.TotalGPUKVCacheTokens == nil || *a.TotalGPUKVCacheTokens != want.tokens {
					t.Errorf("engine %d: %s, %v tokens", i, str(a.VLLMVersion), a.TotalGPUKVCacheTokens)
				}
			}
		})
	}
}

// interleave is what docker compose makes of two logs.
func interleave(a, b string) string { return zip("vllm-a-1  | ", "vllm-b-1  | ")(a, b) }

func TestHardWrapped(t *testing.T) {
	a := oneAccount(t, "INFO 03-21 09:46:02 [worker.py:267] model weights take 6.25GiB; non_torch_memory \ntakes 0.09GiB; PyTorch activation peak memory takes 1.4\n9GiB; the rest of the memory reserved for KV Cache is 23.46GiB.\n"+
		"INFO 03-21 09:46:02 [worker.py:267] next\n")
	if a.ActivationsGB == nil || *a.ActivationsGB != 1.49 || a.AvailableKVCacheGB == nil || *a.AvailableKVCacheGB != 23.46 {
		t.Errorf("activations %v, KV %v", a.ActivationsGB, a.AvailableKVCacheGB)
	}
}

func TestUnreadLines(t *testing.T) {
	a := oneAccount(t, v1Banner("0.40.0", 1)+"(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:1] KV cache memory budget left: 12.34 GiB\n(EngineCore pid=9) INFO 01-01 00:00:01 [gpu_worker.py:2] Model loading consumed 5.5 GiB of weights\n"+
		"(EngineCore pid=9) INFO 01-01 00:00:01 [weight_utils.py:1] Filesystem type for checkpoints: XFS. Checkpoint size: 3.59 GiB. Available RAM: 1750.50 GiB.\nUnsloth: vLLM's KV Cache can use up to 2.6 GB.\n")
	if a.UnreadCount != 2 || len(a.UnreadLines) != 2 || a.UnreadLines[0].Line != 2 || !strings.Contains(a.UnreadLines[1].Text, "consumed 5.5 GiB") {
		t.Errorf("unread %d: %+v", a.UnreadCount, a.UnreadLines)
	}
}

func TestCompressedLogs(t *testing.T) {
	text := []byte(v1Banner("0.20.0", 1) + v1 + "GPU KV cache size: 1,024 tokens\n")
	var gz, zs bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, _ = w.Write(text)
	w.Close()
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(text)
	z.Close()
	for name, b := range map[string][]byte{"plain": text, "gzip": gz.Bytes(), "zstd": zs.Bytes()} {
		log, err := ReadLogs(NamedReader{Name: name, R: iotest.OneByteReader(bytes.NewReader(b))})
		if err != nil || len(log.Accounts) != 1 || *log.Accounts[0].TotalGPUKVCacheTokens != 1024 || log.Lines != 2 {
			t.Errorf("%s: %v, %+v", name, err, log)
		}
	}
	// What was read before an error is not lost.
	log, err := ReadLogs(NamedReader{Name: "cut.gz", R: bytes.NewReader(gz.Bytes()[:gz.Len()-12])})
	if err == nil || !strings.Contains(err.Error(), "cut.gz") {
		t.Errorf("a cut gzip: %v", err)
	}
	_ = log
	boom := errors.New("disk on fire")
	log, err = ReadLogs(NamedReader{Name: "x", R: io.MultiReader(bytes.NewReader(text), iotest.ErrReader(boom))})
	if !errors.Is(err, boom) || len(log.Accounts) != 1 {
		t.Errorf("%v, %+v", err, log)
	}
}

func TestHostileInput(t *testing.T) {
	long := strings.Repeat("A", 10<<20)
	for _, c := range []struct{ name, text string }{
		{"long line", long + "\n"},
		{"long line of bars", strings.Repeat("\rCapturing CUDA graphs:  50%|█████     | 1/2 [00:00<00:00]", 5_000) + "\n"},
		{"binary", string(bytes.Repeat([]byte{0, 0xff, 0xfe, '\n', 0x1b, '[', '\r', 'G', 'i', 'B'}, 30_000))},
		{"open traceback", "Traceback (most recent call last):\n" + strings.Repeat("  File\n", 20_000)},
		{"many senders", func() string {
			var b strings.Builder
			for i := range 5_000 {
				fmt.Fprintf(&b, "(Worker_TP%d pid=%d) INFO 01-01 00:00:00 [a.py:1] Model loading took 1.0 GiB\n", i, i+1)
			}
			return b.String()
		}()},
		{"many engines", strings.Repeat(v1Banner("0.20.0", 1)+v1+"GPU KV cache size: 1 tokens\n", 600)},
		{"deep JSON", strings.Repeat(`{"message":`, 1000) + "\n"},
		{"absurd figures", v1 + "Model loading took 1e999 GiB\n" + v1 + "GPU KV cache size: 99999999999999999999999999 tokens\n" + v1 + "Available KV cache memory: ... GiB\n" + v1 + "tensor world_size=99999999999999999999 rank=99999999999999999999 local_rank=0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := c.text + "\n" + v1 + "GPU KV cache size: 7 tokens\n"
			log, err := ReadLogs(NamedReader{Name: "x", R: strings.NewReader(text)})
			if err != nil {
				t.Fatal(err)
			}
			if c.name == "many engines" && (len(log.Accounts) != maxRuns || log.More != 600-maxRuns) {
				t.Errorf("%d engines are told, %d not", len(log.Accounts), log.More)
			}
			if len(log.Accounts) == 0 || log.Accounts[len(log.Accounts)-1].TotalGPUKVCacheTokens == nil || *log.Accounts[len(log.Accounts)-1].TotalGPUKVCacheTokens > 7 {
				t.Errorf("the line after it was not read")
			}
		})
	}
}

func TestLineNumbers(t *testing.T) {
	var events []runner.LogEvent
	r := NewReader(ReaderOptions{Event: func(e runner.LogEvent) { events = append(events, e) }})
	now := time.Now()
	r.Line("stdout", []byte("x"), now)
	r.Part("stdout", []byte("Warmup iterations:   0%|          | 0/2 [00:00<?, ?it/s]"), now)
	r.Part("stdout", []byte("Warmup iterations: 100%|█| 2/2 [00:00<00:00]"), now)
	r.Line("stdout", []byte(v1+"GPU KV cache size: 7 tokens"), now)
	r.Line("stdout", []byte(v1+"Available KV cache memory: 1.0 GiB"), now)
	a := r.Accounts()[0]
	if s := a.Sources["total_gpu_kv_cache_tokens"]; s.Line != 2 || s.File != "stdout" {
		t.Errorf("source %+v", s)
	}
	if s := a.Sources["available_kv_cache_gb"]; s.Line != 3 || a.Missing["ranks[0].model_weights_gb"] == "" {
		t.Errorf("source %+v", s)
	}
	if len(events) != 5 || events[0].Kind != runner.EventWarmupStart || events[2].Kind != runner.EventWarmupIter || events[2].Line != 2 || !events[4].Arrived.Equal(now) {
		t.Errorf("events %+v", events)
	}
}

func TestPairLogs(t *testing.T) {
	got := fmt.Sprint(PairLogs([]string{"a/stdout.log", "b/stdout.log", "a/stderr.log", "vllm.log", "x.stdout.log.gz", "x.stderr.log.gz", "job.out", "job.err", "b/other.log"}))
	if want := "[[a/stdout.log a/stderr.log] [b/stdout.log] [vllm.log] [x.stdout.log.gz x.stderr.log.gz] [job.out job.err] [b/other.log]]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestCaptureTwice: what the V2 model runner prints from 0.29 on.
func TestCaptureTwice(t *testing.T) {
	var kinds []runner.EventKind
	r := NewReader(ReaderOptions{Event: func(e runner.LogEvent) { kinds = append(kinds, e.Kind) }})
	bar := func(n int) {
		r.Part("stderr", fmt.Appendf(nil, "Capturing CUDA graphs (FULL): 50%%|##| %d/4 [00:00<00:00]", n), time.Now())
	}
	end := func() { r.Line("stdout", []byte(v1+"Graph capturing finished in 1 secs, took 0.10 GiB"), time.Now()) }
	bar(0)
	bar(4)
	end()
	bar(4) // late
	r.Line("stdout", []byte(v1+"Available KV cache memory: 1.0 GiB"), time.Now())
	bar(0)
	bar(2)
	end()
	want := []runner.EventKind{runner.EventCaptureStart, runner.EventCaptureEnd, runner.EventProfileEnd, runner.EventCaptureStart, runner.EventCaptureEnd}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
}
