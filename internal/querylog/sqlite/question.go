package sqlite

import (
	"context"
	"database/sql/driver"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// question is a filter, translated into numbers of the file.
type question struct {
	fleet.QueryFilter
	from, to int64           // the window in milliseconds, within what is kept; empty when from >= to
	kinds    map[int64]*kind // those that the filter lets through
	where    string          // conditions beside the window: constant texts, whose values are args; "" = none
	args     []any
}

// ask prepares a question. It is part of a read.
func (l *Log) ask(ctx context.Context, c *conn, f fleet.QueryFilter) (*question, error) {
	q := &question{QueryFilter: f, to: maxMS}
	if !f.From.IsZero() {
		q.from = max(ceilMS(f.From), 0)
	}
	if !f.To.IsZero() {
		q.to = min(ceilMS(f.To), maxMS)
	}
	if l.retention > 0 {
		q.from = max(q.from, l.now().Add(-l.retention).UnixMilli())
	}
	if q.empty() {
		return q, nil
	}
	if err := l.kinds.learn(ctx, c); err != nil {
		return nil, err
	}
	var all int
	var days []int64
	q.kinds, all, days = l.kinds.find(&f, dayOf(q.from), dayOf(q.to-1))
	qtype, known := int64(0), true
	if f.QType != "" {
		qtype, known = typeNumbered(f.QType)
	}
	if len(q.kinds) == 0 || !known {
		q.to = q.from
		return q, nil
	}
	if len(q.kinds) < all {
		q.and("kind IN (SELECT value FROM json_each(?))", numbers(slices.Collect(maps.Keys(q.kinds))))
	}
	if f.QType != "" {
		q.and("(qtype & 65535) = ?", qtype)
	}
	if f.Client != "" {
		q.and(clientIs, numbers(days), blob(f.Client), blob(f.Client))
	}
	if f.Domain != "" {
		rev := reversed(f.Domain)
		below := len(rev) + 1 // where the label below the domain ends
		q.and(nameIsBelow, numbers(days), rev, append(blob(string(rev)), '.'), append(blob(string(rev)), '.'+1), int64(below+1), int64(below+1))
	}
	return q, nil
}

// The conditions on words. A dot behind an odd number of backslashes is a part of a label; more than two in a row are
// not looked at.
const (
	clientIs    = "client IN (SELECT id FROM clients WHERE day IN (SELECT value FROM json_each(?)) AND (address = ? OR name = ?))"
	nameIsBelow = "name IN (WITH d AS (SELECT value AS day FROM json_each(?))" +
		" SELECT n.id FROM d CROSS JOIN names AS n ON n.day = d.day WHERE n.rev = ?" +
		" UNION ALL SELECT n.id FROM d CROSS JOIN names AS n ON n.day = d.day WHERE n.rev >= ? AND n.rev < ?" +
		" AND (substr(n.rev, ?, 1) <> x'5c' OR substr(n.rev, ?, 2) = x'5c5c'))"
)

func (q *question) empty() bool { return q.from >= q.to }

func (q *question) and(condition string, args ...any) {
	if q.where != "" {
		q.where += " AND "
	}
	q.where += condition
	q.args = append(q.args, args...)
}

// numbers is a JSON list, which a statement takes as one argument.
func numbers(list []int64) string {
	b := []byte{'['}
	for i, n := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(append(b, ']'))
}

// events calls each for the events in [from, to) milliseconds that the filter lets through, oldest first. columns is a
// constant text.
func (q *question) events(ctx context.Context, c *conn, columns string, from, to int64, each func(row []driver.Value) error) error {
	return q.scan(ctx, c, columns, "", "ASC", from<<idBits, to<<idBits, each)
}

// scan calls each for the events with numbers in [from, to) that the filter lets through. columns, joins and order are
// constant texts.
//
// The statement answers every 1024th event too, whatever the filter says of it: the driver looks at the context until
// the first row only, so that without those a filter that finds little could not be stopped.
func (q *question) scan(ctx context.Context, c *conn, columns, joins, order string, from, to int64, each func(row []driver.Value) error) error {
	if from >= to {
		return nil
	}
	passes, rarely := "1", ""
	if q.where != "" {
		passes, rarely = q.where, " WHERE passes OR (e.id & 1023) = 0"
	}
	text := "SELECT passes, " + columns + " FROM (SELECT *, (" + passes + ") AS passes FROM events WHERE id >= ? AND id < ?) AS e" +
		joins + rarely + " ORDER BY e.id " + order
	args := append(slices.Clone(q.args), from, to)
	return c.query(ctx, text, args, func(row []driver.Value) error {
		if integer(row[0]) == 0 {
			return ctx.Err()
		}
		return each(row[1:])
	})
}

// typeNumbered is the number of a type by its name, or by TYPE and the number.
func typeNumbered(name string) (number int64, known bool) {
	if n, known := dns.StringToType[name]; known {
		return int64(n), true
	}
	digits, generic := strings.CutPrefix(name, "TYPE")
	n, err := strconv.ParseUint(digits, 10, 16)
	return int64(n), generic && err == nil
}

// ceilMS is the first millisecond that does not lie before t, because events are kept to the millisecond.
func ceilMS(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}
