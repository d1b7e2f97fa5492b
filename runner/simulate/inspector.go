package simulate

import (
	"context"
	"fmt"

	"github.com/vramsweep/vramsweep/runner"
)

// Devices lists the simulated GPUs. It implements runner.Inspector.
func (d *Device) Devices(context.Context) ([]runner.Device, error) {
	uses, err := d.read()
	if err != nil {
		return nil, err
	}
	return d.list(uses), nil
}

// Inspect reads the simulated GPUs once, in full; nil is all of them. It
// implements runner.Inspector.
func (d *Device) Inspect(_ context.Context, gpus []int) (*runner.DetailedGPUMetrics, error) {
	uses, err := d.read()
	if err != nil {
		return nil, err
	}
	metrics := &runner.DetailedGPUMetrics{
		Tool: "vramsweep simulator (synthetic)", Timestamp: d.Now().UTC(),
		Missing: map[string]string{
			"gpus[].memory_temp_c":   "the simulator has no memory temperature",
			"gpus[].ecc_uncorrected": "the simulator has no ECC",
		},
	}
	const mib = 1 << 20
	for _, i := range d.all(gpus) {
		u := &uses[i]
		used, total, reserved := float64(u.bytes)/mib, float64(d.driverTotal())/mib, float64(d.GPU.Reserve)/mib
		free, percent := total-reserved-used, 100*used/total
		util, memUtil, clock, memClock := float64(u.util), float64(u.memUtil), float64(u.clock), float64(u.memClock)
		reasons, _ := u.reasons()
		detail := runner.GPUDetail{
			GPUID: i, VRAMUsedMB: &used, VRAMFreeMB: &free, VRAMTotalMB: &total,
			VRAMReservedMB: &reserved, VRAMPercent: &percent,
			PowerWatts: &u.power, HotspotTempC: &u.celsius, GfxUtilizationPct: &util, MemUtilizationPct: &memUtil,
			ClockGfxMHz: &clock, ClockMemMHz: &memClock, ThrottleReasons: reasons, Processes: []runner.GPUProcess{},
		}
		for _, h := range u.holdings {
			detail.Processes = append(detail.Processes, runner.GPUProcess{
				ProcessInfo: fmt.Sprintf("%s (PID: %d)", h.name(), h.PID), PID: int(h.PID), Name: h.name(),
				MemoryUsage: &runner.ValueUnit{Value: float64(h.Bytes) / mib, Unit: "MB"},
			})
		}
		metrics.GPUs = append(metrics.GPUs, detail)
	}
	return metrics, nil
}

// reasons are the reasons for the clocks, as NVML names them, and as its mask
// (clocks_event_reasons.active).
func (u *use) reasons() (names []string, mask int64) {
	switch {
	case u.throttled:
		return []string{"sw_power_cap"}, 0x4
	case !u.active:
		return []string{"gpu_idle"}, 0x1
	}
	return nil, 0
}
