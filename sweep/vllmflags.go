package sweep

import (
	_ "embed"
	"strings"
)

// flagsVersion is the version of vLLM whose flags vllmflags.txt lists.
const flagsVersion = "0.29"

// vllmFlags is vllmflags.txt: vLLM's flags that are no settings, with underscores:
// those of `vllm bench latency` of flagsVersion, read from its own parser, and those
// that versions from 0.4.3 on had before. The list serves warnings only; a flag
// that it lacks is passed on.
//
//go:embed vllmflags.txt
var vllmFlags string

func engineFlags() []string { return strings.Fields(vllmFlags) }
