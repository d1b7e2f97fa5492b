package table

import (
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// TestUnpackedSize: what a page would take is known before it is unpacked, and is never less than that.
func TestUnpackedSize(t *testing.T) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	for _, size := range []int{0, 1, 1000, 200_000, 40 << 20} {
		data := make([]byte, size)
		for i := range min(size, 100_000) {
			data[i] = byte(i * i >> 3)
		}
		packed := enc.EncodeAll(data, nil)
		twice := append(packed, packed...)
		if got := unpackedSize(packed, format.Zstd); got < int64(size) || got > int64(size)+256<<10 {
			t.Errorf("%d bytes packed into %d: %d were expected", size, len(packed), got)
		}
		if got := unpackedSize(twice, format.Zstd); got < 2*int64(size) {
			t.Errorf("two frames of %d bytes: %d were expected", size, got)
		}
	}
	if got := unpackedSize(binary.AppendUvarint(nil, 900_000_000), format.Snappy); got != 900_000_000 {
		t.Errorf("a Snappy page of 900 MB: %d", got)
	}
}

// TestSkipStruct: a length that is not there is found before anybody makes room for it.
func TestSkipStruct(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		n    int
	}{
		{"empty", []byte{0}, 1},
		{"two numbers", []byte{0x15, 2, 0x15, 4, 0}, 5},
		{"a string", []byte{0x18, 2, 'a', 'b', 0, 9}, 5},
		{"a string of 2 GiB", []byte{0x18, 0xff, 0xff, 0xff, 0xff, 7, 'a', 0}, 0},
		{"a list of 2^31", []byte{0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 7, 0}, 0},
		{"without end", []byte{0x15, 2}, 0},
		{"too deep", []byte{0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c, 0x1c,
			0x1c, 0}, 0},
	} {
		if n, err := skipStruct(c.b, 0); n != c.n || (err == nil) != (c.n > 0) {
			t.Errorf("%s: %d, %v; want %d", c.name, n, err, c.n)
		}
	}
}
