package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

// kind is a row of the dictionary that says all of an event which has few values.
type kind struct {
	instance, protocol, upstream, list string
	outcome                            fleet.Outcome
	rcode                              int
}

// question is a filter, translated into numbers of the file.
type question struct {
	fleet.QueryFilter
	from, to int64           // the window in milliseconds, within what is kept; empty when from >= to
	kinds    map[int64]*kind // those that the filter lets through
	where    string          // conditions beside the window: constant texts, each with one of args
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
	all, days, err := q.findKinds(ctx, c)
	if err != nil {
		return nil, err
	}
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
	q.where += " AND " + condition
	q.args = append(q.args, args...)
}

// findKinds fills kinds. It tells of how many these are the part that the filter lets through, and their days.
func (q *question) findKinds(ctx context.Context, c *conn) (all int, days []int64, err error) {
	q.kinds = map[int64]*kind{}
	err = c.query(ctx, "SELECT id, day, instance, protocol, outcome, rcode, upstream, list FROM kinds WHERE day BETWEEN ? AND ? ORDER BY day",
		[]any{dayOf(q.from), dayOf(q.to - 1)}, func(row []driver.Value) error {
			all++
			k := &kind{
				instance: textOf(row[2]), protocol: textOf(row[3]), outcome: fleet.Outcome(integer(row[4])), rcode: int(integer(row[5])),
				upstream: textOf(row[6]), list: textOf(row[7]),
			}
			if day := integer(row[1]); len(days) == 0 || days[len(days)-1] != day {
				days = append(days, day)
			}
			if int(k.outcome) >= fleet.NumOutcomes {
				return fmt.Errorf("outcome %d is unknown to this version", k.outcome)
			}
			if q.instance(k.instance) && (len(q.Outcomes) == 0 || slices.Contains(q.Outcomes, k.outcome)) &&
				(q.Upstream == "" || q.Upstream == k.upstream) {
				q.kinds[integer(row[0])] = k
			}
			return nil
		})
	return all, days, err
}

// instance reports whether the filter lets an instance through.
func (q *question) instance(id string) bool {
	return len(q.Instances) == 0 || slices.Contains(q.Instances, id)
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
	if from >= to {
		return nil
	}
	args := append([]any{from << idBits, to << idBits}, q.args...)
	return c.query(ctx, "SELECT "+columns+" FROM events WHERE id >= ? AND id < ?"+q.where+" ORDER BY id", args, each)
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
