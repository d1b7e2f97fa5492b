package amd

import (
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

	"golang.org/x/sys/unix"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

// An amdCard is a physical AMD GPU as sysfs shows it.
type amdCard struct {
	index  int    // in the order of the PCI bus, over the vendor's GPUs
	dir    string // <sys>/class/drm/card0/device
	bdf    string
	name   string
	uuid   string
	driver string
	render int   // -1: not told
	total  int64 // VRAM, and with it the GTT of an APU
	gtt    int64 // of an APU: the host's memory that it can map; 0: another card
	kfdID  int64 // 0: not told
	hip    int   // place in HIP's order; -1: not told
	parts  []kfdNode
	hwmon  string
}

var cardRE = regexp.MustCompile(`^card\d+$`)

// findAMD lists the AMD GPUs of a machine by PCI bus id. hidden counts those of
// the host that this container was not given: /sys shows all.
func findAMD(o sampling.Options) (cards []*amdCard, hidden int) {
	base := filepath.Join(o.Sys, "class", "drm")
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil, 0
	}
	for _, e := range entries {
		if !cardRE.MatchString(e.Name()) {
			continue // a connector: card0-DP-1
		}
		c := readCard(filepath.Join(base, e.Name(), "device"))
		if c == nil {
			continue
		}
		if c.render >= 0 && !sampling.Exists(filepath.Join(o.Dev, "dri", "renderD"+strconv.Itoa(c.render))) {
			hidden++
			continue
		}
		cards = append(cards, c)
	}
	slices.SortFunc(cards, func(a, b *amdCard) int { return strings.Compare(a.bdf, b.bdf) })
	nodes := slices.DeleteFunc(findKFD(o.Sys), func(n kfdNode) bool { // HIP does not count what was not given to it
		return n.render >= 0 && !sampling.Exists(filepath.Join(o.Dev, "dri", "renderD"+strconv.Itoa(n.render)))
	})
	for i, c := range cards {
		c.index = i
		c.join(nodes)
	}
	return cards, hidden
}

// readCard reads what does not change. nil: no AMD GPU with memory of its own;
// the extra cards of a partitioned GPU (amdgpu_xcp) have neither.
func readCard(dir string) *amdCard {
	if sampling.ReadText(dir, "vendor") != "0x1002" {
		return nil
	}
	total, err := strconv.ParseInt(sampling.ReadText(dir, "mem_info_vram_total"), 10, 64)
	if err != nil || total <= 0 {
		return nil
	}
	c := &amdCard{dir: dir, total: total, uuid: sampling.ReadText(dir, "unique_id"), render: -1, hip: -1}
	head, _ := os.ReadFile(filepath.Join(dir, "gpu_metrics"))
	if len(head) > 2 && head[2] >= 2 { // formats 2 and 3 are those of APUs (kgd_pp_interface.h)
		c.gtt, _ = strconv.ParseInt(sampling.ReadText(dir, "mem_info_gtt_total"), 10, 64)
		c.total += c.gtt
	}
	c.bdf = busOf(dir)
	c.name = sampling.ReadText(dir, "product_name")
	if c.name == "" {
		c.name = amdName(sampling.ReadText(dir, "device"))
	}
	c.driver = sampling.ReadText(dir, "driver", "module", "version")
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

// busOf is the PCI bus id of a device folder.
func busOf(dir string) string {
	for line := range strings.Lines(sampling.ReadText(dir, "uevent")) {
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
		"0x738c": "AMD Instinct MI100", "0x7408": "AMD Instinct MI250X", "0x740c": "AMD Instinct MI250X/MI250",
		"0x740f": "AMD Instinct MI210",
		"0x74a0": "AMD Instinct MI300A", "0x74a1": "AMD Instinct MI300X", "0x74a5": "AMD Instinct MI325X",
		"0x75a0": "AMD Instinct MI350X", "0x75a3": "AMD Instinct MI355X", "0x7551": "AMD Radeon AI PRO R9700",
	}
	if n := names[device]; n != "" {
		return n
	}
	return "AMD GPU " + device
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

func (c *amdCard) device() runner.Device {
	total := c.total
	d := runner.Device{
		Index: c.index, Vendor: "amd", Name: c.name, UUID: c.uuid, PCIBusID: c.bdf, DriverVersion: c.driver,
		TotalBytes: &total, Source: sampling.SourceAMDGPU,
	}
	if c.hip >= 0 {
		hip := c.hip
		d.ComputeIndex = &hip
	}
	return d
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
	gtt      sysFile   // of an APU; its descriptor is -1 elsewhere
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
	open := func(name string) sysFile { return openSys(filepath.Join(c.dir, name), runner.HasMemoryUsed, 1) }
	f := &amdFiles{used: open("mem_info_vram_used"), gtt: sysFile{fd: -1}, metrics: -1, buf: make([]byte, 4096)}
	if c.gtt > 0 {
		f.gtt = open("mem_info_gtt_used")
	}
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
		sensors := labels(c.hwmon)
		for _, v := range []struct {
			field runner.Fields
			scale float64
			label string
		}{
			{runner.HasTemperature, 1e-3, "junction"}, {runner.HasTemperature, 1e-3, "edge"},
			{runner.HasMemoryTemp, 1e-3, "mem"}, {runner.HasClockSM, 1e-6, "sclk"}, {runner.HasClockMem, 1e-6, "mclk"},
		} {
			if name := sensors[v.label]; name != "" && f.fields()&v.field == 0 {
				add(v.field, v.scale, c.hwmon, name+"_input")
			}
		}
	}
	f.openMetrics(c)
	return f
}

// labels maps the label of each temperature and clock to its name: "junction" to
// "temp2".
func labels(hwmon string) map[string]string {
	out := map[string]string{}
	for _, kind := range []string{"temp", "freq"} {
		files, _ := filepath.Glob(filepath.Join(hwmon, kind+"*_label"))
		for _, name := range files {
			out[sampling.ReadText(name)] = strings.TrimSuffix(filepath.Base(name), "_label")
		}
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
	for _, s := range append(slices.Clone(f.slow), f.used, f.gtt) {
		if s.fd >= 0 {
			unix.Close(s.fd)
		}
	}
	for _, fd := range []int{f.metrics, f.state} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	f.slow, f.used.fd, f.gtt.fd, f.metrics, f.state = nil, -1, -1, -1, -1
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
		return sampling.PowerAveraged
	}
	return sampling.PowerInstant
}

// read gives the number that a file holds.
func (f *amdFiles) read(s sysFile) (float64, error) {
	n, err := unix.Pread(s.fd, f.buf, 0)
	if err != nil {
		return 0, err
	}
	v, _, ok := sampling.ParseDecimal(f.buf[:n])
	if !ok {
		return 0, errNoNumber
	}
	return v * s.scale, nil
}

var (
	errNoNumber   = errors.New("holds no number")
	errImpossible = errors.New("impossible value of mem_info_vram_used: more than there is")
)

// memory reads what is in use: VRAM, and on an APU the host's memory that it has
// mapped. Some kernels let the account of VRAM run below zero: that is no error of
// the card.
func (f *amdFiles) memory(c *amdCard) (float64, error) {
	vram, err := f.read(f.used)
	if err != nil || c.gtt <= 0 && vram == 0 {
		return 0, err
	}
	if most := float64(c.total - c.gtt); vram < 0 || vram > most*65/64 {
		return 0, errImpossible
	}
	if c.gtt <= 0 {
		return vram, nil
	}
	gtt, err := f.read(f.gtt)
	return vram + gtt, err
}

// about says what the memory figures of an APU are.
func (c *amdCard) about() string {
	const mib = 1 << 20
	return fmt.Sprintf("that of an APU: %d MiB of VRAM and %d MiB of the host's memory (GTT), counted together",
		(c.total-c.gtt)/mib, c.gtt/mib)
}

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
	for _, r := range []metricsRev{
		{1, 1, 96, 24}, {1, 2, 104, 24}, {1, 3, 120, 24}, {1, 4, 288, 24}, {1, 5, 360, 88}, {1, 6, 1664, 16},
	} {
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

// reading reads a card's files once.
func (c *amdCard) reading() sampling.GPU {
	g := sampling.NewGPU(c.index)
	g.Name, g.UUID, g.BusID = c.name, c.uuid, c.bdf
	sampling.Put(&g.Sample, runner.HasMemoryTotal, float64(c.total))
	f := openAMD(c)
	defer f.close()
	if c.gtt > 0 {
		g.Texts[sampling.TextMemory] = c.about()
	}
	if v, err := f.memory(c); err != nil {
		g.Lacks(runner.HasMemoryUsed, err.Error())
	} else if v == 0 || !sampling.Put(&g.Sample, runner.HasMemoryUsed, v) {
		g.Lacks(runner.HasMemoryUsed, "mem_info_vram_used is 0: the card is being reset")
	}
	st := sampling.ReadText(c.dir, "power", "runtime_status")
	if st != "" && st != "active" && st != "unsupported" {
		g.Lacks(runner.HasPower, "the card is "+st+": reading its sensors would wake it")
		return g
	}
	for _, s := range f.slow {
		if v, err := f.read(s); err != nil {
			g.Lacks(s.field, err.Error())
		} else if !sampling.Put(&g.Sample, s.field, v) {
			g.Lacks(s.field, sampling.Impossible(fmt.Sprint(v)))
		}
	}
	if v, ok := f.energy(); ok && f.metrics >= 0 {
		sampling.Put(&g.Sample, runner.HasEnergy, v)
	}
	g.PowerKind = f.powerKind()
	return g
}
