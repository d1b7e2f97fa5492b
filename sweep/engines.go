package sweep

import "encoding/binary"

// An EngineCounter counts the engines that the profiles of one sweep need where
// one engine serves all profiles that differ in lengths, batch and iterations
// only. Its zero value has counted nothing; it is made for 100,000 profiles.
type EngineCounter struct {
	kinds   map[string]int   // engines but for max_model_len: their number
	engines map[engineOf]int // and with it
	longest int64            // the largest max_model_len
	open    bool             // a profile leaves max_model_len to vLLM
	list    []*setting
	buf     []byte
}

type engineOf struct {
	kind   int
	length int64 // 0: left to vLLM
}

// Add counts a profile. n is the number of its engine, in the order in which
// they were first needed; first says that no earlier profile needs it.
func (c *EngineCounter) Add(p *Profile) (n int, first bool) {
	if c.kinds == nil {
		c.kinds, c.engines, c.list = map[string]int{}, map[engineOf]int{}, settings()
	}
	c.buf = p.appendEngineKey(c.buf[:0], c.list)
	kind, ok := c.kinds[string(c.buf)]
	if !ok {
		kind = len(c.kinds)
		c.kinds[string(c.buf)] = kind
	}
	key := engineOf{kind: kind}
	if length := p.Settings.MaxModelLen; length != nil {
		key.length = *length
		c.longest = max(c.longest, *length)
	} else {
		c.open = true
	}
	n, ok = c.engines[key]
	if !ok {
		n = len(c.engines)
		c.engines[key] = n
	}
	return n, !ok
}

// Engines is how many engines the profiles need.
func (c *EngineCounter) Engines() int { return len(c.engines) }

// AnyLength is how many they would need if max_model_len were one for all.
func (c *EngineCounter) AnyLength() int { return len(c.kinds) }

// Longest is the largest max_model_len; all says whether every profile has one.
func (c *EngineCounter) Longest() (n int64, all bool) { return c.longest, !c.open }

// appendEngineKey appends to b what one engine has in common for all profiles
// that it serves, but for max_model_len. list is that of the settings.
func (p *Profile) appendEngineKey(b []byte, list []*setting) []byte {
	s, e := &p.Settings, &p.Engine
	for _, t := range [...]string{s.HFModelID, e.Kind, e.Mode, e.VLLMVersion, e.ModelRunner, e.Defaults} {
		b = keyText(b, t)
	}
	for _, st := range list {
		if !st.request && st.name != "max_model_len" {
			b = append(encode(b, st.get(s)), 0)
		}
	}
	for _, argv := range [...][]string{e.Command, e.Benchmark, e.Python} {
		b = binary.AppendVarint(b, int64(len(argv)))
		for _, arg := range argv {
			b = keyText(b, arg)
		}
	}
	for _, f := range e.Flags {
		b = append(encode(keyText(b, f.Name), f.Value), 0)
	}
	if sim := e.Simulator; sim != nil {
		b = binary.AppendVarint(keyText(b, sim.GPU), sim.Seed)
		b = encode(append(encode(encode(b, sim.Noise), sim.TimeScale), 0), sim.Plant)
	}
	return b
}

func keyText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
