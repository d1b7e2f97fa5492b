package sweep

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// EngineKey names the engine that a profile needs: profiles with the same key
// can share one. It covers every setting but those that a request carries:
// lengths, batch size and iterations.
func (p *Profile) EngineKey() string {
	sum := sha256.Sum256(p.engineText(p.Settings.MaxModelLen))
	return hex.EncodeToString(sum[:6])
}

// compileKey names the entry of vLLM's compile cache that a profile uses, as far
// as its settings tell. vLLM leaves out of the hash what sizes the KV cache and
// how weights are loaded (compute_hash in vllm/config/{model,cache,scheduler}.py
// of 0.32, which has no part for the load). Two keys may still share an entry.
func (p *Profile) compileKey() string {
	q := *p
	q.Engine.Start = ""
	q.Settings.GPUMemoryUtilization, q.Settings.KVCacheMemoryBytes, q.Settings.LoadFormat = nil, nil, nil
	return q.EngineKey()
}

// engineText is what the key is over.
func (p *Profile) engineText(maxModelLen *int64) []byte {
	s := p.Settings
	s.InputLen, s.OutputLen, s.BatchSize, s.NumIters, s.NumItersWarmup = 0, 0, 0, nil, nil
	s.MaxModelLen = maxModelLen
	// Marshal cannot fail: all is plain data.
	text, _ := json.Marshal(struct {
		Sweep    string
		Settings Settings
		Engine   Engine
	}{p.Sweep, s, p.Engine})
	return text
}

// An EngineCounter counts the engines that the profiles of one sweep need. Its
// zero value has counted nothing.
type EngineCounter struct {
	kinds   map[[sha256.Size]byte]bool // engines but for max_model_len
	engines map[engineOf]bool          // and with it
	longest int64                      // the largest max_model_len
	open    bool                       // a profile leaves max_model_len to vLLM
}

type engineOf struct {
	kind   [sha256.Size]byte
	length int64 // 0: left to vLLM
}

// Add counts a profile; first says that no earlier one needs its engine.
func (c *EngineCounter) Add(p *Profile) (first bool) {
	if c.kinds == nil {
		c.kinds, c.engines = map[[sha256.Size]byte]bool{}, map[engineOf]bool{}
	}
	key := engineOf{kind: sha256.Sum256(p.engineText(nil))}
	if length := p.Settings.MaxModelLen; length != nil {
		key.length = *length
		c.longest = max(c.longest, *length)
	} else {
		c.open = true
	}
	first = !c.engines[key]
	c.kinds[key.kind], c.engines[key] = true, true
	return first
}

// Engines is how many engines the profiles need.
func (c *EngineCounter) Engines() int { return len(c.engines) }

// AnyLength is how many they would need if max_model_len were one for all.
func (c *EngineCounter) AnyLength() int { return len(c.kinds) }

// Longest is the largest max_model_len; all says whether every profile has one.
func (c *EngineCounter) Longest() (n int64, all bool) { return c.longest, !c.open }
