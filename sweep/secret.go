package sweep

import (
	"regexp"
	"slices"
	"strings"
)

// secretName knows names by their words: HF_TOKEN_2, hf-token, OPENAI_KEYS, DB_PASS, PGPASSWORD,
// AWS_SECRET_ACCESS_KEY. TOKENIZER, MAX_TOKENS, KEYBOARD are none.
var secretName = regexp.MustCompile(`(?i)(?:^|[_.-])(?:token|keys?|apikeys?|pat|creds?|credentials?|auth|cookies?` +
	`|pass|passphrase)(?:[_.-]?(?:\d+|id|ids|value))*$|(?:^|[_.-])(?:api|hf|hub|auth|access|bearer)[_.-]?tokens` +
	`|secret|passw(?:or)?d|pwd$|private_?key|api_?key|access_?key|auth_?token|access_?token`)

// plainName knows what ends like a secret and is none: vLLM's and a tokenizer's names, a terminal's, and the
// fingerprint in Python's container images.
var plainName = regexp.MustCompile(`(?i)^(?:HF_HUB_DISABLE_IMPLICIT_TOKEN|GPG_KEY|PWD|OLDPWD|SSH_AUTH_SOCK)$` +
	`|(?:^|[_.-])(?:[bes]o[st]|pad|unk|mask|sep|cls|image|video|audio|vision|special|stop|start|end|new|next|last` +
	`|first|per|tool|think|draft|placeholder|extra)[_.-]?token(?:[_.-]?(?:\d+|ids?|value))*$`)

// SecretName reports whether a variable, a flag or a field of this name holds a secret. It is the one list of such
// names.
func SecretName(name string) bool {
	if !hinted(name) {
		return false
	}
	name = strings.TrimLeft(name, "-")
	return !plainName.MatchString(name) && secretName.MatchString(words(name))
}

// words sets the words of apiKey apart.
func words(name string) string {
	return camel.ReplaceAllString(name, "${1}_$2")
}

var camel = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// hinted spares most names the regular expressions.
func hinted(name string) bool {
	for i := 0; i+3 <= len(name); i++ {
		switch string([]byte{name[i] | 0x20, name[i+1] | 0x20, name[i+2] | 0x20}) {
		case "tok", "key", "pas", "sec", "aut", "cre", "coo", "pat", "pwd":
			return true
		}
	}
	return false
}

// Secrets are the values of a sweep that are secret: of sensitive variables, of its environment, of flags whose names
// say so. No result may hold one.
func (s *Sweep) Secrets() []string {
	out := slices.Clone(s.secrets)
	for _, e := range s.Env {
		if e.Sensitive {
			out = append(out, e.Value)
		}
	}
	for _, p := range s.Profiles {
		for _, f := range p.Engine.Flags {
			out = append(out, secretTexts(f.Name, f.Value)...)
		}
		for _, a := range p.Axes {
			out = append(out, secretTexts(a.Axis, a.Value)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Secrets are those of all its sweeps.
func (p *Plan) Secrets() []string {
	var out []string
	for _, s := range p.Sweeps {
		out = append(out, s.Secrets()...)
	}
	return out
}

// secretTexts are the texts in a value that stand under the name of a secret.
func secretTexts(name string, v any) (out []string) {
	switch v := v.(type) {
	case string:
		if SecretName(name) {
			out = []string{v}
		}
	case []any:
		for _, member := range v {
			out = append(out, secretTexts(name, member)...)
		}
	case map[string]any:
		for key, member := range v {
			if SecretName(name) {
				key = name
			}
			out = append(out, secretTexts(key, member)...)
		}
	}
	return out
}

// sensitiveValues are the texts in the values of sensitive variables.
func (l *loader) sensitiveValues() (out []string) {
	for _, name := range sortedKeys(l.vars) {
		if v := l.vars[name]; v.sensitive {
			value, _ := toGo(v.value) // what is not known holds nothing
			out = append(out, secretTexts("secret", value)...)
		}
	}
	return out
}

// assignment is a name on a line of a file, with what it is given; literal is a text in it.
var (
	assignment = regexp.MustCompile(`([\w.-]+)"?\s*[=:]\s*`)
	literal    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"?`)
)

// blankSecrets writes stars over the texts on a line of a file that stand behind the name of a secret.
func blankSecrets(line []byte) {
	for _, at := range assignment.FindAllSubmatchIndex(line, -1) {
		if !SecretName(string(line[at[2]:at[3]])) {
			continue
		}
		for _, text := range literal.FindAllIndex(line[at[1]:], -1) {
			for i := at[1] + text[0]; i < at[1]+text[1]; i++ {
				line[i] = '*'
			}
		}
	}
}
