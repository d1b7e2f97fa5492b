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

func TestVisible(t *testing.T) {
	sliced := nv(2) // GPU 0 is in MIG mode and has two instances
	sliced[0].MIG = true
	for _, id := range []string{"MIG-5a", "MIG-5b"} {
		sliced = append(sliced, runner.Device{Index: 0, Vendor: "nvidia", Name: "MIG 1g.18gb", UUID: id, Parent: sliced[0].UUID, MIG: true})
	}
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
		env     string   // blank-separated
		get     []string // UUIDs
		err     string
	}{
		{name: "no mask", devices: nv(2), get: []string{"GPU-a000-1", "GPU-b000-1"}},
		{name: "mask by index", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=2,0", get: []string{"GPU-c000-1", "GPU-a000-1"}},
		{name: "mask by UUID", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=GPU-d000-1", get: []string{"GPU-d000-1"}},
		{name: "mask by prefix", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=GPU-c", get: []string{"GPU-c000-1"}},
		{name: "ambiguous prefix", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=GPU-", err: "beginning of several"},
		{name: "mask ends at the first invalid", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=1,-1,2", get: []string{"GPU-b000-1"}},
		{name: "empty mask hides all", devices: nv(4), env: "CUDA_VISIBLE_DEVICES="},
		{name: "mixed GPUs by index", devices: mixed, env: "CUDA_VISIBLE_DEVICES=0", err: "CUDA_DEVICE_ORDER=PCI_BUS_ID"},
		{name: "mixed GPUs in bus order", devices: mixed, env: "CUDA_VISIBLE_DEVICES=1 CUDA_DEVICE_ORDER=PCI_BUS_ID", get: []string{"GPU-b000-1"}},
		{name: "MIG", devices: mig, env: "CUDA_VISIBLE_DEVICES=MIG-77", get: []string{"MIG-77"}},
		{name: "MIG by abbreviated UUID", devices: sliced, env: "CUDA_VISIBLE_DEVICES=MIG-5b", get: []string{"MIG-5b"}},
		{name: "MIG, ambiguous", devices: sliced, env: "CUDA_VISIBLE_DEVICES=MIG-5", err: "beginning of several"},
		{name: "a GPU in MIG mode is its first instance", devices: sliced, get: []string{"MIG-5a", "GPU-b000-1"}},
		{name: "a GPU in MIG mode by index", devices: sliced, env: "CUDA_VISIBLE_DEVICES=1,0", get: []string{"GPU-b000-1", "MIG-5a"}},
		{name: "a GPU in MIG mode by UUID", devices: sliced, env: "CUDA_VISIBLE_DEVICES=GPU-a", get: []string{"MIG-5a"}},
		{name: "CUDA uses one instance of a GPU", devices: sliced, env: "CUDA_VISIBLE_DEVICES=MIG-5b,MIG-5a", get: []string{"MIG-5b"}},
		{name: "UUIDs in any order and case", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=gpu-D000-1,GPU-a", get: []string{"GPU-d000-1", "GPU-a000-1"}},
		{name: "what follows an unknown UUID is hidden", devices: nv(4), env: "CUDA_VISIBLE_DEVICES=1,GPU-zz,2", get: []string{"GPU-b000-1"}},
		{name: "MIG parts are no GPUs", devices: mig, get: []string{"GPU-a000-1", "GPU-b000-1"}},
		{name: "HIP order", devices: amd, get: []string{"bb22", "aa11", "cc33"}},
		{name: "HIP mask", devices: amd, env: "HIP_VISIBLE_DEVICES=2,0", get: []string{"cc33", "bb22"}},
		{name: "HIP mask in what ROCR leaves", devices: amd, env: "ROCR_VISIBLE_DEVICES=1,2 HIP_VISIBLE_DEVICES=1", get: []string{"cc33"}},
		{name: "ROCR by UUID", devices: amd, env: "ROCR_VISIBLE_DEVICES=GPU-aa11", get: []string{"aa11"}},
		{name: "CUDA mask serves HIP", devices: amd, env: "CUDA_VISIBLE_DEVICES=1", get: []string{"aa11"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := Visible(tt.devices, strings.Fields(tt.env))
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
