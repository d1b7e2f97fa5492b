package simulate

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden keeps whole logs: the text of a version never changes by accident.
func TestGolden(t *testing.T) {
	for _, test := range []struct {
		name, version, runner string
		plant                 Plant
		args                  []string
	}{
		{"v2-0.26.0", "0.26.0", "v2", Plant{}, nil},
		{"v2-0.26.0-tp2", "0.26.0", "v2", Plant{}, []string{"-tp", "2"}},
		{"v1-0.26.0-real-weights", "0.26.0", "v1", Plant{}, []string{"--load-format", "auto"}},
		{"v2-0.33.0", "0.33.0", "v2", Plant{}, nil},
		{"v2-0.33.0-tp2", "0.33.0", "v2", Plant{}, []string{"-tp", "2"}},
		{"v2-0.26.0-no-kv", "0.26.0", "v2", Plant{}, []string{"--gpu-memory-utilization", "0.15"}},
		{"v2-0.26.0-oom-measure-tp2", "0.26.0", "v2", Plant{Chaos: []Chaos{{Do: "fail_oom"}}}, []string{"-tp", "2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig(t, test.version, test.runner)
			c.Plant = test.plant
			stdout, stderr := rendered(scriptOf(c, testRequest(t, c, test.args...), nil, nil))
			got := "--- stdout\n" + string(stdout) + "--- stderr\n" + string(stderr)
			got = strings.ReplaceAll(strings.ReplaceAll(got, "\r", "<CR>"), "\x1b", "<ESC>")
			path := filepath.Join("testdata", test.name+".golden")
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal([]byte(got), want) {
				t.Errorf("the log of %s has changed (go test -run TestGolden -update writes it anew):\n%s",
					test.name, firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			other := ""
			if i < len(w) {
				other = w[i]
			}
			return "got  " + g[i] + "\nwant " + other
		}
	}
	return "the golden file is longer"
}
