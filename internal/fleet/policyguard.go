package fleet

import "fmt"

// Bounds of a rate limit.
const (
	maxQueriesPerSecond = 1_000_000
	maxSlip             = 10
)

// PolicyRateLimit bounds how many queries a client may send. Clients on one prefix share a limit; loopback has none. The
// zero value limits nothing.
type PolicyRateLimit struct {
	QueriesPerSecond int `json:"queries_per_second,omitempty"` // 0 = no limit
	// Burst is how many queries a client that was quiet may send at once; 0 = those of one second.
	Burst int `json:"burst,omitempty"`
	// Slip is which of the queries over the limit is answered, with TC set and nothing else: every one, every second…; the
	// rest is dropped. 0 = none, nil = every second.
	Slip       *int `json:"slip,omitempty"`
	IPv4Prefix int  `json:"ipv4_prefix,omitempty"` // bits; 0 = 32
	IPv6Prefix int  `json:"ipv6_prefix,omitempty"` // bits; 0 = 64
}

// WithDefaults is the limit with everything said that was left out. What no policy that passed Validate says is brought
// into its bounds.
func (r PolicyRateLimit) WithDefaults() PolicyRateLimit {
	slip := 2
	if r.Slip != nil {
		slip = min(max(*r.Slip, 0), maxSlip)
	}
	r.Slip = &slip
	r.QueriesPerSecond = min(max(r.QueriesPerSecond, 0), maxQueriesPerSecond)
	if r.Burst <= 0 {
		r.Burst = r.QueriesPerSecond
	}
	r.Burst = min(r.Burst, maxQueriesPerSecond)
	if r.IPv4Prefix <= 0 || r.IPv4Prefix > 32 {
		r.IPv4Prefix = 32
	}
	if r.IPv6Prefix <= 0 || r.IPv6Prefix > 128 {
		r.IPv6Prefix = 64
	}
	return r
}

// Equal reports whether two limits mean the same.
func (r PolicyRateLimit) Equal(other PolicyRateLimit) bool {
	r, other = r.WithDefaults(), other.WithDefaults()
	same := *r.Slip == *other.Slip
	r.Slip, other.Slip = nil, nil
	return same && r == other
}

// validate says what makes no sense, through bad, which is given the path below the section.
func (r PolicyRateLimit) validate(bad func(path, why string) error) error {
	for _, field := range []struct {
		path       string
		value, max int
	}{
		{".queries_per_second", r.QueriesPerSecond, maxQueriesPerSecond},
		{".burst", r.Burst, maxQueriesPerSecond},
		{".ipv4_prefix", r.IPv4Prefix, 32},
		{".ipv6_prefix", r.IPv6Prefix, 128},
	} {
		if field.value < 0 || field.value > field.max {
			return bad(field.path, fmt.Sprintf("must be from 0 to %d", field.max))
		}
	}
	if r.Slip != nil && (*r.Slip < 0 || *r.Slip > maxSlip) {
		return bad(".slip", fmt.Sprintf("must be from 0 to %d", maxSlip))
	}
	return nil
}

// PolicyRebinding says which names may lead to addresses inside the network. The zero value protects.
type PolicyRebinding struct {
	Protect *bool    `json:"protect,omitempty"` // nil = true
	Allow   []string `json:"allow,omitempty"`   // domains that may, with everything below them
}

// Protects reports whether answers of upstreams are looked at.
func (r PolicyRebinding) Protects() bool { return r.Protect == nil || *r.Protect }

// IsZero reports whether the section says nothing; then it is left out.
func (r PolicyRebinding) IsZero() bool { return r.Protect == nil && len(r.Allow) == 0 }

func (r PolicyRebinding) validate(bad func(path, why string) error) error {
	for i, domain := range r.Allow {
		if why := domainFault(suffixOf(domain)); why != "" {
			return bad(fmt.Sprintf(".allow[%d]", i), why)
		}
	}
	return nil
}

// validateGuards looks at the sections that guard clients and the network.
func (p Policy) validateGuards(bad func(path, why string) error) error {
	below := func(section string) func(path, why string) error {
		return func(path, why string) error { return bad(section+path, why) }
	}
	if err := p.RateLimit.validate(below("rate_limit")); err != nil {
		return err
	}
	return p.Rebinding.validate(below("rebinding"))
}
