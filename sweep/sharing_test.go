package sweep

import "testing"

func TestByEngine(t *testing.T) {
	profile := func(batch int64) *Profile {
		return &Profile{Sweep: "s", Settings: Settings{Model: "m", Asked: Asked{BatchSize: batch, InputLen: 8, OutputLen: 4}}}
	}
	a, b, c := profile(32), profile(1), profile(8)
	eager := true
	c.Settings.EnforceEager = &eager
	got := ByEngine([]*Profile{a, c, b})
	if len(got) != 3 || got[0] != b || got[1] != a || got[2] != c {
		t.Errorf("the profiles of one engine do not stand together, small ones first: %+v", got)
	}
	plan := &Plan{Sweeps: []*Sweep{{Repeats: 2, Profiles: got}}}
	if runs := plan.RunsByEngine(); len(runs) != 2 || runs[a.EngineKey()] != 4 || runs[c.EngineKey()] != 2 {
		t.Errorf("runs by engine: %v", runs)
	}
}

func TestByCompile(t *testing.T) {
	profile := func(dtype string, batch int64, util float64) *Profile {
		return &Profile{Sweep: "s", Settings: Settings{Model: "m", Asked: Asked{Dtype: &dtype, BatchSize: batch, GPUMemoryUtilization: &util}}}
	}
	a, b, c, d := profile("half", 8, 0.5), profile("float", 4, 0.5), profile("half", 1, 0.9), profile("float", 1, 0.5)
	c.Engine.Start = "cold"
	got := ByCompile([]*Profile{a, b, c, d})
	if len(got) != 4 || got[0] != a || got[1] != c || got[2] != b || got[3] != d {
		t.Errorf("what one compile cache entry serves does not stand together, in the plan's order: %+v", got)
	}
}
