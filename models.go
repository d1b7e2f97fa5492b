// Package vramsweep embeds the catalogue of architectures, models.json, and the page
// of messages, so that the binary needs no file beside it.
package vramsweep

import _ "embed"

// Models is models.json; package sweep/models reads it.
//
//go:embed models.json
var Models []byte

// Messages is docs/messages.md: what each diagnostic's code means.
//
//go:embed docs/messages.md
var Messages string
