package sweep

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// EngineKey names the engine that a profile needs in session mode: profiles
// with the same key share one. It covers every setting but those that a request
// carries: lengths, batch size and iterations.
func (p *Profile) EngineKey() string {
	settings := p.Settings
	settings.InputLen, settings.OutputLen, settings.BatchSize = 0, 0, 0
	settings.NumIters, settings.NumItersWarmup = nil, nil
	// Marshal cannot fail: both are plain data.
	text, _ := json.Marshal(struct {
		Sweep    string
		Settings Settings
		Engine   Engine
	}{p.Sweep, settings, p.Engine})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}
