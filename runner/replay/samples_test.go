package replay

import (
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// FuzzSamples: no samples file panics, and a tick is of one moment.
func FuzzSamples(f *testing.F) {
	f.Add("t_s,gpu_index,memory_used_bytes\n0.1,0,5\n0.1,1,\n0.2,0,7\n")
	f.Add("t_s,gpu_index\n1e400,0\n")
	f.Add("gpu_index,t_s,power_w,host_rss_bytes,other\n0,-1,1e17,3,x\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := &csvReader{path: "timeline.csv", start: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)}
		samples := 0
		err := r.read(strings.NewReader(text), func(tick []runner.Sample) error {
			if len(tick) == 0 {
				t.Error("an empty tick")
			}
			for _, s := range tick {
				samples++
				if s.Offset != tick[0].Offset {
					t.Error("a tick of two moments")
				}
			}
			return nil
		})
		if lines := strings.Count(text, "\n") + 1; samples > lines {
			t.Errorf("%d samples of %d lines", samples, lines)
		}
		if err != nil && !strings.Contains(err.Error(), "timeline.csv") {
			t.Errorf("error %q names no file", err)
		}
	})
}
