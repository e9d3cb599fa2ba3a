package clickhouse

import (
	"context"
	"math"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"dnsfleet/internal/fleet"
)

// maxRowsRead is how many rows one question may read; the answer to more is fleet.ErrInvalid.
const maxRowsRead = 200_000_000

// ask runs a statement and calls each for every row of its answer. The context has a deadline, with which the server's work
// ends too, a few seconds later.
func (l *Log) ask(ctx context.Context, op, sql string, parameters []any, each func(driver.Rows) error) (err error) {
	settings := ch.Settings{
		"max_rows_to_read":                             l.maxRows,
		"read_overflow_mode":                           "throw",
		"max_execution_time":                           int(l.readTimeout / time.Second), // the client library tells the deadline, unless it is close
		"timeout_overflow_mode":                        "throw",
		"max_result_rows":                              0,
		"cancel_http_readonly_queries_on_client_close": 1,
	}
	rows, err := l.conn.Query(ch.Context(ctx, ch.WithSettings(settings)), sql, parameters...)
	if err != nil {
		return l.readError(op, err)
	}
	defer func() {
		if closing := rows.Close(); err == nil {
			err = l.readError(op, closing)
		}
	}()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return l.readError(op, rows.Err())
}

// perGroup is what a statement adds to count for all, under the instance "", and, when asked, for each instance.
func perGroup(keys string, byInstance bool) string {
	list := keys
	if list != "" {
		list += ", "
	}
	switch {
	case byInstance:
		return " GROUP BY GROUPING SETS ((" + keys + "), (" + list + "instance_id))"
	case keys == "":
		return ""
	}
	return " GROUP BY " + keys
}

// instance is the group's column: of GROUPING SETS, what counts for all has "" there.
func instance(byInstance bool) string {
	if byInstance {
		return "toString(instance_id) AS instance_id"
	}
	return "'' AS instance_id"
}

const (
	byOutcome = "sumForEach(arrayMap(name -> if(name = outcome, queries, toUInt64(0)), {outcome_names:Array(String)}))"
	// Sketches hold nanoseconds; answers are in milliseconds.
	quantiles = "arrayMap(ns -> toFloat64(ns) / 1e6, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency))"
)

// Summary counts queries by outcome. See querylog.Reader.
func (l *Log) Summary(ctx context.Context, f fleet.QueryFilter, byInstance bool) (s fleet.QuerySummary, err error) {
	const op = "read query summary"
	err = l.count(ctx, op, f, "toString(instance_id) AS g, "+byOutcome, " GROUP BY g ORDER BY g", func(rows driver.Rows) error {
		var g fleet.QuerySummaryGroup
		var counts []uint64
		if err := rows.Scan(&g.InstanceID, &counts); err != nil {
			return err
		}
		copy(g.Outcomes[:], counts)
		g.Total = g.Outcomes.Total()
		s.Outcomes = s.Outcomes.Plus(g.Outcomes)
		if byInstance {
			s.Groups = append(s.Groups, g)
		}
		return nil
	})
	s.Total = s.Outcomes.Total()
	return s, err
}

// count asks for columns of what the filter finds, counted.
func (l *Log) count(ctx context.Context, op string, f fleet.QueryFilter, columns, rest string, each func(driver.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.readTimeout)
	defer cancel()
	legacy, err := l.ready(ctx)
	if err != nil {
		return err
	}
	q := newQuestion(f, legacy)
	if q.from >= q.to {
		return nil
	}
	return l.ask(ctx, op, "SELECT "+columns+" FROM ("+q.counted()+")"+rest, q.parameters(), each)
}

// Latency is how long answers took. See querylog.Reader.
func (l *Log) Latency(ctx context.Context, f fleet.QueryFilter, byInstance bool) (latency fleet.QueryLatency, err error) {
	const op = "read query latency"
	columns := instance(byInstance) + ", sum(queries), sum(duration_sum), " + quantiles
	err = l.count(ctx, op, f, columns, perGroup("", byInstance)+" ORDER BY instance_id", func(rows driver.Rows) error {
		var g fleet.QueryLatencyGroup
		var sum float64
		var found []float64
		if err := rows.Scan(&g.InstanceID, &g.Count, &sum, &found); err != nil {
			return err
		}
		g.AvgMS = mean(sum, g.Count)
		g.Quantiles = quantilesOf(found, g.Count)
		if g.InstanceID == "" {
			latency.Count, latency.AvgMS, latency.Quantiles = g.Count, g.AvgMS, g.Quantiles
		} else {
			latency.Groups = append(latency.Groups, g)
		}
		return nil
	})
	return latency, err
}

func mean(sum float64, n uint64) *float64 {
	if n == 0 {
		return nil
	}
	return new(sum / float64(n))
}

// quantilesOf are p50, p95 and p99, as the statements ask for them.
func quantilesOf(found []float64, n uint64) fleet.Quantiles {
	if n == 0 || len(found) != 3 {
		return fleet.Quantiles{}
	}
	one := func(i int) *float64 {
		if v := found[i]; !math.IsNaN(v) {
			return &v
		}
		return nil
	}
	return fleet.Quantiles{P50: one(0), P95: one(1), P99: one(2)}
}

// Series is queries over time. A step is at least a second and a series has at most 50,000 points: anything else is
// fleet.ErrInvalid. See querylog.Reader.
func (l *Log) Series(ctx context.Context, f fleet.QueryFilter, step time.Duration, byInstance bool) (fleet.QuerySeries, error) {
	const op = "read query series"
	ctx, cancel := context.WithTimeout(ctx, l.readTimeout)
	defer cancel()
	series := fleet.QuerySeries{StepSeconds: int(step / time.Second), Points: []fleet.QueryPoint{}}
	legacy, err := l.ready(ctx)
	if err != nil {
		return series, err
	}
	q := newQuestion(f, legacy)
	first, n, err := q.steps(step)
	if err != nil {
		return series, l.translate(op, err)
	}
	empty := func() []fleet.QueryPoint {
		points := make([]fleet.QueryPoint, n)
		for i := range points {
			points[i].TS = time.UnixMilli((first + int64(i)) * q.step).UTC()
		}
		return points
	}
	series.Points = empty()
	if n == 0 {
		return series, nil
	}
	sql := "SELECT " + instance(byInstance) + ", step, " + byOutcome + ", " + quantiles + " FROM (" + q.counted() + ")" +
		perGroup("step", byInstance) + " ORDER BY instance_id, step"
	err = l.ask(ctx, op, sql, q.parameters(), func(rows driver.Rows) error {
		var id string
		var at int64
		var counts []uint64
		var found []float64
		if err := rows.Scan(&id, &at, &counts, &found); err != nil {
			return err
		}
		points := series.Points
		if id != "" {
			if last := len(series.Groups) - 1; last < 0 || series.Groups[last].InstanceID != id {
				series.Groups = append(series.Groups, fleet.QuerySeriesGroup{InstanceID: id, Points: empty()})
			}
			points = series.Groups[len(series.Groups)-1].Points
		}
		if at -= first; at < 0 || at >= n {
			return nil
		}
		p := &points[at]
		copy(p.Outcomes[:], counts)
		p.Total = p.Outcomes.Total()
		p.Quantiles = quantilesOf(found, p.Total)
		return nil
	})
	return series, err
}

// Upstreams is what each upstream did. Its latency is that of answers which are no errors. See querylog.Reader.
func (l *Log) Upstreams(ctx context.Context, f fleet.QueryFilter, byInstance bool) (fleet.QueryUpstreams, error) {
	const op = "read upstreams"
	const failed = "outcome IN ('servfail', 'upstream_error')"
	u := fleet.QueryUpstreams{Upstreams: []fleet.QueryUpstream{}}
	columns := instance(byInstance) + ", toString(upstream_address) AS address, sum(queries) AS n, sumIf(queries, " + failed +
		"), sumIf(duration_sum, NOT (" + failed + ")), arrayMap(ns -> toFloat64(ns) / 1e6, quantilesDDMergeIf(0.01, 0.5, 0.95, 0.99)(latency, NOT (" +
		failed + ")))"
	rest := " WHERE upstream_address != ''" + perGroup("upstream_address", byInstance) + " ORDER BY instance_id, n DESC, address"
	err := l.count(ctx, op, f, columns, rest, func(rows driver.Rows) error {
		var id string
		var one fleet.QueryUpstream
		var sum float64
		var found []float64
		if err := rows.Scan(&id, &one.Address, &one.Count, &one.Errors, &sum, &found); err != nil {
			return err
		}
		answered := one.Count - one.Errors
		one.AvgMS, one.P95MS = mean(sum, answered), quantilesOf(found, answered).P95
		if id == "" {
			u.Upstreams = append(u.Upstreams, one)
			return nil
		}
		if last := len(u.Groups) - 1; last < 0 || u.Groups[last].InstanceID != id {
			u.Groups = append(u.Groups, fleet.QueryUpstreamGroup{InstanceID: id})
		}
		g := &u.Groups[len(u.Groups)-1]
		g.Upstreams = append(g.Upstreams, one)
		return nil
	})
	return u, err
}

// Clients is how many different clients asked, with a standard error of 0.6 %. See querylog.Reader.
func (l *Log) Clients(ctx context.Context, f fleet.QueryFilter) (n uint64, err error) {
	err = l.count(ctx, "count clients", f, "uniqCombined64IfMerge(15)(clients)", "", func(rows driver.Rows) error {
		return rows.Scan(&n)
	})
	return n, err
}
