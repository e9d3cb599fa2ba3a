package streams_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"dnsfleet/internal/dns/listen/streams"
)

// FuzzFraming holds that messages do not depend on how the stream is cut into reads, and are those that a plain reading
// of RFC 1035, section 4.2.2, finds.
func FuzzFraming(f *testing.F) {
	long := append([]byte{0x14, 0}, make([]byte, 0x1400)...)
	short := append([]byte{0, 12}, make([]byte, 12)...)
	f.Add(slices.Concat(short, short, long, short), []byte{0})
	f.Add(slices.Concat(long, long[:100]), []byte{1, 200, 3})
	f.Add(slices.Concat(short, []byte{0, 11, 1, 2, 3, 4}), []byte{})
	f.Add(slices.Concat(short, []byte{0, 20, 1, 2, 0x80}), []byte{2})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		want, wantOK := plain(stream)
		got, gotOK := streams.Split(stream, sizes)
		if gotOK != wantOK || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("got %d messages %v, want %d %v", len(got), gotOK, len(want), wantOK)
		}
	})
}

func plain(stream []byte) (messages [][]byte, ok bool) {
	for len(stream) >= 2 {
		size := int(binary.BigEndian.Uint16(stream))
		if size < 12 || (len(stream) >= 5 && stream[4]&0x80 != 0) {
			return messages, false
		}
		if len(stream) < 2+size {
			break
		}
		messages = append(messages, stream[2:2+size])
		stream = stream[2+size:]
	}
	return messages, true
}
