package gpu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

func describe(devices []runner.Device) string {
	if len(devices) == 0 {
		return "none"
	}
	var out []string
	for _, d := range devices {
		out = append(out, fmt.Sprintf("%d (%s)", d.Index, d.Name))
	}
	return strings.Join(out, ", ")
}

// whole leaves parts of GPUs (MIG, partitions) out.
func whole(devices []runner.Device) []runner.Device {
	return slices.DeleteFunc(slices.Clone(devices), func(d runner.Device) bool { return d.Parent != "" })
}

// Visible is what the environment's masks leave of the devices, in the order in
// which an engine counts them: CUDA_VISIBLE_DEVICES on NVIDIA,
// ROCR_VISIBLE_DEVICES and then HIP_VISIBLE_DEVICES (else CUDA_VISIBLE_DEVICES)
// on AMD. what names the mask for messages.
//
// Integer indices of CUDA_VISIBLE_DEVICES count in CUDA's order, fastest GPU
// first, unless CUDA_DEVICE_ORDER is PCI_BUS_ID. Where GPUs differ, that order
// is not known here, and Visible refuses to guess.
func Visible(devices []runner.Device, env []string) (visible []runner.Device, what string, err error) {
	amd := slices.ContainsFunc(devices, func(d runner.Device) bool { return d.Vendor == "amd" })
	nvidia := slices.ContainsFunc(devices, func(d runner.Device) bool { return d.Vendor != "amd" })
	if !nvidia && amd {
		return visibleAMD(devices, env)
	}
	return visibleNVIDIA(devices, env)
}

func visibleNVIDIA(devices []runner.Device, env []string) ([]runner.Device, string, error) {
	const name = "CUDA_VISIBLE_DEVICES"
	all := whole(devices)
	slices.SortStableFunc(all, func(a, b runner.Device) int { return a.Index - b.Index })
	mask, set := sampling.EnvValue(env, name)
	if !set {
		return oneInstance(all, devices), "no " + name + " is set", nil
	}
	what := name + "=" + mask
	out, err := applyMask(mask, all, devices, countable(all, env))
	if err != nil {
		return nil, what, fmt.Errorf("%s %w", what, err)
	}
	return oneInstance(out, devices), what, nil
}

// countable refuses indices in CUDA's order where GPUs differ: it is not known.
func countable(all []runner.Device, env []string) error {
	order, _ := sampling.EnvValue(env, "CUDA_DEVICE_ORDER")
	mixed := slices.ContainsFunc(all, func(d runner.Device) bool { return d.Name != all[0].Name })
	if order == "PCI_BUS_ID" || !mixed {
		return nil
	}
	return fmt.Errorf("names GPUs by index, but the GPUs differ (%s) and CUDA counts the fastest first: "+
		"set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID", describe(all))
}

// applyMask picks devices by their place in counted (unless that is refused) or
// by their UUID among named. What follows the first invalid entry is hidden, as
// CUDA and HIP have it; an empty mask hides all.
func applyMask(mask string, counted, named []runner.Device, refused error) ([]runner.Device, error) {
	var out []runner.Device
	for _, item := range strings.Split(mask, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if n, err := strconv.Atoi(item); err == nil {
			if n < 0 || n >= len(counted) {
				break
			}
			if refused != nil {
				return nil, refused
			}
			out = append(out, counted[n])
			continue
		}
		d, err := byUUID(named, item)
		if err != nil {
			return nil, err
		}
		if d == nil {
			break
		}
		out = append(out, *d)
	}
	return out, nil
}

// oneInstance puts the first MIG instance in the place of a GPU in MIG mode, and
// leaves out further instances of the same GPU: a CUDA process uses one, the
// first that it sees (NVIDIA MIG user guide, "CUDA device enumeration").
func oneInstance(list, devices []runner.Device) []runner.Device {
	var out []runner.Device
	for _, d := range list {
		if d.MIG && d.Parent == "" {
			first := slices.IndexFunc(devices, func(p runner.Device) bool { return p.Parent != "" && p.Parent == d.UUID })
			if first >= 0 {
				d = devices[first]
			}
		}
		if d.Parent != "" && slices.ContainsFunc(out, func(o runner.Device) bool { return o.Parent == d.Parent }) {
			continue
		}
		out = append(out, d)
	}
	return out
}

// byUUID finds a device by its UUID or the beginning of it, as CUDA does: GPU-...
// or MIG-... (drivers from 470 on; the older MIG-GPU-<uuid>/gi/ci is not known).
func byUUID(devices []runner.Device, prefix string) (*runner.Device, error) {
	var found *runner.Device
	for i := range devices {
		d := &devices[i]
		want := strings.ToLower(prefix)
		if d.Vendor == "amd" { // ROCr writes a UUID as GPU-<hex>, sysfs as <hex>
			want = strings.TrimPrefix(want, "gpu-")
		}
		if d.UUID == "" || !strings.HasPrefix(strings.ToLower(d.UUID), want) {
			continue
		}
		if d.Vendor == "nvidia" && strings.HasPrefix(prefix, "MIG-") != (d.Parent != "") {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%q is the beginning of several UUIDs", prefix)
		}
		found = d
	}
	return found, nil
}

// visibleAMD applies ROCR_VISIBLE_DEVICES to HIP's order, then
// HIP_VISIBLE_DEVICES (or CUDA_VISIBLE_DEVICES, which HIP honours too) to what
// is left.
func visibleAMD(devices []runner.Device, env []string) ([]runner.Device, string, error) {
	list := hipOrder(devices)
	var names []string
	for _, name := range []string{"ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"} {
		mask, set := sampling.EnvValue(env, name)
		if _, hip := sampling.EnvValue(env, "HIP_VISIBLE_DEVICES"); !set || name == "CUDA_VISIBLE_DEVICES" && hip {
			continue
		}
		names = append(names, name+"="+mask)
		var err error
		if list, err = applyMask(mask, list, list, nil); err != nil {
			return nil, name, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(names) == 0 {
		return list, "no mask of visible devices is set", nil
	}
	return list, strings.Join(names, ", "), nil
}

// hipOrder is the devices as HIP counts them: a partitioned GPU by its
// partitions, in KFD's order where it is told.
func hipOrder(devices []runner.Device) []runner.Device {
	var out []runner.Device
	for _, d := range devices {
		split := slices.ContainsFunc(devices, func(p runner.Device) bool {
			return p.Parent != "" && p.Parent == sampling.DeviceKey(d)
		})
		if d.Vendor == "amd" && (d.Parent != "" || !split) {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b runner.Device) int {
		if a.ComputeIndex != nil && b.ComputeIndex != nil {
			return *a.ComputeIndex - *b.ComputeIndex
		}
		return a.Index - b.Index
	})
	return out
}
