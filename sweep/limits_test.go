package sweep

import (
	"fmt"
	"strings"
	"testing"
)

// TestHostileFiles loads files of a few lines that ask for hours or for all the
// memory. Each must be refused; one that is not runs into the test's time limit.
func TestHostileFiles(t *testing.T) {
	const head = "sweep \"s\" {\n  matrix {\n    model = [\"Qwen/Qwen3-0.6B\"]\n"
	points := head + "    batch_size = range(1, 1001)\n    input_len  = range(1, 101)\n  }\n"
	long := "locals {\n  s = join(\"\", [for i in range(1000) : \"" + strings.Repeat("0123456789", 10) + "\"])\n}\n"
	var flags strings.Builder
	for i := range 60 {
		fmt.Fprintf(&flags, "    flag%d = matrix.batch_size * matrix.input_len + %d.5\n", i, i)
	}
	for name, text := range map[string]string{
		"loops": "locals {\n  a = [for a in range(1000) : [for b in range(1000) : [for c in range(1000) : " +
			"c]]]\n}\n",
		"loops of loops": "locals {\n  a = {for a in range(1000) : a => [for b in range(1000) : a]...}\n}\n",
		"strings at points": long + points + "  engine \"vllm\" {\n    x = \"${local.s}${matrix.batch_size * " +
			"matrix.input_len}\"\n  }\n}\n",
		"calls at points": long + points + "  engine \"vllm\" {\n    x = length(upper(\"${local.s}${matrix.batch_size " +
			"* matrix.input_len}\"))\n  }\n}\n",
		"flags at points":    points + "  engine \"vllm\" {\n" + flags.String() + "  }\n}\n",
		"replace":            long + "locals {\n  a = replace(local.s, \"0\", local.s)\n}\n",
		"format":             "locals {\n  a = format(\"%0999999999d\", 1)\n}\n",
		"power":              "locals {\n  a = pow(10, 300)\n  b = local.a * local.a\n  c = \"${local.b}\"\n}\n",
		"set product":        "locals {\n  a = setproduct(range(1000), range(1000), range(1000))\n}\n",
		"minus":              "locals {\n  a = " + strings.Repeat("-", 500000) + "1\n}\n",
		"conditions":         "locals {\n  a = " + strings.Repeat("true ? 1 : ", 50000) + "1\n}\n",
		"brackets":           "locals {\n  a = " + strings.Repeat("(", 100000) + "1" + strings.Repeat(")", 100000) + "\n}\n",
		"templates":          "locals {\n  a = \"" + strings.Repeat("%{ if true }", 40000) + "\"\n}\n",
		"chain of locals":    "locals {\n" + chain(20000) + "}\n",
		"large file":         "#" + strings.Repeat("x", maxFileBytes),
		"many large sweeps":  strings.Repeat(points+"}\n", 20),
		"axes without bound": head + strings.Repeat("    x = [1]\n", 3) + "  }\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			e := loadError(t, text, Inputs{})
			if len(e.Diagnostics()) == 0 {
				t.Error("no message")
			}
		})
	}
}

func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  a%d = local.a%d + 1\n", i, i+1)
	}
	fmt.Fprintf(&b, "  a%d = 1\n", n)
	return b.String()
}
