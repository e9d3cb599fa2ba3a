package history

import (
	"fmt"
	"hash/crc32"
	"os"
)

// Line is text as a sound line of a journal.
func Line(text []byte) string {
	return fmt.Sprintf("%08x %s\n", crc32.Checksum(text, castagnoli), text)
}

// WriteTo makes f the open journal of b.
func (b *Book) WriteTo(f *os.File) { b.journal = f }
