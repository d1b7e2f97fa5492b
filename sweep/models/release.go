package models

// A Release is a version of vLLM as a number: major·1e6 + minor·1e3 + patch.
type Release int

// ParseRelease reads the numbers at the start of a version: "0.26.1rc0+g12" is
// 0.26.1. ok is false where there are no two numbers.
func ParseRelease(s string) (r Release, ok bool) {
	if s != "" && s[0] == 'v' {
		s = s[1:]
	}
	var n [3]int
	part, digits := 0, 0
	for i := 0; i < len(s) && part < 3; i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9' && n[part] < 1000:
			n[part] = n[part]*10 + int(c-'0')
			digits++
		case c == '.' && digits > 0:
			part++
			digits = 0
		default:
			i = len(s)
		}
	}
	if part == 0 || (part == 1 && digits == 0) {
		return 0, false
	}
	return releaseOf(n[0], n[1], n[2]), true
}

func releaseOf(major, minor, patch int) Release {
	return Release(major*1_000_000 + minor*1_000 + patch)
}

// Before reports whether r is older than major.minor.patch.
func (r Release) Before(major, minor, patch int) bool { return r < releaseOf(major, minor, patch) }

// Older reports whether a version is older than major.minor.patch. A fork's
// number (0.1.dev...) or one that does not parse is older than nothing.
func Older(version string, major, minor, patch int) bool {
	r, ok := ParseRelease(version)
	return ok && !r.Before(0, 2, 0) && r.Before(major, minor, patch)
}

// BatchDefaults is max_num_batched_tokens and max_num_seqs where nobody sets
// them: in the API server (serve) or in the LLM class, which `vllm bench
// latency` uses; large is a device of at least 70 GiB that is no A100.
// Source: vllm/engine/arg_utils.py, get_batch_defaults.
func BatchDefaults(large, serve bool) (tokens, seqs int64) {
	switch {
	case large && serve:
		return 8192, 1024
	case large:
		return 16384, 1024
	case serve:
		return 2048, 256
	}
	return 8192, 256
}
