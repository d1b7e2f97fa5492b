package sinks

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// maxName keeps names within what every file system takes, with room for
// suffixes.
const maxName = 120

// safeName turns any text (the name of a sweep, of a model) into the name of
// a file: letters, digits, dot, underscore and hyphen. A text that had to be changed gets
// a hash of the original, so that two texts never share a name.
func safeName(s string) string {
	name := strings.TrimLeft(regexp.MustCompile(`(?s)[^a-zA-Z0-9._-]`).ReplaceAllString(s, "_"), ".-")
	name = name[:min(len(name), maxName)]
	if name == s && name != "" {
		return name
	}
	sum := sha256.Sum256([]byte(s))
	return strings.TrimPrefix(fmt.Sprintf("%s-%x", name, sum[:4]), "-")
}

// RunName is the name of a run's folder in its execution's.
func RunName(job *runner.Job) string {
	return runName(job.Profile.Sweep, job.Profile.ID, job.Repeat)
}

func runName(sweep, profile string, repeat int) string {
	return safeName(fmt.Sprintf("%s-%s-r%d", sweep, profile, repeat))
}
