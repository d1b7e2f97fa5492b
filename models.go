// Package vramsweep embeds the catalogue of architectures, models.json, so that
// the binary needs no file beside it.
package vramsweep

import _ "embed"

// Models is models.json; package sweep/models reads it.
//
//go:embed models.json
var Models []byte
