package simulate

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// chooseChaos decides which misbehaviour this start shows: those whose
// conditions hold, whose share of the runs this one is in, and whose attempts
// are not used up.
func (c *Config) chooseChaos(r *request) { c.chooseAmong(r, func(*Chaos) bool { return true }) }

// chooseAmong is chooseChaos of those that fit: session mode chooses for the
// engine's start and for each profile.
func (c *Config) chooseAmong(r *request, fits func(*Chaos) bool) {
	settings := r.settings(c)
	for i, chaos := range c.Plant.Chaos {
		if !fits(&chaos) || !matches(chaos.When, settings) {
			continue
		}
		rng := randomFor(c.Seed, c.Key, c.Repeat, fmt.Sprintf("chaos %d", i))
		if chaos.Share > 0 && rng.Float64() >= chaos.Share {
			continue
		}
		if chaos.Attempts > 0 && c.countStart(i) > chaos.Attempts {
			continue
		}
		c.active = append(c.active, chaos)
	}
}

// countStart counts the starts of one run in the state directory and returns
// which this is. Without a state directory every start is the first.
func (c *Config) countStart(index int) int {
	if c.StateDir == "" {
		return 1
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%d\x00%d\x00%d", c.Key, c.Repeat, c.Seed, index)
	path := filepath.Join(c.StateDir, fmt.Sprintf("%016x.starts", h.Sum64()))
	data, err := os.ReadFile(path)
	n := 0
	if err == nil {
		n, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	n++
	if err := os.WriteFile(path, []byte(strconv.Itoa(n)), 0o644); err != nil {
		return 1
	}
	return n
}

// does is the active misbehaviour of a kind, in a phase or ("") at all.
func (c *Config) does(do string, phase runner.Phase) *Chaos {
	for i := range c.active {
		chaos := &c.active[i]
		if chaos.Do != do {
			continue
		}
		at := runner.Phase(chaos.At)
		if at == "" && do == "fail_oom" {
			at = runner.PhaseMeasure
		}
		if phase == "" || at == phase {
			return chaos
		}
	}
	return nil
}

// A moment is when a misbehaviour that has a moment happens.
type moment struct {
	chaos *Chaos
	step  int // before this step of the script
}

// moments finds for each misbehaviour with a moment the step that it happens
// before: the last of its phase, or one drawn from the seed.
func (c *Config) moments(s *script) []moment {
	var out []moment
	for i := range c.active {
		chaos := &c.active[i]
		at := runner.Phase(chaos.At)
		switch chaos.Do {
		case "hang", "hang_busy", "die", "kill_worker", "exit":
			rng := randomFor(c.Seed, c.Key, c.Repeat, fmt.Sprintf("moment %d", i))
			step := rng.IntN(max(len(s.steps), 1))
			if at != "" {
				step = lastStep(s, at)
			}
			out = append(out, moment{chaos, step})
		case "setsid", "double_fork", "foreign_process":
			out = append(out, moment{chaos, firstStep(s, cmp.Or(at, runner.PhaseKVAlloc))})
		case "flood", "long_line", "garbage":
			out = append(out, moment{chaos, firstStep(s, cmp.Or(at, runner.PhaseLoad))})
		case "slow":
			out = append(out, moment{chaos, firstStep(s, cmp.Or(at, runner.PhaseMeasure))})
		}
	}
	return out
}

// firstStep is the index of the first step of a phase; the last step of all
// where the script has no such phase.
func firstStep(s *script, p runner.Phase) int {
	if i := slices.IndexFunc(s.steps, func(st step) bool { return st.phase == p }); i >= 0 {
		return i
	}
	return max(len(s.steps)-1, 0)
}

// lastStep is the index of the last step of a phase, as firstStep.
func lastStep(s *script, p runner.Phase) int {
	for i := len(s.steps) - 1; i >= 0; i-- {
		if s.steps[i].phase == p {
			return i
		}
	}
	return max(len(s.steps)-1, 0)
}

// length is how long a misbehaviour takes.
func (c *Chaos) length(other time.Duration) time.Duration {
	return cmp.Or(time.Duration(max(c.For, 0)), other)
}

// size is how many bytes a misbehaviour is about.
func (c *Chaos) size(other int64) int64 {
	return cmp.Or(int64(max(c.Bytes, 0)), other)
}
