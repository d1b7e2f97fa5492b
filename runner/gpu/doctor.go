package gpu

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// Status of a Finding.
const (
	StatusOK   = "ok"
	StatusInfo = "info" // worth knowing
	StatusWarn = "warn" // may falsify figures
	StatusFail = "fail" // stops a sweep
)

// A Finding is one thing that a sweep depends on, as it is on this machine.
type Finding struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Found  string `json:"found"`
	Fix    string `json:"fix,omitempty"`
}

func found(name, status, found, fix string) []Finding {
	return []Finding{{Name: name, Status: status, Found: found, Fix: fix}}
}

// DoctorOptions say what Doctor looks at beside the GPUs.
type DoctorOptions struct {
	OutputDir string   // "": the working directory
	VLLM      []string // the command; nil: "vllm"
}

// Doctor says what on this machine would stop a sweep or falsify its figures,
// each with the fix. It changes nothing. Findings come in the order in which
// they are worth fixing.
func (m *Machine) Doctor(ctx context.Context, d DoctorOptions) []Finding {
	return slices.Concat(
		m.checkSources(), m.checkRights(), m.checkVersions(), m.checkGPUs(), m.checkUse(ctx), m.checkMask(),
		m.checkVLLM(ctx, d.VLLM), checkDisk(d.OutputDir), checkShm(m.o.Dev), checkClock(m.o.Sys), checkTimer(),
		checkLoad(m.o.Proc),
	)
}

func (m *Machine) checkSources() []Finding {
	var out []Finding
	for _, st := range m.sources {
		f := Finding{Name: "source " + st.Name, Status: StatusInfo, Found: st.Reason}
		if st.Works {
			f.Status, f.Found = StatusOK, fmt.Sprintf("reads %s", strings.Join(st.Reads, ", "))
			if st.Power == sampling.PowerAveraged {
				f.Status, f.Fix = StatusWarn, "power is an average over a second: energy of short phases is left out; "+
					"a driver from 530 on reports power.draw.instant"
			}
		} else if errors.Is(st.Err, sampling.ErrHung) ||
			vendorOf(st.Name) == "nvidia" && m.nvidiaThere() != "" && !st.Standby {
			f.Status, f.Fix = StatusFail, fixSource(st.Reason)
			if slices.ContainsFunc(m.sources, func(o SourceStatus) bool {
				return o.Works && vendorOf(o.Name) == vendorOf(st.Name)
			}) {
				f.Status = StatusWarn // another one serves, but nothing stands in where that fails
			}
		}
		out = append(out, f)
	}
	if err := m.Unread(); err != nil {
		out = append(out, Finding{Name: "GPU", Status: StatusFail, Found: err.Error(),
			Fix: "fix the sources above; a driver that hangs needs a reset of the GPU or a reboot (see dmesg)"})
	} else if len(m.devices) == 0 {
		out = append(out, Finding{Name: "GPU", Status: StatusWarn, Found: "no GPU can be seen",
			Fix: "sweeps with engine \"simulator\" and of vLLM for CPUs run; for a container give it the GPUs " +
				"(docker run --gpus all, or --device /dev/kfd --device /dev/dri)"})
	}
	return out
}

func fixSource(reason string) string {
	switch {
	case strings.Contains(reason, sampling.ErrHung.Error()):
		return "the driver or the tool hangs: look for Xid or amdgpu lines in dmesg, reset the GPU or reboot"
	case strings.Contains(reason, "version mismatch") || strings.Contains(reason, "versions differ"):
		return "driver and library differ since an update: reboot, or reload the nvidia modules"
	case strings.Contains(reason, "Failed to initialize NVML"):
		return "a container that has lost its GPUs: start it again (nvidia-container-toolkit issue 48)"
	case strings.Contains(reason, "not on the PATH") || strings.Contains(reason, "cannot open shared object file"):
		return "install nvidia-utils of the driver's version, " +
			"or start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
	case strings.Contains(reason, "Unable to determine the device handle"):
		return "a GPU has fallen off the bus: reboot; look for Xid lines in dmesg"
	}
	return "run nvidia-smi by hand and fix what it says"
}

// checkRights looks at the device files that an engine must open.
func (m *Machine) checkRights() []Finding {
	var bad []string
	patterns := []string{"nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "kfd", "dri/renderD*"}
	seen := 0
	for _, p := range patterns {
		files, _ := filepath.Glob(filepath.Join(m.o.Dev, p))
		for _, f := range files {
			seen++
			if unix.Access(f, unix.R_OK|unix.W_OK) != nil {
				bad = append(bad, f)
			}
		}
	}
	if seen == 0 {
		return nil
	}
	if len(bad) > 0 {
		return found("rights", StatusFail, "cannot be opened for reading and writing: "+strings.Join(bad, ", "),
			"join the groups that own them (usermod -aG video,render $USER, then log in anew)")
	}
	return found("rights", StatusOK, fmt.Sprintf("%d device files can be opened", seen), "")
}

// checkVersions compares the kernel's driver with the tool's.
func (m *Machine) checkVersions() []Finding {
	text := sampling.ReadText(m.o.Proc, "driver", "nvidia", "version")
	if text == "" || m.vendors["nvidia"].First() == nil {
		return nil
	}
	for _, d := range m.devices {
		if d.Vendor == "nvidia" && d.DriverVersion != "" && !strings.Contains(text, d.DriverVersion) {
			says := fmt.Sprintf("nvidia-smi says %s, the kernel has %s", d.DriverVersion, sampling.Clip(text, 120))
			return found("driver", StatusFail, says, "reboot, or reload the nvidia modules")
		}
	}
	return nil
}

// checkGPUs judges the state of each GPU.
func (m *Machine) checkGPUs() []Finding {
	var out []Finding
	for _, d := range whole(m.devices) {
		if g := m.firstOf(d.Index); g != nil {
			out = append(out, checkGPU(g)...)
		}
	}
	for _, note := range m.MemoryNotes() {
		gpu, text, _ := strings.Cut(note, ": ")
		f := Finding{Name: gpu + " memory", Status: StatusInfo, Found: text}
		if strings.HasPrefix(text, "the memory in use is not reported") {
			f.Status = StatusWarn
			f.Fix = "runs measure, with the driver's memory null; where the driver asks for a reset, do it first"
		}
		out = append(out, f)
	}
	return out
}

func checkGPU(g *sampling.GPU) []Finding {
	name := fmt.Sprintf("GPU %d", g.Index)
	var out []Finding
	add := func(what, status, found, fix string) {
		out = append(out, Finding{Name: name + " " + what, Status: status, Found: found, Fix: fix})
	}
	switch mode := g.Texts["persistence_mode"]; mode {
	case "Disabled":
		add("persistence", StatusWarn,
			"persistence mode is off: the driver starts anew with each program, which shows in load times",
			"nvidia-smi -pm 1 (as root)")
	case "Enabled":
		add("persistence", StatusOK, "on", "")
	}
	if g.ECC != nil && *g.ECC > 0 {
		add("ECC", StatusFail, fmt.Sprintf("%d uncorrectable memory errors since the driver was loaded", *g.ECC),
			"reset the GPU (nvidia-smi --gpu-reset) or reboot; replace it if they come back")
	} else if g.ECC != nil {
		add("ECC", StatusOK, "no uncorrectable error", "")
	}
	if a := g.Texts["recovery_action"]; a != "" && a != "None" {
		add("health", StatusFail, "the driver asks for: "+a, "do it before a sweep: figures of this GPU cannot be trusted")
	}
	if mode := g.Texts["compute_mode"]; mode == "Prohibited" {
		add("compute mode", StatusFail, mode, "nvidia-smi -c 0 (as root)")
	}
	if g.Texts["mig_mode"] == "Enabled" {
		add("MIG", StatusInfo, "on: utilization is not reported, memory and power are those of the whole GPU", "")
	}
	var slow []string
	for _, r := range sampling.ThrottleNames(g.Sample.ThrottleReasons) {
		if strings.Contains(r, "slowdown") || strings.Contains(r, "brake") {
			slow = append(slow, r)
		}
	}
	if len(slow) > 0 {
		add("throttling", StatusWarn, "clocks are held down now: "+strings.Join(slow, ", "),
			"fix cooling or power supply; latencies measured meanwhile are too long")
	}
	return out
}

// foreignMemory is the use from which on a GPU without known processes counts
// as taken; a context alone takes 0.5 GiB.
const foreignMemory = 256 << 20

// checkUse says who holds the GPUs.
func (m *Machine) checkUse(ctx context.Context) []Finding {
	if len(m.devices) == 0 {
		return nil
	}
	d, err := m.Inspect(ctx, nil)
	if err != nil {
		return found("reading", StatusFail, err.Error(), "see the sources above")
	}
	var out []Finding
	for _, g := range d.GPUs {
		f := Finding{Name: fmt.Sprintf("GPU %d use", g.GPUID), Status: StatusOK, Found: "idle"}
		var names []string
		for _, p := range g.Processes {
			names = append(names, p.ProcessInfo)
		}
		used := 0.0
		if g.VRAMUsedMB != nil {
			used = *g.VRAMUsedMB
		} else {
			f.Status, f.Found = StatusInfo, "no process is listed, and the memory in use is not reported"
		}
		switch {
		case len(names) > 0 && g.VRAMUsedMB == nil:
			f.Status, f.Found = StatusWarn, "held by "+strings.Join(names, ", ")
			f.Fix = "end them, or let limits { on_dirty_gpu = \"wait\" } wait for them"
		case len(names) > 0:
			f.Status = StatusWarn
			f.Found = fmt.Sprintf("%.0f MiB are held by %s", used, strings.Join(names, ", "))
			f.Fix = "end them, or let limits { on_dirty_gpu = \"wait\" } wait for them"
		case used*(1<<20) > foreignMemory:
			f.Status = StatusWarn
			f.Found = fmt.Sprintf("%.0f MiB are in use, and the driver names no process (other container or user)", used)
			f.Fix = "find the process on the host; its memory stands in the baseline of every run"
		case g.GfxUtilizationPct != nil && *g.GfxUtilizationPct > 5:
			f.Status, f.Found = StatusWarn, fmt.Sprintf("%.0f %% busy", *g.GfxUtilizationPct)
			f.Fix = "wait until it is idle"
		}
		out = append(out, f)
	}
	return out
}

func (m *Machine) checkMask() []Finding {
	visible, what, err := Visible(m.devices, m.o.Env)
	switch {
	case err != nil:
		return found("visible GPUs", StatusFail, err.Error(), "set CUDA_DEVICE_ORDER=PCI_BUS_ID or use UUIDs")
	case len(visible) == 0 && len(m.devices) > 0:
		return found("visible GPUs", StatusFail, what+" hides all GPUs", "unset it")
	}
	return found("visible GPUs", StatusOK, fmt.Sprintf("%d (%s)", len(visible), what), "")
}

// checkVLLM finds vLLM's version from its installation, without importing it:
// the import takes up to 25 s.
func (m *Machine) checkVLLM(ctx context.Context, command []string) []Finding {
	if len(command) == 0 {
		command = []string{"vllm"}
	}
	path, err := proc.LookPath(command[0], m.o.Env, "")
	if err != nil {
		return found("vllm", StatusFail, command[0]+" is not on the PATH",
			"pip install vllm, or name it: engine \"vllm\" { command = [\"/path/to/vllm\"] }")
	}
	python, err := proc.Interpreter(path)
	switch {
	case err != nil:
		return found("vllm", StatusFail, err.Error(), "install vLLM anew")
	case python == nil:
		return found("vllm", StatusInfo, path+" is no Python script: its first log line has the version", "")
	}
	const script = `import importlib.metadata as m
for p in ('vllm','torch'):
  try: print(p, m.version(p))
  except m.PackageNotFoundError: print(p, '-')`
	out, err := m.o.RunTool(ctx, append(python, "-c", script)...)
	if err == nil && out.Code != 0 {
		err = errors.New(out.Text())
	}
	if err != nil {
		says := fmt.Sprintf("%s: its Python %s does not run: %v", path, strings.Join(python, " "), err)
		return found("vllm", StatusFail, says, "install vLLM anew")
	}
	return judgeVLLM(path, strings.Fields(string(out.Stdout)))
}

// judgeVLLM judges what the script told: "vllm", its version, "torch", its version.
func judgeVLLM(path string, told []string) []Finding {
	if len(told) != 4 || told[1] == "-" {
		return found("vllm", StatusFail, path+": its Python has no package vllm", "install vLLM in that environment")
	}
	out := found("vllm", StatusOK, fmt.Sprintf("%s (%s), torch %s", told[1], path, told[3]), "")
	var major, minor int
	if _, err := fmt.Sscanf(told[1], "%d.%d", &major, &minor); err == nil && major == 0 && minor < 9 {
		out[0].Status = StatusWarn
		out[0].Fix = "versions before 0.9 may lack `vllm bench latency`: " +
			"name the script with engine \"vllm\" { benchmark = [...] }"
	}
	return out
}

// Free space below which results may not fit: raw logs and samples of a sweep
// are some MiB a run.
const (
	diskFail = 256 << 20
	diskWarn = 5 << 30
)

func checkDisk(dir string) []Finding {
	if dir == "" {
		dir = "."
	}
	at := dir
	for !sampling.Exists(at) { // the folder that would be made: the nearest that is there
		up := filepath.Dir(at)
		if up == at {
			break
		}
		at = up
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return found("disk", StatusWarn, fmt.Sprintf("%s: %v", at, err), "")
	}
	if unix.Access(at, unix.W_OK) != nil {
		return found("disk", StatusFail, at+" cannot be written to", "choose another output { dir = ... }")
	}
	free := int64(st.Bavail) * blockSize(&st)
	says := fmt.Sprintf("%.1f GiB free for %s", float64(free)/(1<<30), dir)
	switch {
	case free < diskFail:
		return found("disk", StatusFail, says, "make room, or choose another output { dir = ... }")
	case free < diskWarn:
		return found("disk", StatusWarn, says,
			"make room: models that are downloaded and torch.compile's cache need some GiB too")
	}
	return found("disk", StatusOK, says, "")
}

// checkShm looks at the shared memory that vLLM's workers and NCCL talk through.
func checkShm(dev string) []Finding {
	const name = "shared memory"
	var st unix.Statfs_t
	dir := filepath.Join(dev, "shm")
	if err := unix.Statfs(dir, &st); err != nil {
		return found(name, StatusInfo, fmt.Sprintf("%s: %v", dir, err), "")
	}
	size := int64(st.Blocks) * blockSize(&st)
	if size < 1<<30 {
		return found(name, StatusWarn, fmt.Sprintf("%s has %d MiB", dir, size>>20),
			"with tensor_parallel_size over 1 vLLM and NCCL may fail: docker run --ipc=host or --shm-size=8g")
	}
	return found(name, StatusOK, fmt.Sprintf("%.1f GiB", float64(size)/(1<<30)), "")
}

// checkClock looks at what time stamps and samplers hang on.
func checkClock(sys string) []Finding {
	var out []Finding
	src := sampling.ReadText(sys, "devices", "system", "clocksource", "clocksource0", "current_clocksource")
	switch {
	case slices.Contains([]string{"hpet", "acpi_pm", "refined-jiffies", "jiffies"}, src):
		out = found("clock source", StatusWarn, src+": reading the clock is slow",
			"find out why the kernel gave up tsc (dmesg), or live with fewer samples")
	case src != "":
		out = found("clock source", StatusOK, src, "")
	}
	synced, err := clockSynchronised()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return out
	case err != nil:
		return append(out, found("clock", StatusInfo, err.Error(), "")...)
	case synced:
		return append(out, found("clock", StatusOK, "synchronised", "")...)
	}
	return append(out, found("clock", StatusInfo,
		"the kernel says that nothing keeps the wall clock right (in a VM the host may)",
		"run chrony or systemd-timesyncd; "+
			"intervals inside a run come from the monotonic clock and are right all the same")...)
}

// checkTimer measures how well 10 ms ticks are kept, as a sampler would.
func checkTimer() []Finding {
	const n = 20
	sched := sampling.NewSchedule(MinInterval)
	defer sched.Stop()
	worst := time.Duration(0)
	last := time.Time{}
	for range n {
		sched.Wait(context.Background())
		now := time.Now()
		if !last.IsZero() {
			worst = max(worst, now.Sub(last)-MinInterval)
		}
		last = now
	}
	says := fmt.Sprintf("of %d ticks of 10 ms the worst came %.1f ms late", n, sampling.MS(worst))
	if worst > MinInterval {
		return found("timer", StatusWarn, says, "the machine is too busy for 100 Hz: sample { interval = \"100ms\" }")
	}
	return found("timer", StatusOK, says, "")
}

// checkLoad looks for others that would disturb latencies.
func checkLoad(procRoot string) []Finding {
	text := sampling.ReadText(procRoot, "loadavg")
	load, err := strconv.ParseFloat(strings.SplitN(text+" ", " ", 2)[0], 64)
	if err != nil {
		return nil
	}
	cores := 0
	for line := range strings.Lines(sampling.ReadText(procRoot, "stat")) {
		if strings.HasPrefix(line, "cpu") && len(line) > 3 && line[3] >= '0' && line[3] <= '9' {
			cores++
		}
	}
	says := fmt.Sprintf("%.1f on %d cores", load, cores)
	if cores > 0 && load > float64(cores)/2 {
		return found("load", StatusWarn, says,
			"others use the processors: latencies will be longer and less steady")
	}
	return found("load", StatusOK, says, "")
}
