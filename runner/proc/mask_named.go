package proc

import (
	"strings"

	"github.com/vramsweep/vramsweep/sweep"
)

// findNamed adds the values that stand behind a name of a secret, as JSON, Python, HCL, headers, environments and
// command lines write them: "api_key": "x", api_key=['x', 'y'], TOKEN=x, X-Api-Key: x, --api-key x, ['--api-key', 'x'].
func findNamed(spans []span, s string) []span {
	for at := 0; at < len(s); {
		i := strings.IndexAny(s[at:], "=:-")
		if i < 0 {
			break
		}
		at += i
		from, value, ok := 0, 0, false
		switch {
		case s[at] != '-':
			from, value, ok = assigned(s, at)
		case strings.HasPrefix(s[at:], "--") && (at == 0 || !nameByte(s[at-1])):
			from, value, ok = flagged(s, at)
		}
		at++
		if ok {
			spans, at = values(spans, s, from, value)
		}
	}
	return spans
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-", c) >= 0
}

const maxName = 64

// assigned looks at a "=" or ":": does a secret's name stand before it? value is where what is assigned begins.
func assigned(s string, at int) (from, value int, ok bool) {
	end := at
	for end > 0 && s[end-1] == ' ' && at-end < 4 {
		end--
	}
	quoted := end > 0 && (s[end-1] == '"' || s[end-1] == '\'')
	if quoted {
		end--
	}
	for end > 0 && s[end-1] == '\\' {
		end--
	}
	for from = end; from > 0 && end-from < maxName && nameByte(s[from-1]); {
		from--
	}
	name := strings.TrimLeft(s[from:end], "-.")
	if len(name) < 3 || !sweep.SecretName(name) || bare(name, s[at] == '=', quoted) {
		return 0, 0, false
	}
	for value = at + 1; value < len(s) && (s[value] == ' ' || s[value] == '\t' || s[value] == '='); {
		value++
	}
	return from, value, true
}

// bare reports whether a word says too little: prose has keys and tokens that are none.
func bare(name string, assigned, quoted bool) bool {
	switch strings.ToLower(name) {
	case "key", "keys", "auth", "pass", "pat", "cookie", "cookies":
		return true
	case "token":
		return !assigned && !quoted
	}
	return false
}

// flagged looks at "--": is it the flag of a secret, on a command line or in a list of arguments?
func flagged(s string, at int) (from, value int, ok bool) {
	end := at + 2
	for end < len(s) && end-at < maxName && nameByte(s[end]) {
		end++
	}
	if end-at < 5 || !sweep.SecretName(s[at:end]) {
		return 0, 0, false
	}
	value = end
	for value < len(s) && strings.IndexByte(`\"'`, s[value]) >= 0 {
		value++
	}
	listed := value > end
	for value < len(s) && (s[value] == ' ' || listed && s[value] == ',') {
		value++
	}
	if value == end || value < len(s) && s[value] == '-' {
		return 0, 0, false
	}
	return at, value, true
}

// values adds the value at a place, a text in quotes and those that follow it in a list, or a word, and says where
// it ends.
func values(spans []span, s string, look, at int) ([]span, int) {
	if strings.HasPrefix(s[at:], Masked) {
		return spans, at + len(Masked)
	}
	for at < len(s) && (s[at] == '[' || s[at] == '(' || s[at] == ' ') {
		at++
	}
	if _, quoted := quote(s, at); !quoted {
		end := at
		for end < len(s) && strings.IndexByte(" \t\r\n\"'\\,;&)]}<>", s[end]) < 0 {
			end++
		}
		if end-at >= minSecret && strings.Trim(s[at:end], "0123456789.-") != "" {
			spans = append(spans, span{look, at, end})
		}
		return spans, end
	}
	for {
		mark, quoted := quote(s, at)
		if !quoted || strings.HasPrefix(s[at+len(mark):], "-") {
			return spans, at
		}
		from := at + len(mark)
		end := closing(s, from, mark)
		if end > from {
			spans = append(spans, span{look, from, end})
		}
		at = min(end+len(mark), len(s))
		next := at
		for next < len(s) && (s[next] == ' ' || s[next] == ',') {
			next++
		}
		if next >= len(s) || next == at || strings.IndexByte(s[at:next], ',') < 0 || isName(s, next) {
			return spans, at
		}
		at = next
	}
}

// quote is the mark that opens a text: " or ', with the backslashes of the text that it stands in.
func quote(s string, at int) (string, bool) {
	end := at
	for end < len(s) && s[end] == '\\' {
		end++
	}
	if end < len(s) && (s[end] == '"' || s[end] == '\'') {
		return s[at : end+1], true
	}
	return "", false
}

// closing is where the text ends that a mark opened; the end of the line where it does not.
func closing(s string, from int, mark string) int {
	slashes := 0
	for at := from; at < len(s) && s[at] != '\n'; at++ {
		if s[at] == '\\' {
			slashes++
			continue
		}
		if s[at] == mark[len(mark)-1] && (slashes == len(mark)-1 || len(mark) == 1 && slashes%2 == 0) {
			return at - len(mark) + 1
		}
		slashes = 0
	}
	if i := strings.IndexByte(s[from:], '\n'); i >= 0 {
		return from + i
	}
	return len(s)
}

// isName reports whether the text in quotes at a place is the name of the next field, not a further value.
func isName(s string, at int) bool {
	mark, quoted := quote(s, at)
	if !quoted {
		return true
	}
	end := closing(s, at+len(mark), mark) + len(mark)
	return end < len(s) && strings.HasPrefix(strings.TrimLeft(s[end:], " "), ":")
}
