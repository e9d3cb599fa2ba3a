package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"time"
)

// A record is a header and its payload. The header:
//
//	0  4  magic
//	4  1  state: pending, or done once somebody took the record. It is the one byte that is written again, so no sum covers it
//	5  3  zero
//	8  4  length of the payload
//	12 4  events in it
//	16 8  when it was appended, Unix milliseconds
//	24 4  CRC-32C of the payload
//	28 4  CRC-32C of bytes 0 to 27 with a state of 0
const (
	headerSize = 32
	stateAt    = 4

	pending = 0x00
	done    = 0xd5
)

const magic = "DQS1"

type header struct {
	done   bool
	length int64
	events uint32
	at     time.Time
	sum    uint32
}

func (h header) size() int64 { return headerSize + h.length }

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// appendRecord appends a pending record to b.
func appendRecord(b []byte, at time.Time, events uint32, payload []byte) []byte {
	var h [headerSize]byte
	copy(h[:], magic)
	binary.LittleEndian.PutUint32(h[8:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(h[12:], events)
	binary.LittleEndian.PutUint64(h[16:], uint64(at.UnixMilli()))
	binary.LittleEndian.PutUint32(h[24:], castagnoli(payload))
	binary.LittleEndian.PutUint32(h[28:], castagnoli(h[:28]))
	return append(append(b, h[:]...), payload...)
}

// parseHeader is false where b does not begin with a sound header.
func parseHeader(b []byte) (header, bool) {
	if len(b) < headerSize || string(b[:4]) != magic {
		return header{}, false
	}
	h := [headerSize]byte(b)
	state := h[stateAt]
	h[stateAt] = 0
	if castagnoli(h[:28]) != binary.LittleEndian.Uint32(h[28:]) {
		return header{}, false
	}
	return header{
		done:   state == done, // a damaged state is one of a pending record: a sink tells what it has
		length: int64(binary.LittleEndian.Uint32(h[8:])),
		events: binary.LittleEndian.Uint32(h[12:]),
		at:     time.UnixMilli(int64(binary.LittleEndian.Uint64(h[16:]))),
		sum:    binary.LittleEndian.Uint32(h[24:]),
	}, true
}

// readHeader reads the header of a whole record at offset.
func readHeader(r io.ReaderAt, offset, size int64) (header, bool) {
	var b [headerSize]byte
	if n, _ := r.ReadAt(b[:], offset); n < headerSize {
		return header{}, false
	}
	h, ok := parseHeader(b[:])
	return h, ok && offset+h.size() <= size
}

// readPayload is the payload of the record at offset, nil when it is not sound.
func readPayload(r io.ReaderAt, offset int64, h header) []byte {
	payload := make([]byte, h.length)
	if _, err := r.ReadAt(payload, offset+headerSize); err != nil && h.length > 0 || castagnoli(payload) != h.sum {
		return nil
	}
	return payload
}

// find is the first whole record at or after offset; false when there is none before size.
func find(r io.ReaderAt, offset, size int64) (at int64, h header, found bool) {
	if h, ok := readHeader(r, offset, size); ok {
		return offset, h, true
	}
	block := make([]byte, 64<<10)
	for offset < size {
		n, _ := r.ReadAt(block[:min(int64(len(block)), size-offset)], offset)
		if n < headerSize {
			break
		}
		for i := 0; ; i++ {
			next := bytes.Index(block[i:n], []byte(magic))
			if next < 0 {
				break
			}
			i += next
			if h, ok := readHeader(r, offset+int64(i), size); ok {
				return offset + int64(i), h, true
			}
		}
		offset += int64(n - len(magic) + 1) // a magic may lie across two blocks
	}
	return size, header{}, false
}
