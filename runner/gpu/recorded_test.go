package gpu

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOwnRecordings reads what this project recorded on two H100s, without the
// corpus. The figures were read off the files by eye.
func TestOwnRecordings(t *testing.T) {
	for _, tt := range []struct {
		file   string
		driver string
		want   map[Quantity]float64 // of GPU 1
	}{
		{"nvidia-smi_query-gpu_H100x2_580.csv", "580.159.04", map[Quantity]float64{
			QMemoryTotal: 81559 << 20, QMemoryReserved: 480 << 20, QMemoryUsed: 0, QPowerInstant: 76.70, QPowerAverage: 76.95, QPower: 76.95,
			QTempHotspot: 42, QTempMemory: 44, QUtilGPU: 0, QClockSM: 345, QClockMemory: 2619, QThrottleMask: 1, QECCUncorrected: 0}},
		{"nvidia-smi_q-x_H100x2_580.xml", "580.159.04", map[Quantity]float64{
			QMemoryTotal: 81559 << 20, QMemoryReserved: 480 << 20, QMemoryUsed: 0, QTempHotspot: 42, QClockSM: 345, QClockMemory: 2619, QECCUncorrected: 0, QPowerMax: 700}},
		{"nvidia-smi_table_H100x2_580.txt", "580.159.04", map[Quantity]float64{
			QMemoryTotal: 81559 << 20, QMemoryUsed: 0, QTempHotspot: 42, QPower: 76, QPowerCap: 700, QUtilGPU: 0}},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", tt.file))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Read(b)
		if err != nil {
			t.Fatalf("%s: %v", tt.file, err)
		}
		if len(r.GPUs) != 2 || r.Driver != tt.driver {
			t.Fatalf("%s: %d GPUs, driver %q", tt.file, len(r.GPUs), r.Driver)
		}
		g := r.GPUs[1]
		if g.Index != 1 || g.BusID != "00000000:00:07.0" || g.Name != "NVIDIA H100 80GB HBM3" {
			t.Errorf("%s: %+v", tt.file, g)
		}
		for q, want := range tt.want {
			if got, ok := g.Values[q]; !ok || got != want {
				t.Errorf("%s: %s = %v (%v), want %v; %s", tt.file, q, got, ok, want, g.Missing[q])
			}
		}
	}
}
