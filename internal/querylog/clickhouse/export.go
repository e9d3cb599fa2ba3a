package clickhouse

import (
	"context"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"dnsfleet/internal/fleet"
)

const (
	// exportRows is about how many rows an export asks for at once: the server sorts them, in memory.
	exportRows = 500_000
	// exportTimeout bounds each of these askings, the time that the reader takes included.
	exportTimeout = 5 * time.Minute
)

// Export tells every row. It may take as long as its context lets it. See querylog.Reader.
func (l *Log) Export(ctx context.Context, f fleet.QueryFilter, each func(fleet.QueryRow) error) error {
	legacy, err := l.ready(ctx)
	if err != nil {
		return err
	}
	q := newQuestion(f, legacy)
	if q.from >= q.to {
		return nil
	}
	pieces, err := l.pieces(ctx, q)
	if err != nil {
		return err
	}
	for _, piece := range pieces {
		if err := l.exportPiece(ctx, piece, each); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) exportPiece(ctx context.Context, q question, each func(fleet.QueryRow) error) error {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	return l.ask(ctx, "export queries", "SELECT "+told+" FROM ("+q.rows()+") ORDER BY at, instance, hash", q.parameters(), func(rows driver.Rows) error {
		row, _, err := scanRow(rows)
		if err != nil {
			return err
		}
		return each(row)
	})
}

// pieces cuts the window where minutes begin, so that no piece has many more than exportRows rows, before filters, and none
// has nothing. A single minute is never cut.
func (l *Log) pieces(ctx context.Context, q question) (pieces []question, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.readTimeout)
	defer cancel()
	sql := `SELECT at, toUInt64(sum(n)) FROM (
SELECT toInt64(toUnixTimestamp(minute)) * 1000 AS at, sum(queries) AS n FROM dns_queries_1m
WHERE minute >= toDateTime(intDiv({minute_from:Int64}, 1000), 'UTC') AND minute < toDateTime(intDiv({to:Int64} + 999, 1000), 'UTC')`
	if len(q.filter.Instances) > 0 {
		sql += " AND instance_id IN {instances:Array(String)}"
	}
	sql += " GROUP BY at"
	if q.withLegacy() {
		sql += ` UNION ALL SELECT toInt64(toUnixTimestamp(toStartOfMinute(ts))) * 1000 AS at, count() AS n FROM dns_queries_legacy
WHERE ts >= toDateTime(intDiv({minute_from:Int64}, 1000), 'UTC') AND ts < toDateTime(intDiv({to:Int64} + 999, 1000), 'UTC') GROUP BY at`
	}
	sql += ") GROUP BY at ORDER BY at"
	var rowsHere uint64
	err = l.ask(ctx, "find queries", sql, q.parameters(ch.Named("minute_from", q.from/minute*minute)), func(rows driver.Rows) error {
		var at int64
		var n uint64
		if err := rows.Scan(&at, &n); err != nil {
			return err
		}
		if rowsHere += n; len(pieces) == 0 || rowsHere > l.exportRows {
			piece := q
			piece.from = max(at, q.from)
			pieces, rowsHere = append(pieces, piece), n
		}
		pieces[len(pieces)-1].to = min(at+minute, q.to)
		return nil
	})
	return pieces, err
}
