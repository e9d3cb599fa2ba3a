package sqlite_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/sqlite"
)

const benchRows = 10_000 // of one batch: what an instance at 10,000 queries/s sends each second

// BenchmarkWrite tells what an event costs; package bench has the same beside a bare insert. CPU is of the whole process.
func BenchmarkWrite(b *testing.B) {
	l := open(b, sqlite.Options{Path: filepath.Join(b.TempDir(), "log.db"), Retention: 168 * time.Hour})
	newBatch := benchEvents()
	perRow(b, func(seq int) {
		batch := querylog.Batch{InstanceID: "box1", BootID: "boot1", Seq: uint64(seq + 1), Events: newBatch(seq)}
		if err := l.Write(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	})
}

func perRow(b *testing.B, write func(seq int)) {
	b.Helper()
	before, n := cpu(b), 0
	for b.Loop() {
		write(n)
		n++
	}
	rows := float64(n * benchRows)
	b.ReportMetric(float64(cpu(b)-before)/rows, "cpu-ns/row")
	b.ReportMetric(rows/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(0, "ns/op")
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchEvents makes batches of events of one second each, from 200 clients for 20,000 names, some often and most seldom.
func benchEvents() func(seq int) []fleet.QueryEvent {
	r := rand.New(rand.NewPCG(3, 4))
	zipf := rand.NewZipf(r, 1.1, 3, 20_000)
	names := make([]string, 20_001)
	for i := range names {
		names[i] = fmt.Sprintf("host%d.domain%d.example.", i, i%300)
	}
	start := time.Now().UTC().Truncate(24 * time.Hour)
	events := make([]fleet.QueryEvent, benchRows)
	for i := range events {
		events[i] = fleet.QueryEvent{
			Client: netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(200))}), Protocol: "udp", QName: names[zipf.Uint64()], QType: 1, QClass: 1,
			Outcome: fleet.Cached, Duration: time.Duration(r.ExpFloat64() * float64(time.Millisecond)),
		}
		switch r.IntN(4) {
		case 0:
			events[i].Outcome, events[i].List, events[i].RCode = fleet.Blocked, "ads", 3
		case 1:
			events[i].Outcome, events[i].Upstream = fleet.Upstream, []string{"udp://192.0.2.1:53", "tls://192.0.2.2:853"}[r.IntN(2)]
		}
	}
	return func(seq int) []fleet.QueryEvent {
		for i := range events {
			events[i].Time = start.Add(time.Duration(seq)*time.Second + time.Duration(i)*time.Second/benchRows)
			if i%20 == 0 {
				events[i].QName = names[zipf.Uint64()]
			}
		}
		return events
	}
}
