package gpu

import "math"

// parseDecimal reads a plain decimal number, e.g. "71.24" or "-3", and returns
// what follows it without blanks. It allocates nothing. The result is the
// nearest float64 for up to 15 digits, more than any tool prints.
func parseDecimal(b []byte) (value float64, rest []byte, ok bool) {
	b = trim(b)
	i, neg := 0, false
	if i < len(b) && (b[i] == '-' || b[i] == '+') {
		neg = b[i] == '-'
		i++
	}
	var mant uint64
	digits, frac, point := 0, 0, false
	for ; i < len(b); i++ {
		c := b[i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		if digits++; digits > 18 {
			return 0, nil, false
		}
		mant = mant*10 + uint64(c-'0')
		if point {
			frac++
		}
	}
	if digits == 0 {
		return 0, nil, false
	}
	v := float64(mant) / pow10(frac)
	if neg {
		v = -v
	}
	return v, trim(b[i:]), true
}

func pow10(n int) float64 {
	p := 1.0
	for range n {
		p *= 10
	}
	return p
}

// parseHex reads "0x0000000000000001".
func parseHex(b []byte) (int64, bool) {
	b = trim(b)
	if len(b) < 3 || b[0] != '0' || (b[1] != 'x' && b[1] != 'X') || len(b) > 18 {
		return 0, false
	}
	var v uint64
	for _, c := range b[2:] {
		d := hexDigit(c)
		if d < 0 {
			return 0, false
		}
		v = v<<4 | uint64(d)
	}
	if v > math.MaxInt64 {
		return 0, false
	}
	return int64(v), true
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func trim(b []byte) []byte {
	for len(b) > 0 && blank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && blank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
