package models

import (
	"errors"
	"strings"
	"testing"
)

// TestLawFiles: each shipped file is read, and is refused when something is wrong in it.
func TestLawFiles(t *testing.T) {
	set, err := shippedLaws()
	if err != nil || len(set.files) != 4 {
		t.Fatalf("%v, %v", set, err)
	}
	good, err := lawFiles.ReadFile("laws/h100-v0.26.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, says string }{
		{LawSchema, "other", `schema is "other"`},
		{`"0.26.0"`, `"newest"`, "vllm_version"},
		{`"form": "per_rank"`, `"form": "x"`, `no formula has the name "x"`},
		{`"one_bytes"`, `"two_bytes"`, `takes no "two_bytes"`},
		{`"elsewhere"`, `"there"`, "there"},
		{`"value": 12`, `"value": 13`, "low <= value <= high"},
	} {
		bad := strings.Replace(string(good), c.from, c.to, 1)
		if _, err := ParseLaws([]byte(bad)); !errors.Is(err, ErrLaws) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s for %s: %v", c.to, c.from, err)
		}
	}
}
