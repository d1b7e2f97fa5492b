package simulate

import (
	"fmt"
	"strconv"
	"strings"
)

// DefaultVersion is the vLLM that is imitated where nothing else is asked: the
// one that this project has recorded on real GPUs.
const DefaultVersion = "0.26.0"

// A version is a vLLM release, as far as the texts depend on it.
type version struct {
	text                string
	major, minor, patch int
}

// parseVersion reads "0.26.0", "0.8.5.post1", "0.15.0rc2.dev46+gc4e744dbd".
func parseVersion(s string) (version, error) {
	if s == "" {
		s = DefaultVersion
	}
	v := version{text: strings.TrimPrefix(s, "v")}
	parts := strings.SplitN(v.text, ".", 4)
	for i, dst := range []*int{&v.major, &v.minor, &v.patch} {
		if i >= len(parts) {
			break
		}
		digits := parts[i]
		if j := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); j >= 0 {
			digits = digits[:j]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return version{}, fmt.Errorf("vllm_version %q is not a version such as %q", s, DefaultVersion)
		}
		*dst = n
	}
	if len(parts) < 2 {
		return version{}, fmt.Errorf("vllm_version %q is not a version such as %q", s, DefaultVersion)
	}
	if !v.atLeast(0, 6, 0) {
		return version{}, fmt.Errorf("vllm_version %q: the simulator imitates 0.6.0 and later", s)
	}
	return v, nil
}

// atLeast reports whether v is the given release or a later one.
func (v version) atLeast(major, minor, patch int) bool {
	if v.major != major {
		return v.major > major
	}
	if v.minor != minor {
		return v.minor > minor
	}
	return v.patch >= patch
}
