package main

import (
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// unifiedDiff shows how a file changes.
func unifiedDiff(name, before, after string) string {
	return strings.TrimSuffix(string(diff.Diff(name, []byte(before), name+" (formatted)", []byte(after))), "\n") + "\n"
}
