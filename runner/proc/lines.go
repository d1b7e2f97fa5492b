package proc

import (
	"bytes"
	"time"
)

// maxLine is the longest piece of a line that is given to Spec.Line at once.
const maxLine = 1 << 20

// A splitter cuts a stream of bytes into lines. LF and CRLF end a line; a CR
// ends a line of its own, as a progress bar draws over it. A line arrived when
// the last byte of its text was read, not its end: tqdm writes CR before the
// text, so a bar's end comes only with the next bar.
type splitter struct {
	stream  string
	emit    func(Line)
	rest    []byte    // text of the line that has no end yet
	arrived time.Time // of the last byte of rest
	number  int       // lines that have ended
	cr      bool      // the last byte was a CR; the next one tells CRLF from a bar
}

// feed takes the bytes of one read.
func (s *splitter) feed(b []byte, now time.Time) {
	for len(b) > 0 {
		if s.cr {
			s.cr = false
			if b[0] == '\n' {
				s.line(nil, now, false, false)
				b = b[1:]
				continue
			}
			s.line(nil, now, true, false)
		}
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 {
			s.keep(b, now)
			return
		}
		switch {
		case b[i] == '\n':
			s.line(b[:i], now, false, false)
		case i+1 < len(b) && b[i+1] != '\n':
			s.line(b[:i], now, true, false)
		case i+1 < len(b):
			s.line(b[:i], now, false, false)
			i++
		default:
			s.keep(b[:i], now)
			s.cr = true
		}
		b = b[i+1:]
	}
}

// keep holds text back until its end comes; what is over maxLine goes out as
// pieces.
func (s *splitter) keep(b []byte, now time.Time) {
	if len(b) == 0 {
		return
	}
	for len(s.rest)+len(b) > maxLine {
		n := maxLine - len(s.rest)
		s.rest = append(s.rest, b[:n]...)
		s.arrived = now
		b = b[n:]
		s.line(nil, now, false, true)
	}
	s.rest = append(s.rest, b...)
	s.arrived = now
}

// line emits rest and tail as one line.
func (s *splitter) line(tail []byte, now time.Time, cr, more bool) {
	if len(s.rest)+len(tail) > maxLine {
		s.keep(tail, now)
		tail = nil
	}
	text, arrived := tail, now
	if len(s.rest) > 0 {
		if len(tail) == 0 {
			arrived = s.arrived
		}
		s.rest = append(s.rest, tail...)
		text = s.rest
	}
	if len(text) > 0 || !cr { // a CR before a bar's text ends nothing
		s.emit(Line{Stream: s.stream, Text: text, Arrived: arrived, Number: s.number + 1, CR: cr, More: more})
	}
	s.rest = s.rest[:0]
	if !cr && !more {
		s.number++
	}
}

// end emits what the stream left without an end.
func (s *splitter) end(now time.Time) {
	if len(s.rest) > 0 {
		s.line(nil, now, s.cr, false)
	}
	s.cr = false
}
