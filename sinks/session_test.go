package sinks

import (
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

// TestSessionSums: a sum over GPUs of which one is missing is missing itself.
func TestSessionSums(t *testing.T) {
	r := night(0)[0].result()
	r.GPUInfo = []runner.Device{{Index: 0}, {Index: 1}}
	r.Session = &runner.Session{EngineShared: true, GroupSize: 2, MemoryAtStart: map[int]int64{0: 3, 1: 4}, Growth: map[int]int64{1: 2}}
	row := RowsOf(r).Run
	if row.SessionStartBytes == nil || *row.SessionStartBytes != 7 {
		t.Errorf("start %v of 3 and 4, expected 7", row.SessionStartBytes)
	}
	if row.SessionGrowthBytes != nil {
		t.Errorf("growth %d of a GPU and one that is not known, expected null", *row.SessionGrowthBytes)
	}
}
