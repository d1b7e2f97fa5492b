package runner

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// When GPUs count as idle. A CUDA context alone takes some 300 MiB, an idle
// driver up to 300 MiB (AMD), a desktop more: display servers do not count.
const (
	holderBytes    = 100 << 20 // a process that holds this much holds the GPU
	unknownBytes   = 1 << 30   // so does use of this much that no process explains,
	unknownShare   = 0.02      // or this share of a large GPU
	backBytes      = 64 << 20  // memory is back if it is within this of the baseline
	settleLimit    = 10 * time.Second
	inspectFresh   = 2 * time.Second // a reading this young need not be repeated
	tellHolderEach = time.Minute
)

// isDisplayServer tells the programs that hold memory on a desktop all the time,
// and always the same amount.
func isDisplayServer(name string) bool {
	switch baseName(name) {
	case "Xorg", "X", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "plasmashell", "sway", "weston", "mutter":
		return true
	}
	return false
}

// A reading is what a lane last read of GPUs.
type reading struct {
	insp   Inspector
	last   *DetailedGPUMetrics // of a run's end, if all was back
	gpus   []int               // that it is about
	at     time.Time
	shared *DetailedGPUMetrics // the baseline of a session's first run
}

func (x *executor) inspector(p *sweep.Profile) Inspector {
	if x.Inspector == nil {
		return nil
	}
	return x.Inspector(p)
}

// devicesOf lists the GPUs that an Inspector sees, once.
func (x *executor) devicesOf(ctx context.Context, insp Inspector) ([]Device, error) {
	if list, ok := x.gpus[insp]; ok {
		return list, nil
	}
	devices, err := insp.Devices(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the GPUs: %w", err)
	}
	x.gpus[insp] = devices
	return devices, nil
}

// checkGPUs finds out before anything runs that a sweep names a GPU which is
// not there.
func (x *executor) checkGPUs(ctx context.Context) error {
	done := map[*sweep.Sweep]bool{}
	for _, d := range x.queue {
		if len(d.sweep.GPUs) == 0 || done[d.sweep] {
			continue
		}
		done[d.sweep] = true
		if _, err := x.pool(ctx, x.inspector(d.profile), d.sweep); err != nil {
			return err
		}
	}
	return nil
}

// checkPlacement finds out before a shard runs that its host has fewer GPUs than a
// run needs: on another one it could have run.
func (x *executor) checkPlacement(ctx context.Context) error {
	if x.Shard == "" {
		return nil
	}
	for _, d := range x.queue {
		insp := x.inspector(d.profile)
		if insp == nil {
			continue
		}
		pool, err := x.pool(ctx, insp, d.sweep)
		if err != nil {
			return err
		}
		if n := ranksIn(pool, d.profile); n > len(pool) {
			return &PlacementError{fmt.Sprintf("profile %s of sweep %q needs %d GPUs: this job has %s",
				d.profile.ID, d.sweep.Name, n, indices(pool))}
		}
	}
	return nil
}

// A PlacementError says that this machine lacks GPUs that are asked for.
type PlacementError struct{ Text string }

func (e *PlacementError) Error() string { return e.Text }

// pool are the GPUs that runs of a sweep may use: those that it names, else all.
func (x *executor) pool(ctx context.Context, insp Inspector, s *sweep.Sweep) ([]Device, error) {
	if insp == nil {
		return nil, nil
	}
	all, err := x.devicesOf(ctx, insp)
	if err != nil || len(s.GPUs) == 0 {
		return all, err
	}
	var devices []Device
	for _, index := range s.GPUs {
		i := slices.IndexFunc(all, func(d Device) bool { return d.Index == index })
		if i < 0 {
			return nil, &PlacementError{fmt.Sprintf("sweep %q asks for GPU %d: this machine has %s",
				s.Name, index, indices(all))}
		}
		devices = append(devices, all[i])
	}
	return devices, nil
}

// ranksIn is how many GPUs of a pool a profile wants. A machine with too few is no
// error: the engine will say so, and that is a row.
func ranksIn(pool []Device, p *sweep.Profile) int {
	if p.Engine.Kind == EngineCommand { // it has no ranks
		return len(pool)
	}
	return p.Ranks()
}

func indices(devices []Device) string {
	if len(devices) == 0 {
		return "no GPU that can be seen (see vramsweep doctor)"
	}
	list := make([]string, len(devices))
	for i, d := range devices {
		list[i] = fmt.Sprint(d.Index)
	}
	return "GPU " + strings.Join(list, ", ")
}

func (a *attempt) gpuIndices() []int {
	list := make([]int, len(a.job.Devices))
	for i, d := range a.job.Devices {
		list[i] = d.Index
	}
	return list
}

// waitIdle is phase 0: it returns when the GPUs of the run are idle and the
// baseline was read, or why they are not. An error is the cause of ctx.
func (a *attempt) waitIdle(ctx context.Context) (dirty string, err error) {
	if a.insp == nil || len(a.job.Devices) == 0 {
		return "", nil
	}
	f, gpus := &a.reading, a.gpuIndices()
	if a.warm() {
		a.baseline = f.shared
		return "", nil
	}
	if f.last != nil && f.insp == a.insp && time.Since(f.at) < inspectFresh && slices.Equal(f.gpus, gpus) {
		a.baseline = f.last
	}
	f.last, f.insp = nil, a.insp
	w := idleWait{attempt: a, begun: time.Now()}
	for {
		if a.baseline == nil {
			if a.baseline, err = a.inspect(ctx, gpus); err != nil {
				// It is noted; a reading that fails is no reason to refuse the run.
				return "", context.Cause(ctx)
			}
		}
		busy, holders := busyGPUs(a.baseline)
		if busy == "" || a.shares() {
			f.shared = a.baseline
			return "", nil
		}
		if why := w.give(ctx, busy, holders); why != "" {
			a.holders = holders
			return why, nil
		}
		if err := a.sleep(ctx, w.pause()); err != nil {
			return "", err
		}
		a.baseline = nil
	}
}

// An idleWait is the patience of phase 0.
type idleWait struct {
	*attempt
	begun   time.Time
	cleaned bool
	told    time.Time
	polls   int
}

// give decides whether to give up: what is ours is ended first, then others are
// waited for as on_dirty_gpu says.
func (w *idleWait) give(ctx context.Context, busy string, holders []Process) string {
	waited := time.Since(w.begun)
	limits := w.sweep.Limits
	patience := w.settleTime()
	if limits.OnDirtyGPU == "" || limits.OnDirtyGPU == "wait" {
		patience = limits.IdleTimeout
		if patience == 0 {
			patience = math.MaxInt64 // no limit: until --max-duration or Ctrl-C
		}
	}
	if !w.cleaned {
		w.cleaned = true
		w.clean(ctx)
	}
	if waited >= patience {
		return fmt.Sprintf("%s; waited %v", busy, waited.Round(time.Millisecond))
	}
	if now := time.Now(); waited > time.Second && (w.told.IsZero() || now.Sub(w.told) > tellHolderEach) {
		w.told = now
		w.display.Note(fmt.Sprintf("waiting for idle GPUs: %s", busy))
	}
	w.holders = holders
	return ""
}

// pause grows from 50 ms to 2 s.
func (w *idleWait) pause() time.Duration {
	w.polls++
	return min(50*time.Millisecond<<min(w.polls-1, 10), 2*time.Second)
}

// shares reports whether the GPUs may be others' too: a command is measured as
// it is found.
func (a *attempt) shares() bool { return a.profile.Engine.Kind == EngineCommand }

// clean ends what earlier runs, or this one, left on the GPUs, and counts it.
func (a *attempt) clean(ctx context.Context) int {
	if a.Clean == nil {
		return 0
	}
	ended, err := a.Clean(ctx, a.runMark())
	if err != nil {
		a.note("end what runs left: " + err.Error())
	}
	a.addEnded(ended, "held a GPU after its run")
	a.ours = append(a.ours, ended...)
	return len(ended)
}

func (a *attempt) note(text string) { a.notes = append(a.notes, text) }

// inspect reads the GPUs in full; a failure is noted.
func (a *attempt) inspect(ctx context.Context, gpus []int) (*DetailedGPUMetrics, error) {
	d, err := a.insp.Inspect(ctx, gpus)
	if err != nil {
		a.note("reading the GPUs in full failed: " + err.Error())
		return nil, err
	}
	return d, nil
}

// busyGPUs says who holds the GPUs of a reading, or "" if they are idle.
func busyGPUs(d *DetailedGPUMetrics) (why string, holders []Process) {
	var parts []string
	for i := range d.GPUs {
		g := &d.GPUs[i]
		own, desktop := holdersOf(g)
		holders = append(holders, own...)
		for _, p := range own {
			parts = append(parts, fmt.Sprintf("GPU %d: %s (PID %d) holds %s", g.GPUID, p.Name, p.PID, gib(p.MemoryBytes)))
		}
		if len(own) > 0 || g.VRAMUsedMB == nil {
			continue
		}
		limit := float64(unknownBytes)
		if g.VRAMTotalMB != nil {
			limit = max(limit, unknownShare*mib(*g.VRAMTotalMB))
		}
		if used := mib(*g.VRAMUsedMB) - desktop; used > limit {
			n := int64(used)
			parts = append(parts, fmt.Sprintf("GPU %d: %s are in use by a process that cannot be seen from here", g.GPUID,
				gib(&n)))
			index := g.GPUID
			holders = append(holders, Process{GPUIndex: &index, MemoryBytes: &n,
				Note: "cannot be seen from here (another container or user)"})
		}
	}
	return strings.Join(parts, "; "), holders
}

// holdersOf lists the processes that hold a GPU, and what the display servers
// hold of it, bytes.
func holdersOf(g *GPUDetail) (holders []Process, desktop float64) {
	for _, p := range g.Processes {
		bytes := usage(p.MemoryUsage)
		if isDisplayServer(p.Name) {
			if bytes != nil {
				desktop += float64(*bytes)
			}
			continue
		}
		if bytes != nil && *bytes < holderBytes {
			continue
		}
		index := g.GPUID
		holders = append(holders, Process{PID: p.PID, Name: p.Name, GPUIndex: &index, MemoryBytes: bytes})
	}
	return holders, desktop
}

func baseName(path string) string {
	path, _, _ = strings.Cut(path, " ")
	return path[strings.LastIndexByte(path, '/')+1:]
}

func mib(n float64) float64 { return n * (1 << 20) }

func usage(v *ValueUnit) *int64 {
	if v == nil {
		return nil
	}
	n := int64(v.Value)
	if v.Unit != "B" {
		n = int64(mib(v.Value))
	}
	return &n
}

func gib(n *int64) string {
	if n == nil {
		return "memory (how much is not known)"
	}
	return fmt.Sprintf("%.2f GiB", float64(*n)/GiB)
}

// final is phase 6: it proves that the memory is back at the baseline, or says
// who holds it. The reading of phase 5 serves if it shows that already. An
// interrupted run looks once: nobody waits after Ctrl-C.
func (a *attempt) final(ctx context.Context) {
	if a.detail == nil || a.killed() {
		return
	}
	a.end = a.detail
	f, gpus := &a.reading, a.gpuIndices()
	if a.warm() || a.shares() {
		return // the session's engine holds its memory on purpose; a command's is its own affair
	}
	begun := time.Now()
	defer func() { a.waited += time.Since(begun) }()
	for pause, cleaned := 20*time.Millisecond, false; ; pause = min(2*pause, 500*time.Millisecond) {
		excess := aboveBaseline(a.end, a.baseline)
		if excess == "" {
			f.last, f.gpus, f.at = a.end, gpus, time.Now()
			return
		}
		if waited := time.Since(begun); waited > a.settleTime() || ctx.Err() != nil {
			if !cleaned {
				cleaned, begun = true, time.Now()
				if a.clean(context.WithoutCancel(ctx)) > 0 {
					continue
				}
			}
			_, a.holders = busyGPUs(a.end)
			a.note("GPU memory did not come back to the baseline: " + excess)
			a.display.Note("GPU memory did not come back to the baseline: " + excess)
			return
		}
		if a.sleep(ctx, pause) != nil {
			continue
		}
		d, err := a.inspect(context.WithoutCancel(ctx), gpus)
		if err != nil {
			return
		}
		a.end = d
	}
}

// aboveBaseline says which GPUs hold more than before the run.
func aboveBaseline(end, baseline *DetailedGPUMetrics) string {
	if baseline == nil {
		return ""
	}
	before := map[int]float64{}
	for i := range baseline.GPUs {
		if g := &baseline.GPUs[i]; g.VRAMUsedMB != nil {
			before[g.GPUID] = mib(*g.VRAMUsedMB)
		}
	}
	var parts []string
	for i := range end.GPUs {
		g := &end.GPUs[i]
		was, known := before[g.GPUID]
		if !known || g.VRAMUsedMB == nil {
			continue
		}
		more := int64(mib(*g.VRAMUsedMB) - was)
		if more <= backBytes {
			continue
		}
		text := fmt.Sprintf("GPU %d holds %s more than before the run", g.GPUID, gib(&more))
		own, _ := holdersOf(g)
		for _, p := range own {
			text += fmt.Sprintf(", %s (PID %d) %s of it", p.Name, p.PID, gib(p.MemoryBytes))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}
