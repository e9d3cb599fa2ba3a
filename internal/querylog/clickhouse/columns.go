package clickhouse

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// columnsOf are the values of the batch in the order of insertColumns.
//
// The client library keeps a dictionary for each LowCardinality column and looks up every value in it. Values that are
// boxed already, the same box for the same text, spare it an allocation each; nil is the empty text and spares it the look-up.
func (l *Log) columnsOf(b querylog.Batch) (values []any, release func()) {
	c, ok := l.columns.Get().(*columns)
	if !ok {
		c = &columns{}
	}
	return c.fill(b), func() {
		clear(c.room) // keeps no text of a batch that is gone
		clear(c.names)
		l.columns.Put(c)
	}
}

// columns is room for the values of a batch, used again for the next.
type columns struct {
	ts        []time.Time
	names     []string
	durations []float32
	room      []any
}

// texts is the number of columns that are boxed texts.
const texts = 10

func (c *columns) fill(b querylog.Batch) []any {
	n := len(b.Events)
	c.ts, c.names, c.durations = slices.Grow(c.ts[:0], n)[:n], slices.Grow(c.names[:0], n)[:n], slices.Grow(c.durations[:0], n)[:n]
	c.room = slices.Grow(c.room[:0], texts*n)[:texts*n]
	column := func(i int) []any { return c.room[i*n : (i+1)*n] }
	instance, addresses, clients, protocols := column(0), column(1), column(2), column(3)
	types, classes, outcomes, codes := column(4), column(5), column(6), column(7)
	upstreams, lists := column(8), column(9)
	box := newBoxes()
	id := box.text(b.InstanceID)
	for i := range b.Events {
		e := &b.Events[i]
		c.ts[i], c.durations[i] = e.Time, float32(float64(e.Duration)/float64(time.Millisecond))
		c.names[i] = withoutDot(e.QName)
		instance[i] = id
		addresses[i], clients[i] = box.client(e)
		protocols[i] = box.text(e.Protocol)
		types[i], classes[i] = box.number(e.QType, typeName), box.number(e.QClass, className)
		outcomes[i], codes[i] = box.outcomes[e.Outcome], box.number(uint16(e.RCode), codeName)
		upstreams[i], lists[i] = box.text(e.Upstream), box.text(e.List)
	}
	return []any{c.ts, instance, addresses, clients, protocols, c.names, types, classes, outcomes, codes, c.durations, upstreams, lists}
}

// boxes keep one box for each text of a batch.
type boxes struct {
	texts    map[string]any
	numbers  [kinds]map[uint16]any
	clients  map[netip.Addr]boxedClient
	outcomes [fleet.NumOutcomes]any
}

// boxedClient is an address and the name that it had last.
type boxedClient struct {
	address, name any
	unboxed       string
}

func newBoxes() *boxes {
	b := &boxes{texts: map[string]any{}, clients: map[netip.Addr]boxedClient{}}
	for kind := range b.numbers {
		b.numbers[kind] = map[uint16]any{}
	}
	for o := range fleet.Outcome(fleet.NumOutcomes) {
		b.outcomes[o] = o.String()
	}
	return b
}

func (b *boxes) text(s string) any {
	if s == "" {
		return nil
	}
	box, ok := b.texts[s]
	if !ok {
		box = s
		b.texts[s] = box
	}
	return box
}

func (b *boxes) client(e *fleet.QueryEvent) (address, name any) {
	if !e.Client.IsValid() {
		return nil, b.text(e.ClientName)
	}
	c, ok := b.clients[e.Client]
	if !ok || c.unboxed != e.ClientName {
		if !ok {
			c.address = e.Client.String()
		}
		c.name, c.unboxed = b.text(e.ClientName), e.ClientName
		b.clients[e.Client] = c
	}
	return c.address, c.name
}

// What a number of a query may stand for.
const (
	typeName = iota
	className
	codeName
	kinds
)

func (b *boxes) number(n uint16, kind int) any {
	box, ok := b.numbers[kind][n]
	if !ok {
		switch kind {
		case typeName:
			box = dns.Type(n).String()
		case className:
			box = dns.Class(n).String()
		default:
			box = rcode(int(n))
		}
		b.numbers[kind][n] = box
	}
	return box
}

func withoutDot(name string) string {
	if len(name) > 1 && name[len(name)-1] == '.' {
		return name[:len(name)-1]
	}
	return name
}

func rcode(code int) string {
	if name, ok := dns.RcodeToString[code]; ok {
		return name
	}
	return fmt.Sprintf("RCODE%d", code)
}
