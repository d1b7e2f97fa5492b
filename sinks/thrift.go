package sinks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// thriftDepth is how deep a footer may nest; the format needs a dozen levels.
const thriftDepth = 64

// The types of Thrift's compact protocol, as fields and elements name them
// (thrift-compact-protocol.md).
const (
	thriftStop = iota
	thriftTrue
	thriftFalse
	thriftByte
	thriftI16
	thriftI32
	thriftI64
	thriftDouble
	thriftBinary
	thriftList
	thriftSet
	thriftMap
	thriftStruct
	thriftUUID
)

// skimThrift goes through the struct that b begins with and returns its length.
// It allocates nothing and takes time by what there is, not by what is claimed:
// parquet-go makes slices as long as a list claims to be, goes as deep as the
// input nests, and its streaming reader takes the end of the input for zeros.
// io.ErrUnexpectedEOF says that b is too short for what it claims to hold.
func skimThrift(b []byte) (int, error) {
	s := thriftSkimmer{b: b}
	if err := s.fields(thriftDepth); err != nil {
		return s.at, err
	}
	return s.at, nil
}

type thriftSkimmer struct {
	b  []byte
	at int
}

func (s *thriftSkimmer) skip(n uint64) error {
	if n > uint64(len(s.b)-s.at) {
		return io.ErrUnexpectedEOF
	}
	s.at += int(n)
	return nil
}

func (s *thriftSkimmer) byte() (byte, error) {
	if s.at >= len(s.b) {
		return 0, io.ErrUnexpectedEOF
	}
	s.at++
	return s.b[s.at-1], nil
}

func (s *thriftSkimmer) varint() (uint64, error) {
	v, n := binary.Uvarint(s.b[s.at:])
	switch {
	case n == 0:
		return 0, io.ErrUnexpectedEOF
	case n < 0:
		return 0, errors.New("a number has more than 64 bits")
	}
	s.at += n
	return v, nil
}

// fields skips the rest of a struct.
func (s *thriftSkimmer) fields(depth int) error {
	for {
		head, err := s.byte()
		if err != nil {
			return err
		}
		kind := head & 0xf
		if kind == thriftStop {
			return nil
		}
		if head>>4 == 0 { // the number of the field follows
			if _, err := s.varint(); err != nil {
				return err
			}
		}
		if kind == thriftTrue || kind == thriftFalse {
			continue // the type is the value
		}
		if err := s.value(kind, depth); err != nil {
			return err
		}
	}
}

// value skips one value; a truth value is that of a container.
func (s *thriftSkimmer) value(kind byte, depth int) error {
	switch kind {
	case thriftTrue, thriftFalse, thriftByte:
		return s.skip(1)
	case thriftI16, thriftI32, thriftI64:
		_, err := s.varint()
		return err
	case thriftDouble:
		return s.skip(8)
	case thriftUUID:
		return s.skip(16)
	case thriftBinary:
		n, err := s.varint()
		if err != nil {
			return err
		}
		return s.skip(n)
	}
	if depth == 0 {
		return fmt.Errorf("it nests deeper than %d levels", thriftDepth)
	}
	switch kind {
	case thriftList, thriftSet:
		return s.list(depth - 1)
	case thriftMap:
		return s.pairs(depth - 1)
	case thriftStruct:
		return s.fields(depth - 1)
	}
	return fmt.Errorf("it has a value of the unknown type %d", kind)
}

func (s *thriftSkimmer) list(depth int) error {
	head, err := s.byte()
	if err != nil {
		return err
	}
	n := uint64(head >> 4)
	if n == 0xf {
		if n, err = s.varint(); err != nil {
			return err
		}
	}
	return s.elements(n, depth, head&0xf)
}

func (s *thriftSkimmer) pairs(depth int) error {
	n, err := s.varint()
	if err != nil || n == 0 {
		return err
	}
	kinds, err := s.byte()
	if err != nil {
		return err
	}
	return s.elements(n, depth, kinds>>4, kinds&0xf)
}

// elements skips n elements of a list, or n pairs of a map.
func (s *thriftSkimmer) elements(n uint64, depth int, kinds ...byte) error {
	if n > uint64(len(s.b)-s.at) { // each has a byte at least
		return io.ErrUnexpectedEOF
	}
	for range n {
		for _, kind := range kinds {
			if err := s.value(kind, depth); err != nil {
				return err
			}
		}
	}
	return nil
}
