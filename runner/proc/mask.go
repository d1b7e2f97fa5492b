package proc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/vramsweep/vramsweep/sweep"
)

// Masked stands where a secret stood.
const Masked = "[masked]"

// A Masker takes secrets out of what leaves the program: the environment, command lines, logs, results, the console.
// What counts as one: the value of a variable, flag or field whose name says so (sweep.SecretName), a value that was
// marked sensitive, and whatever has the form of a well-known token, e.g. hf_... . Values are known wherever they
// stand, also as JSON, Python and URLs write them. The zero Masker knows the names and forms alone. A Masker may be
// used from several goroutines.
type Masker struct {
	mu     sync.RWMutex
	values []string
}

// minSecret is the shortest value that is masked wherever it stands: a password "1" must not take every 1 out of a
// log. A part of a list must be longer: it is a word like others.
const (
	minSecret = 6
	minPart   = 8
)

// NewMasker gives a Masker for what env (NAME=value) tells by its names and for further sensitive values.
func NewMasker(env []string, sensitive ...string) *Masker {
	m := &Masker{}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok && sweep.SecretName(name) {
			m.Learn(value)
		}
	}
	m.Learn(sensitive...)
	return m
}

// Learn adds sensitive values: also the parts of a list, the lines of a text, and the spellings of each.
func (m *Masker) Learn(sensitive ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range sensitive {
		if v = strings.TrimSpace(v); len(v) < minSecret {
			continue
		}
		m.add(v)
		for _, part := range strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune("\r\n,;", r) }) {
			if part = strings.TrimSpace(part); len(part) >= minPart {
				m.add(part)
			}
		}
	}
}

func (m *Masker) add(v string) {
	asJSON, _ := json.Marshal(v) // a string always has a form
	inJSON := string(asJSON[1 : len(asJSON)-1])
	plain := strings.NewReplacer(`\u0026`, "&", `\u003c`, "<", `\u003e`, ">").Replace(inJSON)
	twice, _ := json.Marshal(plain)
	python := strings.ReplaceAll(plain, `\"`, `"`)
	query, path := url.QueryEscape(v), url.PathEscape(v)
	for _, form := range []string{v, strings.ReplaceAll(v, "\n", "\r\n"), inJSON, plain, string(twice[1 : len(twice)-1]),
		python, strings.ReplaceAll(python, "'", `\'`), query, lowerHex(query), path, lowerHex(path)} {
		if !slices.Contains(m.values, form) {
			m.values = append(m.values, form)
		}
	}
}

func lowerHex(s string) string {
	return regexp.MustCompile(`%[0-9A-F]{2}`).ReplaceAllStringFunc(s, strings.ToLower)
}

// What secrets look like: tokens of Hugging Face, GitHub, GitLab, Slack, AWS, OpenAI and the like, JSON web tokens;
// authorization headers; credentials in a URL.
var (
	tokenForm = regexp.MustCompile(`\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}` +
		`|glpat-[A-Za-z0-9_-]{16,}|xox[abposr]-[A-Za-z0-9-]{10,}|A(?:KIA|SIA)[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{20,}` +
		`|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})`)
	headerForm = regexp.MustCompile(`(?i)\b(?:bearer|authorization: ?basic)\s+([A-Za-z0-9+/._~=-]{8,})`)
	urlForm    = regexp.MustCompile(`://[^/\s:@"'\\]*:([^/\s@"'\\]+)@`)
)

// A span is a secret in a text, with the place from which on one must look to know it.
type span struct{ look, from, to int }

// find gives the secrets in a text, in order, none within another.
func (m *Masker) find(s string) []span {
	var spans []span
	for _, v := range m.known() {
		for at := 0; ; {
			i := strings.Index(s[at:], v)
			if i < 0 {
				break
			}
			spans = append(spans, span{at + i, at + i, at + i + len(v)})
			at += i + len(v)
		}
	}
	spans = findForm(spans, s, tokenForm, "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox",
		"AKIA", "ASIA", "sk-", "eyJ")
	spans = findForm(spans, s, headerForm, "earer", "EARER", "asic ", "ASIC ")
	spans = findForm(spans, s, urlForm, "@")
	spans = findNamed(spans, s)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
	merged := spans[:0]
	for _, p := range spans {
		if n := len(merged) - 1; n >= 0 && p.from < merged[n].to {
			merged[n].to = max(merged[n].to, p.to)
		} else {
			merged = append(merged, p)
		}
	}
	return merged
}

// findForm adds what a form matches: its group, or the whole of it. One of the hints is in every match: they spare
// most lines the regular expression.
func findForm(spans []span, s string, form *regexp.Regexp, hints ...string) []span {
	if !slices.ContainsFunc(hints, func(h string) bool { return strings.Contains(s, h) }) {
		return spans
	}
	for _, at := range form.FindAllStringSubmatchIndex(s, -1) {
		last := at[len(at)-2:]
		spans = append(spans, span{at[0], last[0], last[1]})
	}
	return spans
}

func (m *Masker) known() []string {
	if m == nil {
		return nil
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.values
}

// Text takes the secrets out of s. The number of its lines stays.
func (m *Masker) Text(s string) string { return without(s, m.find(s)) }

func without(s string, spans []span) string {
	if len(spans) == 0 {
		return s
	}
	var b strings.Builder
	at := 0
	for _, p := range spans {
		b.WriteString(s[at:p.from] + Masked + strings.Repeat("\n", strings.Count(s[p.from:p.to], "\n")))
		at = p.to
	}
	return b.String() + s[at:]
}

// Writer gives a writer that takes the secrets out of a stream on its way to w; Close writes what is left without
// closing w. Whole lines are written at once, unless a secret goes on in the next; a line of over 1 MiB goes out in
// pieces, none of which ends within a secret.
func (m *Masker) Writer(w io.Writer) io.WriteCloser { return &maskWriter{m: m, w: w} }

type maskWriter struct {
	m       *Masker
	w       io.Writer
	buf     []byte
	dropped bool // a secret without end began: what belongs to it is left out
}

// longSecret is more than a secret and its name take.
const longSecret = maxLine / 16

func (w *maskWriter) Write(b []byte) (int, error) {
	before := len(w.buf)
	w.buf = append(w.buf, b...)
	if w.dropped {
		rest := bytes.TrimLeftFunc(w.buf, inToken)
		w.dropped, w.buf = len(rest) == 0, append(w.buf[:0], rest...)
		before = 0
	}
	end := 0
	if i := bytes.LastIndexAny(w.buf[before:], "\r\n"); i >= 0 {
		end = before + i + 1
		end -= w.m.begun(string(w.buf[:end]))
	} else if len(w.buf) > maxLine {
		end = len(w.buf) - longSecret
	}
	if end <= 0 {
		return len(b), nil
	}
	if err := w.flush(end); err != nil {
		return 0, err
	}
	return len(b), nil
}

func inToken(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/._~=-%\\", r)
}

// begun is how many bytes at the end of whole lines are the first lines of a secret of several.
func (m *Masker) begun(s string) int {
	longest := 0
	for _, v := range m.known() {
		for i := range len(v) - 1 {
			if v[i] == '\n' && i+1 > longest && strings.HasSuffix(s, v[:i+1]) {
				longest = i + 1
			}
		}
	}
	return longest
}

// flush writes what is before end, or a little less where a secret lies across it.
func (w *maskWriter) flush(end int) error {
	s := string(w.buf)
	spans := w.m.find(s)
	for i := 0; i < len(spans); i++ {
		if p := spans[i]; p.look < end && end < p.to {
			end, i = p.look, -1
		}
	}
	if len(s)-end > maxLine { // a secret without end: what of it is to come is dropped
		end, w.dropped = len(s), spans[len(spans)-1].to == len(s)
	}
	whole := slices.DeleteFunc(spans, func(p span) bool { return p.to > end })
	_, err := io.WriteString(w.w, without(s[:end], whole))
	w.buf = append(w.buf[:0], w.buf[end:]...)
	return err
}

func (w *maskWriter) Close() error {
	if len(w.buf) == 0 {
		return nil
	}
	return w.flush(len(w.buf))
}

// Reader gives a reader of what r holds, without its secrets.
func (m *Masker) Reader(r io.Reader) io.Reader {
	out := &maskReader{from: r}
	out.to = m.Writer(&out.ready)
	return out
}

type maskReader struct {
	from  io.Reader
	to    io.WriteCloser
	ready bytes.Buffer
	err   error
}

func (r *maskReader) Read(p []byte) (int, error) {
	chunk := make([]byte, 64<<10)
	for r.ready.Len() == 0 && r.err == nil {
		n, err := r.from.Read(chunk)
		_, _ = r.to.Write(chunk[:n]) // a buffer takes all
		if r.err = err; err != nil {
			_ = r.to.Close() // the same
		}
	}
	if r.ready.Len() == 0 {
		return 0, r.err
	}
	return r.ready.Read(p)
}

// Env gives env as a map, without secrets.
func (m *Masker) Env(env []string) map[string]string {
	out := make(map[string]string, len(env))
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok {
			out[name] = m.value(name, value)
		}
	}
	return out
}

func (m *Masker) value(name, value string) string {
	if value != "" && sweep.SecretName(name) {
		return Masked
	}
	return m.Text(value)
}

// Value gives a value without secrets: a text, a list or an object of them, under the name that it has. Other values
// are returned as they are.
func (m *Masker) Value(name string, v any) any {
	switch v := v.(type) {
	case string:
		return m.value(name, v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = m.Value(name, v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[m.Text(key)] = m.Value(key, value)
		}
		return out
	}
	return v
}

// Argv gives a command line without secrets: the values of flags whose names say so ("--token X Y", "--token=X"), and
// what Text takes out.
func (m *Masker) Argv(argv []string) []string {
	out := make([]string, len(argv))
	flag := "" // whose values follow
	for i, a := range argv {
		name, value, assigned := strings.Cut(a, "=")
		switch {
		case strings.HasPrefix(a, "-") && assigned:
			flag, out[i] = "", name+"="+m.value(name, value)
		case strings.HasPrefix(a, "-") && len(a) > 1:
			flag, out[i] = a, m.Text(a)
		default:
			out[i] = m.value(flag, a)
		}
	}
	return out
}
