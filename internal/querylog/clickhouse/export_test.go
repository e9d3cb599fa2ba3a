package clickhouse

import (
	"io/fs"
	"strings"

	"dnsfleet/migrations"
)

// Schema is the SQL of all migrations, filled in.
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
