package amd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// amdSource samples AMD GPUs from sysfs, in the helper child. There one goroutine
// reads all cards that are well: eight cards take 0.1 ms, and a goroutine for each
// would cost more in waking up than in reading. A card whose firmware hangs takes
// that goroutine along; a watchdog then starts another one for the cards that are
// left.
type amdSource struct {
	o     sampling.Options
	r     sampling.Run
	cards []*amdCard
	tree  *sampling.Tree
}

func newAMDSource(o sampling.Options, r sampling.Run, cards []*amdCard, t *sampling.Tree) *amdSource {
	s := &amdSource{o: o, r: r, tree: t}
	for _, c := range cards {
		if r.Wants(c.index) {
			s.cards = append(s.cards, c)
		}
	}
	return s
}

// Name implements sampling.Source.
func (s *amdSource) Name() string { return sampling.SourceAMDGPU }

// Rates of the figures that cost more: SMU figures, energy, state and
// processes. Memory comes from the kernel's own accounts and is read each tick.
const (
	amdSlowEvery   = 50 * time.Millisecond
	amdEnergyEvery = 100 * time.Millisecond
	amdStateEvery  = time.Second
)

// sample reads all cards in this process until ctx ends.
func (s *amdSource) sample(ctx context.Context, m *sampling.Meter) error {
	if len(s.cards) == 0 {
		return fmt.Errorf("%w: no card", sampling.ErrUnusable)
	}
	m.Never(runner.HasThrottleReasons, "amdgpu has no mask of active throttle reasons")
	m.Never(runner.HasMemoryReserved, "amdgpu does not report a reserve apart")
	lane := &amdLane{m: m, interval: s.r.Interval}
	for _, c := range s.cards {
		l := &amdLoop{s: s, c: c, m: m, files: openAMD(c)}
		l.told()
		if c.gtt > 0 {
			m.Note("GPU %d: memory is %s", c.index, c.about())
		}
		lane.cards = append(lane.cards, l)
	}
	if s.r.Interval < amdSlowEvery {
		m.Note("power, temperatures, utilization and clocks are read every %v, memory every %v", amdSlowEvery, s.r.Interval)
	}
	lane.run(ctx)
	return nil
}

// An amdLane is the goroutine that reads the cards, and its successors.
type amdLane struct {
	m        *sampling.Meter
	interval time.Duration
	wg       sync.WaitGroup

	mu      sync.Mutex
	gen     int // of the goroutine that may sample
	cards   []*amdLoop
	current *amdLoop // is being read
	since   time.Time
}

// run keeps a goroutine at work and watches it.
func (a *amdLane) run(ctx context.Context) {
	a.wg.Go(func() { a.work(ctx, 0) })
	watch := time.NewTicker(amdMaxRead / 4)
	defer watch.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-watch.C:
			a.watch(ctx, now)
		}
	}
	// A card that hangs in the kernel must not keep the sampler from ending.
	done := make(chan struct{})
	go func() { a.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(sampling.AbandonAfter):
		a.m.Note("a reading of an AMD GPU hangs in the kernel and was left behind")
	}
}

// watch replaces the goroutine if the card that it reads hangs. The old one
// keeps the card and probes it when the reading returns.
func (a *amdLane) watch(ctx context.Context, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.current
	if c == nil || now.Sub(a.since) <= amdMaxRead {
		return
	}
	a.m.Note("GPU %d (%s) hangs in the kernel: probed from now on, the others go on", c.c.index, c.c.bdf)
	a.remove(c)
	a.current = nil
	a.gen++
	gen := a.gen
	a.wg.Go(func() { a.work(ctx, gen) })
}

// remove takes a card out. The caller holds the lock.
func (a *amdLane) remove(c *amdLoop) {
	a.cards = slices.DeleteFunc(slices.Clone(a.cards), func(o *amdLoop) bool { return o == c })
}

// work samples until ctx ends or another goroutine has taken over.
func (a *amdLane) work(ctx context.Context, gen int) {
	sched := sampling.NewPreciseSchedule(a.interval)
	defer sched.Stop()
	tick := make([]runner.Sample, 0, 16)
	defer a.closeFiles(gen)
	for sched.Wait(ctx) {
		tick = tick[:0]
		for i := 0; ; i++ {
			c, mine := a.begin(gen, i)
			if !mine {
				return
			}
			if c == nil {
				break
			}
			now := time.Now()
			ok := c.read(now)
			c.smp.Read = time.Since(now)
			if !a.done(gen) {
				a.probe(ctx, c)
				return
			}
			if a.judge(ctx, c, ok) {
				tick = append(tick, c.smp)
			}
		}
		a.m.Tick(tick)
	}
}

// begin names the i-th card to read; mine is false when another goroutine has
// taken over.
func (a *amdLane) begin(gen, i int) (c *amdLoop, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if gen != a.gen {
		return nil, false
	}
	if i >= len(a.cards) {
		return nil, true
	}
	a.current, a.since = a.cards[i], time.Now()
	return a.cards[i], true
}

// done reports whether the goroutine may go on after a reading.
func (a *amdLane) done(gen int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if gen != a.gen {
		return false
	}
	a.current = nil
	return true
}

// judge takes a card out after errors in a row; it is probed until it is well.
// It reports whether the sample counts.
func (a *amdLane) judge(ctx context.Context, c *amdLoop, ok bool) bool {
	if ok {
		c.errors = 0
		return true
	}
	if c.errors++; c.errors < amdMaxErrors {
		return false
	}
	if !c.asleep {
		a.m.Note("GPU %d (%s) cannot be read (%d errors in a row): probed once a second", c.c.index, c.c.bdf, c.errors)
	}
	a.mu.Lock()
	a.remove(c)
	a.mu.Unlock()
	a.wg.Go(func() { a.probe(ctx, c) })
	return false
}

// probe reads a card once a second until that goes well, then puts it back.
func (a *amdLane) probe(ctx context.Context, c *amdLoop) {
	for sampling.Sleep(ctx, amdProbeEvery) {
		began := time.Now()
		if !c.read(began) || time.Since(began) > amdMaxRead {
			continue
		}
		c.errors = 0
		a.m.Note("GPU %d (%s) can be read again", c.c.index, c.c.bdf)
		a.mu.Lock()
		a.cards = append(slices.Clone(a.cards), c)
		slices.SortFunc(a.cards, func(x, y *amdLoop) int { return x.c.index - y.c.index })
		a.mu.Unlock()
		return
	}
	c.files.close()
}

// closeFiles ends the goroutine that samples last.
func (a *amdLane) closeFiles(gen int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if gen != a.gen {
		return
	}
	for _, c := range a.cards {
		c.files.close()
	}
	a.cards = nil
}

// amdLoop is what sampling keeps of one card.
type amdLoop struct {
	s *amdSource
	c *amdCard
	m *sampling.Meter

	files                        *amdFiles
	slowDue, energyDue, stateDue time.Time
	errors                       int
	asleep                       bool
	smp                          runner.Sample
}

// Bounds of the circuit breaker.
const (
	amdMaxErrors  = 3
	amdMaxRead    = time.Second
	amdProbeEvery = time.Second
)

// told notes what this card cannot tell.
func (l *amdLoop) told() {
	l.m.PowerKind(l.files.powerKind())
	lacks := (runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp | runner.HasUtilization |
		runner.HasMemoryUtil | runner.HasClockSM | runner.HasClockMem | runner.HasEnergy) &^ l.files.fields()
	for ; lacks != 0; lacks &= lacks - 1 {
		f := lacks & -lacks
		why := "this card has no file for it in sysfs"
		if f == runner.HasEnergy {
			why = "gpu_metrics is not there or of a revision whose layout is not known"
		}
		l.m.Never(f, why)
	}
}

// read fills the sample of one tick; false if the memory could not be read.
func (l *amdLoop) read(now time.Time) bool {
	l.smp = runner.Sample{GPU: int32(l.c.index), Source: sampling.SourceAMDGPU, Offset: l.m.Offset(now)}
	if !now.Before(l.stateDue) {
		l.stateDue = now.Add(amdStateEvery)
		l.asleep = l.suspended()
	}
	if l.asleep {
		return false
	}
	used, err := l.files.memory(l.c)
	switch {
	case errors.Is(err, errImpossible):
		l.m.Miss(runner.HasMemoryUsed, []byte(err.Error()))
	case err != nil || used == 0: // the driver itself holds memory: 0 is what a card in reset shows
		l.reopen(err)
		return false
	default:
		sampling.Put(&l.smp, runner.HasMemoryUsed, used)
	}
	sampling.Put(&l.smp, runner.HasMemoryTotal, float64(l.c.total))
	if !now.Before(l.slowDue) {
		l.slowDue = now.Add(amdSlowEvery - l.s.r.Interval/2)
		l.slow()
	}
	if l.files.metrics >= 0 && !now.Before(l.energyDue) {
		l.energyDue = now.Add(amdEnergyEvery - l.s.r.Interval/2)
		if v, ok := l.files.energy(); ok {
			l.smp.Energy = v
			l.smp.Has |= runner.HasEnergy
		}
	}
	return true
}

// suspended reports a card that sleeps: reading it would wake it and show load
// that is not there.
func (l *amdLoop) suspended() bool {
	n, err := unix.Pread(l.files.state, l.files.buf, 0)
	if err != nil {
		return false
	}
	switch string(bytes.TrimSpace(l.files.buf[:n])) { // compared, not copied
	case "", "active", "unsupported":
		return false
	}
	st := string(bytes.TrimSpace(l.files.buf[:n]))
	l.m.Because("GPU " + strconv.Itoa(l.c.index) + " is suspended")
	l.m.Note("GPU %d (%s) is %s: not read, since reading would wake it", l.c.index, l.c.bdf, st)
	return true
}

// slow reads the SMU's figures. All zeros are what older kernels give while a
// card is being reset: then nothing counts.
func (l *amdLoop) slow() {
	got := l.smp
	for _, f := range l.files.slow {
		v, err := l.files.read(f)
		if err != nil {
			l.m.Miss(f.field, sysReason(err))
			continue
		}
		if !sampling.Put(&got, f.field, v) {
			l.m.Miss(f.field, []byte(sampling.Impossible(strconv.FormatFloat(v, 'g', -1, 64))))
		}
	}
	if got.Has&(runner.HasPower|runner.HasTemperature) != 0 && got.Power == 0 && got.Temperature == 0 {
		l.m.Miss(runner.HasPower, []byte("0 W and 0 °C: the card is being reset"))
		return
	}
	l.smp = got
}

// sysReason is an error of a file without allocating in the usual cases.
func sysReason(err error) []byte {
	var no unix.Errno
	if errors.As(err, &no) {
		switch no {
		case unix.EBUSY:
			return reasonBusy
		case unix.EIO:
			return reasonIO
		case unix.EOPNOTSUPP:
			return reasonUnsupported
		}
	}
	return []byte(err.Error())
}

// Never written to: a tick must not allocate.
//
//nolint:gochecknoglobals
var (
	reasonBusy        = []byte("EBUSY: the card is being reset")
	reasonIO          = []byte("EIO: the card's firmware did not answer")
	reasonUnsupported = []byte("not supported by this card")
)

// reopen finds the card again by its bus id: after a reset of the driver the
// old files are dead and card numbers may have changed.
func (l *amdLoop) reopen(err error) {
	if err == nil || !(errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EBADF) || errors.Is(err, unix.ENOENT)) {
		return
	}
	cards, _ := findAMD(l.s.o)
	for _, c := range cards {
		if c.bdf == l.c.bdf {
			l.files.close()
			c.index = l.c.index
			l.c = c
			l.files = openAMD(c)
			return
		}
	}
}

// kfdOwn sums the memory of the run's own processes on a card from KFD's
// accounts; false where it lists none.
func (s *amdSource) kfdOwn(c *amdCard, m *sampling.Meter) (sum int64, found bool) {
	pids, _ := s.tree.PIDs()
	if len(pids) == 0 || c.kfdID == 0 {
		return 0, false
	}
	for _, pid := range pids {
		for _, part := range c.parts {
			name := filepath.Join(kfdProc(s.o), strconv.Itoa(pid), "vram_"+strconv.FormatInt(part.gpuID, 10))
			if n, err := strconv.ParseInt(sampling.ReadText(name), 10, 64); err == nil {
				sum += n
				found = true
			}
		}
	}
	if !found {
		m.Never(runner.HasProcessMemory,
			"KFD lists none of the run's processes: they use no GPU, or a PID namespace (container) hides them")
	}
	return sum, found
}
