package sqlite

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dnsfleet/internal/fleet"
)

// maxCounted bounds how many different words one answer may count.
const maxCounted = 4_000_000

// errTooMany is told when an answer would take too much memory.
var errTooMany = fmt.Errorf("%w: the window has more than %d different names of days; ask for a shorter one", fleet.ErrInvalid, maxCounted)

// counts is how often each word occurs, by instance (or "") and day: words are numbered by day.
type counts map[string]map[int64]map[int64]uint64

// count counts the words in a column of the events.
func (q *question) count(ctx context.Context, c *conn, column string, byInstance bool) (counts, error) {
	found := counts{}
	words := 0
	type place struct {
		instance string
		day      int64
	}
	var last place
	var now map[int64]uint64
	err := q.events(ctx, c, "id, kind, "+column, q.from, q.to, func(row []driver.Value) error {
		p := place{day: dayOf(integer(row[0]) >> idBits)}
		if byInstance {
			k, err := q.kind(row[1])
			if err != nil {
				return err
			}
			p.instance = k.instance
		}
		if now == nil || p != last {
			last, now = p, found.of(p.instance, p.day)
		}
		word := integer(row[2])
		n := now[word]
		if n == 0 {
			if words++; words > maxCounted {
				return errTooMany
			}
		}
		now[word] = n + 1
		return nil
	})
	return found, err
}

func (c counts) of(instance string, day int64) map[int64]uint64 {
	if c[instance] == nil {
		c[instance] = map[int64]map[int64]uint64{}
	}
	if c[instance][day] == nil {
		c[instance][day] = map[int64]uint64{}
	}
	return c[instance][day]
}

// total is the sum of all instances, by day.
func (c counts) total() map[int64]map[int64]uint64 {
	sum := counts{}
	for instance, days := range c {
		if len(c) == 1 {
			return days
		}
		for day, words := range c[instance] {
			into := sum.of("", day)
			for word, n := range words {
				into[word] += n
			}
		}
	}
	return sum[""]
}

// TopDomains are the names that were asked for most; see querylog.Reader. Counts are exact.
func (l *Log) TopDomains(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (top fleet.QueryTop, err error) {
	top.Items = []fleet.TopItem{}
	err = l.read(ctx, "top domains", func(c *conn) error {
		q, err := l.ask(ctx, c, f)
		if err != nil || q.empty() {
			return err
		}
		found, err := q.count(ctx, c, "name", byInstance)
		if err != nil {
			return err
		}
		if top.Items, err = topNames(ctx, c, found.total(), limit); err != nil || !byInstance {
			return err
		}
		for _, id := range slices.Sorted(maps.Keys(found)) {
			items, err := topNames(ctx, c, found[id], limit)
			if err != nil {
				return err
			}
			top.Groups = append(top.Groups, fleet.QueryTopGroup{InstanceID: id, Items: items})
		}
		return nil
	})
	return top, err
}

// topNames adds up the days. Few names need to be read for that: limit names of one day have at least as many queries as
// the last of them, so a name with less than that in all days is out; one that is in has its part of it on some day.
func topNames(ctx context.Context, c *conn, days map[int64]map[int64]uint64, limit int) ([]fleet.TopItem, error) {
	if limit <= 0 || len(days) == 0 {
		return []fleet.TopItem{}, nil
	}
	least := uint64(1)
	for _, words := range days {
		if len(words) >= limit {
			sorted := slices.Sorted(maps.Values(words))
			least = max(least, sorted[len(sorted)-limit])
		}
	}
	share := (least + uint64(len(days)) - 1) / uint64(len(days))
	names := map[string]bool{} // reversed
	for _, words := range days {
		for id, n := range words {
			if n < share {
				continue
			}
			err := c.query(ctx, "SELECT rev FROM names WHERE id = ?", []any{id}, func(row []driver.Value) error {
				names[textOf(row[0])] = true
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	items := make([]fleet.TopItem, 0, len(names))
	for rev := range names {
		var n uint64
		for day, words := range days {
			id, found, err := c.number(ctx, findName, day, blob(rev))
			if err != nil {
				return nil, err
			}
			if found {
				n += words[id]
			}
		}
		items = append(items, fleet.TopItem{Name: string(reversed(rev)), Count: n})
	}
	return ranked(items, limit), nil
}

// ranked sorts by count, then name, and cuts.
func ranked(items []fleet.TopItem, limit int) []fleet.TopItem {
	slices.SortFunc(items, func(a, b fleet.TopItem) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return slices.Clip(items[:min(max(limit, 0), len(items))])
}

// TopClients are the clients that asked most, by name, or by address where they have none; see querylog.Reader. Counts
// are exact.
func (l *Log) TopClients(ctx context.Context, f fleet.QueryFilter, limit int, byInstance bool) (fleet.QueryTop, error) {
	found, err := l.countClients(ctx, "top clients", f, byInstance)
	if err != nil {
		return fleet.QueryTop{}, err
	}
	total := map[string]uint64{}
	var top fleet.QueryTop
	for _, id := range slices.Sorted(maps.Keys(found)) {
		var items []fleet.TopItem
		for name, n := range found[id] {
			total[name] += n
			items = append(items, fleet.TopItem{Name: name, Count: n})
		}
		if byInstance {
			top.Groups = append(top.Groups, fleet.QueryTopGroup{InstanceID: id, Items: ranked(items, limit)})
		}
	}
	items := make([]fleet.TopItem, 0, len(total))
	for name, n := range total {
		items = append(items, fleet.TopItem{Name: name, Count: n})
	}
	top.Items = ranked(items, limit)
	return top, nil
}

// Clients is how many different clients asked, exactly.
func (l *Log) Clients(ctx context.Context, f fleet.QueryFilter) (uint64, error) {
	found, err := l.countClients(ctx, "clients", f, false)
	return uint64(len(found[""])), err
}

// countClients counts by instance (or "") and client.
func (l *Log) countClients(ctx context.Context, operation string, f fleet.QueryFilter, byInstance bool) (map[string]map[string]uint64, error) {
	sums := map[string]map[string]uint64{}
	err := l.read(ctx, operation, func(c *conn) error {
		q, err := l.ask(ctx, c, f)
		if err != nil || q.empty() {
			return err
		}
		found, err := q.count(ctx, c, "client", byInstance)
		if err != nil {
			return err
		}
		for instance, days := range found {
			for _, words := range days {
				for id, n := range words {
					name, err := clientName(ctx, c, id)
					switch {
					case err != nil:
						return err
					case name == "":
						continue
					case sums[instance] == nil:
						sums[instance] = map[string]uint64{}
					}
					sums[instance][name] += n
				}
			}
		}
		return nil
	})
	return sums, err
}

func clientName(ctx context.Context, c *conn, id int64) (name string, err error) {
	err = c.query(ctx, "SELECT address, name FROM clients WHERE id = ?", []any{id}, func(row []driver.Value) error {
		name = cmp.Or(textOf(row[1]), textOf(row[0]))
		return nil
	})
	return name, err
}
