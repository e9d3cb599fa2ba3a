package queries

import (
	"encoding/csv"
	"io"
	"strconv"
	"time"

	"dnsfleet/internal/fleet"
)

// table writes rows as CSV (RFC 4180), with the names of the columns first.
type table struct {
	csv   *csv.Writer
	cells []string
}

var columns = []string{
	"ts", "instance_id", "client_ip", "client_name", "protocol", "qname", "qtype", "outcome", "rcode", "duration_ms", "upstream_address", "list",
}

func newTable(w io.Writer) *table { return &table{csv: csv.NewWriter(w)} }

func (t *table) head() error { return t.put(columns...) }

func (t *table) row(r fleet.QueryRow) error {
	return t.put(
		r.TS.UTC().Format(time.RFC3339Nano), r.InstanceID, r.ClientIP, r.ClientName, r.Protocol, r.QName, r.QType, r.Outcome, r.RCode,
		strconv.FormatFloat(r.DurationMS, 'f', -1, 64), r.UpstreamAddress, r.List,
	)
}

func (t *table) put(cells ...string) error {
	t.cells = t.cells[:0]
	for _, c := range cells {
		t.cells = append(t.cells, harmless(c))
	}
	if err := t.csv.Write(t.cells); err != nil {
		return err
	}
	t.csv.Flush() // into the buffer below
	return t.csv.Error()
}

// harmless keeps a spreadsheet from taking a cell for a formula: names come from whoever asks for them.
func harmless(cell string) string {
	if cell == "" {
		return cell
	}
	switch cell[0] {
	case '=', '+', '-', '@', '\t', '\r':
		return "'" + cell
	}
	return cell
}
