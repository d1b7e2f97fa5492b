package proc

import (
	"bytes"
	"io"
	"regexp"
	"sort"
	"strings"
)

// Masked stands where a secret stood.
const Masked = "[masked]"

// A Masker takes secrets out of what is kept: the environment, command lines
// and log lines. What counts as one: the value of a variable whose name says so
// (HF_TOKEN, *_TOKEN, *_KEY, *SECRET*, *PASSWORD*, ...), a value that was
// marked sensitive, the value of a flag whose name says so, and whatever has
// the form of a well-known token, e.g. hf_... . The zero Masker knows the names
// and forms alone. A Masker may be used from several goroutines.
type Masker struct {
	values []string // longest first
}

// minSecret is the shortest value that is masked wherever it stands: a password
// "1" must not take every 1 out of a log.
const minSecret = 6

// NewMasker gives a Masker for what env (NAME=value) tells by its names and for
// further sensitive values.
func NewMasker(env []string, sensitive ...string) *Masker {
	m := &Masker{}
	for _, e := range env {
		if name, value, ok := strings.Cut(e, "="); ok && SecretName(name) {
			m.add(value)
		}
	}
	for _, v := range sensitive {
		m.add(v)
	}
	sort.Slice(m.values, func(i, j int) bool { return len(m.values[i]) > len(m.values[j]) })
	return m
}

func (m *Masker) add(v string) {
	if v = strings.TrimSpace(v); len(v) >= minSecret {
		m.values = append(m.values, v)
	}
}

// secretName knows names by their words: HF_TOKEN, hf-token, PGPASSWORD,
// AWS_SECRET_ACCESS_KEY. TOKENIZER, MAX_TOKENS, KEYBOARD are none.
var secretName = regexp.MustCompile(`(?i)(?:^|[_.-])(?:token|key|apikey|pat|credentials?|auth|cookie|passphrase)$` +
	`|secret|passw(?:or)?d|pwd$|private_?key|api_?key|access_?key`)

// What secrets look like: tokens of Hugging Face, GitHub, GitLab, Slack, AWS,
// OpenAI and the like, JSON web tokens; authorization headers; credentials in a
// URL; fields of objects as JSON and Python write them; assignments.
var (
	tokenForm = regexp.MustCompile(`\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}` +
		`|glpat-[A-Za-z0-9_-]{16,}|xox[abposr]-[A-Za-z0-9-]{10,}|A(?:KIA|SIA)[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{20,}` +
		`|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})`)
	headerForm = regexp.MustCompile(`(?i)\b(bearer|authorization: ?basic)(\s+)[A-Za-z0-9+/._~=-]{8,}`)
	urlForm    = regexp.MustCompile(`(://[^/\s:@]*:)[^/\s@]+@`)
	fieldForm  = regexp.MustCompile(`(?i)(["'](?:[a-z0-9_.-]*[_.-])?(?:hf_?token|auth_?token|access_?token` +
		`|bearer_?token|api_?key|access_?key|secret_?key|private_?key|secret|password|passwd)` +
		`\\?["']\s*:\s*\\?["'])[^"'\\]{6,}`)
	assignForm = regexp.MustCompile(
		`(?i)\b((?:[A-Z0-9_]*_)?(?:TOKEN|SECRET|PASSWORD|API_?KEY|ACCESS_KEY)=)[^\s"',;&)]{6,}`)
)

// maskForm replaces what matches. One of the hints is in every match: they spare
// most lines the regular expression.
func maskForm(s string, form *regexp.Regexp, with string, hints ...string) string {
	for _, h := range hints {
		if strings.Contains(s, h) {
			return form.ReplaceAllString(s, with)
		}
	}
	return s
}

// plainName: names that end like secrets and are none: vLLM's, a terminal's, and
// the fingerprint in Python's container images.
func plainName(name string) bool {
	switch strings.ToUpper(name) {
	case "HF_HUB_DISABLE_IMPLICIT_TOKEN", "GPG_KEY", "PWD", "OLDPWD", "SSH_AUTH_SOCK":
		return true
	}
	return false
}

// SecretName reports whether a variable or flag of this name holds a secret.
func SecretName(name string) bool {
	name = strings.TrimLeft(name, "-")
	return !plainName(name) && secretName.MatchString(name)
}

// Text takes the secrets out of s.
func (m *Masker) Text(s string) string {
	for _, v := range m.known() {
		s = strings.ReplaceAll(s, v, Masked)
	}
	s = maskForm(s, tokenForm, Masked, "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox",
		"AKIA", "ASIA", "sk-", "eyJ")
	s = maskForm(s, headerForm, "${1}${2}"+Masked, "earer", "EARER", "asic ", "ASIC ")
	s = maskForm(s, urlForm, "${1}"+Masked+"@", "@")
	s = maskForm(s, fieldForm, "${1}"+Masked, `":`, `':`, `" :`, `' :`)
	return maskForm(s, assignForm, "${1}"+Masked,
		"oken=", "OKEN=", "ecret=", "ECRET=", "assword=", "ASSWORD=", "key=", "Key=", "KEY=")
}

// Writer gives a writer that takes the secrets out of whole lines on their way
// to w (for Spec.Stdout and Spec.Stderr); Close writes what is left without
// closing w. A line of over 1 MiB goes out in pieces.
func (m *Masker) Writer(w io.Writer) io.WriteCloser { return &maskWriter{m: m, w: w} }

type maskWriter struct {
	m   *Masker
	w   io.Writer
	buf []byte
}

func (w *maskWriter) Write(b []byte) (int, error) {
	w.buf = append(w.buf, b...)
	end := bytes.LastIndexAny(b, "\r\n") + 1
	if end > 0 {
		end += len(w.buf) - len(b)
	} else if len(w.buf) > maxLine {
		end = len(w.buf) - maxLine/16 // a secret does not span more than this
	}
	if end == 0 {
		return len(b), nil
	}
	if err := w.flush(end); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (w *maskWriter) flush(end int) error {
	for line := range bytes.Lines(w.buf[:end]) {
		masked := w.m.Text(string(line))
		if _, err := io.WriteString(w.w, masked); err != nil {
			return err
		}
	}
	w.buf = append(w.buf[:0], w.buf[end:]...)
	return nil
}

func (w *maskWriter) Close() error {
	return w.flush(len(w.buf))
}

func (m *Masker) known() []string {
	if m == nil {
		return nil
	}
	return m.values
}

// Env gives env as a map, without secrets.
func (m *Masker) Env(env []string) map[string]string {
	out := make(map[string]string, len(env))
	for _, e := range env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			continue
		}
		out[name] = m.value(name, value)
	}
	return out
}

func (m *Masker) value(name, value string) string {
	if value != "" && SecretName(name) {
		return Masked
	}
	return m.Text(value)
}

// Value gives a value without secrets: a text, a list or an object of them, under
// the name that it has. Other values are returned as they are.
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
			out[key] = m.Value(key, value)
		}
		return out
	}
	return v
}

// Argv gives a command line without secrets: the values of flags whose names
// say so ("--token X", "--token=X"), and what Text takes out.
func (m *Masker) Argv(argv []string) []string {
	out := make([]string, len(argv))
	for i, a := range argv {
		name, value, assigned := strings.Cut(a, "=")
		prev := ""
		if i > 0 {
			prev = argv[i-1]
		}
		switch {
		case assigned && strings.HasPrefix(name, "-"):
			out[i] = name + "=" + m.value(name, value)
		case strings.HasPrefix(prev, "-") && !strings.Contains(prev, "=") && !strings.HasPrefix(a, "-"):
			out[i] = m.value(prev, a)
		default:
			out[i] = m.Text(a)
		}
	}
	return out
}
