package host

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// CPUTime is how long the CPUs of the host were busy, and all of their time, in
// seconds since boot: the first line of /proc/stat (proc_stat(5)). Waiting for
// disks counts as idle.
func CPUTime(proc string) (busy, all float64, err error) {
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0, 0, fmt.Errorf("CPU time of the host: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return 0, 0, fmt.Errorf("CPU time of the host: %s/stat begins with %.80q, expected cpu and its times", proc, line)
	}
	for i, f := range fields[1:9] { // guests' time stands in user and nice already
		ticks, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("CPU time of the host: %w", err)
		}
		all += float64(ticks) / clockTicks
		if i != 3 && i != 4 { // idle, iowait
			busy += float64(ticks) / clockTicks
		}
	}
	return busy, all, nil
}

// CPUsOf are the CPUs for an engine on some of the machine's GPUs: those of allowed
// that lie near each of them (of its NUMA node), divided among the GPUs that lie
// there as well. Two threads of a core stay together. Empty: there are fewer
// CPUs than GPUs. sys is the root of /sys.
func CPUsOf(sys string, allowed []int, machine, own []runner.Device) []int {
	near := map[int][]int{} // CPUs by the index of a GPU
	for _, d := range machine {
		near[d.Index] = nearCPUs(sys, d.PCIBusID, allowed)
	}
	var out []int
	for _, d := range own {
		cpus, at, n := near[d.Index], 0, 0
		for _, other := range machine {
			if slices.Equal(near[other.Index], cpus) {
				if other.Index == d.Index {
					at = n
				}
				n++
			}
		}
		out = append(out, Part(sys, cpus, at, n)...)
	}
	slices.Sort(out)
	return out
}

// Part is part i, from 0, of CPUs that are divided into n equal ones.
func Part(sys string, cpus []int, i, n int) []int {
	core := map[int]int{}
	for _, cpu := range cpus {
		core[cpu] = cpu
		name := filepath.Join(sys, "devices/system/cpu", fmt.Sprintf("cpu%d", cpu), "topology/thread_siblings_list")
		if list := cpuList(name); len(list) > 0 {
			core[cpu] = list[0]
		}
	}
	cpus = slices.Clone(cpus)
	slices.SortStableFunc(cpus, func(a, b int) int { return cmp.Or(core[a]-core[b], a-b) })
	each := len(cpus) / max(n, 1)
	return cpus[i*each : (i+1)*each]
}

// nearCPUs are those of a PCI device's NUMA node; all that are allowed where that
// is not known.
func nearCPUs(sys, bus string, allowed []int) []int {
	bus = strings.ToLower(bus[max(0, len(bus)-len("0000:00:00.0")):]) // the driver writes eight digits of the domain
	local := cpuList(filepath.Join(sys, "bus/pci/devices", bus, "local_cpulist"))
	near := slices.DeleteFunc(slices.Clone(allowed), func(cpu int) bool { return !slices.Contains(local, cpu) })
	if len(near) == 0 {
		return allowed
	}
	return near
}

// cpuList reads a file such as "0-3,8"; empty where it cannot be read.
func cpuList(name string) (cpus []int) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if ranged && err == nil {
			last, err = strconv.Atoi(to)
		}
		if err != nil || last-first > 1<<16 {
			return nil
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}
