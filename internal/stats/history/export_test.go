package history

import (
	"fmt"
	"hash/crc32"
)

// Line is text as a sound line of a journal.
func Line(text []byte) string {
	return fmt.Sprintf("%08x %s\n", crc32.Checksum(text, castagnoli), text)
}
