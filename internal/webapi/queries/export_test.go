package queries

import (
	"io"

	"dnsfleet/internal/fleet"
)

// ParseDuration is for the fuzz target.
var ParseDuration = parseDuration

// WriteTable writes rows as CSV.
func WriteTable(w io.Writer, rows ...fleet.QueryRow) error {
	t := newTable(w)
	if err := t.head(); err != nil {
		return err
	}
	for _, r := range rows {
		if err := t.row(r); err != nil {
			return err
		}
	}
	return nil
}
