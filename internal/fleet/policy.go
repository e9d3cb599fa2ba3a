package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Policy is the synced configuration: what every instance of the fleet does with a query.
type Policy struct {
	Upstreams        []PolicyUpstream `json:"upstreams"`
	UpstreamStrategy string           `json:"upstream_strategy"` // fastest, parallel, failover or balance
	Lists            []PolicyList     `json:"lists"`
	Allow            []string         `json:"allow"` // beats deny and lists
	Deny             []string         `json:"deny"`
	BlockMode        BlockMode        `json:"block_mode"`
	Cache            CachePolicy      `json:"cache"`
	Records          []PolicyRecord   `json:"records"`
	// Conditional is left out when empty: a release that does not know it has nothing to report then, and the hash of a
	// policy without it stays what it was.
	Conditional []PolicyConditional `json:"conditional,omitempty"`
	// RateLimit and Rebinding are left out, for the same reasons, when they say nothing.
	RateLimit PolicyRateLimit `json:"rate_limit,omitzero"`
	Rebinding PolicyRebinding `json:"rebinding,omitzero"`
}

// PolicyUpstream is a resolver that queries are forwarded to.
type PolicyUpstream struct {
	Address   string   `json:"address"`             // udp://host:port, tcp://…, tls://…, https://…; no scheme means udp
	Bootstrap []string `json:"bootstrap,omitempty"` // addresses of its host, so that no name must be resolved first
}

// PolicyList is a block list.
type PolicyList struct {
	Name    string   `json:"name"`
	URL     string   `json:"url"` // file://, http:// or https://
	Refresh Duration `json:"refresh"`
}

// CachePolicy bounds the answer cache.
type CachePolicy struct {
	MaxBytes   Bytes    `json:"max_bytes"`
	MinTTL     Duration `json:"min_ttl"`
	MaxTTL     Duration `json:"max_ttl"`
	ServeStale Duration `json:"serve_stale"`
}

// PolicyRecord is a local record.
type PolicyRecord struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	Value string   `json:"value"`
	TTL   Duration `json:"ttl,omitempty"` // 0 = 5 minutes
}

// PolicyDoc is a policy as the store keeps it and GET /sync/config serves it.
type PolicyDoc struct {
	Revision  int64     `json:"revision"` // counts changes, from 1
	Hash      string    `json:"hash"`     // of the policy alone; the ETag of /sync/config
	UpdatedAt time.Time `json:"updated_at"`
	Policy    Policy    `json:"policy"`
}

// NewPolicyDoc wraps a policy with its revision and hash.
func NewPolicyDoc(p Policy, revision int64, now time.Time) PolicyDoc {
	return PolicyDoc{Revision: revision, Hash: p.Hash(), UpdatedAt: now.UTC(), Policy: p}
}

// Hash identifies the content: equal policies have equal hashes on every instance of one release.
func (p Policy) Hash() string {
	p.fillNil() // a list that is nil and one that is empty mean the same
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // cannot be: a Policy holds only texts and numbers
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// DefaultPolicy is what a fleet starts with when nobody gave it one: a privacy-respecting validating resolver
// (Quad9, over UDP so that it works before any clock is right) and one well-known list.
func DefaultPolicy() Policy {
	return Policy{
		Upstreams:        []PolicyUpstream{{Address: "udp://9.9.9.9:53"}, {Address: "udp://149.112.112.112:53"}},
		UpstreamStrategy: "failover",
		Lists: []PolicyList{{
			Name: "stevenblack", URL: "https://raw.githubusercontent.com/StevenBlack/hosts/master/hosts", Refresh: Duration(24 * time.Hour),
		}},
		Allow: []string{}, Deny: []string{},
		BlockMode: BlockMode{Mode: "nxdomain"},
		Cache:     DefaultCachePolicy(),
		Records:   []PolicyRecord{},
	}
}

// DefaultCachePolicy is what a policy that says nothing of the cache gets.
func DefaultCachePolicy() CachePolicy {
	return CachePolicy{MaxBytes: 64 << 20, MaxTTL: Duration(24 * time.Hour), ServeStale: Duration(24 * time.Hour)}
}
