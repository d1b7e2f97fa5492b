package gpu

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner/gpu/amd"
	"github.com/vramsweep/vramsweep/runner/gpu/nvidia"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// Options say where a machine's instruments are.
type Options = sampling.Options

// A Run is what the samplers of one run need to know.
type Run = sampling.Run

// A SourceStatus says what a source can do on this machine.
type SourceStatus = sampling.SourceStatus

// The bounds of an interval: what a sweep may ask for.
const (
	MinInterval     = sampling.MinInterval
	MaxInterval     = sampling.MaxInterval
	DefaultInterval = sampling.DefaultInterval
)

// CheckSources refuses names that are no source of GPU figures.
func CheckSources(names []string) error {
	for _, name := range names {
		if known := sampling.DefaultSources(); !slices.Contains(known, name) {
			return fmt.Errorf("there is no sampler %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// NVMLHelperMain is the helper child, of NVML and of amdgpu: it reads its orders
// from stdin, one line of JSON, and writes frames to stdout until stdin ends. It
// returns the exit code. It runs in a process of its own because a driver that
// hangs or a library that crashes takes its process along.
func NVMLHelperMain(stdin io.Reader, stdout io.Writer) int {
	in := bufio.NewReader(stdin)
	line, err := in.ReadBytes('\n')
	if err != nil && len(line) == 0 {
		return 2
	}
	out := sampling.NewWire(stdout)
	var orders struct {
		Source string `json:"source"`
	}
	if err := json.Unmarshal(line, &orders); err != nil {
		return out.Fail(err)
	}
	if orders.Source == sampling.SourceAMDGPU {
		return amd.Help(line, in, out)
	}
	return nvidia.Help(line, in, out)
}
