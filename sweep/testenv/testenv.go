// Package testenv says what a test does where this machine lacks what it needs.
package testenv

import (
	"fmt"
	"os"
	"testing"
)

// Skip ends a test that lacks a tool or a corpus: skipped, or failed where
// VRAMSWEEP_NO_SKIP is set, as in .ci/run, which installs all that is needed.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if os.Getenv("VRAMSWEEP_NO_SKIP") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
