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
	domains   map[string]queries
	named     map[string]int64 // clients with a name
	addresses map[netip.Addr]int64
}

type queries struct{ all, blocked int64 }

func newBatch() batch {
	return batch{map[string]queries{}, map[string]int64{}, map[netip.Addr]int64{}}
}

func (b *batch) add(e *fleet.QueryEvent) {
	if name := e.QName; name != "" {
		n := b.domains[name]
		n.all++
		if e.Outcome == fleet.Blocked {
			n.blocked++
		}
		b.domains[name] = n
	}
	switch {
	case e.ClientName != "":
		b.named[e.ClientName]++
	case e.Client.IsValid():
		b.addresses[e.Client]++
	}
}

func (b *batch) clear() {
	clear(b.domains)
	clear(b.named)
	clear(b.addresses)
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
