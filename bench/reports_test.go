package bench_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
)

// report is what an instance of a busy home says: two lists, two upstreams, and one minute slice with a latency of
// some hundred queries. Its JSON has about 4 KiB.
func report(id string, boot string, seq uint64, at time.Time, slices ...fleet.Slice) fleet.Report {
	counts := fleet.Outcomes{fleet.Blocked: 1800 * seq, fleet.Cached: 7000 * seq, fleet.Upstream: 1100 * seq, fleet.Servfail: seq}
	upstreams := []fleet.UpstreamStats{
		{Address: "udp://9.9.9.9:53", Count: 1000 * seq, Errors: seq, Avg: new(11.7)},
		{Address: "udp://149.112.112.112:53", Count: 100 * seq, Avg: new(13.9)},
	}
	return fleet.Report{
		Protocol: fleet.Protocol, InstanceID: id, Name: "name of " + id, BootID: boot, StartedAt: at.Add(-time.Hour), Seq: seq, SentAt: at,
		IntervalSeconds: 10, Release: "1.0.0", PolicyRevision: 41, PolicyHash: "0123456789abcdef0123456789abcdef", PolicyUnapplied: []string{},
		Blocklist: fleet.BlocklistStats{Blocked: 182_000, Allow: 12, Deny: 31, Lists: []fleet.ListStats{
			{Name: "ads", Entries: 150_000, Ignored: 12, UpdatedAt: at.Add(-time.Hour), CheckedAt: at},
			{Name: "trackers", Entries: 32_000, UpdatedAt: at.Add(-time.Hour), CheckedAt: at},
		}},
		Cache:                fleet.CacheStats{Hits: 7000 * seq, Misses: 1100 * seq, HitRate: new(86.4), LRU: fleet.LRUStats{Entries: 9000, MaxEntries: 120_000, Fresh: 8000, Stale: 1000}},
		ResponseDistribution: fleet.Distribution{Outcomes: counts},
		ResponseTime:         fleet.ResponseTime{Count: counts.Total(), Avg: new(2.1), Quantiles: fleet.Quantiles{P50: new(0.1), P95: new(14.2), P99: new(41.0)}},
		Upstreams:            upstreams, Slices: slices, Acks: []fleet.Ack{},
	}
}

// slice is what was counted in one slice: most answers quick, some from an upstream.
func slice(rng *rand.Rand, size fleet.Size, start time.Time, boot string) fleet.Slice {
	quick, slow := make([]time.Duration, 480), make([]time.Duration, 66)
	for i := range quick {
		quick[i] = time.Duration(math.Exp(rng.NormFloat64()*0.5) * 80_000)
	}
	for i := range slow {
		slow[i] = time.Duration(math.Exp(rng.NormFloat64()*0.6) * 12_000_000)
	}
	all := fleet.NewLatency(quick...)
	upstream := fleet.NewLatency(slow...)
	all.Merge(upstream)
	return fleet.Slice{
		Size: size, Start: start, BootID: boot, Latency: all,
		Outcomes:  fleet.Outcomes{fleet.Blocked: 110, fleet.Cached: 370, fleet.Upstream: 66},
		Upstreams: []fleet.UpstreamSlice{{Address: "udp://9.9.9.9:53", Count: 66, Latency: upstream}},
	}
}

func instanceID(i int) string { return fmt.Sprintf("instance-%05d", i) }

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
