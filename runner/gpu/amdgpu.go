package gpu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
)

// An amdCard is a physical AMD GPU as sysfs shows it.
type amdCard struct {
	index  int    // in the order of the PCI bus, over the vendor's GPUs
	card   string // "card0"; changes between boots
	dir    string // <sys>/class/drm/card0/device
	bdf    string
	name   string
	uuid   string
	driver string
	render int // -1: not told
	total  int64
	kfdID  int64 // 0: not told
	hip    int   // place in HIP's order; -1: not told
	parts  []kfdNode
	hwmon  string
}

var cardRE = regexp.MustCompile(`^card\d+$`)

// findAMD lists the AMD GPUs of a machine by PCI bus id. hidden counts those of
// the host that this container was not given: /sys shows all.
func findAMD(o Options) (cards []*amdCard, hidden int) {
	base := filepath.Join(o.Sys, "class", "drm")
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		if !cardRE.MatchString(e.Name()) {
			continue // a connector: card0-DP-1
		}
		c := readCard(filepath.Join(base, e.Name(), "device"), e.Name())
		if c == nil {
			continue
		}
		if c.render >= 0 && !exists(filepath.Join(o.Dev, "dri", "renderD"+strconv.Itoa(c.render))) {
			hidden++
			continue
		}
		cards = append(cards, c)
	}
	slices.SortFunc(cards, func(a, b *amdCard) int { return strings.Compare(a.bdf, b.bdf) })
	nodes := slices.DeleteFunc(findKFD(o.Sys), func(n kfdNode) bool { // HIP does not count what was not given to it
		return n.render >= 0 && !exists(filepath.Join(o.Dev, "dri", "renderD"+strconv.Itoa(n.render)))
	})
	for i, c := range cards {
		c.index = i
		c.join(nodes)
	}
	return cards, hidden
}

// readCard reads what does not change. nil: no AMD GPU with memory of its own;
// the extra cards of a partitioned GPU (amdgpu_xcp) have neither.
func readCard(dir, card string) *amdCard {
	if readText(dir, "vendor") != "0x1002" {
		return nil
	}
	total, err := strconv.ParseInt(readText(dir, "mem_info_vram_total"), 10, 64)
	if err != nil || total <= 0 {
		return nil
	}
	c := &amdCard{card: card, dir: dir, total: total, uuid: readText(dir, "unique_id"), render: -1, hip: -1}
	c.bdf = busOf(dir)
	c.name = readText(dir, "product_name")
	if c.name == "" {
		c.name = amdName(readText(dir, "device"))
	}
	c.driver = readText(dir, "driver", "module", "version")
	if renders, _ := filepath.Glob(filepath.Join(dir, "drm", "renderD*")); len(renders) > 0 {
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(renders[0]), "renderD")); err == nil {
			c.render = n
		}
	}
	if hw, _ := filepath.Glob(filepath.Join(dir, "hwmon", "hwmon*")); len(hw) > 0 {
		c.hwmon = hw[0]
	}
	return c
}

func readText(elem ...string) string {
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// busOf is the PCI bus id of a device folder.
func busOf(dir string) string {
	for line := range strings.Lines(readText(dir, "uevent")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PCI_SLOT_NAME="); ok {
			return strings.ToLower(v)
		}
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return strings.ToLower(filepath.Base(real))
	}
	return ""
}

// amdName names the cards that are used for this work (pci.ids); sysfs itself
// has a product name only where the board's memory holds one.
func amdName(device string) string {
	names := map[string]string{
		"0x738c": "AMD Instinct MI100", "0x7408": "AMD Instinct MI250X", "0x740c": "AMD Instinct MI250X/MI250", "0x740f": "AMD Instinct MI210",
		"0x74a0": "AMD Instinct MI300A", "0x74a1": "AMD Instinct MI300X", "0x74a5": "AMD Instinct MI325X",
		"0x75a0": "AMD Instinct MI350X", "0x75a3": "AMD Instinct MI355X", "0x7551": "AMD Radeon AI PRO R9700",
	}
	if n := names[device]; n != "" {
		return n
	}
	return "AMD GPU " + device
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

// join takes the card's own nodes: one, or one a partition. The partitions of a
// GPU differ in the function of the bus id.
func (c *amdCard) join(nodes []kfdNode) {
	for i, n := range nodes {
		if physical(n.bdf) != physical(c.bdf) {
			continue
		}
		if len(c.parts) == 0 {
			c.kfdID, c.hip = n.gpuID, i
		}
		c.parts = append(c.parts, n)
	}
}

func physical(bdf string) string {
	at := strings.LastIndexByte(bdf, '.')
	if at < 0 {
		return bdf
	}
	return bdf[:at]
}

func (m *Machine) tryAMDGPU() SourceStatus {
	cards, hidden := findAMD(m.o)
	if len(cards) == 0 {
		reason := "no AMD GPU in " + filepath.Join(m.o.Sys, "class", "drm")
		if hidden > 0 {
			reason = fmt.Sprintf("%d AMD GPUs are in %s, but none has its render node in %s: they were not given to this container", hidden, m.o.Sys, filepath.Join(m.o.Dev, "dri"))
		}
		return SourceStatus{Reason: reason}
	}
	m.amd = cards
	first := len(m.devices)
	for _, c := range cards {
		c.index += first
		m.devices = append(m.devices, c.device())
		for i, p := range c.parts {
			if len(c.parts) > 1 {
				d := c.device()
				hip := c.hip + i
				d.Name, d.UUID, d.PCIBusID, d.Parent, d.ComputeIndex = fmt.Sprintf("%s partition %d", c.name, i), "", p.bdf, deviceKey(d), &hip
				d.TotalBytes, d.UsedBytes = nil, nil
				m.devices = append(m.devices, d)
			}
		}
	}
	files := openAMD(cards[0])
	defer files.close()
	return SourceStatus{Works: true, Tool: cards[0].driver, Reads: FieldNames(files.fields() | runner.HasMemoryTotal | runner.HasProcessMemory), Power: files.powerKind()}
}

func (c *amdCard) device() runner.Device {
	total := c.total
	d := runner.Device{Index: c.index, Vendor: "amd", Name: c.name, UUID: c.uuid, PCIBusID: c.bdf, DriverVersion: c.driver, TotalBytes: &total, Source: SourceAMDGPU}
	if used, err := strconv.ParseInt(readText(c.dir, "mem_info_vram_used"), 10, 64); err == nil {
		d.UsedBytes = &used
	}
	if c.hip >= 0 {
		hip := c.hip
		d.ComputeIndex = &hip
	}
	return d
}

// deviceKey identifies a device: its UUID, or its bus id where it has none.
func deviceKey(d runner.Device) string {
	if d.UUID != "" {
		return d.UUID
	}
	return d.PCIBusID
}

// A sysFile is one figure of a card: a file that stays open. Reading it at
// offset 0 makes the driver write it anew.
type sysFile struct {
	fd    int
	field runner.Fields
	scale float64
}

// amdFiles are the open files of a card.
type amdFiles struct {
	used     sysFile
	state    int       // fd of power/runtime_status; -1: none
	slow     []sysFile // SMU figures: one firmware message a millisecond serves all
	metrics  int       // fd of gpu_metrics; -1: none, or of a revision that is not known
	rev      metricsRev
	averaged bool
	buf      []byte
}

// openAMD opens what a card has. Sensors are found by their label: numbers
// differ between generations.
func openAMD(c *amdCard) *amdFiles {
	f := &amdFiles{used: openSys(filepath.Join(c.dir, "mem_info_vram_used"), runner.HasMemoryUsed, 1), metrics: -1, buf: make([]byte, 4096)}
	f.state = openSys(filepath.Join(c.dir, "power", "runtime_status"), 0, 1).fd
	add := func(field runner.Fields, scale float64, elem ...string) bool {
		s := openSys(filepath.Join(elem...), field, scale)
		if s.fd < 0 {
			return false
		}
		f.slow = append(f.slow, s)
		return true
	}
	add(runner.HasUtilization, 1, c.dir, "gpu_busy_percent")
	add(runner.HasMemoryUtil, 1, c.dir, "mem_busy_percent")
	if c.hwmon != "" {
		if !add(runner.HasPower, 1e-6, c.hwmon, "power1_input") {
			f.averaged = add(runner.HasPower, 1e-6, c.hwmon, "power1_average")
		}
		temps := labels(c.hwmon, "temp")
		for _, label := range []string{"junction", "edge"} {
			if n := temps[label]; n != "" && add(runner.HasTemperature, 1e-3, c.hwmon, n+"_input") {
				break
			}
		}
		if n := temps["mem"]; n != "" {
			add(runner.HasMemoryTemp, 1e-3, c.hwmon, n+"_input")
		}
		freqs := labels(c.hwmon, "freq")
		if n := freqs["sclk"]; n != "" {
			add(runner.HasClockSM, 1e-6, c.hwmon, n+"_input")
		}
		if n := freqs["mclk"]; n != "" {
			add(runner.HasClockMem, 1e-6, c.hwmon, n+"_input")
		}
	}
	f.openMetrics(c)
	return f
}

// labels maps the label of each sensor of a kind to its name: "junction" to
// "temp2".
func labels(hwmon, kind string) map[string]string {
	out := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(hwmon, kind+"*_label"))
	for _, name := range files {
		out[readText(name)] = strings.TrimSuffix(filepath.Base(name), "_label")
	}
	return out
}

func openSys(path string, field runner.Fields, scale float64) sysFile {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fd = -1
	}
	return sysFile{fd: fd, field: field, scale: scale}
}

// openMetrics keeps gpu_metrics open where its revision is one whose layout is
// known: only the energy accumulator is taken from it.
func (f *amdFiles) openMetrics(c *amdCard) {
	s := openSys(filepath.Join(c.dir, "gpu_metrics"), runner.HasEnergy, 1)
	if s.fd < 0 {
		return
	}
	n, err := unix.Pread(s.fd, f.buf, 0)
	rev, ok := metricsRevOf(f.buf[:max(n, 0)])
	if err != nil || !ok {
		unix.Close(s.fd)
		return
	}
	f.metrics, f.rev = s.fd, rev
}

func (f *amdFiles) close() {
	for _, s := range append(slices.Clone(f.slow), f.used) {
		if s.fd >= 0 {
			unix.Close(s.fd)
		}
	}
	for _, fd := range []int{f.metrics, f.state} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	f.slow, f.used.fd, f.metrics, f.state = nil, -1, -1, -1
}

func (f *amdFiles) fields() runner.Fields {
	var all runner.Fields
	if f.used.fd >= 0 {
		all = runner.HasMemoryUsed
	}
	for _, s := range f.slow {
		all |= s.field
	}
	if f.metrics >= 0 {
		all |= runner.HasEnergy
	}
	return all
}

func (f *amdFiles) powerKind() string {
	switch {
	case f.fields()&runner.HasPower == 0:
		return ""
	case f.averaged:
		return PowerAveraged
	}
	return PowerInstant
}

// read gives the number that a file holds.
func (f *amdFiles) read(s sysFile) (float64, error) {
	n, err := unix.Pread(s.fd, f.buf, 0)
	if err != nil {
		return 0, err
	}
	v, _, ok := parseDecimal(f.buf[:n])
	if !ok {
		return 0, errNoNumber
	}
	return v * s.scale, nil
}

var errNoNumber = errors.New("holds no number")

// A metricsRev is a known layout of gpu_metrics: where the energy accumulator
// stands (rocm_smi_gpu_metrics.h; 1.1 to 1.3 agree with a real dump).
type metricsRev struct {
	format, content byte
	size            int // the least
	energy          int
}

// energyUnit of the accumulator, J.
const energyUnit = 15.259e-6

func metricsRevOf(b []byte) (metricsRev, bool) {
	if len(b) < 4 {
		return metricsRev{}, false
	}
	for _, r := range []metricsRev{{1, 1, 96, 24}, {1, 2, 104, 24}, {1, 3, 120, 24}, {1, 4, 288, 24}, {1, 5, 360, 88}, {1, 6, 1664, 16}} {
		size := int(binary.LittleEndian.Uint16(b))
		if b[2] == r.format && b[3] == r.content && size >= r.size && len(b) >= r.energy+8 {
			return r, true
		}
	}
	return metricsRev{}, false
}

// energy reads the accumulator; false where the card does not keep one.
func (f *amdFiles) energy() (float64, bool) {
	n, err := unix.Pread(f.metrics, f.buf, 0)
	if err != nil || n < f.rev.energy+8 {
		return 0, false
	}
	raw := binary.LittleEndian.Uint64(f.buf[f.rev.energy:])
	if raw == math.MaxUint64 || raw == 0 {
		return 0, false
	}
	return float64(raw) * energyUnit, true
}

// amdSource samples AMD GPUs from sysfs. One goroutine reads all cards that are
// well: eight cards take 0.1 ms, and a goroutine for each would cost more in
// waking up than in reading. A card whose firmware hangs takes that goroutine
// along; a watchdog then starts another one for the cards that are left.
type amdSource struct {
	o     Options
	r     Run
	cards []*amdCard
	tree  *tree
	alone bool // this process is the helper: it does nothing else

	mu      sync.Mutex
	kind    string
	toolCPU time.Duration // of the helper
}

func newAMDSource(o Options, r Run, cards []*amdCard, t *tree) *amdSource {
	s := &amdSource{o: o, r: r, tree: t}
	for _, c := range cards {
		if r.GPUs == nil || slices.Contains(r.GPUs, c.index) {
			s.cards = append(s.cards, c)
		}
	}
	return s
}

func (s *amdSource) name() string { return SourceAMDGPU }

func (s *amdSource) finish(r *runner.SamplerReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.PowerKind = worstKind(r.PowerKind, s.kind)
	if s.toolCPU > 0 {
		v := s.toolCPU.Seconds()
		if r.ToolCPU != nil {
			v += *r.ToolCPU
		}
		r.ToolCPU = &v
	}
	for f, why := range map[runner.Fields]string{
		runner.HasThrottleReasons: "amdgpu has no mask of active throttle reasons",
		runner.HasMemoryReserved:  "amdgpu does not tell a reserve apart",
	} {
		r.Missing[FieldName(f)] = why
	}
}

// Rates of the figures that cost more: SMU figures, energy, state and
// processes. Memory comes from the kernel's own accounts and is read each tick.
const (
	amdSlowEvery   = 50 * time.Millisecond
	amdEnergyEvery = 100 * time.Millisecond
	amdStateEvery  = time.Second
)

// run samples all cards until ctx ends: in the helper child where there is one.
func (s *amdSource) run(ctx context.Context, m *meter) error {
	if len(s.cards) > 0 && len(s.o.Helper) > 0 {
		return s.remote(ctx, m)
	}
	return s.sample(ctx, m)
}

// sample reads all cards in this process until ctx ends.
func (s *amdSource) sample(ctx context.Context, m *meter) error {
	if len(s.cards) == 0 {
		return fmt.Errorf("%w: no card", errUnusable)
	}
	lane := &amdLane{m: m, interval: s.r.Interval, alone: s.alone}
	for _, c := range s.cards {
		l := &amdLoop{s: s, c: c, m: m, files: openAMD(c)}
		l.told()
		lane.cards = append(lane.cards, l)
	}
	if s.r.Interval < amdSlowEvery {
		m.note("power, temperatures, utilization and clocks are read every %v, memory every %v", amdSlowEvery, s.r.Interval)
	}
	lane.run(ctx)
	return nil
}

// An amdLane is the goroutine that reads the cards, and its successors.
type amdLane struct {
	m        *meter
	interval time.Duration
	alone    bool // this process is the helper
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
	case <-time.After(abandonAfter):
		a.m.note("a reading of an AMD GPU hangs in the kernel and was left behind")
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
	a.m.note("GPU %d (%s) hangs in the kernel: probed from now on, the others go on", c.c.index, c.c.bdf)
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
	sched := newSchedule(a.interval)
	if a.alone {
		sched = newPreciseSchedule(a.interval)
	}
	defer sched.stop()
	tick := make([]runner.Sample, 0, 16)
	defer a.closeFiles(gen)
	for sched.wait(ctx) {
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
		a.m.tick(tick)
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
		a.m.note("GPU %d (%s) cannot be read (%d errors in a row): probed once a second", c.c.index, c.c.bdf, c.errors)
	}
	a.mu.Lock()
	a.remove(c)
	a.mu.Unlock()
	a.wg.Go(func() { a.probe(ctx, c) })
	return false
}

// probe reads a card once a second until that goes well, then puts it back.
func (a *amdLane) probe(ctx context.Context, c *amdLoop) {
	for sleep(ctx, amdProbeEvery) {
		began := time.Now()
		if !c.read(began) || time.Since(began) > amdMaxRead {
			continue
		}
		c.errors = 0
		a.m.note("GPU %d (%s) can be read again", c.c.index, c.c.bdf)
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
	m *meter

	files                                *amdFiles
	slowDue, energyDue, stateDue, appDue time.Time
	errors                               int
	asleep                               bool
	smp                                  runner.Sample
}

// Bounds of the circuit breaker.
const (
	amdMaxErrors  = 3
	amdMaxRead    = time.Second
	amdProbeEvery = time.Second
)

// told notes what this card cannot tell.
func (l *amdLoop) told() {
	l.s.mu.Lock()
	l.s.kind = worstKind(l.s.kind, l.files.powerKind())
	l.s.mu.Unlock()
	lacks := (runner.HasPower | runner.HasTemperature | runner.HasMemoryTemp | runner.HasUtilization | runner.HasMemoryUtil |
		runner.HasClockSM | runner.HasClockMem | runner.HasEnergy) &^ l.files.fields()
	for ; lacks != 0; lacks &= lacks - 1 {
		f := lacks & -lacks
		why := "this card has no file for it in sysfs"
		if f == runner.HasEnergy {
			why = "gpu_metrics is not there or of a revision whose layout is not known"
		}
		l.m.never(f, why)
	}
}

// read fills the sample of one tick; false if the memory could not be read.
func (l *amdLoop) read(now time.Time) bool {
	l.smp = runner.Sample{GPU: int32(l.c.index), Source: SourceAMDGPU, Offset: l.m.offset(now)}
	if !now.Before(l.stateDue) {
		l.stateDue = now.Add(amdStateEvery)
		l.asleep = l.suspended()
	}
	if l.asleep {
		return false
	}
	used, err := l.files.read(l.files.used)
	if err != nil || used == 0 { // the driver itself holds memory: 0 is what a card in reset shows
		l.reopen(err)
		return false
	}
	l.smp.MemoryUsed, l.smp.MemoryTotal = int64(used), l.c.total
	l.smp.Has = runner.HasMemoryUsed | runner.HasMemoryTotal
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
	if !now.Before(l.appDue) {
		l.appDue = now.Add(processInterval)
		l.processes()
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
	switch string(trim(l.files.buf[:n])) { // compared, not copied
	case "", "active", "unsupported":
		return false
	}
	st := string(trim(l.files.buf[:n]))
	l.m.because("GPU " + strconv.Itoa(l.c.index) + " is suspended")
	l.m.note("GPU %d (%s) is %s: not read, since reading would wake it", l.c.index, l.c.bdf, st)
	return true
}

// slow reads the SMU's figures. All zeros are what older kernels give while a
// card is being reset: then nothing counts.
func (l *amdLoop) slow() {
	var got runner.Fields
	sum := 0.0
	s := &l.smp
	for _, f := range l.files.slow {
		v, err := l.files.read(f)
		if err != nil {
			l.m.miss(f.field, sysReason(err))
			continue
		}
		got |= f.field
		switch f.field {
		case runner.HasPower:
			s.Power = v
			sum += v
		case runner.HasTemperature:
			s.Temperature = v
			sum += v
		case runner.HasMemoryTemp:
			s.MemoryTemp = v
		case runner.HasUtilization:
			s.Utilization = int32(v)
		case runner.HasMemoryUtil:
			s.MemoryUtil = int32(v)
		case runner.HasClockSM:
			s.ClockSM = int32(math.Round(v))
		case runner.HasClockMem:
			s.ClockMem = int32(math.Round(v))
		}
	}
	if sum == 0 && got&(runner.HasPower|runner.HasTemperature) != 0 {
		l.m.miss(runner.HasPower, []byte("0 W and 0 °C: the card is being reset"))
		return
	}
	s.Has |= got
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

// processes gives the sample the memory of the run's own processes.
func (l *amdLoop) processes() {
	if sum, ok := l.s.kfdOwn(l.c, l.m); ok {
		l.smp.ProcessMemory = sum
		l.smp.Has |= runner.HasProcessMemory
	}
}

// kfdOwn sums the memory of the run's own processes on a card from KFD's
// accounts; false where it lists none.
func (s *amdSource) kfdOwn(c *amdCard, m *meter) (sum int64, found bool) {
	pids, _ := s.tree.pids()
	if len(pids) == 0 || c.kfdID == 0 {
		return 0, false
	}
	for _, pid := range pids {
		for _, part := range c.parts {
			b, err := os.ReadFile(filepath.Join(s.o.Sys, "class", "kfd", "kfd", "proc", strconv.Itoa(pid), "vram_"+strconv.FormatInt(part.gpuID, 10)))
			if err != nil {
				continue
			}
			if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil {
				sum += n
				found = true
			}
		}
	}
	if !found {
		m.never(runner.HasProcessMemory, "KFD lists none of the run's processes: they use no GPU, or a PID namespace (container) hides them")
	}
	return sum, found
}
