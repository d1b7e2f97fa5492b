package sampling

import (
	"bytes"
	"math"
)

// ParseDecimal reads a plain decimal number, e.g. "71.24" or "-3", and returns
// what follows it without blanks. It allocates nothing. The result is the
// nearest float64 for up to 15 digits, more than any tool prints.
func ParseDecimal(b []byte) (value float64, rest []byte, ok bool) {
	b = bytes.TrimSpace(b)
	i, neg := 0, false
	if i < len(b) && (b[i] == '-' || b[i] == '+') {
		neg = b[i] == '-'
		i++
	}
	var mant uint64
	digits, scale, point := 0, 1.0, false
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
			scale *= 10
		}
	}
	v := float64(mant) / scale
	if neg {
		v = -v
	}
	return v, bytes.TrimSpace(b[i:]), digits > 0
}

// ParseHex reads "0x0000000000000001".
func ParseHex(b []byte) (int64, bool) {
	b = bytes.TrimSpace(b)
	if len(b) < 3 || b[0] != '0' || b[1]|0x20 != 'x' || len(b) > 18 {
		return 0, false
	}
	var v uint64
	for _, c := range b[2:] {
		switch c |= 0x20; {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return int64(v & math.MaxInt64), v <= math.MaxInt64
}

// Digits reads digits alone; true of nothing at all, too.
func Digits(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
