package storetest

import (
	"fmt"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// Benchmark measures what a primary does most: taking a push with one minute slice, and reading instances that have
// their last minutes.
func Benchmark(b *testing.B, s store.Store) {
	at := time.Now()
	var durations []time.Duration
	for i := range 600 {
		durations = append(durations, time.Duration(i*i)*time.Microsecond)
	}
	newReport := func(id string, seq uint64, list ...fleet.Slice) fleet.Report {
		return fleet.Report{InstanceID: id, Name: id, BootID: "boot1", Seq: seq, SentAt: at, StartedAt: at, IntervalSeconds: 10, Slices: list}
	}
	newSlice := func(back int) fleet.Slice {
		slice := sliceAt(fleet.Minute, at.Add(-time.Duration(back)*time.Minute), "boot1", 100)
		slice.Latency = fleet.NewLatency(durations...)
		slice.Upstreams = []fleet.UpstreamSlice{{Address: "udp://192.0.2.1:53", Count: 200, Latency: fleet.NewLatency(durations[:200]...)}}
		return slice
	}
	one := newSlice(1)
	b.Run("SaveReport", func(b *testing.B) {
		for seq := uint64(1); b.Loop(); seq++ {
			if _, err := s.SaveReport(b.Context(), newReport(fmt.Sprintf("save%d", seq%100), seq, one), fleet.RoleReplica, "t1"); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, n := range []int{10, 1000, 10_000} {
		var ids []string
		list := []fleet.Slice{newSlice(5), newSlice(4), newSlice(3), newSlice(2), newSlice(1)}
		b.Run(fmt.Sprintf("Instances/%d", n), func(b *testing.B) {
			for i := len(ids); i < n; i++ {
				ids = append(ids, fmt.Sprintf("read%d", i))
				if _, err := s.SaveReport(b.Context(), newReport(ids[i], 1, list...), fleet.RoleReplica, "t1"); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for b.Loop() {
				found, err := s.Instances(b.Context(), ids...)
				if err != nil || len(found) != n {
					b.Fatalf("got %d instances, %v, want %d", len(found), err, n)
				}
			}
		})
	}
}
