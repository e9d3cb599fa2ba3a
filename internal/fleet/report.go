package fleet

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Protocol is the version of the sync protocol that this program speaks.
const Protocol = 1

// Limits on what a report may claim. They bound memory and keep sums exact; no honest instance comes near them.
const (
	maxName      = 128
	maxUpstreams = 64
	maxLists     = 256
	maxUnapplied = 64
	maxAcks      = 256
	maxText      = 512
	maxQueryLog  = 128

	// MaxSlices is how many slices one report may carry.
	MaxSlices = 2048
	// MaxFuture is how far ahead of the store's clock sent_at may be.
	MaxFuture = 5 * time.Minute
)

const idPattern = "[A-Za-z0-9._-]{1,64}"

var idRegexp = regexp.MustCompile("^" + idPattern + "$")

// ValidID reports whether s may be an instance id, a boot id or a token id.
func ValidID(s string) bool { return idRegexp.MatchString(s) }

// Role is what an instance does in its fleet.
type Role string

// The two roles.
const (
	RolePrimary Role = "primary"
	RoleReplica Role = "replica"
)

// Report is what an instance says of itself: counters since its boot, slices, versions, policy revision. It is the
// body of POST /sync/stats and what the store keeps (without the slices, which have a place of their own).
type Report struct {
	Protocol        int       `json:"protocol"`
	InstanceID      string    `json:"instance_id"`
	Name            string    `json:"name"`
	BootID          string    `json:"boot_id"`
	StartedAt       time.Time `json:"started_at"`
	Seq             uint64    `json:"seq"` // counts the reports of one boot, from 1
	SentAt          time.Time `json:"sent_at"`
	IntervalSeconds float64   `json:"interval_seconds"`
	Release         string    `json:"release"`
	DNS             *bool     `json:"dns,omitempty"`                // whether it answers DNS; nil = yes
	ClockSkew       *float64  `json:"clock_skew_seconds,omitempty"` // own clock minus the store's, where the sender measured it
	PolicyRevision  int64     `json:"policy_revision"`
	PolicyHash      string    `json:"policy_hash"`
	PolicyUnapplied []string  `json:"policy_unapplied"` // paths of policy parts that this version does not know
	ControlURL      string    `json:"control_url,omitempty"`

	Blocklist            BlocklistStats  `json:"blocklist"`
	Cache                CacheStats      `json:"cache"`
	CacheRefresh         RefreshStats    `json:"cache_refresh"`
	ResponseDistribution Distribution    `json:"response_distribution"`
	ResponseTime         ResponseTime    `json:"response_time"`
	Upstreams            []UpstreamStats `json:"upstreams"`

	// QueryLog names the log that the instance's events go to: "off", "sqlite:" or "clickhouse:" and what tells it from
	// others. "" = not known (yet).
	QueryLog string `json:"query_log,omitempty"`
	// LastHour is nil where the instance has not counted any query yet.
	LastHour *LastHour `json:"last_hour,omitempty"`

	Slices []Slice `json:"slices"`
	Acks   []Ack   `json:"acks"`
}

// BlocklistStats tells how much the lists hold, and how each of them is. It is also GET /blocklists/stats.
type BlocklistStats struct {
	Blocked int         `json:"blocked"` // names that lists block
	Allow   int         `json:"allow"`   // allow rules of the policy
	Deny    int         `json:"deny"`    // deny rules of the policy
	Paused  bool        `json:"paused"`  // blocking is off for now
	Lists   []ListStats `json:"lists"`
}

// ListStats is the state of one list.
type ListStats struct {
	Name      string    `json:"name"`
	Entries   int       `json:"entries"`
	Ignored   int       `json:"ignored"`             // lines that no parser understood
	UpdatedAt time.Time `json:"updated_at,omitzero"` // when the copy in use was fetched
	CheckedAt time.Time `json:"checked_at,omitzero"` // when it was last compared with its source
	Error     string    `json:"error,omitempty"`     // why the last fetch did not bring a newer copy
}

// CacheStats is the state of the answer cache since boot. It is also GET /cache/stats.
type CacheStats struct {
	Hits         uint64   `json:"hits"`
	Misses       uint64   `json:"misses"`
	HitRate      *float64 `json:"hit_rate"` // percent, 0–100; null before the first look-up
	LRU          LRUStats `json:"lru"`
	RedisKeys    int      `json:"redis_keys"` // L1 entries that this instance knows of; 0 without L1
	RedisMaxKeys int      `json:"redis_max_keys"`
}

// LRUStats is the state of the L0 cache.
type LRUStats struct {
	Entries    int `json:"entries"`
	MaxEntries int `json:"max_entries"`
	Fresh      int `json:"fresh"`
	Stale      int `json:"stale"`   // past their TTL, still good for serve-stale
	Expired    int `json:"expired"` // past both, not yet removed
}

// RefreshStats is the state of refresh-ahead. It is also GET /cache/refresh/stats.
type RefreshStats struct {
	LastSweepTime         *time.Time `json:"last_sweep_time"` // nil before the first
	LastSweepCount        int        `json:"last_sweep_count"`
	LastSweepRemovedCount int        `json:"last_sweep_removed_count"`
	AveragePerSweep24h    float64    `json:"average_per_sweep_24h"`
	StdDevPerSweep24h     float64    `json:"std_dev_per_sweep_24h"`
	Sweeps24h             int        `json:"sweeps_24h"`
	Refreshed24h          int        `json:"refreshed_24h"`
	Removed24h            int        `json:"removed_24h"`
	BatchSize             int        `json:"batch_size"`
	StatsWindowSec        int        `json:"stats_window_sec"`
}

// ResponseTime sums up how long answers took since boot. The quantiles are null before the first query.
type ResponseTime struct {
	Count uint64   `json:"count"`
	Avg   *float64 `json:"avg_ms"`
	Quantiles
}

// UpstreamStats is one upstream since boot. Avg covers only exchanges that brought an answer; null before the first.
type UpstreamStats struct {
	Address string   `json:"address"`
	Count   uint64   `json:"count"`
	Errors  uint64   `json:"errors"`
	Avg     *float64 `json:"avg_ms"`
}

// Ack tells how a command ended on the instance.
type Ack struct {
	CommandID string `json:"command_id"`
	OK        bool   `json:"ok"`
	Error     string `json:"error,omitempty"`
}

// Counters is what an instance counted since its boot.
type Counters struct {
	Outcomes  Outcomes
	Latency   Latency
	MeanMS    *float64 // exact mean of all answers, nil before the first
	Upstreams []UpstreamStats
}

// ResponseTime sums up the latency part.
func (c Counters) ResponseTime() ResponseTime {
	return ResponseTime{Count: c.Latency.Count(), Avg: c.MeanMS, Quantiles: c.Latency.Quantiles()}
}

// AnswersDNS reports whether the instance serves DNS; one that does not is no part of coverage.
func (r Report) AnswersDNS() bool { return r.DNS == nil || *r.DNS }

// Interval is the time between two reports.
func (r Report) Interval() time.Duration {
	return time.Duration(r.IntervalSeconds * float64(time.Second))
}

// Validate says what is wrong with a report that came from elsewhere, as ErrInvalid with one clear sentence. Whether
// sent_at lies in the future is for the store to say, which has the clock that counts.
func (r Report) Validate() error {
	if r.Protocol != Protocol {
		return fmt.Errorf("%w: protocol %d is not spoken here, only %d", ErrInvalid, r.Protocol, Protocol)
	}
	for field, id := range map[string]string{"instance_id": r.InstanceID, "boot_id": r.BootID} {
		if !ValidID(id) {
			return fmt.Errorf("%w: %s must match %s", ErrInvalid, field, idPattern)
		}
	}
	if err := r.validateTexts(); err != nil {
		return err
	}
	switch {
	case r.Seq == 0 || r.Seq > MaxCount:
		return fmt.Errorf("%w: seq must be a whole number from 1 to %d", ErrInvalid, uint64(MaxCount))
	case r.StartedAt.IsZero() || r.SentAt.IsZero():
		return fmt.Errorf("%w: started_at and sent_at are required", ErrInvalid)
	case !(r.IntervalSeconds > 0 && r.IntervalSeconds <= 86400):
		return fmt.Errorf("%w: interval_seconds must be above 0 and at most 86400", ErrInvalid)
	case r.ClockSkew != nil && (math.IsNaN(*r.ClockSkew) || math.Abs(*r.ClockSkew) > 1e11):
		return fmt.Errorf("%w: clock_skew_seconds is out of range", ErrInvalid)
	case r.PolicyRevision < 0:
		return fmt.Errorf("%w: policy_revision must not be negative", ErrInvalid)
	case len(r.PolicyUnapplied) > maxUnapplied:
		return fmt.Errorf("%w: policy_unapplied names at most %d paths", ErrInvalid, maxUnapplied)
	case len(r.Upstreams) > maxUpstreams:
		return fmt.Errorf("%w: upstreams names at most %d", ErrInvalid, maxUpstreams)
	case len(r.Blocklist.Lists) > maxLists:
		return fmt.Errorf("%w: blocklist names at most %d lists", ErrInvalid, maxLists)
	case len(r.Acks) > maxAcks:
		return fmt.Errorf("%w: a report carries at most %d acks", ErrInvalid, maxAcks)
	case len(r.Slices) > MaxSlices:
		return fmt.Errorf("%w: a report carries at most %d slices", ErrInvalid, MaxSlices)
	}
	return r.validateNumbers()
}

func (r Report) validateTexts() error {
	if err := ValidName(r.Name); err != nil {
		return err
	}
	if r.ControlURL != "" {
		u, err := url.Parse(r.ControlURL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
			return fmt.Errorf("%w: control_url must be an http or https URL without credentials", ErrInvalid)
		}
	}
	if len(r.QueryLog) > maxQueryLog || !printable(r.QueryLog) {
		return fmt.Errorf("%w: query_log must be at most %d bytes of printable UTF-8", ErrInvalid, maxQueryLog)
	}
	texts := append([]string{r.Release, r.PolicyHash, r.ControlURL}, r.PolicyUnapplied...)
	for _, l := range r.Blocklist.Lists {
		texts = append(texts, l.Name, l.Error)
	}
	for _, a := range r.Acks {
		texts = append(texts, a.CommandID, a.Error)
	}
	for _, t := range texts {
		if len(t) > maxText || !utf8.ValidString(t) {
			return fmt.Errorf("%w: texts must be UTF-8 of at most %d bytes", ErrInvalid, maxText)
		}
	}
	return nil
}

func (r Report) validateNumbers() error {
	small := []int{
		r.Blocklist.Blocked, r.Blocklist.Allow, r.Blocklist.Deny, r.Cache.LRU.Entries, r.Cache.LRU.MaxEntries,
		r.Cache.LRU.Fresh, r.Cache.LRU.Stale, r.Cache.LRU.Expired, r.Cache.RedisKeys, r.Cache.RedisMaxKeys,
		r.CacheRefresh.LastSweepCount, r.CacheRefresh.LastSweepRemovedCount, r.CacheRefresh.Sweeps24h,
		r.CacheRefresh.Refreshed24h, r.CacheRefresh.Removed24h, r.CacheRefresh.BatchSize, r.CacheRefresh.StatsWindowSec,
	}
	for _, l := range r.Blocklist.Lists {
		small = append(small, l.Entries, l.Ignored)
	}
	if slices.ContainsFunc(small, func(n int) bool { return n < 0 || n > MaxCount }) ||
		slices.ContainsFunc([]uint64{r.Cache.Hits, r.Cache.Misses, r.ResponseTime.Count}, func(n uint64) bool { return n > MaxCount }) {
		return fmt.Errorf("%w: counters must be whole numbers from 0 to %d", ErrInvalid, uint64(MaxCount))
	}
	for _, u := range r.Upstreams {
		if err := validUpstream(u.Address, u.Count, u.Errors); err != nil {
			return err
		}
	}
	if err := r.validateFloats(); err != nil {
		return err
	}
	for _, s := range r.Slices {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	if r.LastHour != nil {
		return r.LastHour.validate()
	}
	return nil
}

// validateFloats holds measured figures to what can be measured: JSON cannot carry NaN, but 1e308 milliseconds.
func (r Report) validateFloats() error {
	figures := []*float64{
		r.ResponseTime.Avg, r.ResponseTime.P50, r.ResponseTime.P95, r.ResponseTime.P99,
		&r.CacheRefresh.AveragePerSweep24h, &r.CacheRefresh.StdDevPerSweep24h,
	}
	for _, u := range r.Upstreams {
		figures = append(figures, u.Avg)
	}
	for _, f := range figures {
		if f != nil && !(*f >= 0 && *f <= MaxCount) {
			return fmt.Errorf("%w: averages and quantiles must lie between 0 and %d", ErrInvalid, uint64(MaxCount))
		}
	}
	if h := r.Cache.HitRate; h != nil && !(*h >= 0 && *h <= 100) {
		return fmt.Errorf("%w: hit_rate must lie between 0 and 100", ErrInvalid)
	}
	return nil
}

// ValidName says what is wrong with a name that people read: it must be printable UTF-8, not empty, and at most 128
// bytes. Control and bidirectional-override characters are refused because they could make one name look like another.
func ValidName(name string) error {
	if strings.TrimSpace(name) == "" || len(name) > maxName || !printable(name) {
		return fmt.Errorf("%w: name must be 1 to %d bytes of printable UTF-8", ErrInvalid, maxName)
	}
	return nil
}

func printable(text string) bool {
	bad := func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }
	return utf8.ValidString(text) && !strings.ContainsFunc(text, bad)
}

func validUpstream(address string, count, errs uint64) error {
	if address == "" || len(address) > maxText || !utf8.ValidString(address) {
		return fmt.Errorf("%w: upstream address must be 1 to %d bytes of UTF-8", ErrInvalid, maxText)
	}
	if count > MaxCount || errs > count {
		return fmt.Errorf("%w: upstream %s: errors must not exceed count, nor count %d", ErrInvalid, address, uint64(MaxCount))
	}
	return nil
}
