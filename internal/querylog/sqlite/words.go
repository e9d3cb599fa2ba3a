package sqlite

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"dnsfleet/internal/fleet"
)

// Bounds on what is remembered of the dictionaries. A day whose words are forgotten is read again, word by word.
const (
	maxWords = 200_000 // of one day and one kind
	maxDays  = 3
)

// words remembers the numbers of words that are in the file. Numbers of a day never change while the day is stored.
type words struct {
	conn *conn
	days map[int64]*dayWords
}

func newWords(c *conn) *words { return &words{c, map[int64]*dayWords{}} }

// forget drops all that is remembered.
func (w *words) forget() { clear(w.days) }

// of is what is remembered of one day.
func (w *words) of(day int64) *dayWords {
	d := w.days[day]
	if d == nil {
		if len(w.days) >= maxDays {
			delete(w.days, slices.Min(slices.Collect(maps.Keys(w.days))))
		}
		d = &dayWords{conn: w.conn, day: day, kinds: map[kindKey]int64{}, clients: map[clientKey]int64{}, names: map[string]int64{}}
		w.days[day] = d
	}
	return d
}

type dayWords struct {
	conn    *conn
	day     int64
	kinds   map[kindKey]int64
	clients map[clientKey]int64
	names   map[string]int64 // by the name as it is in events
}

// kindKey is all of an event that has few values.
type kindKey struct {
	instance, protocol, upstream, list string
	rcode                              int
	outcome                            fleet.Outcome
}

type clientKey struct {
	addr netip.Addr
	name string
}

const (
	findKind   = "SELECT id FROM kinds WHERE day = ? AND instance = ? AND protocol = ? AND outcome = ? AND rcode = ? AND upstream = ? AND list = ?"
	addKind    = "INSERT INTO kinds (day, instance, protocol, outcome, rcode, upstream, list) VALUES (?, ?, ?, ?, ?, ?, ?)"
	findClient = "SELECT id FROM clients WHERE day = ? AND address = ? AND name = ?"
	addClient  = "INSERT INTO clients (day, address, name) VALUES (?, ?, ?)"
	findName   = "SELECT id FROM names WHERE day = ? AND rev = ?"
	addName    = "INSERT INTO names (day, rev) VALUES (?, ?)"
)

func (d *dayWords) kind(ctx context.Context, k kindKey) (int64, error) {
	if id, known := d.kinds[k]; known {
		return id, nil
	}
	id, err := d.number(ctx, findKind, addKind, d.day, blob(k.instance), blob(k.protocol), int64(k.outcome), int64(k.rcode), blob(k.upstream), blob(k.list))
	if err == nil {
		k.instance, k.protocol, k.upstream, k.list = strings.Clone(k.instance), strings.Clone(k.protocol), strings.Clone(k.upstream), strings.Clone(k.list)
		remember(d.kinds, k, id)
	}
	return id, err
}

func (d *dayWords) client(ctx context.Context, k clientKey) (int64, error) {
	if id, known := d.clients[k]; known {
		return id, nil
	}
	address := ""
	if k.addr.IsValid() {
		address = k.addr.String()
	}
	id, err := d.number(ctx, findClient, addClient, d.day, blob(address), blob(k.name))
	if err == nil {
		k.name = strings.Clone(k.name)
		remember(d.clients, k, id)
	}
	return id, err
}

func (d *dayWords) name(ctx context.Context, qname string) (int64, error) {
	if id, known := d.names[qname]; known {
		return id, nil
	}
	id, err := d.number(ctx, findName, addName, d.day, reversed(withoutDot(qname)))
	if err == nil {
		remember(d.names, strings.Clone(qname), id)
	}
	return id, err
}

// number finds a word, which another process may have added, or adds it.
func (d *dayWords) number(ctx context.Context, find, add string, args ...any) (int64, error) {
	id, found, err := d.conn.number(ctx, find, args...)
	if err != nil || found {
		return id, err
	}
	done, err := d.conn.exec(ctx, add, args...)
	if err != nil {
		return 0, err
	}
	return done.LastInsertId()
}

// remember starts anew when there are too many.
func remember[K comparable](m map[K]int64, k K, id int64) {
	if len(m) >= maxWords {
		clear(m)
	}
	m[k] = id
}

// withoutDot is a name as people read it; the root stays ".".
func withoutDot(name string) string {
	if short := strings.TrimSuffix(name, "."); short != "" {
		return short
	}
	return name
}

// reversed has the bytes of s from the last to the first. It is never nil.
func reversed(s string) []byte {
	b := blob(s)
	slices.Reverse(b)
	return b
}
