package simulate

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// A Device is the driver's side of a simulated machine: a number of equal GPUs,
// whose use is what living processes have published in Dir. It keeps the
// energy counters and temperatures, so a program makes one and shares it
// between its samplers and inspectors. It is safe for concurrent use.
type Device struct {
	Dir      string
	GPU      models.GPU
	Count    int
	ProcRoot string           // "/proc"
	Now      func() time.Time // time.Now

	// guest: this is not the driver but a program that looks; it forgets nothing.
	guest bool

	mu    sync.Mutex
	spent map[int]float64      // J of processes that are gone, by GPU
	gone  map[string]time.Time // by state file: when its process was first missed
	seen  map[string]time.Time // and when it was last seen alive
	heat  map[int]heat
	boot  time.Time
}

// heat is the temperature of a GPU at a moment.
type heat struct {
	at      time.Time
	celsius float64
}

// A use is the state of one GPU at one moment.
type use struct {
	bytes             int64
	power             float64 // W
	celsius           float64
	energy            float64 // J since the device was made
	util, memUtil     int32
	clock, memClock   int32
	holdings          []*holding
	throttled, active bool
}

// The thermal model: a GPU settles at idleCelsius plus a share of its limit of
// power, with this time constant.
const (
	idleCelsius = 32.0
	fullCelsius = 38.0 // above idle, at the limit of power
	thermalTime = 4 * time.Second
)

// NewDevice makes a machine with so many equal GPUs, whose processes publish in
// dir. The directory is made if need be.
func NewDevice(dir string, gpu models.GPU, count int) (*Device, error) {
	if count < 1 || count > 64 {
		return nil, fmt.Errorf("a simulated machine with %d GPUs; expected 1 to 64", count)
	}
	if gpu.TotalBytes <= 0 {
		return nil, fmt.Errorf("the simulated GPU %q has no memory; name one of the catalogue", gpu.Name)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("state directory of the simulated GPUs: %w", err)
	}
	return &Device{
		Dir: dir, GPU: gpu, Count: count, ProcRoot: "/proc", Now: time.Now,
		spent: map[int]float64{}, heat: map[int]heat{}, gone: map[string]time.Time{}, seen: map[string]time.Time{},
	}, nil
}

// read is the state of all GPUs now. State files of processes that are gone
// are removed and their energy is kept in the counter.
func (d *Device) read() ([]use, error) {
	now := d.Now()
	held, err := d.holdings()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.boot.IsZero() {
		d.boot = now
	}
	uses := make([]use, d.Count)
	for _, path := range sortedKeys(held) {
		h := held[path]
		if h.GPU < 0 || h.GPU >= int64(d.Count) {
			continue
		}
		u := &uses[h.GPU]
		if !d.living(h) {
			if !d.lingers(path, h, now) {
				d.bury(path, h)
				continue
			}
			u.bytes += h.Bytes
			continue
		}
		d.seen[path] = now
		u.add(h, now)
	}
	s := speedOf(d.GPU)
	for i := range uses {
		d.settle(&uses[i], i, now, s)
	}
	return uses, nil
}

// add counts a living process.
func (u *use) add(h *holding, now time.Time) {
	u.bytes += h.Bytes
	u.power += h.Power
	u.energy += h.energyAt(now)
	u.util = min(u.util+h.Util, 100)
	u.memUtil = min(u.memUtil+h.MemUtil, 100)
	u.clock = max(u.clock, h.Clock)
	u.active = u.active || h.Power > 0
	u.holdings = append(u.holdings, h)
}

// settle adds what the GPU does by itself: idle power, temperature, counters.
func (d *Device) settle(u *use, gpu int, now time.Time, s speed) {
	if u.power < s.idle {
		u.power = s.idle
	}
	u.power = min(u.power, s.tdp)
	u.energy += d.spent[gpu] + s.idle*now.Sub(d.boot).Seconds()
	u.memClock = s.memClock
	if u.clock == 0 {
		u.clock = s.clock / 6
	}
	target := idleCelsius + fullCelsius*(u.power-s.idle)/max(s.tdp-s.idle, 1)
	last, known := d.heat[gpu]
	if !known {
		last = heat{now, idleCelsius}
	}
	share := 1 - math.Exp(-now.Sub(last.at).Seconds()/thermalTime.Seconds())
	u.celsius = last.celsius + (target-last.celsius)*max(share, 0)
	d.heat[gpu] = heat{now, u.celsius}
	u.throttled = u.power >= s.tdp
}

// living reports whether the process of a holding lives.
func (d *Device) living(h *holding) bool {
	started, alive := startOf(d.ProcRoot, int(h.PID))
	return alive && (h.Started == 0 || started == h.Started)
}

// lingers reports whether the driver has not yet given back the memory of a
// process that is gone.
func (d *Device) lingers(path string, h *holding, now time.Time) bool {
	since, seen := d.gone[path]
	if !seen {
		since = now
		d.gone[path] = now
	}
	return h.Linger < 0 || now.Sub(since) < time.Duration(h.Linger)
}

// bury forgets a process that is gone, but for its energy.
func (d *Device) bury(path string, h *holding) {
	if d.guest {
		return
	}
	ended := d.gone[path]
	if until := time.Unix(0, h.Until); until.Before(ended) { // it ended some time before it was missed
		ended = until
	}
	if seen := d.seen[path]; seen.After(ended) { // what was counted stays counted
		ended = seen
	}
	d.spent[int(h.GPU)] += h.energyAt(ended)
	delete(d.gone, path)
	delete(d.seen, path)
	// Gone already is as good; what cannot be removed is counted again only as
	// energy of a process that is dead, which is worth no failure.
	_ = os.Remove(path)
}

// holdings reads all state files, also those of processes that are gone.
func (d *Device) holdings() (map[string]*holding, error) {
	entries, err := os.ReadDir(d.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state of the simulated GPUs: %w", err)
	}
	held := map[string]*holding{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), holdingExt) {
			continue
		}
		path := filepath.Join(d.Dir, e.Name())
		for range 5 { // half-written: the writer is done at once
			data, err := os.ReadFile(path)
			if err != nil {
				break // gone since
			}
			if h, err := decodeHolding(data); err == nil {
				held[path] = h
				break
			}
		}
	}
	return held, nil
}

// heldByOthers are the bytes that living processes hold on each of the GPUs.
func (d *Device) heldByOthers(gpus []int) []int64 {
	others := make([]int64, len(gpus))
	uses, err := d.read()
	if err != nil {
		return others // no state directory: nobody holds anything
	}
	for i, gpu := range gpus {
		if gpu >= 0 && gpu < len(uses) {
			others[i] = uses[gpu].bytes
		}
	}
	return others
}

// product is the name that the driver gives: it says that it is simulated.
func (d *Device) product() string {
	name := d.GPU.Product
	if name == "" {
		name = d.GPU.Name
	}
	return name + " (simulated)"
}

// list describes the GPUs.
func (d *Device) list(uses []use) []runner.Device {
	devices := make([]runner.Device, d.Count)
	for i := range devices {
		used, total, reserve := uses[i].bytes, d.driverTotal(), d.GPU.Reserve
		devices[i] = runner.Device{
			Index: i, Vendor: "simulated", Name: d.product(), UUID: fmt.Sprintf("SIM-%08x-0000-0000-0000-%012x", 0x51a0000+i, i),
			PCIBusID: fmt.Sprintf("00000000:%02X:00.0", i+1), DriverVersion: "simulated",
			TotalBytes: &total, ReservedBytes: &reserve, UsedBytes: &used, Source: "simulated",
		}
	}
	return devices
}

// driverTotal is the memory with the driver's own share.
func (d *Device) driverTotal() int64 {
	if d.GPU.DriverTotal > 0 {
		return d.GPU.DriverTotal
	}
	return d.GPU.TotalBytes + d.GPU.Reserve
}

// all are the indexes of the GPUs, or the given ones.
func (d *Device) all(gpus []int) []int {
	if gpus != nil {
		return slices.DeleteFunc(slices.Clone(gpus), func(i int) bool { return i < 0 || i >= d.Count })
	}
	out := make([]int, d.Count)
	for i := range out {
		out[i] = i
	}
	return out
}
