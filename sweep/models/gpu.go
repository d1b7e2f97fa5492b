package models

import (
	"sort"
	"strings"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// gpuEntry is a GPU with the words of a product name that stand for it.
type gpuEntry struct {
	GPU
	words []string // all must be in the product's name
	not   []string // none may be
}

// GPUs lists the devices that the package knows, sorted by name.
//
// TotalBytes is what torch.cuda.mem_get_info counts and vLLM multiplies by
// gpu_memory_utilization; DriverTotal is what nvidia-smi or amd-smi counts. The
// difference is the driver's reserve. A Nominal entry was not seen by anybody
// whom Source names: its sizes follow from the vendor's data sheet, and
// estimates for it carry a wider interval. Context is 0: the laws have it.
func GPUs() []GPU {
	var list []GPU
	for _, e := range gpuEntries() {
		list = append(list, e.GPU)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// nvidia is one entry: driver total and reserve in MiB, as nvidia-smi prints
// them, multiprocessors, and the second-level cache in MiB. These two are from the vendors'
// architecture papers and data sheets (an H200 has all twelve memory controllers,
// with 5 MiB each, where an H100 has ten).
func nvidia(name, product, arch string, total, reserve, sms, l2 int64, source string, words ...string) gpuEntry {
	return gpuEntry{words: words, not: []string{"mig", "nvl", "vgpu", "laptop"}, GPU: GPU{
		Name: name, Product: product, Vendor: "nvidia", Arch: arch, SMs: sms, L2: l2 * mib,
		DriverTotal: total * mib, Reserve: reserve * mib, TotalBytes: (total - reserve) * mib,
		Nominal: strings.HasPrefix(source, "nominal:"), Source: source,
	}}
}

// amd is one entry: VRAM in MiB, as amd-smi static prints it ("MB"); HIP counts
// the same.
func amd(name, product, arch string, total, sms, l2 int64, source string) gpuEntry {
	e := nvidia(name, product, arch, total, 0, sms, l2, source, name)
	e.Vendor, e.not = "amd", nil
	return e
}

func gpuEntries() []gpuEntry {
	return []gpuEntry{
		nvidia("a100-40gb", "NVIDIA A100-SXM4-40GB", "ampere", 40960, 451, 108, 40,
			"a vLLM 0.8 log on A100 40GB (39.56 GiB of 40 GiB)", "a100", "40gb"),
		nvidia("a100-80gb", "NVIDIA A100-SXM4-80GB", "ampere", 81920, 869, 108, 40,
			"nominal: vLLM logs on A100 80GB (79.15 GiB of 80 GiB)", "a100", "80gb"),
		nvidia("h100-80gb", "NVIDIA H100 80GB HBM3", "hopper", 81559, 480, 132, 50,
			"measured: nvidia-smi of driver 580 (81559 MiB, 480 MiB reserved), vLLM 0.26 (79.18 GiB, 78.66 free)", "h100"),
		nvidia("h200", "NVIDIA H200", "hopper", 143771, 614, 132, 60,
			"nvidia-smi of driver 590 (143771 MiB, 614 MiB reserved)", "h200"),
		nvidia("b200", "NVIDIA B200", "blackwell", 183359, 725, 148, 126,
			"nominal: nvidia-smi total as the vendor lists it; reserve from vLLM logs (178.35 GiB)", "b200"),
		nvidia("l4", "NVIDIA L4", "ada", 23034, 460, 58, 48,
			"nominal: nvidia-smi total as the vendor lists it; reserve as of other Ada devices", "l4"),
		nvidia("l40s", "NVIDIA L40S", "ada", 46068, 609, 142, 96,
			"nvidia-smi of driver 595 (46068 MiB, 609 MiB reserved)", "l40s"),
		nvidia("a10g", "NVIDIA A10G", "ampere", 23028, 435, 80, 6,
			"nvidia-smi -q -x (23028 MiB, 435 MiB reserved)", "a10g"),
		nvidia("rtx-4090", "NVIDIA GeForce RTX 4090", "ada", 24564, 346, 128, 72,
			"nvidia-smi -q -x of driver 535 (24564 MiB, 346 MiB reserved)", "4090"),
		nvidia("t4", "Tesla T4", "turing", 15360, 388, 40, 4, "nvidia-smi -q -x (15360 MiB, 388 MiB reserved)", "t4"),
		amd("mi210", "AMD Instinct MI210", "cdna2", 65520, 104, 8, "amd-smi static of ROCm 7 (65520 MB)"),
		amd("mi250x", "AMD Instinct MI250X", "cdna2", 65520, 110, 8, "nominal: one of the two dies of the card, "+
			"as ROCm counts devices; size as of the MI210, which has the same memory"),
		amd("mi300x", "AMD Instinct MI300X", "cdna3", 196592, 304, 4, "amd-smi static (196592 MB)"),
		amd("mi325x", "AMD Instinct MI325X", "cdna3", 262128, 304, 4,
			"nominal: 256 GiB less the 16 MiB that other Instinct devices keep"),
		amd("mi355x", "AMD Instinct MI355X", "cdna4", 294896, 256, 4,
			"nominal: 288 GiB less the 16 MiB that other Instinct devices keep"),
	}
}

// LookupGPU finds a device by its name in the catalogue, or by the name that a
// driver gives the product ("NVIDIA H100 80GB HBM3"). Case does not matter.
// Products of the same chip with another memory size (H100 NVL, MIG slices)
// are not found: a wrong size is worse than none.
func LookupGPU(name string) (GPU, bool) {
	key := strings.ToLower(strings.TrimSpace(name))
	entries := gpuEntries()
	for _, e := range entries {
		if key == e.Name || key == strings.ToLower(e.Product) {
			return e.GPU, true
		}
	}
	words := map[string]bool{}
	for _, w := range strings.FieldsFunc(key, separates) {
		words[w] = true
	}
	for _, e := range entries {
		if e.matches(words) {
			return e.GPU, true
		}
	}
	return GPU{}, false
}

// separates says that r stands between the words of a product's name.
func separates(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }

func (e gpuEntry) matches(words map[string]bool) bool {
	for _, w := range e.not {
		if words[w] {
			return false
		}
	}
	for _, w := range e.words {
		if !words[w] {
			return false
		}
	}
	sized := false // another size than the entry's own
	for w := range words {
		if strings.HasSuffix(w, "gb") && !strings.Contains(strings.ToLower(e.Product)+e.Name, w) {
			sized = true
		}
	}
	return !sized
}
