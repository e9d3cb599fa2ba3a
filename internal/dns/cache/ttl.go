package cache

import (
	"iter"
	"slices"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
)

const (
	// failureTTL is how long a SERVFAIL keeps the same question from the upstreams (RFC 9520).
	failureTTL = 5 * time.Second
	// maxNegative bounds how long a name is taken not to exist (RFC 2308, section 5).
	maxNegative = 3 * time.Hour
	// maxRecordTTL is where RFC 2181 ends; a TTL with the high bit set counts as 0.
	maxRecordTTL = 1<<31 - 1
)

// Lifetime is how long an answer may be kept within the limits, 0 for not at all: truncated answers, failures other
// than SERVFAIL, answers to ANY, negative answers without an SOA, referrals.
func Lifetime(msg *dns.Msg, limits fleet.CachePolicy) time.Duration {
	if msg.Truncated || len(msg.Question) != 1 || msg.Question[0].Qtype == dns.TypeANY {
		return 0
	}
	switch msg.Rcode {
	case dns.RcodeServerFailure:
		return failureTTL
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return 0
	}
	ttl := time.Duration(maxRecordTTL) * time.Second
	answered := false
	for _, rr := range msg.Answer {
		ttl = min(ttl, ttlOf(rr))
		answered = answered || rr.Header().Rrtype == msg.Question[0].Qtype
	}
	if msg.Rcode == dns.RcodeNameError || !answered {
		negative, found := negativeTTL(msg)
		if !found {
			return 0
		}
		ttl = min(ttl, negative)
	}
	return bound(ttl, limits)
}

func ttlOf(rr dns.RR) time.Duration {
	if rr.Header().Ttl > maxRecordTTL {
		return 0
	}
	return time.Duration(rr.Header().Ttl) * time.Second
}

// negativeTTL is the lesser of the SOA's own TTL and its minimum (RFC 2308, section 5).
func negativeTTL(msg *dns.Msg) (time.Duration, bool) {
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(ttlOf(soa), time.Duration(soa.Minttl)*time.Second, maxNegative), true
		}
	}
	return 0, false
}

func bound(ttl time.Duration, limits fleet.CachePolicy) time.Duration {
	ttl = max(ttl, time.Duration(limits.MinTTL))
	if limits.MaxTTL > 0 {
		ttl = min(ttl, time.Duration(limits.MaxTTL))
	}
	return ttl
}

// clamp writes the bounded TTLs into the records, so that no client is told more than the cache will hold to. The SOA
// of a negative answer gets the lifetime itself.
func clamp(msg *dns.Msg, lifetime time.Duration, limits fleet.CachePolicy) {
	for rr := range records(msg) {
		ttl := bound(ttlOf(rr), limits)
		if rr.Header().Rrtype == dns.TypeSOA {
			ttl = min(ttl, lifetime)
		}
		rr.Header().Ttl = uint32(ttl / time.Second)
	}
}

// age takes the time in the cache off every TTL.
func age(msg *dns.Msg, elapsed time.Duration) {
	seconds := uint32(max(elapsed, 0) / time.Second)
	for rr := range records(msg) {
		rr.Header().Ttl -= min(rr.Header().Ttl, seconds)
	}
}

// records are all records of a message but the OPT, whose TTL field is none.
func records(msg *dns.Msg) iter.Seq[dns.RR] {
	return func(yield func(dns.RR) bool) {
		for _, section := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
			for _, rr := range section {
				if rr.Header().Rrtype != dns.TypeOPT && !yield(rr) {
					return
				}
			}
		}
	}
}

func withoutOPT(rrs []dns.RR) []dns.RR {
	return slices.DeleteFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
}
