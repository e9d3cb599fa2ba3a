package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

const (
	rowColumns  = "e.id, e.kind, e.qtype, e.us, c.address, c.name, n.rev"
	rowWords    = " LEFT JOIN clients AS c ON c.id = e.client LEFT JOIN names AS n ON n.id = e.name"
	exportChunk = 2000
	maxRows     = 10_000
)

// errEnough ends a scan.
var errEnough = errors.New("enough")

// Rows are the newest events first; see querylog.Reader. A page has at most 10,000 rows, whatever limit says.
func (l *Log) Rows(ctx context.Context, f fleet.QueryFilter, limit int, cursor string) (fleet.QueryPage, error) {
	page := fleet.QueryPage{Rows: []fleet.QueryRow{}}
	before, err := readCursor(cursor)
	if err != nil || limit <= 0 {
		return page, err
	}
	limit = min(limit, maxRows)
	err = l.read(ctx, "rows", func(c *conn) error {
		q, err := l.ask(ctx, c, f)
		if err != nil || q.empty() {
			return err
		}
		last := int64(0)
		return q.rows(ctx, c, "DESC", q.from<<idBits, min(q.to<<idBits, before), func(id int64, r fleet.QueryRow) error {
			if len(page.Rows) == limit { // there is one more
				page.Next = new(strconv.FormatInt(last, 10))
				return errEnough
			}
			page.Rows = append(page.Rows, r)
			last = id
			return nil
		})
	})
	if err != nil {
		return fleet.QueryPage{}, err
	}
	return page, nil
}

// readCursor is the number of the event before which the page begins.
func readCursor(cursor string) (int64, error) {
	if cursor == "" {
		return maxMS << idBits, nil
	}
	id, err := strconv.ParseUint(cursor, 10, 63)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("rows: %w: cursor %.20q is not from an answer", fleet.ErrInvalid, cursor)
	}
	return int64(id), nil
}

// rows tells the events with numbers in [from, to), until each answers errEnough.
func (q *question) rows(ctx context.Context, c *conn, order string, from, to int64, each func(id int64, r fleet.QueryRow) error) error {
	err := q.scan(ctx, c, rowColumns, rowWords, order, from, to, func(row []driver.Value) error {
		k, err := q.kind(row[1])
		if err != nil {
			return err
		}
		id := integer(row[0])
		return each(id, fleet.QueryRow{
			TS: time.UnixMilli(id >> idBits).UTC(), InstanceID: k.instance, ClientIP: textOf(row[4]), ClientName: textOf(row[5]), Protocol: k.protocol,
			QName: string(reversed(textOf(row[6]))), QType: typeName(uint16(integer(row[2]))), Outcome: k.outcome.String(), RCode: rcodeName(k.rcode),
			DurationMS: float64(integer(row[3])) / 1000, UpstreamAddress: k.upstream, List: k.list,
		})
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func typeName(qtype uint16) string { return dns.Type(qtype).String() }

func rcodeName(rcode int) string {
	if name, known := dns.RcodeToString[rcode]; known {
		return name
	}
	return "RCODE" + strconv.Itoa(rcode)
}

// Export tells every event, oldest first; see querylog.Reader. It reads piece by piece, so that a slow reader does not
// keep the file from being tidied; events that arrive meanwhile at the end of the window may be among them.
func (l *Log) Export(ctx context.Context, f fleet.QueryFilter, each func(fleet.QueryRow) error) error {
	from, end := int64(0), int64(0)
	rows := make([]fleet.QueryRow, 0, exportChunk)
	for {
		rows = rows[:0]
		err := l.read(ctx, "export", func(c *conn) error {
			if end == 0 { // where the log ends now, lest new events keep the export from ending
				last, _, err := c.number(ctx, "SELECT max(id) FROM events")
				if err != nil {
					return err
				}
				end = last + 1
			}
			q, err := l.ask(ctx, c, f)
			if err != nil || q.empty() {
				return err
			}
			return q.rows(ctx, c, "ASC", max(from, q.from<<idBits), min(q.to<<idBits, end), func(id int64, r fleet.QueryRow) error {
				rows = append(rows, r)
				from = id + 1
				if len(rows) == exportChunk {
					return errEnough
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := each(r); err != nil {
				return err
			}
		}
		if len(rows) < exportChunk {
			return nil
		}
	}
}
