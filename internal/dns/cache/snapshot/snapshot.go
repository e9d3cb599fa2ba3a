// Package snapshot is the form in which answers wait on disk for the next start: a mark that says whose answers they are,
// then blocks of records, each with a checksum over everything up to its end. So what was read is whole and in its place,
// even where the file is damaged or cut further on.
package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

const (
	magic     = "dnsfleet answers 1\n"
	blockHead = 8
	// fullBlock is when a block is written; one record more may be in it.
	fullBlock  = 64 << 10
	maxBlock   = fullBlock + recordHead + 1<<16
	recordHead = 19
	maxMark    = 1 << 10
	flagDO     = 1
	flagCD     = 2
)

// ErrDamaged says that a snapshot is damaged, cut short or of another version.
var ErrDamaged = errors.New("snapshot is damaged")

// ErrMark says that a snapshot holds somebody else's answers.
var ErrMark = errors.New("snapshot has another mark")

func checksums() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Record is one answer.
type Record struct {
	Stored  time.Time // when it was received, to the millisecond of the wall clock
	History uint64    // of its use
	DO, CD  bool      // of the question; the rest of it is in Wire
	Wire    []byte    // the whole message, less than 64 KiB
}

// Writer writes a snapshot. Any error is final.
type Writer struct {
	w     io.Writer
	block []byte // head and payload
	sum   uint32
	table *crc32.Table
	size  int64
}

// NewWriter begins a snapshot; the mark has 1 KiB at most.
func NewWriter(w io.Writer, mark string) (*Writer, error) {
	if len(mark) > maxMark {
		return nil, fmt.Errorf("mark of a snapshot has %d bytes, the most is %d", len(mark), maxMark)
	}
	s := &Writer{w: w, table: checksums(), block: make([]byte, blockHead, maxBlock+blockHead)}
	if _, err := io.WriteString(w, magic); err != nil {
		return nil, err
	}
	s.size = int64(len(magic))
	s.block = append(s.block, mark...)
	return s, s.flush()
}

// Append adds a record.
func (s *Writer) Append(r Record) error {
	if len(r.Wire) > 1<<16-1 {
		return fmt.Errorf("answer of %d bytes does not fit into a snapshot", len(r.Wire))
	}
	var flags byte
	if r.DO {
		flags = flagDO
	}
	if r.CD {
		flags |= flagCD
	}
	b := append(s.block, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Stored.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, r.History)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Wire)))
	s.block = append(b, r.Wire...)
	if len(s.block) < fullBlock {
		return nil
	}
	return s.flush()
}

// Size is how many bytes the snapshot has so far.
func (s *Writer) Size() int64 { return s.size + int64(len(s.block)) }

// Close ends the snapshot: without it a reader takes it for cut short. It does not close the writer below.
func (s *Writer) Close() error {
	if len(s.block) > blockHead {
		if err := s.flush(); err != nil {
			return err
		}
	}
	return s.flush()
}

func (s *Writer) flush() error {
	binary.BigEndian.PutUint32(s.block, uint32(len(s.block)-blockHead))
	s.sum = crc32.Update(crc32.Update(s.sum, s.table, s.block[:4]), s.table, s.block[blockHead:])
	binary.BigEndian.PutUint32(s.block[4:], s.sum)
	_, err := s.w.Write(s.block)
	s.size += int64(len(s.block))
	s.block = s.block[:blockHead]
	return err
}

// Reader reads a snapshot. It holds one block in memory.
type Reader struct {
	r     io.Reader
	buf   []byte
	rest  []byte // of the block that is being read
	sum   uint32
	table *crc32.Table
	ended bool
}

// NewReader reads the beginning of a snapshot. The error is ErrMark, or wraps ErrDamaged or what r says.
func NewReader(r io.Reader, mark string) (*Reader, error) {
	s := &Reader{r: r, table: checksums(), buf: make([]byte, maxBlock)}
	head := s.buf[:len(magic)]
	if err := s.fill(head); err != nil {
		return nil, err
	}
	if string(head) != magic {
		return nil, fmt.Errorf("%w: unknown format or version", ErrDamaged)
	}
	found, err := s.block()
	if err != nil {
		return nil, err
	}
	if string(found) != mark {
		return nil, ErrMark
	}
	return s, nil
}

// Next reads a record, whose Wire is valid until the next call. io.EOF is the end of a whole snapshot; any other error
// wraps ErrDamaged or what the reader below says. All are final.
func (s *Reader) Next() (Record, error) {
	if s.ended {
		return Record{}, io.EOF
	}
	if len(s.rest) == 0 {
		var err error
		if s.rest, err = s.block(); err != nil {
			return Record{}, err
		}
		if len(s.rest) == 0 {
			s.ended = true
			return Record{}, io.EOF
		}
	}
	b := s.rest
	if len(b) < recordHead || len(b) < recordHead+int(binary.BigEndian.Uint16(b[17:])) {
		return Record{}, fmt.Errorf("%w: a record does not end", ErrDamaged)
	}
	end := recordHead + int(binary.BigEndian.Uint16(b[17:]))
	s.rest = b[end:]
	return Record{
		Stored:  time.UnixMilli(int64(binary.BigEndian.Uint64(b[1:]))),
		History: binary.BigEndian.Uint64(b[9:]),
		DO:      b[0]&flagDO != 0, CD: b[0]&flagCD != 0, Wire: b[recordHead:end],
	}, nil
}

func (s *Reader) block() ([]byte, error) {
	var head [blockHead]byte
	if err := s.fill(head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxBlock {
		return nil, fmt.Errorf("%w: a block claims %d bytes", ErrDamaged, size)
	}
	block := s.buf[:size]
	if err := s.fill(block); err != nil {
		return nil, err
	}
	s.sum = crc32.Update(crc32.Update(s.sum, s.table, head[:4]), s.table, block)
	if binary.BigEndian.Uint32(head[4:]) != s.sum {
		return nil, fmt.Errorf("%w: a checksum is wrong", ErrDamaged)
	}
	return block, nil
}

func (s *Reader) fill(b []byte) error {
	_, err := io.ReadFull(s.r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrDamaged)
	}
	return err
}
