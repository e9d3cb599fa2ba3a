package recorder

import (
	"net/netip"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/batch"
)

// Room of a chunk: enough to ask for one seldom, little enough to get one quickly.
const (
	chunkEvents = 512
	nameRoom    = 64 // bytes of a chunk for the name of each of its events; names are 30 long, most of the time
)

// chunk holds events in a form that has no pointers for the collector to follow: their names stand one after the other in
// one piece of memory, and all other texts, of which there are few, in a list.
type chunk struct {
	events []kept
	names  []byte
	words  []string // the texts but names, the first is ""; seldom one twice
	last   [numWords]uint16
	recent [64]uint16 // words by their place; 0 for none
}

// kept is an event that is clean but for its texts.
type kept struct {
	at      int64  // microseconds
	took    uint64 // microseconds
	address [16]byte
	name    uint32 // where it begins
	length  uint16 // of it
	rcode   uint16
	qtype   uint16
	qclass  uint16
	words   [numWords]uint16
	family  uint8 // 4, 6, or 0 for no address
	outcome fleet.Outcome
}

// The texts of an event that are words.
const (
	clientName = iota
	protocol
	upstream
	list
	numWords
)

func newChunk(events int) *chunk {
	return &chunk{
		events: make([]kept, 0, events), names: make([]byte, 0, max(events*nameRoom, batch.MaxText)), words: make([]string, 1, 16),
	}
}

// usual reports whether batch.Clean has nothing to do but to cut off parts of microseconds and the client's zone, texts
// aside. It may say no where it had.
func usual(e *fleet.QueryEvent, at int64) bool {
	const (
		end    = 4_000_000_000 * int64(time.Second/time.Microsecond) // in the year 2096
		rcodes = 1 << 12
	)
	return uint64(at) < uint64(end) && uint64(e.Duration) < uint64(time.Hour) && int(e.Outcome) < fleet.NumOutcomes &&
		uint(e.RCode) < rcodes && len(e.QName) <= batch.MaxText
}

// add copies an event, which is usual, unless there is no room for its name.
func (c *chunk) add(e *fleet.QueryEvent, at int64) bool {
	name := len(c.names)
	if name+len(e.QName) > cap(c.names) {
		return false
	}
	c.names = append(c.names, e.QName...)
	n := len(c.events)
	c.events = c.events[:n+1]
	k := &c.events[n]
	k.at, k.took = at, uint64(e.Duration)/uint64(time.Microsecond)
	k.name, k.length = uint32(name), uint16(len(e.QName))
	k.rcode, k.qtype, k.qclass, k.outcome = uint16(e.RCode), e.QType, e.QClass, e.Outcome
	k.address = e.Client.As16()
	switch {
	case e.Client.Is4():
		k.family = 4
	case e.Client.Is6():
		k.family = 6
	default:
		k.family = 0
	}
	k.words[clientName] = c.word(clientName, e.ClientName)
	k.words[protocol] = c.word(protocol, e.Protocol)
	k.words[upstream] = c.word(upstream, e.Upstream)
	k.words[list] = c.word(list, e.List)
	return true
}

// word is the number of a text, which the chunk keeps.
func (c *chunk) word(field int, s string) uint16 {
	if s == "" {
		return 0
	}
	if n := c.last[field]; c.words[n] == s {
		return n
	}
	n := c.find(s)
	c.last[field] = n
	return n
}

// find looks where the text was put last. Others have the same place: then it is in the list twice, which does no harm.
func (c *chunk) find(s string) uint16 {
	at := &c.recent[(uint(len(s))+uint(s[len(s)-1])*7+uint(s[len(s)/2])*31)%uint(len(c.recent))]
	if c.words[*at] != s {
		*at = uint16(len(c.words))
		c.words = append(c.words, s)
	}
	return *at
}

func (c *chunk) full() bool { return len(c.events) == cap(c.events) }

// empty makes the chunk forget its events.
func (c *chunk) empty() {
	c.events, c.names = c.events[:0], c.names[:0]
	clear(c.words)
	c.words = c.words[:1]
	c.last, c.recent = [numWords]uint16{}, [len(c.recent)]uint16{}
}

// clean makes the words such as a batch may hold.
func (c *chunk) clean() {
	for i, word := range c.words {
		c.words[i] = cleanText(word)
	}
}

// name is the bytes of the name of event i.
func (c *chunk) name(i int32) []byte {
	k := &c.events[i]
	return c.names[k.name : k.name+uint32(k.length)]
}

// tell makes *e the event i, all but its name. The chunk's words are clean.
func (c *chunk) tell(i int32, e *fleet.QueryEvent) {
	k := &c.events[i]
	e.Time = time.UnixMicro(k.at).UTC()
	e.Duration = time.Duration(k.took) * time.Microsecond
	switch k.family {
	case 4:
		e.Client = netip.AddrFrom4([4]byte(k.address[12:]))
	case 6:
		e.Client = netip.AddrFrom16(k.address)
	default:
		e.Client = netip.Addr{}
	}
	e.QType, e.QClass, e.Outcome, e.RCode = k.qtype, k.qclass, k.outcome, int(k.rcode)
	e.ClientName, e.Protocol = c.words[k.words[clientName]], c.words[k.words[protocol]]
	e.Upstream, e.List = c.words[k.words[upstream]], c.words[k.words[list]]
}
