package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vramsweep/vramsweep/runner/recorded"
)

// TestMain makes this test binary also the program and the fakes that the
// scripts find on their PATH.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"vramsweep":  main,
		"vllm":       fakeVLLM,
		"nvidia-smi": fakeNvidiaSMI,
		"allocate":   allocate,
		"calculator": fakeCalculator,
	})
}

var updateScripts = flag.Bool("update", false, "rewrite what the scripts compare with")

// TestScripts runs every verb as a user does.
func TestScripts(t *testing.T) {
	measured, newer := recorded.Folder(t, "h100x2-v0.26"), recorded.Folder(t, "h200-v0.33")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *updateScripts,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"jsonfield": jsonField,
			"onerun":    oneRun,
		},
		Setup: func(env *testscript.Env) error {
			// The tree of a run is found by /proc, which the scripts share.
			env.Setenv("NO_COLOR", "1")
			env.Setenv("MEASURED", measured)
			env.Setenv("H200", newer)
			env.Setenv("CONFIGS", root+"/sinks/analyze/calibrate/models,"+root+"/sweep/models/testdata/h200-v0.33")
			// Else every program waits a second before it exits, under the race detector.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("HF_TOKEN", "hf_0123456789abcdefghijklmnop")
			return nil
		},
	})
}

// jsonField FILE PATH WANT compares a field of a JSON file: a.b.0.c.
func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: jsonfield FILE PATH WANT")
	}
	var value any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &value); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	for _, key := range strings.Split(args[1], ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(v) {
				ts.Fatalf("%s: no element %s", args[1], key)
			}
			value = v[i]
		default:
			ts.Fatalf("%s: %s is in no object", args[1], key)
		}
	}
	got := fmt.Sprint(value)
	if f, ok := value.(float64); ok {
		got = strconv.FormatFloat(f, 'f', -1, 64)
	}
	if (got == args[2]) == neg {
		ts.Fatalf("%s of %s is %q, compared with %q", args[1], args[0], got, args[2])
	}
}

// oneRun DIR NAME copies the single run folder of an output folder to NAME.
func oneRun(ts *testscript.TestScript, _ bool, args []string) {
	found, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "runs", "*", "*", "run.json"))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%s has %d runs, want 1", args[0], len(found))
	}
	from, to := filepath.Dir(found[0]), ts.MkAbs(args[1])
	ts.Check(filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	}))
}

// fakeVLLM is a vllm that does what FAKE_VLLM says.
func fakeVLLM() {
	output := ""
	for i, arg := range os.Args {
		if arg == "--output-json" && i+1 < len(os.Args) {
			output = os.Args[i+1]
		}
	}
	switch os.Getenv("FAKE_VLLM") {
	case "exits":
		fmt.Fprintln(os.Stderr, "vllm: cannot do this")
		os.Exit(7)
	case "silent":
		os.Exit(1)
	case "no-result":
		return
	case "broken-result":
		_ = os.WriteFile(output, []byte(`{"avg_latency": 0.`), 0o644)
		return
	case "token":
		fmt.Println("token", os.Getenv("HF_TOKEN"))
		_ = os.WriteFile(output, []byte(`{"avg_latency": 0.5, "latencies": [0.5], "percentiles": {"50": 0.5}}`), 0o644)
		return
	case "loud":
		out := bufio.NewWriter(os.Stdout)
		for range 1 << 18 {
			fmt.Fprintln(out, strings.Repeat("x", 63))
		}
		_ = out.Flush()
		_ = os.WriteFile(output, []byte(`{"avg_latency": 0.5, "latencies": [0.5], "percentiles": {"50": 0.5}}`), 0o644)
	}
}

// fakeNvidiaSMI answers as nvidia-smi of one H100 does, for the fields that are
// asked for.
func fakeNvidiaSMI() {
	values := map[string]string{
		"index": "0", "uuid": "GPU-00000000-0000-0000-0000-000000000000", "name": "NVIDIA H100 80GB HBM3",
		"pci.bus_id":     "00000000:00:06.0",
		"driver_version": "580.159.04", "memory.total": "81559", "memory.used": "0", "memory.free": "81079",
		"memory.reserved": "480",
		"utilization.gpu": "0", "utilization.memory": "0", "temperature.gpu": "35", "temperature.memory": "40",
		"power.draw":         "70.50",
		"power.draw.instant": "71.25", "power.draw.average": "70.50", "clocks.current.sm": "345", "clocks.sm": "345",
		"clocks.current.memory": "2619", "clocks.mem": "2619",
		"clocks_event_reasons.active": "0x0000000000000001", "mig.mode.current": "Disabled", "persistence_mode": "Enabled",
		"compute_mode": "Default", "pstate": "P0",
		"ecc.errors.uncorrected.volatile.total": "0",
	}
	var fields []string
	loop := time.Duration(0)
	for i, arg := range os.Args {
		if list, ok := strings.CutPrefix(arg, "--query-gpu="); ok {
			fields = strings.Split(list, ",")
		}
		if arg == "-lms" && i+1 < len(os.Args) {
			n, _ := strconv.Atoi(os.Args[i+1])
			loop = time.Duration(n) * time.Millisecond
			late, _ := time.ParseDuration(os.Getenv("FAKE_SMI_LATE")) // as on a busy machine
			time.Sleep(late)
		}
		if strings.HasPrefix(arg, "--query-compute-apps") {
			if !strings.Contains(strings.Join(os.Args, " "), "noheader") {
				fmt.Println("pid, process_name, gpu_uuid, used_gpu_memory [MiB]")
			}
			return
		}
	}
	if fields == nil {
		os.Exit(2)
	}
	units := map[string]string{"memory": " [MiB]", "utilization": " [%]", "power": " [W]", "clocks": " [MHz]"}
	if !strings.Contains(strings.Join(os.Args, " "), "noheader") {
		header := make([]string, len(fields))
		for i, field := range fields {
			family, _, _ := strings.Cut(field, ".")
			header[i] = field + units[family]
		}
		fmt.Println(strings.Join(header, ", "))
	}
	for begin := time.Now(); ; time.Sleep(loop) {
		row := make([]string, len(fields))
		for i, field := range fields {
			switch value, ok := values[field]; {
			case field == "timestamp":
				row[i] = time.Now().Format("2006/01/02 15:04:05.000")
			case ok:
				row[i] = value
			default:
				row[i] = "[N/A]"
			}
		}
		fmt.Println(strings.Join(row, ", "))
		if loop == 0 || time.Since(begin) > time.Minute {
			return
		}
	}
}

// allocate is a program to monitor.
func allocate() {
	fmt.Println("allocated")
	time.Sleep(300 * time.Millisecond)
}

// fakeCalculator is somebody's memory calculator: 2 bytes a parameter. Its
// argument is a batch size that it does not know, or a fault.
func fakeCalculator() {
	var q struct {
		Architecture struct {
			Params float64 `json:"params"`
		} `json:"architecture"`
		Settings struct {
			BatchSize int `json:"batch_size"`
		} `json:"settings"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	switch strings.Join(os.Args[1:], " ") {
	case "nonsense":
		fmt.Println("about 3 GB")
		return
	case "hang":
		time.Sleep(time.Minute)
	case strconv.Itoa(q.Settings.BatchSize):
		fmt.Fprintf(os.Stderr, "I do not know batch %d\n", q.Settings.BatchSize)
		os.Exit(3)
	}
	fmt.Printf("{\"weights_bytes\": %.0f}\n", 2*q.Architecture.Params)
}
