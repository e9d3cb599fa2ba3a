package clickhouse

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"dnsfleet/internal/querylog"
	"dnsfleet/migrations"
)

// Schema is the SQL of all migrations and of what else changes tables, filled in.
func Schema(o Options) (string, error) {
	files := rendered{migrations.ClickHouse, newSchema(o)}
	names, err := fs.Glob(files, "clickhouse/*.sql")
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return "", err
		}
		all.Write(text)
	}
	for _, statement := range []string{renameLegacy, fmt.Sprintf(alterTTL, "dns_queries", "toDateTime(ts)"), fmt.Sprintf(alterTTL, "dns_queries_1m", "minute")} {
		sql, err := files.schema.render(statement)
		if err != nil {
			return "", err
		}
		all.WriteString("\n" + sql + ";\n")
	}
	return all.String(), nil
}

// CursorRoundTrip parses a cursor and writes it again.
func CursorRoundTrip(text string) (again string, ok bool) {
	c, err := parseCursor(text)
	if err != nil {
		return "", false
	}
	return c.String(), true
}

// Exec runs a statement on the log's connection.
func (l *Log) Exec(ctx context.Context, sql string) error { return l.conn.Exec(ctx, sql) }

// Value is what a query of one row and one text column answers.
func (l *Log) Value(ctx context.Context, sql string) (text string, err error) {
	err = l.conn.QueryRow(ctx, sql).Scan(&text)
	return text, err
}

// WriteTo sends a batch as Write does, to a table of any server: without the settings that the log's tables want.
func (l *Log) WriteTo(ctx context.Context, table string, b querylog.Batch) error {
	return l.translate("write to "+table, l.insert(ctx, table, nil, b))
}

// LimitPieces sets about how many rows an export asks for at once.
func (l *Log) LimitPieces(rows uint64) { l.exportRows = rows }

// LimitTime sets how long one question may take.
func (l *Log) LimitTime(d time.Duration) { l.readTimeout = d }

// LimitRows sets how many rows one question may read.
func (l *Log) LimitRows(n int) { l.maxRows = n }
