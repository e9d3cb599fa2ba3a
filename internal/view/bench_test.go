package view_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/view"
)

// full is a replica with all that a real one reports: 5 minutes of slices, 4 upstreams, 6 lists.
func full(i int, now time.Time) fleet.Instance {
	r := rand.New(rand.NewPCG(1, uint64(i)))
	in := instance(fmt.Sprintf("instance-%05d", i), fleet.Outcomes{fleet.Blocked: 20_000, fleet.Cached: 70_000, fleet.Upstream: 10_000})
	for k := range 6 {
		in.Report.Blocklist.Lists = append(in.Report.Blocklist.Lists, fleet.ListStats{
			Name: fmt.Sprintf("list %d", k), Entries: 100_000, UpdatedAt: now, CheckedAt: now,
		})
	}
	for k := range 5 {
		s := fleet.Slice{
			Size: fleet.Minute, Start: now.Truncate(time.Minute).Add(time.Duration(-k-1) * time.Minute), BootID: "boot",
			Outcomes: fleet.Outcomes{fleet.Blocked: 200, fleet.Cached: 700, fleet.Upstream: 100},
		}
		bins := make([]uint64, fleet.LatencyBins)
		for range 1000 {
			bins[fleet.LatencyBin(time.Duration(r.ExpFloat64()*float64(10*time.Millisecond)))]++
		}
		s.Latency = fleet.LatencyFromBins(bins)
		for u := range 4 {
			s.Upstreams = append(s.Upstreams, fleet.UpstreamSlice{Address: fmt.Sprintf("udp://192.0.2.%d:53", u), Count: 25, Latency: s.Latency})
		}
		in.Minutes = append(in.Minutes, s)
	}
	return in
}

func BenchmarkStats(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		m := newMemory()
		for i := range n {
			m.push(full(i, time.Now()))
		}
		hour := &lastHour{rows: map[string]fleet.QueryBreakdown{}}
		for i := range n {
			hour.rows[fmt.Sprintf("instance-%05d", i)] = queriesOf(uint64(i))
		}
		v := view.New(view.Options{Store: m, Local: localPrimary("p", "boot", fleet.Outcomes{fleet.Cached: 9}), Queries: hour})
		if err := v.Reload(b.Context(), fleet.Hint{}); err != nil {
			b.Fatal(err)
		}
		for name, q := range map[string]fleet.ViewQuery{"first page": {}, "all": {Limit: fleet.MaxViewLimit}} {
			b.Run(fmt.Sprintf("%d instances, %s", n, name), func(b *testing.B) {
				var size int64
				for b.Loop() {
					_, body, err := v.StatsJSON(q)
					if err != nil {
						b.Fatal(err)
					}
					if size, err = body.WriteTo(io.Discard); err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(size)
				b.ReportMetric(float64(size)/float64(min(n, max(q.Limit, fleet.DefaultViewLimit))), "bytes/row")
			})
		}
		b.Run(fmt.Sprintf("%d instances, after one push", n), func(b *testing.B) {
			in := full(0, time.Now())
			for b.Loop() {
				in.Seq++
				m.push(in)
				if err := v.Reload(b.Context(), fleet.Hint{InstanceID: in.ID}); err != nil {
					b.Fatal(err)
				}
				_, body, err := v.StatsJSON(fleet.ViewQuery{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := body.WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
