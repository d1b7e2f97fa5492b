package gpu

import (
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

func nv(n int, names ...string) []runner.Device {
	var out []runner.Device
	for i := range n {
		name := "NVIDIA H100"
		if i < len(names) {
			name = names[i]
		}
		out = append(out, runner.Device{Index: i, Vendor: "nvidia", Name: name, UUID: "GPU-" + string(rune('a'+i)) + "000-1", PCIBusID: "00000000:0" + string(rune('0'+i)) + ":00.0"})
	}
	return out
}

func TestSelect(t *testing.T) {
	mig := append(nv(2), runner.Device{Index: 0, Vendor: "nvidia", Name: "MIG 1g.18gb", UUID: "MIG-77", Parent: "GPU-a000-1", MIG: true})
	idx := func(n int) *int { return &n }
	amd := []runner.Device{
		{Index: 0, Vendor: "amd", UUID: "aa11", PCIBusID: "0000:10:00.0", ComputeIndex: idx(1)},
		{Index: 1, Vendor: "amd", UUID: "bb22", PCIBusID: "0000:20:00.0", ComputeIndex: idx(0)},
		{Index: 2, Vendor: "amd", UUID: "cc33", PCIBusID: "0000:30:00.0", ComputeIndex: idx(2)},
	}
	mixed := nv(2, "NVIDIA H100", "NVIDIA T4")
	tests := []struct {
		name    string
		devices []runner.Device
		env     string // blank-separated
		gpus    []int
		want    int
		get     []string // UUIDs
		err     string
	}{
		{name: "first ones", devices: nv(4), want: 2, get: []string{"GPU-a000-1", "GPU-b000-1"}},
		{name: "all", devices: nv(2), get: []string{"GPU-a000-1", "GPU-b000-1"}},
		{name: "gpus in their order", devices: nv(4), gpus: []int{3, 1}, want: 2, get: []string{"GPU-d000-1", "GPU-b000-1"}},
		{name: "gpus, fewer asked", devices: nv(4), gpus: []int{3, 1}, want: 1, get: []string{"GPU-d000-1"}},
		{name: "no GPU", want: 2},
		{name: "no GPU but named", gpus: []int{0}, want: 1, err: "no GPU that can be seen"},
		{name: "too few", devices: nv(1), want: 2, err: "tensor_parallel_size asks for 2 GPUs, 1 can be used"},
		{name: "no such", devices: nv(2), gpus: []int{5}, want: 1, err: "there is no GPU 5; this machine has 0 (NVIDIA H100), 1"},
		{name: "twice", devices: nv(2), gpus: []int{1, 1}, want: 2, err: "names GPU 1 twice"},
		{name: "mask by index", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=2,0", want: 2, get: []string{"GPU-c000-1", "GPU-a000-1"}},
		{name: "mask by UUID", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=GPU-d000-1", want: 1, get: []string{"GPU-d000-1"}},
		{name: "mask by prefix", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=GPU-c", want: 1, get: []string{"GPU-c000-1"}},
		{name: "ambiguous prefix", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=GPU-", want: 1, err: "beginning of several"},
		{name: "mask ends at the first invalid", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=1,-1,2", want: 1, get: []string{"GPU-b000-1"}},
		{name: "empty mask hides all", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=", want: 1, err: "0 can be used (CUDA_VISIBLE_DEVICES=)"},
		{name: "hidden", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=1", gpus: []int{0}, want: 1, err: "GPU 0 is hidden (CUDA_VISIBLE_DEVICES=1); visible are 1"},
		{name: "mixed GPUs by index", devices: mixed, env: "CUDA_VISIBLE_DEVICES=0", want: 1, err: "CUDA_DEVICE_ORDER=PCI_BUS_ID"},
		{name: "mixed GPUs in bus order", devices: mixed, env: "CUDA_VISIBLE_DEVICES=1 CUDA_DEVICE_ORDER=PCI_BUS_ID", want: 1, get: []string{"GPU-b000-1"}},
		{name: "MIG", devices: mig, env: "CUDA_VISIBLE_DEVICES=MIG-77", want: 1, get: []string{"MIG-77"}},
		{name: "MIG parts are no GPUs", devices: mig, want: 2, get: []string{"GPU-a000-1", "GPU-b000-1"}},
		{name: "HIP order", devices: amd, want: 3, get: []string{"bb22", "aa11", "cc33"}},
		{name: "HIP mask", devices: amd, env: "HIP_VISIBLE_DEVICES=2,0", want: 2, get: []string{"cc33", "bb22"}},
		{name: "HIP mask in what ROCR leaves", devices: amd, env: "ROCR_VISIBLE_DEVICES=1,2 HIP_VISIBLE_DEVICES=1", want: 1, get: []string{"cc33"}},
		{name: "ROCR by UUID", devices: amd, env: "ROCR_VISIBLE_DEVICES=GPU-aa11", want: 1, get: []string{"aa11"}},
		{name: "CUDA mask serves HIP", devices: amd, env: "CUDA_VISIBLE_DEVICES=1", want: 1, get: []string{"aa11"}},
		{name: "gpus by the bus order", devices: amd, gpus: []int{0}, want: 1, get: []string{"aa11"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Select(tt.devices, strings.Fields(tt.env), tt.gpus, tt.want)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var uuids []string
			for _, d := range got {
				uuids = append(uuids, d.UUID)
			}
			if !slices.Equal(uuids, tt.get) {
				t.Errorf("got %v, want %v", uuids, tt.get)
			}
		})
	}
}

func TestEngineEnv(t *testing.T) {
	all := nv(4)
	got, err := EngineEnv(all, []runner.Device{all[3], all[1]}, nil)
	if err != nil || !slices.Equal(got, []string{"CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=3,1"}) {
		t.Errorf("%v %v", got, err)
	}
	idx := func(n int) *int { return &n }
	amd := []runner.Device{
		{Index: 0, Vendor: "amd", PCIBusID: "a", ComputeIndex: idx(1)}, {Index: 1, Vendor: "amd", PCIBusID: "b", ComputeIndex: idx(0)}, {Index: 2, Vendor: "amd", PCIBusID: "c", ComputeIndex: idx(2)},
	}
	got, err = EngineEnv(amd, amd[:1], nil)
	if err != nil || !slices.Equal(got, []string{"HIP_VISIBLE_DEVICES=1"}) {
		t.Errorf("%v %v", got, err)
	}
	got, err = EngineEnv(amd, amd[2:], []string{"ROCR_VISIBLE_DEVICES=1,2"})
	if err != nil || !slices.Equal(got, []string{"HIP_VISIBLE_DEVICES=1"}) {
		t.Errorf("within ROCR_VISIBLE_DEVICES: %v %v", got, err)
	}
}
