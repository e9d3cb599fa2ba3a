package clickhouse

import (
	"context"
	"fmt"
	"maps"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

const insertNames = "ts, instance_id, client_ip, client_name, protocol, qname, qtype, qclass, outcome, rcode, duration_ms, upstream_address, list"

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
	return l.translate(subject(b), l.insert(ctx, "dns_queries", settings, b))
}

// insert sends the batch to a table.
func (l *Log) insert(ctx context.Context, table string, settings ch.Settings, b querylog.Batch) error {
	options := []ch.QueryOption{ch.WithSettings(settings)}
	if l.target.Protocol == ch.HTTP {
		options = append(options, ch.WithColumnNamesAndTypes(insertColumns))
	}
	batch, err := l.conn.PrepareBatch(ch.Context(ctx, options...), "INSERT INTO "+table+" ("+insertNames+")")
	if err != nil {
		return err
	}
	defer func() { _ = batch.Close() }() // Send tells what became of it
	values, release := l.columnsOf(b)
	defer release()
	for i, column := range values {
		if err := batch.Column(i).Append(column); err != nil {
			return fmt.Errorf("column %s: %w: %w", insertColumns[i].Name, fleet.ErrInvalid, err)
		}
	}
	return batch.Send()
}

func subject(b querylog.Batch) string {
	return fmt.Sprintf("write batch %d of %s", b.Seq, b.InstanceID)
}

// token is the batch's identity. No id has a slash.
func token(b querylog.Batch) string { return fmt.Sprintf("%s/%s/%d", b.InstanceID, b.BootID, b.Seq) }

// lastSecond is the end of what ClickHouse's DateTime can tell, which the minutes use.
const lastSecond = 1<<32 - 1

const daySeconds = 24 * 60 * 60

func check(b querylog.Batch) error {
	switch {
	case b.InstanceID == "" || b.BootID == "" || b.Seq == 0:
		return fmt.Errorf("%s: it has no identity: %w", subject(b), fleet.ErrInvalid)
	case len(b.Events) == 0:
		return fmt.Errorf("%s: it has no events: %w", subject(b), fleet.ErrInvalid)
	}
	day := b.Events[0].Time.Unix() / daySeconds
	for i := range b.Events {
		e := &b.Events[i]
		at := e.Time.Unix()
		switch {
		case at < 0 || at > lastSecond:
			return fmt.Errorf("%s: an event is of %s, outside 1970 to 2106: %w", subject(b), e.Time.UTC().Format(time.RFC3339), fleet.ErrInvalid)
		case at/daySeconds != day:
			return fmt.Errorf("%s: its events are of more than one day: %w", subject(b), fleet.ErrInvalid)
		case int(e.Outcome) >= fleet.NumOutcomes:
			return fmt.Errorf("%s: an event has outcome %d, which is none: %w", subject(b), e.Outcome, fleet.ErrInvalid)
		}
	}
	return nil
}
