package log

import (
	"bytes"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// A file that a terminal, a chat or an issue tracker wrapped has no line longer
// than its width, and its broken lines would not have taken the first word of
// the next.
const (
	maxWidth    = 250 // a log that was not wrapped has longer lines: its banner, its arguments
	minWidth    = 50
	maxUnwrap   = 64 << 10
	sniffLength = 128 << 10
)

// An unwrapper joins the lines of such a file before they are read.
type unwrapper struct {
	rd      *Reader
	name    string
	margin  int  // blanks before every line, as of a text pasted into a list
	width   int  // 0: the file is not wrapped
	hard    bool // in the middle of words
	sure    bool // so many lines are full that a full line goes on whatever the next looks like
	pending []byte
	last    int // width of the last line that was joined
	more    int // lines joined to the first
	held    bool
}

// newUnwrapper looks at the beginning of a file.
func newUnwrapper(rd *Reader, name string, start []byte) *unwrapper {
	u := &unwrapper{rd: rd, name: name}
	widths, continued := map[int]int{}, map[int]int{}
	longest, last := 0, 0
	u.margin = marginOf(start)
	for line := range bytes.Lines(start) {
		if line[len(line)-1] != '\n' && len(start) >= sniffLength {
			break // cut by the look itself
		}
		w := max(width(line)-u.margin, 0)
		if w > maxWidth {
			return u
		}
		widths[w]++
		if !beginsAnew(string(line[min(u.margin, len(line)):])) {
			continued[last]++
		}
		longest, last = max(longest, w), w
	}
	if longest < minWidth {
		return u
	}
	near, nearContinued := 0, 0 // of lines that were broken between words the last word is missing
	for w, n := range widths {
		if w != longest && w > longest-15 {
			near, nearContinued = near+n, nearContinued+continued[w]
		}
	}
	full := widths[longest]
	u.hard, u.sure = full >= 2 && (full > near || continued[longest] > max(nearContinued, 1)), full >= 5
	if u.hard || full+near >= 4 {
		u.width = longest
	}
	return u
}

// beginsAnew reports whether a line does not look like the rest of another.
func beginsAnew(line string) bool {
	_, rest := unwrap(strings.TrimRight(line, "\r\n"))
	return startRE.MatchString(rest) || len(findHeaders(head(rest, 200))) > 0
}

// marginOf is the number of blanks that all lines begin with.
func marginOf(text []byte) int {
	margin := -1
	for line := range bytes.Lines(text) {
		if blanks := len(line) - len(bytes.TrimLeft(line, " ")); len(bytes.TrimSpace(line)) > 0 && (margin < 0 || blanks < margin) {
			margin = blanks
		}
	}
	return max(margin, 0)
}

func width(line []byte) int { return utf8.RuneCount(bytes.TrimRight(line, "\r\n")) }

// line reads a line, or joins it to the one before.
func (u *unwrapper) line(text []byte) {
	for range u.margin {
		text = bytes.TrimPrefix(text, []byte(" "))
	}
	if u.width == 0 {
		u.rd.Line(u.name, text, time.Time{})
		return
	}
	if rest, goesOn := u.rest(text); goesOn {
		u.more++
		glue := ""
		if !u.hard && !bytes.HasSuffix(u.pending, []byte(" ")) {
			glue = " "
		}
		u.last = width(text)
		u.pending = append(append(u.pending, glue...), rest...)
		return
	}
	u.flush()
	u.held, u.last = true, width(text)
	u.pending = append(u.pending[:0], bytes.TrimRight(text, "\r")...)
}

// flush reads what is pending.
func (u *unwrapper) flush() {
	if u.held {
		u.rd.Line(u.name, u.pending, time.Time{})
		u.rd.lines[u.name] += u.more
	}
	u.held, u.more = false, 0
}

// startRE is how a line of its own begins: a record, a process, a bar, an
// exception, a traceback, another program's line.
var startRE = regexp.MustCompile(`^(?:  |\t|\s*$|\s*File "|Traceback |During handling|The above exc|` +
	`[A-Z]+: {2}|\([\w:. ]*pid=\d+|` +
	`\[[A-Za-z]|\{"|\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|[=#*-]{5}|[^|]{0,80}\d+%\||INFO |DEBUG |WARNING |ERROR |` +
	`(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): )`)

// recordRE is the part of startRE that no broken line begins with.
var recordRE = regexp.MustCompile(`^(?:\s*$|Traceback |[A-Z]+: {2}|\([\w:. ]*pid=\d+|\{"|[^|]{0,80}\d+%\||` +
	`INFO |DEBUG |WARNING |ERROR )`)

// rest is what a line adds to the one before, without the label that stands
// before both.
func (u *unwrapper) rest(text []byte) (rest []byte, goesOn bool) {
	if !u.held || len(u.pending) > maxUnwrap {
		return nil, false
	}
	line := string(bytes.TrimRight(text, "\r"))
	group, after := unwrap(line)
	mine, _ := unwrap(string(u.pending[:min(len(u.pending), 400)]))
	label := line[:len(line)-len(after)]
	switch {
	case label == "":
	case group != "" && group == mine, bytes.HasPrefix(u.pending, []byte(label)), isMargin(label):
		line = withoutBorder(after)
		u.pending = []byte(withoutBorder(string(u.pending)))
	case group != "":
		return nil, false
	}
	begins := startRE
	if u.hard && u.sure {
		begins = recordRE
	}
	if begins.MatchString(line) || len(findHeaders(head(line, 200))) > 0 && headerRE.MatchString(line) ||
		len(line) > 12 && bytes.HasPrefix(u.pending, []byte(line[:12])) {
		return nil, false
	}
	first, _, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
	reach := u.last + 1 + utf8.RuneCountInString(first)
	if u.hard {
		reach = u.last + 1
	}
	return []byte(line), reach > u.width
}

// isMargin reports whether a label is the side of a box or a quotation.
func isMargin(label string) bool { return strings.Trim(label, "│┃║>| ") == "" }
