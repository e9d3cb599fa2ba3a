package fleet

import "time"

// Totals are the fleet's sums. Ratios are recomputed from summed counts, never averaged.
type Totals struct {
	ResponseDistribution Distribution `json:"response_distribution"`
	Cache                CacheStats   `json:"cache"`
	BlockedPercent       *float64     `json:"blocked_percent"`
	CachedPercent        *float64     `json:"cached_percent"`
	ErrorPercent         *float64     `json:"error_percent"`
	Recent               *Recent      `json:"recent"`
	UniqueClients        *uint64      `json:"unique_clients"` // of LastHour; nil when no instance tells any
	LastHour             *RowHour     `json:"last_hour"`
	Lists                ListRange    `json:"lists"`
	// Lifetime is over all rows, and the only one that never goes back. It is nil while that of any instance is unknown.
	Lifetime *Distribution `json:"lifetime"`
}

// ListRange tells how far the instances' lists differ in size; nil when no instance reports.
type ListRange struct {
	BlockedMin *int `json:"blocked_min"`
	BlockedMax *int `json:"blocked_max"`
}

// Sum is the totals of rows: of those that are ok or stale, and for Lifetime of all.
func Sum(rows []Row) Totals {
	t := Totals{Lifetime: new(Distribution)}
	var recent Slice
	var qps, seconds float64
	var hours []*LastHour
	for i := range rows {
		r := &rows[i]
		switch {
		case r.InstanceID == nil:
		case r.Lifetime == nil:
			t.Lifetime = nil
		case t.Lifetime != nil:
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
		hours = append(hours, r.lastHour)
		if r.Recent != nil {
			recent.Outcomes = recent.Outcomes.Plus(r.recent.Outcomes)
			recent.Latency.Merge(r.recent.Latency)
			recent.Seconds += r.recent.Seconds
			seconds = max(seconds, r.Recent.Seconds)
			qps += *r.Recent.QueriesPerSecond
		}
	}
	o := t.ResponseDistribution.Outcomes
	t.BlockedPercent, t.CachedPercent, t.ErrorPercent = o.BlockedPercent(), o.CachedPercent(), o.ErrorPercent()
	t.Cache.HitRate = Percent(t.Cache.Hits, t.Cache.Hits+t.Cache.Misses)
	if t.Recent = newRecent(recent, seconds); t.Recent != nil {
		t.Recent.QueriesPerSecond = &qps // each by its own time: one that has just started counts in full
	}
	if t.LastHour = MergeLastHours(TopOfFleet, hours...).Row(TopOfFleet); t.LastHour != nil {
		t.UniqueClients = &t.LastHour.UniqueClients
	}
	return t
}

func (l ListRange) with(blocked int) ListRange {
	switch {
	case l.BlockedMin == nil:
		return ListRange{&blocked, &blocked}
	case blocked < *l.BlockedMin:
		l.BlockedMin = &blocked
	case blocked > *l.BlockedMax:
		l.BlockedMax = &blocked
	}
	return l
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
