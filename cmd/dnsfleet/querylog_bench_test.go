package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats"
)

// queries are what twenty clients ask: 100,000 names, some often and most seldom, one in five of them blocked.
type queries struct {
	names   [][]byte
	clients []netip.Addr
	asked   []uint32 // numbers of names
}

func newQueries(n int) *queries {
	const names = 100_000
	rng := rand.New(rand.NewPCG(8, 8))
	q := &queries{names: make([][]byte, names), asked: make([]uint32, n)}
	for i := range names {
		q.names[i] = fmt.Appendf(nil, "host%d.domain%d.example.com.", i, i%300)
	}
	rng.Shuffle(names, func(i, j int) { q.names[i], q.names[j] = q.names[j], q.names[i] })
	zipf := rand.NewZipf(rng, 1.1, 3, names-1)
	for i := range q.asked {
		q.asked[i] = uint32(zipf.Uint64())
	}
	for i := range 20 {
		q.clients = append(q.clients, netip.AddrFrom4([4]byte{192, 168, 1, byte(i + 10)}))
	}
	return q
}

// fill makes *e query number i, its name in buffer, which is overwritten.
func (q *queries) fill(e *fleet.QueryEvent, i int, start time.Time, buffer []byte) {
	number := q.asked[i%len(q.asked)]
	name := buffer[:copy(buffer, q.names[number])]
	e.Time = start.Add(time.Duration(i) * 10 * time.Microsecond)
	e.Client, e.Protocol = q.clients[i%len(q.clients)], "udp"
	e.QName = unsafe.String(unsafe.SliceData(name), len(name))
	e.QType, e.QClass, e.RCode = 1, 1, 0
	e.Duration = time.Duration(2000 + i%5000)
	e.Outcome, e.List = fleet.Cached, ""
	if number%5 == 4 {
		e.Outcome, e.List, e.RCode = fleet.Blocked, "ads", 3
	}
}

// cpu is the time that all threads of this process have run.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchLog(b *testing.B) *eventLog {
	b.Helper()
	counters, err := stats.New(stats.Options{})
	if err != nil {
		b.Fatal(err)
	}
	l, err := newEventLog(instanceConfig{InstanceID: "box1", DataDir: b.TempDir()}, noTarget(), counters, nil)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkEventLog is the CPU that one event costs in all, its collection, the sketches and the garbage collector included,
// while nothing is kept: two lanes record in turn, as readers do that take queries by the batch.
func BenchmarkEventLog(b *testing.B) {
	const (
		events     = 1_000_000
		collection = 8192
		turns      = 9
	)
	q := newQueries(events)
	ballast := make([]byte, 16<<20) // what a process has beside
	l := benchLog(b)
	for b.Loop() {
		var all, bare []float64
		for turn := range turns {
			var e fleet.QueryEvent
			start := time.Now()
			buffer := make([]byte, 256)
			before := cpu(b)
			for i := range events {
				q.fill(&e, turn*events/2+i, start, buffer)
			}
			bare = append(bare, float64(cpu(b)-before)/events)
			before = cpu(b)
			for i := range events {
				q.fill(&e, turn*events/2+i, start, buffer)
				l.Record(1+i/32%2, &e)
				if i%collection == collection-1 {
					l.recorder.Flush(context.Background())
				}
			}
			l.recorder.Flush(context.Background())
			all = append(all, float64(cpu(b)-before)/events)
		}
		slices.Sort(all)
		slices.Sort(bare)
		b.ReportMetric(all[turns/2]-bare[turns/2], "cpu-ns/event")
		b.ReportMetric(bare[turns/2], "cpu-ns/event-bare")
		if s := l.recorder.Stats(); s.Dropped > 0 || s.Waiting() > 0 {
			b.Errorf("got %+v, want no event dropped or left", s)
		}
	}
	runtime.KeepAlive(ballast)
}

// BenchmarkRecord is what an event costs the one who answers.
func BenchmarkRecord(b *testing.B) {
	for _, lane := range []int{0, 1} {
		b.Run(fmt.Sprintf("lane %d", lane), func(b *testing.B) {
			const chunk = 4096
			q, l := newQueries(100_000), benchLog(b)
			list, names := make([]fleet.QueryEvent, chunk), make([]byte, 64*chunk)
			start := time.Now()
			for i := range list {
				q.fill(&list[i], i, start, names[64*i:64*(i+1)])
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				l.Record(lane, &list[i%chunk])
				if i++; i%chunk == 0 {
					b.StopTimer()
					l.recorder.Flush(b.Context())
					b.StartTimer()
				}
			}
		})
	}
}
