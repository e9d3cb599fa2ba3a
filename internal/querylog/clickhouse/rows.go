package clickhouse

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"dnsfleet/internal/fleet"
)

// cursor is a place in the order of rows: time, instance, and a hash of all the rest, each descending. Rows that are equal
// in all of that are told apart by how many of them came before.
type cursor struct {
	TS       int64  `json:"t"` // milliseconds
	Instance string `json:"i"`
	Hash     uint64 `json:"h"`
	Skip     uint32 `json:"n"` // rows at this place that were told already
}

func (c cursor) String() string {
	b, _ := json.Marshal(c) //nolint:errchkjson // strings and numbers only
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string) (c cursor, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c.TS < 0 || c.TS > lastSecond*1000+999 || c.Skip == 0 {
		return cursor{}, fmt.Errorf("the cursor is none of ours: %w", fleet.ErrInvalid)
	}
	return c, nil
}

const (
	rowHash = "cityHash64(client_ip, client_name, protocol, qname, qtype, outcome, rcode, duration_ms, upstream_address, list)"

	told = `toUnixTimestamp64Milli(ts) AS at, toString(instance_id) AS instance, toString(client_ip), toString(client_name),
	toString(protocol), toString(qname), toString(qtype), toString(outcome), toString(rcode), duration_ms, toString(upstream_address),
	toString(list), ` + rowHash + ` AS hash`

	// firstSpan is how much of a window's end is looked at first for the newest rows; each further look is spanGrowth as long.
	firstSpan  = minute
	spanGrowth = 6
)

// Rows are the newest events. It looks at ever longer pieces of the window from its end on, so that the newest rows of a
// busy fleet cost what they are, not what the window is. See querylog.Reader.
func (l *Log) Rows(ctx context.Context, f fleet.QueryFilter, limit int, after string) (fleet.QueryPage, error) {
	const op = "read queries"
	page := fleet.QueryPage{Rows: []fleet.QueryRow{}}
	if limit < 1 || limit > maxLimit {
		return page, fmt.Errorf("%s: limit %d is not from 1 to %d: %w", op, limit, maxLimit, fleet.ErrInvalid)
	}
	place := cursor{}
	if after != "" {
		var err error
		if place, err = parseCursor(after); err != nil {
			return page, fmt.Errorf("%s: %w", op, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, l.readTimeout)
	defer cancel()
	legacy, err := l.ready(ctx)
	if err != nil {
		return page, err
	}
	q := newQuestion(f, legacy)
	if after != "" {
		q.to = min(q.to, place.TS+1)
	}
	begin, end, err := l.bounds(ctx, q)
	if err != nil {
		return page, err
	}
	var last cursor
	for span := firstSpan; end > begin; span *= spanGrowth {
		piece := q
		piece.from, piece.to = max(begin, end-span), end
		end = piece.from
		err := l.newest(ctx, op, piece, place, limit+1-len(page.Rows), func(row fleet.QueryRow, at cursor) {
			if len(page.Rows) == limit {
				page.Next = new(last.String())
				return
			}
			at.Skip = 1
			switch same := (cursor{at.TS, at.Instance, at.Hash, 0}); same {
			case cursor{last.TS, last.Instance, last.Hash, 0}:
				at.Skip = last.Skip + 1
			case cursor{place.TS, place.Instance, place.Hash, 0}:
				at.Skip = place.Skip + 1
			}
			last = at
			page.Rows = append(page.Rows, row)
		})
		if err != nil || page.Next != nil {
			return page, err
		}
	}
	return page, nil
}

// newest tells the newest rows of a piece of the window after place, a zero place being before all.
func (l *Log) newest(ctx context.Context, op string, q question, place cursor, limit int, each func(fleet.QueryRow, cursor)) error {
	sql := "SELECT " + told + " FROM (" + q.rows() + ")"
	if place.Skip > 0 {
		sql += " WHERE (at, instance, hash) <= ({at:Int64}, {at_instance:String}, {at_hash:UInt64})"
	}
	sql += " ORDER BY at DESC, instance DESC, hash DESC LIMIT {skip:UInt32}, {limit:UInt32}"
	skip := place.Skip
	if skip > 0 && q.to != place.TS+1 {
		skip = 0 // a later piece: the place is behind us
	}
	parameters := q.parameters(ch.Named("at", place.TS), ch.Named("at_instance", place.Instance), ch.Named("at_hash", place.Hash),
		ch.Named("skip", skip), ch.Named("limit", uint32(limit)))
	return l.ask(ctx, op, sql, parameters, func(rows driver.Rows) error {
		row, at, err := scanRow(rows)
		if err == nil {
			each(row, at)
		}
		return err
	})
}

func scanRow(rows driver.Rows) (row fleet.QueryRow, at cursor, err error) {
	var duration float32
	err = rows.Scan(&at.TS, &at.Instance, &row.ClientIP, &row.ClientName, &row.Protocol, &row.QName, &row.QType, &row.Outcome, &row.RCode,
		&duration, &row.UpstreamAddress, &row.List, &at.Hash)
	row.TS, row.InstanceID, row.DurationMS = time.UnixMilli(at.TS).UTC(), at.Instance, float64(duration)
	return row, at, err
}

// bounds narrows the window to where there are rows at all, as the minutes tell.
func (l *Log) bounds(ctx context.Context, q question) (from, to int64, err error) {
	if q.from >= q.to {
		return 0, 0, nil
	}
	const sql = `SELECT count() > 0, toInt64(toUnixTimestamp(min(minute))) * 1000, toInt64(toUnixTimestamp(max(minute))) * 1000 FROM dns_queries_1m
WHERE minute >= toDateTime(intDiv({minute_from:Int64}, 1000), 'UTC') AND minute < toDateTime(intDiv({to:Int64} + 999, 1000), 'UTC')`
	statement := sql
	if len(q.filter.Instances) > 0 {
		statement += " AND instance_id IN {instances:Array(String)}"
	}
	var found bool
	err = l.ask(ctx, "find queries", statement, q.parameters(ch.Named("minute_from", q.from/minute*minute)), func(rows driver.Rows) error {
		return rows.Scan(&found, &from, &to)
	})
	if err != nil {
		return 0, 0, err
	}
	if found {
		to += minute
	}
	if q.withLegacy() {
		if !found {
			from, to = q.legacy.from, q.legacy.to+1000
		}
		from, to = min(from, q.legacy.from), max(to, q.legacy.to+1000)
	}
	return max(from, q.from), min(to, q.to), nil
}
