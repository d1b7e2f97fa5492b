package nvidia

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// An smiQuery is a question to nvidia-smi and what was learnt by asking it.
type smiQuery struct {
	o    sampling.Options
	cols []smiColumn
	took time.Duration       // of the last call: the tool's start-up
	cpu  func(time.Duration) // hears what each call cost; nil: nobody
}

func (q *smiQuery) argv(format string, ids []string) []string {
	argv := []string{q.o.NvidiaSMI, "--query-gpu=" + columnNames(q.cols), "--format=" + format}
	if len(ids) > 0 {
		argv = append(argv, "-i", strings.Join(ids, ","))
	}
	return argv
}

// ask calls the tool once with header and units. Fields that it refuses are left
// out, now and later, or asked for by their older name; refused (nil: nobody)
// hears of a figure that is lost by that.
func (q *smiQuery) ask(ctx context.Context, ids []string, refused func(smiColumn)) (*sampling.Output, error) {
	for range 2*len(q.cols) + 1 {
		out, err := q.o.RunTool(ctx, q.argv("csv", ids)...)
		if err != nil {
			return nil, err
		}
		q.took = out.Took
		if q.cpu != nil {
			q.cpu(out.CPU)
		}
		name := refusedField(out)
		if name == "" {
			return out, nil
		}
		if err := q.drop(name, refused); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: refuses its fields one after another", sampling.ErrUnusable)
}

// drop takes a refused field out of the query, or puts its older name in.
func (q *smiQuery) drop(name string, refused func(smiColumn)) error {
	i := slices.IndexFunc(q.cols, func(c smiColumn) bool { return c.name == name })
	if i < 0 {
		return fmt.Errorf("%w: refuses the field %q, which was not asked for", sampling.ErrUnusable, name)
	}
	c := q.cols[i]
	q.cols = slices.Clone(q.cols)
	switch {
	case c.alias != "":
		q.cols[i].name, q.cols[i].alias = c.alias, ""
		return nil
	case c.kind == colIndex:
		return fmt.Errorf("%w: does not know the field %s", sampling.ErrUnusable, name)
	}
	q.cols = slices.Delete(q.cols, i, i+1)
	again := slices.ContainsFunc(q.cols, func(o smiColumn) bool { return o.field == c.field })
	if refused != nil && c.field != 0 && !again {
		refused(c)
	}
	return nil
}

// rows takes the units from the header of an answer and returns what follows.
func (q *smiQuery) rows(out *sampling.Output) ([]byte, error) {
	header, rows, _ := bytes.Cut(out.Stdout, []byte{'\n'})
	switch said := out.Text(); {
	case bytes.Count(header, []byte{','}) == len(q.cols)-1:
		return rows, readHeader(header, q.cols)
	case said == "":
		return nil, fmt.Errorf("printed nothing, with exit code %d", out.Code)
	default:
		return nil, fmt.Errorf("exit code %d: %s", out.Code, said)
	}
}

var (
	refusedRE = regexp.MustCompile(`Field "([^"]+)" is not a valid field to query`)
	lostRE    = regexp.MustCompile(
		`(?i)Unable to determine the device handle for GPU\s*([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])`)
)

func refusedField(out *sampling.Output) string { return said(out, refusedRE) }

// lostBus is a GPU that the tool can no longer open.
func lostBus(out *sampling.Output) string { return sampling.BusKey(said(out, lostRE)) }

// said is what a message of the tool names: it stands on stdout or on stderr.
func said(out *sampling.Output, re *regexp.Regexp) string {
	for _, b := range [][]byte{out.Stdout, out.Stderr} {
		if m := re.FindSubmatch(b); m != nil {
			return string(m[1])
		}
	}
	return ""
}

// readSMI is a full reading without processes.
func (v *GPUs) readSMI(ctx context.Context, ids []string) (*sampling.Reading, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	out, err := v.query.ask(ctx, ids, nil)
	if err != nil {
		return nil, err
	}
	return v.query.reading(out)
}

func (q *smiQuery) reading(out *sampling.Output) (*sampling.Reading, error) {
	rows, err := q.rows(out)
	if err != nil {
		return nil, fmt.Errorf("nvidia-smi: %w", err)
	}
	r := &sampling.Reading{Tool: sampling.SourceNvidiaSMI}
	for line := range bytes.Lines(rows) {
		g := sampling.NewGPU(-1)
		row := smiRow{texts: map[string]string{}}
		miss := func(f runner.Fields, why []byte) { g.Lacks(f, string(why)) }
		if !parseSMIRow(bytes.TrimSpace(line), q.cols, &row, miss) {
			continue // an XID or ECC event, a warning
		}
		row.describe(&g)
		r.Driver = row.texts["driver_version"]
		r.GPUs = append(r.GPUs, g)
	}
	return r, nil
}

// describe gives a GPU what a row of a full reading tells.
func (r *smiRow) describe(g *sampling.GPU) {
	g.Index, g.BusID, g.Sample = int(r.index), string(r.busID), r.sample
	g.UUID, g.Name = r.texts["uuid"], r.texts["name"]
	for name, key := range map[string]string{
		"persistence_mode": "persistence_mode", "compute_mode": "compute_mode", "compute_cap": "compute_cap",
		"mig.mode.current": "mig_mode", "gpu_recovery_action": "recovery_action",
	} {
		if text := r.texts[name]; text != "" {
			g.Texts[key] = text
		}
	}
	if n, err := strconv.ParseInt(r.texts["ecc.errors.uncorrected.volatile.total"], 10, 64); err == nil {
		g.ECC = &n
	}
	switch {
	case r.hasInstant:
		g.PowerKind = sampling.PowerInstant
		sampling.Put(&g.Sample, runner.HasPower, r.instant)
	case r.hasDrawn:
		g.PowerKind = sampling.PowerAveraged
		sampling.Put(&g.Sample, runner.HasPower, r.drawn)
	default:
		g.Lacks(runner.HasPower, string(powerAbsent))
	}
}

// appsLate is how much longer than the figures the processes of a full reading
// may take: both calls start at once and start up alike.
const appsLate = 2 * time.Second

// readFull calls nvidia-smi twice at once, for the figures and for the
// processes: one after the other would double the time a run waits. A list that
// does not come is not asked for again as long as NVML would not be.
func (v *GPUs) readFull(ctx context.Context, ids []string) (*sampling.Reading, error) {
	var apps *sampling.Output
	var appsErr error
	listing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan struct{})
	v.mu.Lock()
	hung := v.hung
	v.mu.Unlock()
	asked := hung.IsZero() || time.Since(hung) >= distrust
	if !asked {
		appsErr = fmt.Errorf("not asked for: the list of processes %w at %s",
			sampling.ErrHung, hung.UTC().Format(time.RFC3339))
		close(done)
	} else {
		go func() {
			defer close(done)
			if apps, appsErr = v.o.RunTool(listing, appsArgv(v.o)...); appsErr == nil {
				appsErr = appsError(apps)
			}
		}()
	}
	r, err := v.readSMI(ctx, ids)
	late := time.AfterFunc(appsLate, func() { stop(sampling.ErrHung) })
	defer late.Stop()
	if <-done; asked && errors.Is(errors.Join(context.Cause(listing), appsErr), sampling.ErrHung) {
		appsErr = fmt.Errorf("nvidia-smi --query-compute-apps %w within %v of the figures", sampling.ErrHung, appsLate)
		v.mu.Lock()
		v.hung = time.Now()
		v.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	for i := range r.GPUs {
		g := &r.GPUs[i]
		if appsErr != nil {
			g.Missing["processes"] = appsErr.Error()
			continue
		}
		g.Processes = []sampling.Process{}
		for line := range bytes.Lines(apps.Stdout) {
			bus, p, ok := parseApp(line)
			if ok && sampling.BusKey(bus) == sampling.BusKey(g.BusID) {
				g.Processes = append(g.Processes, p)
			}
		}
	}
	return r, nil
}

// appsArgv lists who holds memory. No row means that there is no process, or
// that a PID namespace hides them.
func appsArgv(o sampling.Options) []string {
	return []string{
		o.NvidiaSMI, "--query-compute-apps=gpu_bus_id,pid,used_gpu_memory,process_name", "--format=csv,noheader,nounits",
	}
}

// parseApp reads a row of appsArgv; the name comes last, since it may hold
// anything.
func parseApp(line []byte) (bus string, p sampling.Process, ok bool) {
	cells := bytes.SplitN(line, []byte{','}, 4)
	if len(cells) != 4 {
		return "", p, false
	}
	p.PID, _ = strconv.Atoi(string(bytes.TrimSpace(cells[1])))
	p.Name = string(bytes.TrimSpace(cells[3]))
	if v, unit, is := sampling.ParseDecimal(cells[2]); is && len(unit) == 0 && v >= 0 && v < 1<<30 {
		n := int64(v) << 20
		p.Bytes = &n
	}
	return string(bytes.TrimSpace(cells[0])), p, p.PID > 0
}

var (
	listGPURE = regexp.MustCompile(`^GPU \d+: .*?(?: \(UUID: ([^)]+)\))?$`)
	listMIGRE = regexp.MustCompile(`^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: ([^)]+)\)`)
)

// listMIG adds to a reading the parts of GPUs in MIG mode, as `nvidia-smi -L`
// lists them: it does not tell their memory.
func (v *GPUs) listMIG(ctx context.Context, gpus []sampling.GPU) {
	if !slices.ContainsFunc(gpus, func(g sampling.GPU) bool { return g.Texts["mig_mode"] == "Enabled" }) {
		return
	}
	out, err := v.o.RunTool(ctx, v.o.NvidiaSMI, "-L")
	if err != nil || out.Code != 0 {
		return
	}
	parts := readSMIList(out.Stdout)
	for i := range gpus {
		gpus[i].Parts = parts[gpus[i].UUID]
	}
}

// readSMIList reads the MIG instances of `nvidia-smi -L` by the UUID of their
// GPU.
func readSMIList(b []byte) map[string][]sampling.GPU {
	parts := map[string][]sampling.GPU{}
	gpu := ""
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line), " \r\n")
		if m := listGPURE.FindStringSubmatch(text); m != nil {
			gpu = m[1]
		} else if m := listMIGRE.FindStringSubmatch(text); m != nil {
			parts[gpu] = append(parts[gpu], sampling.GPU{Name: m[1], UUID: m[2]})
		}
	}
	return parts
}

// probe asks once before the loop: fields that the tool refuses are dropped, the
// units are taken from the header, a GPU that it cannot open is left out from
// now on.
func (s *smiSource) probe(ctx context.Context, m *sampling.Meter) error {
	s.query.cpu = m.ToolCPU
	for range len(s.devices) + 1 {
		out, err := s.query.ask(ctx, s.targets(), func(c smiColumn) {
			m.Never(c.field, "this nvidia-smi does not know "+c.name)
		})
		if err != nil {
			return err
		}
		if bus := lostBus(out); bus != "" && len(s.devices) > len(s.lost) && !slices.Contains(s.lost, bus) {
			s.lost = append(s.lost, bus)
			m.Note("GPU %s cannot be opened any more (%s): left out from %s", bus, out.Text(), m.Now())
			if s.targets() != nil {
				continue
			}
		}
		return s.query.check(out)
	}
	return errors.New("GPUs cannot be opened one after another")
}

// check finds a row in an answer.
func (q *smiQuery) check(out *sampling.Output) error {
	rows, err := q.rows(out)
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return fmt.Errorf("exit code %d: %s", out.Code, out.Text())
	}
	var row smiRow
	for line := range bytes.Lines(rows) {
		if parseSMIRow(bytes.TrimSpace(line), q.cols, &row, func(runner.Fields, []byte) {}) {
			return nil
		}
	}
	return fmt.Errorf("no row: %s", out.Text())
}
