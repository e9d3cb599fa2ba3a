package clickhouse

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"dnsfleet/internal/fleet"
)

// unattributed is the instance of rows that an older resolver left.
const unattributed = "unattributed"

const minute = int64(time.Minute / time.Millisecond)

// question is a filter as the tables see it. Statements are put together from the constants of this file only; every value
// of the filter is bound.
type question struct {
	filter   fleet.QueryFilter
	from, to int64 // [from, to) in milliseconds
	step     int64 // of a series in milliseconds, 0 for none
	legacy   span
}

func newQuestion(f fleet.QueryFilter, legacy span) question {
	q := question{filter: f, to: (lastSecond + 1) * 1000, legacy: legacy}
	if !f.From.IsZero() {
		q.from = max(ceilMilli(f.From), 0)
	}
	if !f.To.IsZero() {
		q.to = min(max(ceilMilli(f.To), 0), q.to)
	}
	return q
}

// ceilMilli is the first millisecond that is not before t.
func ceilMilli(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

// parameters are the values of all that statements may bind.
func (q question) parameters(more ...any) []any {
	wholeFrom, wholeTo := q.wholeMinutes()
	names := make([]string, fleet.NumOutcomes)
	for o := range fleet.Outcome(fleet.NumOutcomes) {
		names[o] = o.String()
	}
	all := []any{
		ch.Named("from", q.from), ch.Named("to", q.to), ch.Named("whole_from", wholeFrom), ch.Named("whole_to", wholeTo),
		ch.Named("step", max(q.step, 1)), ch.Named("outcome_names", names),
	}
	for _, c := range q.conditions() {
		all = append(all, c.parameters...)
	}
	return append(all, more...)
}

// wholeMinutes is the part of the window that consists of whole minutes, [from, to) in milliseconds.
func (q question) wholeMinutes() (from, to int64) {
	from = (q.from + minute - 1) / minute * minute
	to = q.to / minute * minute
	return from, max(from, to)
}

type condition struct {
	sql        string
	parameters []any
}

// conditions are what the filter asks for beyond the window.
func (q question) conditions() []condition {
	f := q.filter
	var list []condition
	add := func(wanted bool, sql string, parameters ...any) {
		if wanted {
			list = append(list, condition{sql, parameters})
		}
	}
	add(len(f.Instances) > 0, "instance_id IN {instances:Array(String)}", ch.Named("instances", f.Instances))
	add(f.Domain != "", "(qname = {domain:String} OR endsWith(qname, {below:String}))", ch.Named("domain", f.Domain), ch.Named("below", "."+f.Domain))
	add(f.Client != "", "(client_ip = {client:String} OR client_name = {client:String})", ch.Named("client", f.Client))
	var names []string
	for _, o := range f.Outcomes {
		names = append(names, o.String())
	}
	add(len(names) > 0, "outcome IN {outcomes:Array(String)}", ch.Named("outcomes", names))
	add(f.QType != "", "qtype = {qtype:String}", ch.Named("qtype", f.QType))
	add(f.Upstream != "", "upstream_address = {upstream:String}", ch.Named("upstream", f.Upstream))
	return list
}

const (
	rowColumns = "ts, instance_id, client_ip, client_name, protocol, qname, qtype, outcome, rcode, duration_ms, upstream_address, list"

	// legacyRows are the rows of an older resolver as ours. An outcome that we do not have counts as invalid.
	legacyRows = `(
	SELECT toDateTime64(old.ts, 3, 'UTC') AS ts, 'unattributed' AS instance_id, toString(old.client_ip) AS client_ip,
		toString(old.client_name) AS client_name, toString(old.protocol) AS protocol,
		if(old.qname = '.', '.', trim(TRAILING '.' FROM toString(old.qname))) AS qname, toString(old.qtype) AS qtype,
		if(has({outcome_names:Array(String)}, toString(old.outcome)), toString(old.outcome), 'invalid') AS outcome,
		toString(old.rcode) AS rcode, toFloat32(old.duration_ms) AS duration_ms,
		toString(old.upstream_address) AS upstream_address, '' AS list
	FROM dns_queries_legacy AS old
	WHERE old.ts >= toDateTime(intDiv({from:Int64}, 1000), 'UTC') AND old.ts < toDateTime(intDiv({to:Int64} + 999, 1000), 'UTC'))`

	window = "ts >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND ts < fromUnixTimestamp64Milli({to:Int64}, 'UTC')"
	// edges are the parts of the window that are no whole minutes.
	edges = "(ts < fromUnixTimestamp64Milli({whole_from:Int64}, 'UTC') OR ts >= fromUnixTimestamp64Milli({whole_to:Int64}, 'UTC'))"

	client = "if(client_name = '', toString(client_ip), toString(client_name))"

	// sums are rows brought into the shape of the minutes' table.
	sums = `SELECT intDiv(toUnixTimestamp64Milli(ts), {step:Int64}) AS step, instance_id, outcome, upstream_address,
	count() AS queries, sum(toFloat64(duration_ms)) AS duration_sum,
	quantilesDDState(0.01, 0.5, 0.95, 0.99)(toFloat32(duration_ms * 1e6)) AS latency,
	uniqCombined64IfState(15)(` + client + `, client_ip != '' OR client_name != '') AS clients
FROM (`
	sumsBy = `) GROUP BY step, instance_id, outcome, upstream_address`

	minutes = `SELECT intDiv(toInt64(toUnixTimestamp(minute)) * 1000, {step:Int64}) AS step, instance_id, outcome, upstream_address,
	queries, duration_sum, latency, clients
FROM dns_queries_1m
WHERE minute >= toDateTime(intDiv({whole_from:Int64}, 1000), 'UTC') AND minute < toDateTime(intDiv({whole_to:Int64}, 1000), 'UTC')`
)

// rows is a statement for the rows that the filter finds, in rowColumns. extra narrows it further.
func (q question) rows(extra ...string) string {
	where := slices.Concat([]string{window}, extra)
	for _, c := range q.conditions() {
		where = append(where, c.sql)
	}
	all := " WHERE " + strings.Join(where, " AND ")
	sql := "SELECT " + rowColumns + " FROM dns_queries" + all
	if q.withLegacy() {
		sql += " UNION ALL SELECT " + rowColumns + " FROM " + legacyRows + all
	}
	return sql
}

// legacyOnly is as rows, of the older table only.
func (q question) legacyOnly() string {
	where := []string{window}
	for _, c := range q.conditions() {
		where = append(where, c.sql)
	}
	return "SELECT " + rowColumns + " FROM " + legacyRows + " WHERE " + strings.Join(where, " AND ")
}

func (q question) withLegacy() bool {
	return q.legacy.to > 0 && q.from <= q.legacy.to && q.to > q.legacy.from &&
		(len(q.filter.Instances) == 0 || slices.Contains(q.filter.Instances, unattributed))
}

// counted is a statement for sums by step, instance, outcome and upstream, in parts that are still to be merged.
func (q question) counted() string {
	if q.filter.Filtered() || q.step%minute != 0 {
		return sums + q.rows() + sumsBy
	}
	fromMinutes := minutes
	if len(q.filter.Instances) > 0 {
		fromMinutes += " AND instance_id IN {instances:Array(String)}"
	}
	parts := []string{fromMinutes}
	edge := q
	edge.legacy = span{}
	if from, to := q.wholeMinutes(); from != q.from || to != q.to {
		parts = append(parts, sums+edge.rows(edges)+sumsBy)
	}
	if q.withLegacy() {
		parts = append(parts, sums+q.legacyOnly()+sumsBy)
	}
	return strings.Join(parts, " UNION ALL ")
}

// maxPoints bounds a series.
const maxPoints = 50_000

// steps are the first step that begins in the window and the number of all that do.
func (q *question) steps(step time.Duration) (first, n int64, err error) {
	if step < time.Second || step%time.Second != 0 {
		return 0, 0, fmt.Errorf("a step of %s is no whole number of seconds: %w", step, fleet.ErrInvalid)
	}
	if q.filter.From.IsZero() || q.filter.To.IsZero() {
		return 0, 0, fmt.Errorf("a series needs a window: %w", fleet.ErrInvalid)
	}
	q.step = int64(step / time.Millisecond)
	first = (q.from + q.step - 1) / q.step
	end := (q.to + q.step - 1) / q.step
	if n = max(end-first, 0); n > maxPoints {
		return 0, 0, fmt.Errorf("a series of %d points is longer than %d, take a longer step: %w", n, maxPoints, fleet.ErrInvalid)
	}
	q.from = min(first, math.MaxInt64/q.step) * q.step // what comes before the first step is in none
	return first, n, nil
}
