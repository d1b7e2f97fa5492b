package sinks

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
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
	var b strings.Builder
	for _, c := range s {
		if isNameByte(c) {
			b.WriteRune(c)
		} else {
			b.WriteByte('_')
		}
	}
	name := strings.TrimLeft(b.String(), ".-")
	if len(name) > maxName {
		name = name[:maxName]
	}
	if name == s && name != "" {
		return name
	}
	sum := sha256.Sum256([]byte(s))
	return strings.TrimPrefix(name+"-"+hex.EncodeToString(sum[:4]), "-")
}

func isNameByte(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// RunName is the name of a run's folder in its execution's.
func RunName(job *runner.Job) string {
	return safeName(fmt.Sprintf("%s-%s-r%d", job.Profile.Sweep, job.Profile.ID, job.Repeat))
}

func sortEntries(entries []fs.DirEntry) {
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
}
