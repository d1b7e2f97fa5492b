package log

import (
	"regexp"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// choosesBackend reports whether a module chooses the backend of attention; the
// same words elsewhere are about MoE, quantization or communication.
func choosesBackend(file string) bool {
	return slices.Contains(strings.Fields("selector.py cuda.py rocm.py cpu.py xpu.py tpu.py hpu.py neuron.py openvino.py "+
		"interface.py cpu_attn.py tpu_platform.py tpu_jax.py ipex.py"), file)
}

// notAttention are words that say that a line about a backend is about
// something else.
var notAttention = regexp.MustCompile(`KV cache (?:layout|format)|MoE|prefill|['(\[].* backend|` +
	`for [Vv][Ii][Tt]|for MMEncoder|^Using backend `)

func applyBackend(r *run, p *piece, m []string) {
	name, tail := strings.TrimSuffix(m[1], " attention"), m[3]
	_, rest, _ := strings.Cut(p.msg, m[0])
	outOf := strings.HasPrefix(tail, " out of")
	if notAttention.MatchString(m[0]) || notAttention.MatchString(rest) && !outOf {
		return
	}
	base := p.source[strings.LastIndexByte(p.source, '/')+1:]
	chosen := m[2] != "" && outOf
	switch {
	case choosesBackend(base) || chosen:
	case !r.reader.backends.MatchString(name):
		return
	case base != "" && m[2] == "" && tail == "":
		// Outside of the platform modules a plain "Using X backend" is not about
		// attention, however well known its name ("Using FlashInfer backend" for
		// sampling).
		return
	}
	r.setFirst(&r.backend, p, name)
}

func applyVersion(r *run, p *piece, m []string) {
	r.front(p, "version")
	r.reader.current.setFirst(&r.reader.current.version, p, m[1])
	r.reader.current.event(p, runner.EventFirstLine, "")
}

func applyWorld(r *run, p *piece, m []string) {
	rank, dp := m[2]+m[3], m[5]
	if len(rank) > 6 {
		return
	}
	s := r.sender(p)
	s.worldRank = atoi(rank)
	if len(dp) > 0 && len(dp) < 6 && s.proc.dp < 0 && atoi(dp) > 0 {
		s.proc.dp = atoi(dp)
	}
}

// applyBanner opens an engine: in the current run, or in a new one where this
// engine had one already.
func applyBanner(r *run, p *piece, m []string) {
	r = r.reader.openEngine(r, p)
	r.setWord(&r.version, p, m[2])
	kind := m[1]
	if kind == "" {
		switch {
		case strings.Contains(p.source, "core.py"):
			kind = "V1"
		case p.source != "" || models.Older(m[2], 0, 6, 4): // V1 came with 0.6.4
			kind = "V0"
		}
	}
	if kind != "" {
		r.setWord(&r.engine, p, kind)
	}
	if r.banner == nil {
		r.banner = scalars(m[3], '=')
		r.bannerAt = p.at()
	}
	r.event(p, runner.EventEngineInit, "")
}

// applyArgs reads what was asked for. Of a printed dictionary only the plain
// values are taken.
func applyArgs(r *run, p *piece, m []string) {
	r.front(p, "args")
	r = r.reader.current
	if strings.HasPrefix(m[0], "args:") {
		r.args = scalars(m[1], '=')
	} else {
		r.args = scalars(m[1], ':')
	}
	r.argsServer = strings.HasPrefix(m[0], "args:") || r.args["model_tag"] != ""
	r.argsAt = p.at()
	r.event(p, runner.EventFirstLine, "")
}

// scalars reads the top-level key-value pairs of a banner ("k=v, k=v"), a
// Namespace or a Python dictionary ("'k': v"). Values that hold brackets are
// kept as they stand; None is left out, quotes are taken off.
func scalars(s string, sep byte) map[string]string {
	out := make(map[string]string)
	var n nesting
	start := 0
	for i := 0; i < len(s) && len(out) <= 1000; i++ {
		if n.quoted(s, &i) {
			continue
		}
		c := s[i]
		if n.step(c); n.depth < 0 {
			addScalar(out, s[start:i], sep)
			return out
		}
		// 0.6.3 and 0.6.4 forget a comma between two pairs.
		forgotten := c == ' ' && sep == '=' && strings.IndexByte(s[start:i], '=') >= 0
		if n.depth == 0 && (c == ',' || forgotten) {
			addScalar(out, s[start:i], sep)
			start = i + 1
		}
	}
	if start < len(s) {
		addScalar(out, s[start:], sep)
	}
	return out
}

// nesting follows quotes and brackets of a Python value.
type nesting struct {
	depth int
	quote byte
}

// quoted reports whether s[*i] belongs to a quoted text, and steps over what a
// backslash protects.
func (n *nesting) quoted(s string, i *int) bool {
	c := s[*i]
	switch {
	case n.quote == 0 && (c == '\'' || c == '"'):
		n.quote = c
	case n.quote == 0:
		return false
	case c == '\\':
		*i++
	case c == n.quote:
		n.quote = 0
	}
	return true
}

func (n *nesting) step(c byte) {
	switch c {
	case '(', '[', '{', '<':
		n.depth++
	case '>':
		n.depth = max(0, n.depth-1)
	case ')', ']', '}':
		n.depth--
	}
}

func addScalar(out map[string]string, pair string, sep byte) {
	k, v, ok := strings.Cut(strings.TrimSpace(pair), string(sep))
	if !ok {
		return
	}
	k = strings.Trim(strings.TrimSpace(k), `'"`)
	v = strings.TrimSpace(v)
	if len(v) >= 2 && (v[0] == '\'' || v[0] == '"') && v[len(v)-1] == v[0] {
		v = v[1 : len(v)-1]
	}
	if k == "" || v == "" || v == "None" {
		return
	}
	if _, dup := out[k]; !dup {
		out[k] = v
	}
}
