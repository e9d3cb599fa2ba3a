package fleet

import (
	"time"
)

// QueryFilter says which events of the query log are meant. The zero value of each field means all.
type QueryFilter struct {
	From, To  time.Time // [From, To), UTC
	Instances []string  // any of these instance ids
	Domain    string    // the name itself and everything below it; lower case, without the final dot
	Client    string    // address or name of the client, exactly
	Outcomes  []Outcome // any of these
	QType     string    // such as AAAA
	Upstream  string    // address of the upstream, exactly
}

// Filtered reports whether more is asked for than a window of some instances: what the rollup cannot answer.
func (f QueryFilter) Filtered() bool {
	return f.Domain != "" || f.Client != "" || len(f.Outcomes) > 0 || f.QType != "" || f.Upstream != ""
}

// QuerySummary is how many queries there were, by outcome.
type QuerySummary struct {
	Total    uint64              `json:"total"`
	Outcomes Outcomes            `json:"outcomes"`
	Groups   []QuerySummaryGroup `json:"groups,omitempty"`
}

// QuerySummaryGroup is the summary of one instance.
type QuerySummaryGroup struct {
	InstanceID string   `json:"instance_id"`
	Total      uint64   `json:"total"`
	Outcomes   Outcomes `json:"outcomes"`
}

// QueryLatency is how long answers took.
type QueryLatency struct {
	Count uint64   `json:"count"`
	AvgMS *float64 `json:"avg_ms"`
	Quantiles
	Groups []QueryLatencyGroup `json:"groups,omitempty"`
}

// QueryLatencyGroup is the latency of one instance.
type QueryLatencyGroup struct {
	InstanceID string   `json:"instance_id"`
	Count      uint64   `json:"count"`
	AvgMS      *float64 `json:"avg_ms"`
	Quantiles
}

// QueryPoint is one step of a time series. A step without queries has a point too.
type QueryPoint struct {
	TS       time.Time `json:"ts"` // start of the step
	Total    uint64    `json:"total"`
	Outcomes Outcomes  `json:"outcomes"`
	Quantiles
}

// QuerySeries is queries over time.
type QuerySeries struct {
	StepSeconds int                `json:"step_seconds"`
	Points      []QueryPoint       `json:"points"`
	Groups      []QuerySeriesGroup `json:"groups,omitempty"`
}

// QuerySeriesGroup is the series of one instance.
type QuerySeriesGroup struct {
	InstanceID string       `json:"instance_id"`
	Points     []QueryPoint `json:"points"`
}

// QueryUpstream is what one upstream did for clients' queries.
type QueryUpstream struct {
	Address string   `json:"address"`
	Count   uint64   `json:"count"`
	Errors  uint64   `json:"errors"` // queries that ended as servfail or upstream_error
	AvgMS   *float64 `json:"avg_ms"`
	P95MS   *float64 `json:"p95_ms"`
}

// QueryUpstreams is every upstream, the busiest first.
type QueryUpstreams struct {
	Upstreams []QueryUpstream      `json:"upstreams"`
	Groups    []QueryUpstreamGroup `json:"groups,omitempty"`
}

// QueryUpstreamGroup is the upstreams of one instance.
type QueryUpstreamGroup struct {
	InstanceID string          `json:"instance_id"`
	Upstreams  []QueryUpstream `json:"upstreams"`
}

// QueryTop is the most frequent names or clients, by count, then name.
type QueryTop struct {
	Items  []TopItem       `json:"items"`
	Groups []QueryTopGroup `json:"groups,omitempty"`
}

// QueryTopGroup is the top of one instance.
type QueryTopGroup struct {
	InstanceID string    `json:"instance_id"`
	Items      []TopItem `json:"items"`
}

// QueryRow is one event as people read it.
type QueryRow struct {
	TS              time.Time `json:"ts"`
	InstanceID      string    `json:"instance_id"`
	ClientIP        string    `json:"client_ip"`
	ClientName      string    `json:"client_name"`
	Protocol        string    `json:"protocol"`
	QName           string    `json:"qname"`
	QType           string    `json:"qtype"`
	Outcome         string    `json:"outcome"`
	RCode           string    `json:"rcode"`
	DurationMS      float64   `json:"duration_ms"`
	UpstreamAddress string    `json:"upstream_address"`
	List            string    `json:"list"`
}

// QueryPage is a page of rows, newest first.
type QueryPage struct {
	Rows []QueryRow `json:"rows"`
	Next *string    `json:"next"` // cursor of the next page, nil on the last
}

// QueryAnswer says what an answer about queries stands on.
type QueryAnswer struct {
	Enabled bool       `json:"enabled"` // whether a query log is read here
	Source  string     `json:"source"`  // clickhouse, sqlite or reports
	From    time.Time  `json:"from"`    // of the window that the answer covers, UTC
	To      time.Time  `json:"to"`
	Missing []QueryGap `json:"missing"` // what it does not cover; never nil
}

// QueryGap is something that an answer about queries does not cover.
type QueryGap struct {
	InstanceID string `json:"instance_id,omitempty"` // "" = of no instance in particular
	Reason     string `json:"reason"`
}
