package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

const insert = "INSERT INTO dns_queries (ts, instance_id, client_ip, client_name, protocol, qname, qtype, qclass, outcome, rcode, duration_ms, upstream_address, list)"

// insertColumns spare HTTP a question for each insert; the native protocol brings them by itself.
var insertColumns = []ch.ColumnNameAndType{
	{Name: "ts", Type: "DateTime64(3, 'UTC')"},
	{Name: "instance_id", Type: "LowCardinality(String)"},
	{Name: "client_ip", Type: "LowCardinality(String)"},
	{Name: "client_name", Type: "LowCardinality(String)"},
	{Name: "protocol", Type: "LowCardinality(String)"},
	{Name: "qname", Type: "String"},
	{Name: "qtype", Type: "LowCardinality(String)"},
	{Name: "qclass", Type: "LowCardinality(String)"},
	{Name: "outcome", Type: "LowCardinality(String)"},
	{Name: "rcode", Type: "LowCardinality(String)"},
	{Name: "duration_ms", Type: "Float32"},
	{Name: "upstream_address", Type: "LowCardinality(String)"},
	{Name: "list", Type: "LowCardinality(String)"},
}

var insertSettings = ch.Settings{
	"async_insert":       0, // it would answer for several batches at once
	"insert_deduplicate": 1,
	// The minutes remember tokens too: a server that dies between both tables makes up for it at the retry.
	"deduplicate_blocks_in_dependent_materialized_views": 1,
	"insert_distributed_sync":                            1, // on a cluster: answer when the shard has it
}

// Write stores the batch in one insert. See querylog.Sink.
func (l *Log) Write(ctx context.Context, b querylog.Batch) error {
	if err := check(b); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if _, err := l.ready(ctx); err != nil {
		return err
	}
	settings := ch.Settings{"insert_deduplication_token": token(b)}
	maps.Copy(settings, insertSettings)
	options := []ch.QueryOption{ch.WithSettings(settings)}
	if l.target.Protocol == ch.HTTP {
		options = append(options, ch.WithColumnNamesAndTypes(insertColumns))
	}
	batch, err := l.conn.PrepareBatch(ch.Context(ctx, options...), insert)
	if err != nil {
		return translate(subject(b), err)
	}
	defer func() { _ = batch.Close() }() // Send tells what became of it
	for i, column := range columnsOf(b) {
		if err := batch.Column(i).Append(column); err != nil {
			return fmt.Errorf("%s: column %s: %w: %w", subject(b), insertColumns[i].Name, fleet.ErrInvalid, err)
		}
	}
	return translate(subject(b), batch.Send())
}

func subject(b querylog.Batch) string {
	return fmt.Sprintf("write batch %d of %s", b.Seq, b.InstanceID)
}

// token is the batch's identity. No id has a slash.
func token(b querylog.Batch) string { return fmt.Sprintf("%s/%s/%d", b.InstanceID, b.BootID, b.Seq) }

const day = 24 * time.Hour

// lastSecond is the end of what ClickHouse's DateTime can tell, which the minutes use.
const lastSecond = 1<<32 - 1

func check(b querylog.Batch) error {
	switch {
	case b.InstanceID == "" || b.BootID == "" || b.Seq == 0:
		return fmt.Errorf("%s: it has no identity: %w", subject(b), fleet.ErrInvalid)
	case len(b.Events) == 0:
		return fmt.Errorf("%s: it has no events: %w", subject(b), fleet.ErrInvalid)
	}
	first := b.Events[0].Time.UTC().Truncate(day)
	for _, e := range b.Events {
		if !e.Time.UTC().Truncate(day).Equal(first) {
			return fmt.Errorf("%s: its events are of more than one day: %w", subject(b), fleet.ErrInvalid)
		}
		if at := e.Time.Unix(); at < 0 || at > lastSecond {
			return fmt.Errorf("%s: an event is of %s, outside 1970 to 2106: %w", subject(b), e.Time.UTC().Format(time.RFC3339), fleet.ErrInvalid)
		}
		if int(e.Outcome) >= fleet.NumOutcomes {
			return fmt.Errorf("%s: an event has outcome %d, which is none: %w", subject(b), e.Outcome, fleet.ErrInvalid)
		}
	}
	return nil
}

// columnsOf are the values of the batch in the order of insertColumns.
func columnsOf(b querylog.Batch) []any {
	n := len(b.Events)
	ts, durations := make([]time.Time, n), make([]float32, n)
	texts := make([][]string, 11)
	for i := range texts {
		texts[i] = make([]string, n)
	}
	for i := range b.Events {
		e := &b.Events[i]
		ts[i] = e.Time
		durations[i] = float32(float64(e.Duration) / float64(time.Millisecond))
		row := [...]string{
			b.InstanceID, address(e), e.ClientName, e.Protocol, withoutDot(e.QName), dns.Type(e.QType).String(),
			dns.Class(e.QClass).String(), e.Outcome.String(), rcode(e.RCode), e.Upstream, e.List,
		}
		for column, text := range row {
			texts[column][i] = text
		}
	}
	all := []any{ts}
	for _, column := range texts[:9] {
		all = append(all, column)
	}
	return append(all, durations, texts[9], texts[10])
}

func address(e *fleet.QueryEvent) string {
	if !e.Client.IsValid() {
		return ""
	}
	return e.Client.String()
}

func withoutDot(name string) string {
	if len(name) > 1 && name[len(name)-1] == '.' {
		return name[:len(name)-1]
	}
	return name
}

func rcode(code int) string {
	if name, ok := dns.RcodeToString[code]; ok {
		return name
	}
	return fmt.Sprintf("RCODE%d", code)
}
