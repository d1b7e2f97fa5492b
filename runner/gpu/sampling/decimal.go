package sampling

import (
	"bytes"
	"strconv"
)

// ParseDecimal reads a plain decimal number, e.g. "71.24" or "-3", and returns
// what follows it without blanks. It allocates nothing.
func ParseDecimal(b []byte) (value float64, rest []byte, ok bool) {
	b = bytes.TrimSpace(b)
	end := len(b) - len(bytes.TrimLeft(b, "+-.0123456789"))
	v, err := strconv.ParseFloat(string(b[:end]), 64)
	return v, bytes.TrimSpace(b[end:]), err == nil
}

// ParseHex reads "0x0000000000000001".
func ParseHex(b []byte) (int64, bool) {
	digits, ok := bytes.CutPrefix(bytes.TrimSpace(b), []byte("0x"))
	v, err := strconv.ParseInt(string(digits), 16, 64)
	return v, ok && err == nil && v >= 0
}
