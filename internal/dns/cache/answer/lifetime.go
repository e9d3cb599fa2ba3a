package answer

import (
	"encoding/binary"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

const (
	// failureTTL is how long a SERVFAIL keeps the same question from the upstreams (RFC 9520).
	failureTTL = 5 * time.Second
	// maxNegative bounds how long a name is taken not to exist (RFC 2308, section 5).
	maxNegative = 3 * time.Hour
	// maxTTL is where RFC 2181 ends; a TTL with the high bit set counts as 0.
	maxTTL = 1<<31 - 1
)

// ttlAt is the TTL at off.
func ttlAt(msg []byte, off int) uint32 {
	ttl := binary.BigEndian.Uint32(msg[off:])
	if ttl > maxTTL {
		return 0
	}
	return ttl
}

// Lifetime is how long the answer may be kept within the limits, 0 for not at all: truncated answers, failures other
// than SERVFAIL, answers to ANY and to transfers, negative answers without an SOA, referrals.
func (a *Answer) Lifetime(limits *fleet.CachePolicy) time.Duration {
	if a.truncated || a.qtype >= dns.TypeTKEY && a.qtype <= dns.TypeANY || a.qtype == dns.TypeOPT {
		return 0
	}
	switch a.RCode {
	case dns.RcodeServerFailure:
		return failureTTL
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return 0
	}
	ttl := time.Duration(min(a.shortest, maxTTL)) * time.Second
	if a.RCode == dns.RcodeNameError || !a.answered {
		if !a.hasSOA {
			return 0
		}
		ttl = min(ttl, time.Duration(a.negative)*time.Second, maxNegative)
	}
	return bound(ttl, limits)
}

func bound(ttl time.Duration, limits *fleet.CachePolicy) time.Duration {
	ttl = max(ttl, time.Duration(limits.MinTTL))
	if limits.MaxTTL > 0 {
		ttl = min(ttl, time.Duration(limits.MaxTTL))
	}
	return ttl
}

// TTL is the i-th TTL as clients may be told it: within the limits, so that no client keeps what the cache will not hold
// to. The SOA of a negative answer gets the lifetime itself.
func (a *Answer) TTL(i int, lifetime time.Duration, limits *fleet.CachePolicy) uint32 {
	off := int(a.TTLs[i])
	ttl := bound(time.Duration(ttlAt(a.Wire, off))*time.Second, limits)
	if binary.BigEndian.Uint16(a.Wire[off-4:]) == dns.TypeSOA {
		ttl = min(ttl, lifetime)
	}
	return uint32(min(ttl/time.Second, maxTTL))
}

// Aged is a TTL after some time in a cache. It ends at 1, for 0 would forbid clients to keep what is still good; what
// came with 0 stays 0.
func Aged(ttl, seconds uint32) uint32 {
	if ttl > seconds {
		return ttl - seconds
	}
	return min(ttl, 1)
}
