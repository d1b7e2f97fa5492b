package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

// TestCPUsOf: two nodes of four cores with two threads each, two GPUs on a node.
func TestCPUsOf(t *testing.T) {
	sys := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		name = filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var machine []runner.Device
	for i, bus := range []string{"00000000:1B:00.0", "00000000:3D:00.0", "00000000:9A:00.0", "00000000:BE:00.0"} {
		machine = append(machine, runner.Device{Index: i, PCIBusID: bus})
	}
	for bus, list := range map[string]string{"1b": "0-3,8-11", "3d": "0-3,8-11", "9a": "4-7,12-15", "be": "4-7,12-15"} {
		put("bus/pci/devices/0000:"+bus+":00.0/local_cpulist", list)
	}
	for cpu := range 16 {
		put(fmt.Sprintf("devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu), fmt.Sprintf("%d,%d", cpu%8, cpu%8+8))
	}
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	for _, c := range []struct {
		name    string
		allowed []int
		own     []int
		want    []int
	}{
		{"half of the first node, whole cores", all, []int{0}, []int{0, 1, 8, 9}},
		{"the other half", all, []int{1}, []int{2, 3, 10, 11}},
		{"a node", all, []int{2, 3}, []int{4, 5, 6, 7, 12, 13, 14, 15}},
		{"what a scheduler left", []int{0, 1, 8, 9}, []int{1}, []int{8}},
		{"nothing near is allowed: what there is, divided", []int{0, 1, 2, 3}, []int{3}, []int{3}},
		{"fewer CPUs than GPUs", []int{0}, []int{0}, nil},
	} {
		var own []runner.Device
		for _, i := range c.own {
			own = append(own, machine[i])
		}
		if got := CPUsOf(sys, c.allowed, machine, own); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestCPUTime(t *testing.T) {
	proc := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(proc, "stat"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2 3\n")
	if busy, all, err := CPUTime(proc); err != nil || busy != 1.5 || all != 10 {
		t.Errorf("busy %v of %v: %v", busy, all, err)
	}
	write("intr 1 2 3\n")
	if _, _, err := CPUTime(proc); err == nil {
		t.Error("a file without CPU times is read")
	}
}
