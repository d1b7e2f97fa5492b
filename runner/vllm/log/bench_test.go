package log

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// serverLog is a log as a busy server writes it: starts, statistics, requests,
// access lines, now and then an error, at least n bytes.
func serverLog(n int) []byte {
	var b bytes.Buffer
	start, err := os.ReadFile(filepath.Join("testdata", "h100-v0.26", "llama-3.1-8b", "stdout.log"))
	if err != nil {
		panic(err)
	}
	b.Write(bytes.ReplaceAll(start, []byte("Avg latency: "), []byte("Average: ")))
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "(APIServer pid=%d) INFO:     10.0.0.%d:%d - \"POST /v1/chat/completions HTTP/1.1\" 200 OK\n", 1, i%250, 30000+i%20000)
		fmt.Fprintf(&b, "(APIServer pid=1) INFO 11-23 19:%02d:%02d [loggers.py:236] Engine 000: Avg prompt throughput: %d.3 tokens/s, Avg generation throughput: 5321.7 tokens/s, Running: %d reqs, Waiting: 0 reqs, GPU KV cache usage: 12.5%%, Prefix cache hit rate: 0.0%%\n", i/60%60, i%60, i%9000, i%256)
		fmt.Fprintf(&b, "(APIServer pid=1) INFO 11-23 19:%02d:%02d [logger.py:40] Received request chatcmpl-%032x: prompt: '<|begin_of_text|>%s', params: SamplingParams(n=1, temperature=0.7, max_tokens=512)\n", i/60%60, i%60, i, strings.Repeat("the quick brown fox ", 20))
		if i%500 == 0 {
			fmt.Fprintf(&b, "(EngineCore pid=2594) DEBUG 11-23 19:00:00 [core.py:1] EngineCore loop active. %d\n", i)
		}
	}
	return b.Bytes()
}

func BenchmarkReadLogs(b *testing.B) {
	text := serverLog(64 << 20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		log, err := ReadLogs(NamedReader{Name: "x", R: bytes.NewReader(text)})
		if err != nil || len(log.Accounts) != 1 {
			b.Fatal(err, len(log.Accounts))
		}
	}
}

func BenchmarkReadStart(b *testing.B) {
	text, err := os.ReadFile(filepath.Join("testdata", "h100-v0.26", "llama-3.1-8b", "stdout.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		r := NewReader(ReaderOptions{})
		for line := range bytes.Lines(text) {
			r.Line("stdout", trimLF(line), time.Time{})
		}
		if len(r.Accounts()) != 1 {
			b.Fatal("no account")
		}
	}
}

// BenchmarkReadLogs2GB reads 2 GB and reports the heap that it took.
func BenchmarkReadLogs2GB(b *testing.B) {
	chunk := serverLog(1 << 20)
	const size = 2 << 30
	b.SetBytes(size)
	for b.Loop() {
		var readers []io.Reader
		for n := 0; n < size; n += len(chunk) {
			readers = append(readers, bytes.NewReader(chunk))
		}
		runtime.GC()
		if _, err := ReadLogs(NamedReader{Name: "x", R: io.MultiReader(readers...)}); err != nil {
			b.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapSys-m.HeapReleased)/(1<<20), "heap-MiB")
		b.ReportMetric(float64(m.Sys-m.HeapReleased)/(1<<20), "process-MiB")
	}
}
