package sketch

import (
	"encoding/binary"
	"net/netip"
	"unicode/utf8"
	"unsafe"

	"dnsfleet/internal/fleet"
)

// unnamed stands for names that no report may carry: too long, or not UTF-8.
const unnamed = "other"

// batch adds up what the events of one batch have in common, so that a sketch is told of each name once.
type batch struct {
	domains   sums[string]
	named     sums[string] // clients with a name
	addresses sums[netip.Addr]
}

func newBatch() batch {
	return batch{newSums[string](1 << 13), newSums[string](1 << 8), newSums[netip.Addr](1 << 8)}
}

func (b *batch) add(e *fleet.QueryEvent) {
	if e.QName != "" {
		n := b.domains.of(e.QName, byPlace(e.QName))
		n.all++
		if e.Outcome == fleet.Blocked {
			n.blocked++
		}
	}
	switch {
	case e.ClientName != "":
		b.named.of(e.ClientName, byPlace(e.ClientName)).all++
	case e.Client.IsValid():
		b.addresses.of(e.Client, byEnd(e.Client)).all++
	}
}

func (b *batch) clear() {
	b.domains.clear()
	b.named.clear()
	b.addresses.clear()
}

// byPlace is a hint for a text. Whoever collects events has one string for all that have the same text, nearly always, so
// that there is no need to read it.
func byPlace(s string) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.StringData(s)))) //nolint:gosec // a number that nothing is read from
}

// byEnd is a hint for an address.
func byEnd(a netip.Addr) uint64 {
	bytes := a.As16()
	return binary.BigEndian.Uint64(bytes[8:])
}

// sums counts by key, in the order in which keys came first.
type sums[K comparable] struct {
	at   map[K]int
	near []int32 // where in the list a key was found last, by its hint; it may have gone
	list []sum[K]
}

type sum[K comparable] struct {
	key          K
	all, blocked int64
}

// newSums makes sums that find that many keys by their hint, a power of two.
func newSums[K comparable](near int) sums[K] {
	return sums[K]{at: map[K]int{}, near: make([]int32, near)}
}

// of is the sum of a key, until the next call. The hint is most likely the same for the same key, and another for another.
func (s *sums[K]) of(key K, hint uint64) *sum[K] {
	const golden = 0x9e3779b97f4a7c15
	near := &s.near[hint*golden>>32%uint64(len(s.near))]
	if i := int(*near); i < len(s.list) && s.list[i].key == key {
		return &s.list[i]
	}
	i, known := s.at[key]
	if !known {
		i = len(s.list)
		s.at[key] = i
		s.list = append(s.list, sum[K]{key: key})
	}
	*near = int32(i)
	return &s.list[i]
}

func (s *sums[K]) clear() {
	clear(s.at)
	clear(s.list)
	s.list = s.list[:0]
}

// domain is the name as people read it: without the final dot, but for the root's.
func domain(name string) string {
	if len(name) > 1 && name[len(name)-1] == '.' {
		name = name[:len(name)-1]
	}
	return tellable(name)
}

func tellable(name string) string {
	if len(name) > fleet.MaxTopName || !utf8.ValidString(name) {
		return unnamed
	}
	return name
}
