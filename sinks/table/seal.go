package table

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// A seal is two SHA-256 in a file's own metadata: of its footer, which is checked whenever the file is opened, and of
// the whole file, which Whole checks. Where it stands both count as zeros.
const (
	metaSeal = "vramsweep.seal"
	sealLen  = 128
)

func noSeal() string { return strings.Repeat("0", sealLen) }

// sealIn is where in a footer the seal stands; -1: it has none.
func sealIn(footer []byte) int {
	at := bytes.Index(footer, []byte(metaSeal))
	if at < 0 {
		return -1
	}
	at += len(metaSeal) + 3 // the head of the next field, and a length of two bytes
	if at+sealLen > len(footer) {
		return -1
	}
	return at
}

// Seal completes a file that a Writer with Options.Sealed closed. whole is the SHA-256 of all that was written.
func Seal(file interface {
	io.ReaderAt
	io.WriterAt
}, size int64, whole hash.Hash) error {
	footer, err := footerOf(file, size)
	if err != nil {
		return err
	}
	at := sealIn(footer)
	if at < 0 || string(footer[at:at+sealLen]) != noSeal() {
		return errors.New("there is no place for its checksum")
	}
	sum := sha256.Sum256(footer)
	seal := hex.EncodeToString(append(sum[:], whole.Sum(nil)...))
	_, err = file.WriteAt([]byte(seal), size-8-int64(len(footer))+int64(at))
	return err
}

// checkFooter compares the footer with its seal; the seal is "" in a file of others.
func checkFooter(footer []byte) (seal string, err error) {
	at := sealIn(footer)
	if at < 0 {
		return "", nil
	}
	seal = string(footer[at : at+sealLen])
	if seal == noSeal() {
		return "", nil // a timeline: run.json has its checksum
	}
	plain := bytes.Clone(footer)
	copy(plain[at:], noSeal())
	if sum := sha256.Sum256(plain); hex.EncodeToString(sum[:]) != seal[:sealLen/2] {
		return seal, errors.New("its footer is damaged: it does not match its checksum")
	}
	return seal, nil
}

// Whole reads the file and compares it with its seal, if it has one.
func (f *File) Whole() error {
	if f.seal == "" {
		return nil
	}
	sum, at := sha256.New(), f.pf.Size()-8-int64(f.footer)+int64(f.sealAt)
	_, err := io.Copy(sum, io.MultiReader(io.NewSectionReader(f.in, 0, at), strings.NewReader(noSeal()),
		io.NewSectionReader(f.in, at+sealLen, f.pf.Size()-at-sealLen)))
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != f.seal[sealLen/2:] {
		return fmt.Errorf("it is damaged: its SHA-256 is %s, it was %s when it was written", got, f.seal[sealLen/2:])
	}
	return nil
}
