package models

import (
	"encoding/json"
	"os"
	"testing"
)

func builtin(t testing.TB) *Catalogue {
	t.Helper()
	c, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPublishedParameters compares the count of every model that publishes one
// with ours. A count is equal when each element is; "rounded" figures are
// equal in the digits that they have.
func TestPublishedParameters(t *testing.T) {
	c := builtin(t)
	published := 0
	for _, id := range c.Names() {
		a, _ := c.Lookup(id)
		if a.Published == nil {
			continue
		}
		published++
		n, ok := Stored(a)
		if !ok {
			t.Errorf("%s: published %d (%s), not computed", id, a.Published.Params, a.Published.Source)
			continue
		}
		slack := int64(0)
		for _, what := range a.Published.Counts {
			if what == "rounded" {
				slack = halfUnit(a.Published.Params)
			}
		}
		if d := n - a.Published.Params; d > slack || d < -slack {
			t.Errorf("%s: computed %d, published %d (%s), difference %d", id, n, a.Published.Params, a.Published.Source, d)
		}
	}
	if published < 40 {
		t.Errorf("only %d models of the catalogue have a published count", published)
	}
	t.Logf("%d of %d models have a published count", published, len(c.Names()))
}

// halfUnit is half a unit of the last digit that n was published with: 5e8 for
// 141e9.
func halfUnit(n int64) int64 {
	unit := int64(1)
	for n > 0 && n%10 == 0 {
		n /= 10
		unit *= 10
	}
	return unit / 2
}

func readJSON(t testing.TB, path string, to any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
