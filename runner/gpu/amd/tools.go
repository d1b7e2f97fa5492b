package amd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// toolCommand is the call of a tool that yields the figures of a sample.
// Explicit sections: the default of newer versions rounds memory to 0.1 GiB.
func toolCommand(o sampling.Options, tool string) []string {
	if tool == sampling.SourceROCmSMI {
		return []string{
			o.ROCmSMI, "--showmeminfo", "vram", "--showuse", "--showmemuse", "--showtemp", "--showpower", "--showclocks",
			"--showbus", "--showuniqueid", "--json",
		}
	}
	return []string{o.AMDSMI, "metric", "-m", "-u", "-p", "-c", "-t", "-e", "--json"}
}

// A toolError is an error that amd-smi printed where a reading was expected,
// maybe with exit code 0.
type toolError struct{ message, code string }

func (e *toolError) Error() string {
	if e.code != "" && e.code != "0" {
		return fmt.Sprintf("amd-smi says: %s (code %s)", e.message, e.code)
	}
	return "amd-smi says: " + e.message
}

var errNoReading = errors.New("no output of amd-smi or rocm-smi is in it")

// callTool calls a tool once and reads what it printed.
func callTool(ctx context.Context, o sampling.Options, tool string) ([]sampling.GPU, *sampling.Output, error) {
	argv := toolCommand(o, tool)
	out, err := o.RunTool(ctx, argv...)
	if err != nil {
		return nil, &sampling.Output{}, err
	}
	read := readAMDSMI
	if tool == sampling.SourceROCmSMI {
		read = readROCmSMI
	}
	gpus, err := read(out.Stdout)
	for i := range gpus {
		gpus[i].CheckMemory()
	}
	var said *toolError
	if err != nil && !errors.As(err, &said) || err == nil && len(gpus) == 0 {
		err = fmt.Errorf("%s (exit code %d): %s", strings.Join(argv, " "), out.Code, out.Text())
	}
	return gpus, out, err
}

// setText parses a cell "71.24 W", "0 %", "N/A" and keeps the figure or the
// reason. unit is used where the cell has none. It reports whether there was a
// figure.
func setText(g *sampling.GPU, f runner.Fields, d sampling.Dimension, cell, unit string) bool {
	v, own, ok := sampling.ParseDecimal([]byte(cell))
	if len(own) > 0 {
		unit = string(own)
	}
	factor, known := sampling.UnitFactor(d, []byte(unit))
	switch {
	case ok && known && sampling.Put(&g.Sample, f, v*factor):
		delete(g.Missing, sampling.FieldName(f))
		return true
	case ok && known:
		g.Lacks(f, sampling.Impossible(cell))
	case ok:
		g.Lacks(f, fmt.Sprintf("unknown unit in %q", cell))
	case strings.TrimSpace(cell) == "":
		g.Lacks(f, "empty")
	default:
		g.Lacks(f, strings.TrimSpace(cell))
	}
	return false
}

// slowSource samples by calling a tool again and again: only where nothing else
// works. The interval is what the tool makes possible.
type slowSource struct {
	o       sampling.Options
	r       sampling.Run
	tool    string
	devices []runner.Device
	first   []sampling.GPU
}

// Name implements sampling.Source.
func (s *slowSource) Name() string { return s.tool }

// noteMemory says what the memory figures of a GPU are.
func noteMemory(m *sampling.Meter, g *sampling.GPU) {
	if text := g.Texts[sampling.TextMemory]; text != "" {
		m.Note("GPU %d: memory is %s", g.Index, text)
	}
}

// slowPause between two calls: a tool that takes a second shall not take a core.
const slowPause = time.Second

// Run calls the tool until ctx ends or it fails.
func (s *slowSource) Run(ctx context.Context, m *sampling.Meter) error {
	m.PowerKind(sampling.PowerAveraged)
	for _, f := range []runner.Fields{runner.HasThrottleReasons, runner.HasMemoryReserved, runner.HasProcessMemory} {
		m.Never(f, s.tool+" is called once a sample and is not asked for it")
	}
	m.Note("%s is started anew for every sample: they are about as far apart as a call takes", s.tool)
	for i := range s.first {
		noteMemory(m, &s.first[i])
	}
	sched := sampling.NewSchedule(max(s.r.Interval, slowPause))
	defer sched.Stop()
	bad := 0
	for sched.Wait(ctx) {
		began := time.Now()
		gpus, out, err := callTool(ctx, s.o, s.tool)
		m.ToolCPU(out.CPU)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if bad++; bad >= 3 {
				return err
			}
			m.Because(err.Error())
			continue
		}
		bad = 0
		m.Tick(s.samples(gpus, m.Offset(began)+out.Took/2, out.Took))
	}
	return nil
}

// samples dates a reading to the middle of the call that brought it.
func (s *slowSource) samples(gpus []sampling.GPU, at, took time.Duration) []runner.Sample {
	var out []runner.Sample
	for i := range gpus {
		d := place(s.devices, &gpus[i], i)
		if d == nil || !s.r.Wants(d.Index) {
			continue
		}
		smp := gpus[i].Sample
		smp.GPU, smp.Source, smp.Offset, smp.Read = int32(d.Index), s.tool, at, took
		out = append(out, smp)
	}
	return out
}

// place finds the GPU of a reading by its bus id, else by its place.
func place(devices []runner.Device, g *sampling.GPU, i int) *runner.Device {
	for j := range devices {
		if g.BusID != "" && sampling.BusKey(devices[j].PCIBusID) == sampling.BusKey(g.BusID) {
			return &devices[j]
		}
	}
	if i < len(devices) {
		return &devices[i]
	}
	return nil
}
