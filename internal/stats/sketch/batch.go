package sketch

import (
	"net/netip"
	"unicode/utf8"

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

func newBatch() batch { return batch{newSums[string](), newSums[string](), newSums[netip.Addr]()} }

func (b *batch) add(e *fleet.QueryEvent) {
	if e.QName != "" {
		n := b.domains.of(e.QName)
		n.all++
		if e.Outcome == fleet.Blocked {
			n.blocked++
		}
	}
	switch {
	case e.ClientName != "":
		b.named.of(e.ClientName).all++
	case e.Client.IsValid():
		b.addresses.of(e.Client).all++
	}
}

func (b *batch) clear() {
	b.domains.clear()
	b.named.clear()
	b.addresses.clear()
}

// sums counts by key, in the order in which keys came first.
type sums[K comparable] struct {
	at   map[K]int
	list []sum[K]
}

type sum[K comparable] struct {
	key          K
	all, blocked int64
}

func newSums[K comparable]() sums[K] { return sums[K]{at: map[K]int{}} }

// of is the sum of a key, until the next call.
func (s *sums[K]) of(key K) *sum[K] {
	i, known := s.at[key]
	if !known {
		i = len(s.list)
		s.at[key] = i
		s.list = append(s.list, sum[K]{key: key})
	}
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
