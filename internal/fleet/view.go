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
	Queries              *QueryBreakdown `json:"queries"`

	recent Slice // merged, for totals
}

// QueryBreakdown is what the query log says of one instance's last hour.
type QueryBreakdown struct {
	Source string `json:"source"`
	Window string `json:"window"`
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
	if r == nil || status == StatusOffline {
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
	return slices.DeleteFunc(slices.Clone(minutes), func(s Slice) bool {
		return s.Start.Before(newest.Add(-RecentWindow)) || s.End().After(newest)
	})
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

// Totals are the fleet's sums. Ratios are recomputed from summed counts, never averaged.
type Totals struct {
	ResponseDistribution Distribution `json:"response_distribution"`
	Cache                CacheStats   `json:"cache"`
	BlockedPercent       *float64     `json:"blocked_percent"`
	CachedPercent        *float64     `json:"cached_percent"`
	ErrorPercent         *float64     `json:"error_percent"`
	Recent               *Recent      `json:"recent"`
	UniqueClients        *uint64      `json:"unique_clients"`
	Lists                ListRange    `json:"lists"`
	Lifetime             Distribution `json:"lifetime"` // over all rows; the only one that never goes back
}

// ListRange tells how far the instances' lists differ in size; nil when no instance reports.
type ListRange struct {
	BlockedMin *int `json:"blocked_min"`
	BlockedMax *int `json:"blocked_max"`
}

// Sum is the totals of rows: of those that are ok or stale, and for Lifetime of all.
func Sum(rows []Row) Totals {
	var t Totals
	var recent []Slice
	var qps, seconds float64
	for _, r := range rows {
		if r.Lifetime != nil {
			t.Lifetime.Outcomes = t.Lifetime.Plus(r.Lifetime.Outcomes)
		}
		if r.Status != StatusOK && r.Status != StatusStale {
			continue
		}
		t.ResponseDistribution.Outcomes = t.ResponseDistribution.Plus(r.ResponseDistribution.Outcomes)
		t.Cache = t.Cache.plus(*r.Cache)
		if r.DNS {
			t.Lists = t.Lists.with(r.Blocklist.Blocked)
		}
		if r.Recent != nil {
			recent = append(recent, r.recent)
			seconds = max(seconds, r.Recent.Seconds)
			qps += *r.Recent.QueriesPerSecond
		}
	}
	o := t.ResponseDistribution.Outcomes
	t.BlockedPercent, t.CachedPercent, t.ErrorPercent = o.BlockedPercent(), o.CachedPercent(), o.ErrorPercent()
	t.Cache.HitRate = Percent(t.Cache.Hits, t.Cache.Hits+t.Cache.Misses)
	if t.Recent = newRecent(MergeSlices(recent...), seconds); t.Recent != nil {
		t.Recent.QueriesPerSecond = &qps // each by its own time: one that has just started counts in full
	}
	return t
}

func (l ListRange) with(blocked int) ListRange {
	if l.BlockedMin == nil {
		return ListRange{&blocked, &blocked}
	}
	return ListRange{new(min(*l.BlockedMin, blocked)), new(max(*l.BlockedMax, blocked))}
}

func (c CacheStats) plus(d CacheStats) CacheStats {
	return CacheStats{
		Hits: c.Hits + d.Hits, Misses: c.Misses + d.Misses,
		LRU: LRUStats{
			Entries: c.LRU.Entries + d.LRU.Entries, MaxEntries: c.LRU.MaxEntries + d.LRU.MaxEntries,
			Fresh: c.LRU.Fresh + d.LRU.Fresh, Stale: c.LRU.Stale + d.LRU.Stale, Expired: c.LRU.Expired + d.LRU.Expired,
		},
		// L1 is one cache that instances share, so the largest figure is the whole of it.
		RedisKeys: max(c.RedisKeys, d.RedisKeys), RedisMaxKeys: max(c.RedisMaxKeys, d.RedisMaxKeys),
	}
}

// Coverage tells how much of the fleet the figures stand for: of the instances that answer DNS, those that report
// (ok) out of all that should (ok, stale and offline).
type Coverage struct {
	Reporting        int       `json:"reporting"`
	Total            int       `json:"total"`
	OldestAgeSeconds *float64  `json:"oldest_age_seconds"` // of the reporting ones
	Missing          []Missing `json:"missing"`
}

// Missing names an instance that should report and does not.
type Missing struct {
	InstanceID  string     `json:"instance_id"`
	Name        string     `json:"name"`
	Status      Status     `json:"status"`
	LastUpdated *time.Time `json:"last_updated"`
}

// Cover is the coverage of rows, its missing ones in the order of rows.
func Cover(rows []Row) Coverage {
	c := Coverage{Missing: []Missing{}}
	for _, r := range rows {
		if !r.DNS || r.InstanceID == nil {
			continue
		}
		switch r.Status {
		case StatusOK:
			c.Reporting++
			c.Total++
			if c.OldestAgeSeconds == nil || *r.AgeSeconds > *c.OldestAgeSeconds {
				c.OldestAgeSeconds = r.AgeSeconds
			}
		case StatusStale, StatusOffline:
			c.Total++
			c.Missing = append(c.Missing, Missing{*r.InstanceID, r.Name, r.Status, r.LastUpdated})
		case StatusRevoked, StatusNever:
		}
	}
	return c
}

// View is GET /api/instances/stats.
type View struct {
	GeneratedAt time.Time   `json:"generated_at"`
	Coverage    Coverage    `json:"coverage"`
	Totals      Totals      `json:"totals"`
	Primary     *Row        `json:"primary"`   // the one that answers
	Primaries   []Row       `json:"primaries"` // all of them
	Replicas    []Row       `json:"replicas"`
	Next        *string     `json:"next"` // cursor of the next page of replicas, nil on the last
	Errors      []PartError `json:"errors"`
}

// PartError names a part of the view that could not be had, and why. It never empties the other parts.
type PartError struct {
	Part  string `json:"part"`
	Error string `json:"error"`
}
