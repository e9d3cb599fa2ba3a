package fleet

import (
	"cmp"
	"slices"
	"time"
)

// Source tells where a row's report came from.
type Source string

// The sources.
const (
	SourcePush  Source = "push"
	SourcePull  Source = "pull"
	SourceLocal Source = "local" // the primary that answers, from its own memory
)

// Row is one instance in the view. What is unknown is nil, never zero.
type Row struct {
	InstanceID           *string         `json:"instance_id"`
	TokenID              *string         `json:"token_id"` // public; nil for a primary
	Name                 string          `json:"name"`
	Role                 Role            `json:"role"`
	DNS                  bool            `json:"dns"`
	Status               Status          `json:"status"`
	AgeSeconds           *float64        `json:"age_seconds"`
	IntervalSeconds      *float64        `json:"interval_seconds"`
	LastUpdated          *time.Time      `json:"last_updated"`
	Source               *Source         `json:"source"`
	Release              *string         `json:"release"`
	BootID               *string         `json:"boot_id"`
	StartedAt            *time.Time      `json:"started_at"`
	PolicyRevision       *int64          `json:"policy_revision"`
	PolicyDrift          *bool           `json:"policy_drift"` // whether it runs another policy than the fleet's
	ClockSkewSeconds     *float64        `json:"clock_skew_seconds"`
	Blocklist            *BlocklistStats `json:"blocklist"`
	Cache                *CacheStats     `json:"cache"`
	CacheRefresh         *RefreshStats   `json:"cache_refresh"`
	Refresh              *RefreshStats   `json:"refresh"` // the same again, under its older name
	ResponseDistribution *Distribution   `json:"response_distribution"`
	ResponseTime         *ResponseTime   `json:"response_time"`
	Recent               *Recent         `json:"recent"`
	Lifetime             *Distribution   `json:"lifetime"`
	LastHour             *RowHour        `json:"last_hour"`
	QueryLog             *string         `json:"query_log"` // where its events go; see Report.QueryLog
	Queries              *QueryBreakdown `json:"queries"`

	recent   Slice     // merged, for totals
	lastHour *LastHour // the whole of it, for totals
}

// QueryBreakdown is what the query log says of one instance's last hour, or, where that instance's events are in no log
// that is read here, what its slices say.
type QueryBreakdown struct {
	Source string `json:"source"` // clickhouse, sqlite or reports
	Window string `json:"window"` // such as 1h
	Total  uint64 `json:"total"`
	Quantiles
	Upstreams []UpstreamStats `json:"upstreams"`
}

// Recent says how it is now: the last five complete minutes.
type Recent struct {
	Seconds              float64      `json:"seconds"` // how much of them is covered
	QueriesPerSecond     *float64     `json:"queries_per_second"`
	ResponseDistribution Distribution `json:"response_distribution"`
	BlockedPercent       *float64     `json:"blocked_percent"`
	CachedPercent        *float64     `json:"cached_percent"`
	ErrorPercent         *float64     `json:"error_percent"`
	Quantiles
}

// RecentWindow is how far Recent looks back.
const RecentWindow = 5 * time.Minute

// NewRow is the row of an instance at now on the store's clock. policyHash is the fleet's current policy, "" when there
// is none; revoked says that the instance's token was revoked.
func NewRow(in Instance, source Source, revoked bool, policyHash string, now time.Time) Row {
	status := in.StatusAt(now)
	if revoked {
		status = StatusRevoked
	}
	row := Row{
		InstanceID: &in.ID, TokenID: orNil(in.TokenID), Name: in.Name, Role: in.Role, DNS: in.DNS, Status: status,
		AgeSeconds: new(max(0, now.Sub(in.LastSeen).Seconds())), LastUpdated: new(in.LastSeen.UTC()),
		BootID: orNil(in.BootID), Lifetime: &Distribution{in.Lifetime()},
	}
	r := in.Report
	if in.StatusAt(now) == StatusOffline { // what a revoked instance said last expires like any other's
		return row
	}
	row.IntervalSeconds, row.Source, row.Release = &r.IntervalSeconds, &source, &r.Release
	row.StartedAt, row.PolicyRevision = new(r.StartedAt.UTC()), &r.PolicyRevision
	row.PolicyDrift = new(policyHash != "" && r.PolicyHash != policyHash)
	row.ClockSkewSeconds = r.ClockSkew
	if r.ClockSkew == nil {
		row.ClockSkewSeconds = new(r.SentAt.Sub(in.LastSeen).Seconds())
	}
	row.Blocklist, row.Cache, row.CacheRefresh, row.Refresh = &r.Blocklist, &r.Cache, &r.CacheRefresh, &r.CacheRefresh
	row.ResponseDistribution, row.ResponseTime = &r.ResponseDistribution, &r.ResponseTime
	row.recent = MergeSlices(recentMinutes(in.Minutes, in.LastSeen)...)
	row.Recent = newRecent(row.recent, row.recent.Seconds)
	row.lastHour, row.LastHour, row.QueryLog = r.LastHour, r.LastHour.Row(TopOfRow), orNil(r.QueryLog)
	return row
}

// NeverRow is the row of a token that nobody has used yet.
func NeverRow(t Token) Row {
	status := StatusNever
	if t.Revoked() {
		status = StatusRevoked
	}
	return Row{TokenID: &t.ID, Name: t.Name, Role: RoleReplica, DNS: true, Status: status}
}

// recentMinutes are the slices of the last five minutes that were complete when the instance last reported.
func recentMinutes(minutes []Slice, reported time.Time) []Slice {
	var newest time.Time
	for _, s := range minutes {
		if s.End().After(newest) {
			newest = s.End()
		}
	}
	if reported.Sub(newest) > 2*time.Minute { // the slices did not keep up with the reports: they are not "now"
		newest = reported.Truncate(time.Minute)
	}
	recent := make([]Slice, 0, len(minutes))
	for _, s := range minutes {
		if !s.Start.Before(newest.Add(-RecentWindow)) && !s.End().After(newest) {
			s.Upstreams = nil // Recent does not tell them, and to merge them is half of the work
			recent = append(recent, s)
		}
	}
	return recent
}

// newRecent is nil when sum covers nothing. seconds is the time by which the counts are divided.
func newRecent(sum Slice, seconds float64) *Recent {
	if sum.Seconds == 0 || seconds == 0 {
		return nil
	}
	return &Recent{
		Seconds: seconds, QueriesPerSecond: new(float64(sum.Outcomes.Total()) / seconds),
		ResponseDistribution: Distribution{sum.Outcomes}, BlockedPercent: sum.Outcomes.BlockedPercent(),
		CachedPercent: sum.Outcomes.CachedPercent(), ErrorPercent: sum.Outcomes.ErrorPercent(), Quantiles: sum.Latency.Quantiles(),
	}
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// SortRows orders rows as every view does: by name, then id, so that they never change places between polls.
func SortRows(rows []Row) {
	slices.SortFunc(rows, func(a, b Row) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key(), b.Key())) })
}

// Key identifies a row: its instance id, or its token's id where nothing was seen yet.
func (r Row) Key() string {
	if r.InstanceID != nil {
		return *r.InstanceID
	}
	if r.TokenID != nil {
		return *r.TokenID
	}
	return ""
}
