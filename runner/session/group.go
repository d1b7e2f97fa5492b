package session

import (
	"cmp"
	"slices"

	"github.com/vramsweep/vramsweep/sweep"
)

// GroupKey names the engine that a profile needs.
func GroupKey(p *sweep.Profile) string { return p.EngineKey() }

// A Group is the profiles of a sweep that one engine serves, in the order in
// which it serves them.
type Group struct {
	Key      string
	Profiles []*sweep.Profile
}

// Groups puts the profiles of a sweep together by engine. Groups keep the order
// of their first profile; inside a group profiles go from small to large, so
// that the allocator's growth is seen where it happens: by tokens in flight,
// then by batch size, then in the plan's order.
func Groups(profiles []*sweep.Profile) []Group {
	var groups []Group
	at := map[string]int{}
	for _, p := range profiles {
		key := GroupKey(p)
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key] = i
			groups = append(groups, Group{Key: key})
		}
		groups[i].Profiles = append(groups[i].Profiles, p)
	}
	for _, g := range groups {
		slices.SortStableFunc(g.Profiles, func(a, b *sweep.Profile) int {
			return cmp.Or(cmp.Compare(tokens(a), tokens(b)), cmp.Compare(a.Settings.BatchSize, b.Settings.BatchSize))
		})
	}
	return groups
}

// tokens are those that a profile holds in the KV cache at its end.
func tokens(p *sweep.Profile) int64 {
	return p.Settings.BatchSize * (p.Settings.InputLen + p.Settings.OutputLen)
}

// A Hint says what keeps profiles of a sweep from sharing engines.
type Hint struct {
	Groups      int   // as it is
	Joined      int   // if max_model_len were one for all
	MaxModelLen int64 // that one: the longest
}

// LengthHint tells whether groups differ in max_model_len alone, as they do
// where it derives from the point (max_model_len = input + output).
func LengthHint(profiles []*sweep.Profile) (Hint, bool) {
	var c sweep.EngineCounter
	for _, p := range profiles {
		c.Add(p)
	}
	return HintOf(&c)
}

// HintOf tells what LengthHint tells of profiles that were counted already.
func HintOf(c *sweep.EngineCounter) (Hint, bool) {
	longest, all := c.Longest()
	h := Hint{Groups: c.Engines(), Joined: c.AnyLength(), MaxModelLen: longest}
	return h, all && h.Joined < h.Groups
}
