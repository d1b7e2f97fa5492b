package gpu

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

// The tools are faked by this test binary under their names: a fake is
// started when argv[0] is a tool's name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "nvidia-smi":
		os.Exit(fakeSMI(os.Args[1:], os.Stdout))
	case "amd-smi", "rocm-smi", "python3":
		os.Exit(fakeFile(os.Args[1:], os.Stdout))
	case "nvml-helper":
		os.Exit(NVMLHelperMain(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// fakeFile prints a recorded output, whatever it is asked, or FAKE_DIR/<verb>.json
// where there is that.
func fakeFile(args []string, out io.Writer) int {
	name := os.Getenv("FAKE_FILE")
	if own := filepath.Join(os.Getenv("FAKE_DIR"), args[0]+".json"); sampling.Exists(own) {
		name = own
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return 1
	}
	if _, err := out.Write(b); err != nil {
		return 1
	}
	return 0
}

// fakeTools makes a folder with the named tools and returns Options for it. The
// settings reach the fake through its environment.
func fakeTools(t testing.TB, names []string, env ...string) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	// Under the race detector a program waits a second before it exits.
	env = append([]string{"PATH=" + dir, "FAKE_DIR=" + dir, "GORACE=atexit_sleep_ms=0"}, env...)
	empty := t.TempDir()
	return Options{Env: env, Sys: empty, Dev: empty, Proc: "/proc", NVMLLibrary: filepath.Join(empty, "none.so"), Sources: []string{sampling.SourceNvidiaSMI}}
}

// fake is what a stand-in for nvidia-smi does, from its environment:
// FAKE_GPUS devices; FAKE_MODE names a fault, which happens in the FAKE_STARTS
// first loops (default 1) after FAKE_TICKS ticks.
type fake struct {
	gpus, ticks int
	mode        string
	starts      int
	start       int // which loop this is, from 1
	ids         []string
	out         io.Writer
	units       bool
	fields      []string
}

func fakeSMI(args []string, out io.Writer) int {
	f := &fake{gpus: envInt("FAKE_GPUS", 2), ticks: envInt("FAKE_TICKS", 5), mode: os.Getenv("FAKE_MODE"), starts: envInt("FAKE_STARTS", 1), out: out}
	lms, header, apps := 0, true, false
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-lms":
			i++
			lms, _ = strconv.Atoi(args[i])
		case a == "-i":
			i++
			f.ids = strings.Split(args[i], ",")
		case strings.HasPrefix(a, "--query-gpu="):
			f.fields = strings.Split(strings.TrimPrefix(a, "--query-gpu="), ",")
		case strings.HasPrefix(a, "--query-compute-apps="):
			f.fields, apps = strings.Split(strings.TrimPrefix(a, "--query-compute-apps="), ","), true
		case strings.HasPrefix(a, "--format="):
			header = !strings.Contains(a, "noheader")
			f.units = !strings.Contains(a, "nounits")
		case a == "-L":
			return f.list()
		}
	}
	if code := f.refuse(lms); code != 0 {
		return code
	}
	if apps {
		return f.apps(header, lms)
	}
	if header {
		fmt.Fprintln(out, f.header())
		f.row(0, 0)
		for g := 1; g < f.gpus; g++ {
			f.row(g, 0)
		}
		return 0
	}
	return f.loop(time.Duration(lms) * time.Millisecond)
}

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// lostMark says that GPU 1 has fallen off the bus.
func lostMark() string { return filepath.Join(os.Getenv("FAKE_DIR"), "lost") }

// refuse ends the tool before it reads anything.
func (f *fake) refuse(lms int) int {
	refused := strings.Split(os.Getenv("FAKE_REFUSE"), ",")
	for _, field := range f.fields {
		if slices.Contains(refused, field) {
			fmt.Fprintf(f.out, "Field %q is not a valid field to query.\n\n", field)
			return 2
		}
	}
	if _, err := os.Stat(lostMark()); err == nil && (f.ids == nil || slices.Contains(f.ids, fakeBus(1))) {
		fmt.Fprintln(f.out, "Unable to determine the device handle for GPU0000:01:00.0: Unknown Error")
		return 15
	}
	switch f.mode {
	case "no-driver":
		fmt.Fprintln(f.out, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.")
		return 9
	case "no-driver-exit-0":
		fmt.Fprintln(f.out, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.")
		return 0
	case "probe-hangs":
		hang()
	case "apps-hang":
		if slices.Contains(f.fields, "used_gpu_memory") {
			if err := os.WriteFile(filepath.Join(os.Getenv("FAKE_DIR"), "listed"), nil, 0o644); err != nil {
				panic(err)
			}
			hang()
		}
	}
	return 0
}

func hang() {
	signal.Ignore(syscall.SIGTERM)
	for {
		time.Sleep(time.Hour)
	}
}

func fakeBus(g int) string { return fmt.Sprintf("00000000:%02X:00.0", g) }

func (f *fake) list() int {
	for g := range f.gpus {
		fmt.Fprintf(f.out, "GPU %d: NVIDIA FAKE (UUID: GPU-%08d-0000)\n", g, g)
		if g == 0 && os.Getenv("FAKE_MIG") != "" {
			fmt.Fprintf(f.out, "  MIG 1g.10gb     Device  0: (UUID: MIG-aaaa-0000)\n  MIG 1g.10gb     Device  1: (UUID: MIG-bbbb-0000)\n")
		}
	}
	return 0
}

func (f *fake) header() string {
	units := map[string]string{"memory.total": "MiB", "memory.reserved": "MiB", "memory.used": "MiB", "memory.free": "MiB", "power.draw": "W", "power.draw.instant": "W", "utilization.gpu": "%", "utilization.memory": "%", "clocks.current.sm": "MHz", "clocks.current.memory": "MHz"}
	var names []string
	for _, n := range f.fields {
		if u := units[n]; u != "" {
			n += " [" + u + "]"
		}
		names = append(names, n)
	}
	return strings.Join(names, ", ")
}

// value is a cell: the n-th tick of GPU g.
func (f *fake) value(field string, g, n int) string {
	unit := func(v, u string) string {
		if f.units {
			return v + " " + u
		}
		return v
	}
	if f.mode == "na" && field != "index" && field != "pci.bus_id" && field != "timestamp" && n > 0 {
		return "[N/A]"
	}
	if text, ok := f.odd(field, g); ok {
		return text
	}
	switch field {
	case "timestamp":
		now := time.Now().UTC()
		if f.mode == "clock-jumps" && n >= f.ticks {
			now = now.Add(-time.Hour)
		}
		return now.Format("2006/01/02 15:04:05.000")
	case "index":
		return strconv.Itoa(g)
	case "pci.bus_id":
		return fakeBus(g)
	case "uuid":
		return fmt.Sprintf("GPU-%08d-0000", g)
	case "name":
		return "NVIDIA FAKE"
	case "driver_version":
		return "580.0"
	case "memory.total":
		if f.faulty() && f.mode == "units" && n >= f.ticks {
			return "80" // GiB, without a word
		}
		return unit("81559", "MiB")
	case "memory.reserved":
		if f.faulty() && f.mode == "units" && n >= f.ticks {
			return "0"
		}
		return unit("480", "MiB")
	case "memory.used":
		if f.faulty() && f.mode == "units" && n >= f.ticks {
			return "1"
		}
		return unit(strconv.Itoa(100*(g+1)+n), "MiB")
	case "memory.free":
		return unit("1000", "MiB")
	case "power.draw.instant":
		return unit("71.24", "W")
	case "power.draw":
		return unit("70.50", "W")
	case "temperature.gpu", "temperature.memory":
		return "37"
	case "utilization.gpu", "utilization.memory":
		return unit("12", "%")
	case "clocks.current.sm", "clocks.current.memory", "clocks.sm", "clocks.mem":
		return unit("1980", "MHz")
	case "clocks_event_reasons.active", "clocks_throttle_reasons.active":
		return "0x0000000000000004"
	case "compute_cap":
		return "9.0"
	case "ecc.errors.uncorrected.volatile.total":
		return "0"
	case "mig.mode.current":
		if g == 0 && os.Getenv("FAKE_MIG") != "" {
			return "Enabled"
		}
		return "Disabled"
	}
	return "[N/A]"
}

// odd is a cell of the modes in which GPU 0 tells what it should not.
func (f *fake) odd(field string, g int) (string, bool) {
	switch {
	case g != 0:
	case field == "name" && os.Getenv("FAKE_NAME") != "":
		return os.Getenv("FAKE_NAME"), true
	case f.mode == "no-memory" && strings.HasPrefix(field, "memory."):
		return "[N/A]", true
	case f.mode == "reset" && strings.HasPrefix(field, "memory."):
		return "[GPU requires reset]", true
	case f.mode == "impossible" && strings.HasPrefix(field, "clocks."):
		return "-500", true
	case f.mode == "impossible" && strings.HasPrefix(field, "power."):
		return "99999999.00", true
	case f.mode == "impossible" && field == "memory.used":
		return "-5 TB", true
	case f.mode == "frozen" && field == "timestamp":
		return "2026/12/01 03:00:00.123", true
	case f.mode == "frozen" && field == "memory.used":
		return "100", true
	}
	return "", false
}

func (f *fake) row(g, n int) {
	cells := make([]string, len(f.fields))
	for i, field := range f.fields {
		cells[i] = f.value(field, g, n)
	}
	if f.ids == nil || slices.Contains(f.ids, fakeBus(g)) {
		fmt.Fprintln(f.out, strings.Join(cells, ", "))
	}
}

func (f *fake) faulty() bool { return f.start <= f.starts }

// countStart numbers the loops: a file of one byte a start.
func (f *fake) countStart() {
	name := filepath.Join(os.Getenv("FAKE_DIR"), "starts")
	h, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	fmt.Fprint(h, "x")
	h.Close()
	b, _ := os.ReadFile(name)
	f.start = len(b)
}

func (f *fake) loop(every time.Duration) int {
	f.countStart()
	if f.faulty() && f.mode == "silent" {
		hang()
	}
	if f.faulty() && f.mode == "slow" {
		every *= 3
	}
	next := time.Now()
	for n := 0; ; n++ {
		if f.faulty() && n == f.ticks {
			if code, end := f.fault(); end {
				return code
			}
		}
		for g := range f.gpus {
			f.row(g, n+1)
		}
		next = next.Add(every)
		if f.mode == "slow" {
			next = time.Now().Add(every) // never faster, however late
		}
		time.Sleep(time.Until(next))
	}
}

// fault happens once, between two ticks.
func (f *fake) fault() (code int, end bool) {
	switch f.mode {
	case "hang":
		hang()
	case "die":
		fmt.Fprintln(os.Stderr, "Segmentation fault")
		return 139, true
	case "half":
		fmt.Fprint(f.out, "2026/11/23 18:55:49.600, 0, 00000000:00:00.0, 1")
		return 0, true
	case "xid":
		fmt.Fprintln(f.out, "[18:55:49] GPU 0: XID 63, row remapper: pending")
	case "off-the-bus":
		if err := os.WriteFile(lostMark(), nil, 0o644); err != nil {
			panic(err)
		}
		f.row(0, f.ticks+1)
		fmt.Fprintln(f.out, "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU")
		return 15, true
	case "text-exit-0":
		fmt.Fprintln(f.out, "Failed to initialize NVML: Unknown Error")
		return 0, true
	}
	return 0, false
}

func (f *fake) apps(header bool, lms int) int {
	if header {
		fmt.Fprintln(f.out, strings.ReplaceAll(strings.Join(f.fields, ", "), "used_gpu_memory", "used_gpu_memory [MiB]"))
	}
	pids := strings.Split(os.Getenv("FAKE_PIDS"), ",")
	for {
		for g := range f.gpus {
			for i, pid := range pids {
				if pid == "" {
					continue
				}
				var cells []string
				for _, field := range f.fields {
					cells = append(cells, map[string]string{"gpu_bus_id": fakeBus(g), "gpu_uuid": fmt.Sprintf("GPU-%08d-0000", g), "pid": pid, "process_name": "python", "used_gpu_memory": strconv.Itoa(1000*(g+1) + i)}[field])
				}
				fmt.Fprintln(f.out, strings.Join(cells, ", "))
			}
		}
		if lms == 0 {
			return 0
		}
		time.Sleep(time.Duration(lms) * time.Millisecond)
	}
}

// corpus opens a recorded output; the test is skipped where the corpus is not.
func corpus(t testing.TB, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{corpusDir()}, elem...)...))
	if err != nil {
		testenv.Skip(t, "no corpus: %v", err)
	}
	return b
}

func corpusDir() string { return filepath.Join("..", "..", "..", "shared", "corpus", "gpu") }
