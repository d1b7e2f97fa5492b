package amd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// A kfdNode is a GPU node of /sys/class/kfd/kfd/topology/nodes/N.
type kfdNode struct {
	node     int
	gpuID    int64
	bdf      string // 0000:0a:00.0
	render   int    // /dev/dri/renderD<render>; -1: not told
	location int64
}

// parseKFD reads gpu_id and properties of a node; ok is false for a CPU node.
// location_id is bus<<8 | device<<3 | function, the domain stands apart.
func parseKFD(node int, gpuID, properties []byte) (kfdNode, bool) {
	n := kfdNode{node: node, render: -1}
	id, err := strconv.ParseInt(strings.TrimSpace(string(gpuID)), 10, 64)
	if err != nil || id == 0 {
		return n, false
	}
	n.gpuID = id
	var domain int64
	for line := range bytes.Lines(properties) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		v, err := strconv.ParseInt(value, 10, 64)
		switch key {
		case "location_id":
			n.location = v
		case "domain":
			domain = v
		case "drm_render_minor":
			if err == nil && v > 0 {
				n.render = int(v)
			}
		}
	}
	n.bdf = fmt.Sprintf("%04x:%02x:%02x.%x", domain, n.location>>8&0xff, n.location>>3&0x1f, n.location&7)
	return n, true
}

// kfdProc is where KFD keeps what each process holds.
func kfdProc(o sampling.Options) string { return filepath.Join(o.Sys, "class", "kfd", "kfd", "proc") }

// A kfdProcess is what KFD keeps of a process on one GPU.
type kfdProcess struct {
	pid   int
	gpuID int64
	bytes int64
}

// kfdProcesses lists what KFD keeps of every process; nil where there is no KFD.
func kfdProcesses(o sampling.Options) []kfdProcess {
	base := kfdProc(o)
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil
	}
	out := []kfdProcess{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		files, _ := filepath.Glob(filepath.Join(base, e.Name(), "vram_*"))
		for _, f := range files {
			id, err1 := strconv.ParseInt(strings.TrimPrefix(filepath.Base(f), "vram_"), 10, 64)
			n, err2 := strconv.ParseInt(sampling.ReadText(f), 10, 64)
			if err1 == nil && err2 == nil && n > 0 {
				out = append(out, kfdProcess{pid, id, n})
			}
		}
	}
	return out
}

// findKFD lists the GPU nodes in the order of HIP.
func findKFD(sys string) []kfdNode {
	base := filepath.Join(sys, "class", "kfd", "kfd", "topology", "nodes")
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil
	}
	var nodes []kfdNode
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		id, _ := os.ReadFile(filepath.Join(base, e.Name(), "gpu_id"))
		props, _ := os.ReadFile(filepath.Join(base, e.Name(), "properties"))
		if node, ok := parseKFD(n, id, props); ok {
			nodes = append(nodes, node)
		}
	}
	slices.SortFunc(nodes, func(a, b kfdNode) int { return a.node - b.node })
	return nodes
}
