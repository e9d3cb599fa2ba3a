package recorder

import (
	"hash/maphash"
	"slices"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/batch"
)

// Bounds of the names that are remembered: two megabytes of those that people ask for, ten if they all were of the longest.
const (
	nameSets = 1 << 13
	nameWays = 4
	longName = 255 // longer ones are made anew each time; DNS has none, but with bytes that must be escaped
)

// names gives equal bytes one string as long as it remembers it, so that a popular name is made once for many collections.
// It is for one user at a time. Its zero value remembers nothing.
type names struct {
	seed  maphash.Seed
	tags  [][nameWays]uint32 // parts of the names' hashes, 0 for none: they are small enough to be near the processor
	texts [][nameWays]string
	turn  int
}

// nameBlock is for how many names at a time memory is asked. One that is not remembered near the processor takes longer to
// come than all else that is done for an event, and as many may be on their way at once.
const nameBlock = 32

// tell writes into names what bytes tells of each number from 0: a string of the same bytes, or of those that a batch may
// hold.
func (n *names) tell(names []string, bytes *[nameBlock][]byte) {
	if n.tags == nil {
		n.seed = maphash.MakeSeed()
		n.tags, n.texts = make([][nameWays]uint32, nameSets), make([][nameWays]string, nameSets)
	}
	var hashes [nameBlock]uint64
	for i := range names {
		hashes[i] = maphash.Bytes(n.seed, bytes[i])
	}
	for i := range names {
		names[i] = n.find(hashes[i])
	}
	for i, b := range bytes[:len(names)] {
		if names[i] != string(b) {
			names[i] = n.remember(hashes[i], b)
		}
	}
}

// find is the name that most likely has this hash.
func (n *names) find(hash uint64) string {
	at := hash % nameSets
	tags := &n.tags[at]
	for way, tag := range tags {
		if tag == tagOf(hash) {
			return n.texts[at][way]
		}
	}
	return ""
}

func tagOf(hash uint64) uint32 { return uint32(hash>>32) | 1 }

// remember makes the string of these bytes.
func (n *names) remember(hash uint64, b []byte) string {
	if len(b) > longName {
		return cleanText(string(b))
	}
	if known := n.find(hash); known == string(b) { // it came earlier in the block
		return known
	}
	text := string(b)
	if clean := cleanText(text); clean != text {
		return clean
	}
	at := hash % nameSets
	way := slices.Index(n.tags[at][:], 0)
	if way < 0 {
		n.turn++
		way = n.turn % nameWays // any will do, but not the same each time: what is popular comes again
	}
	n.tags[at][way], n.texts[at][way] = tagOf(hash), text
	return text
}

// cleanText is the text as a batch may hold it.
func cleanText(s string) string {
	e := fleet.QueryEvent{QName: s}
	batch.Clean(&e)
	return e.QName
}
