package sketch_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats/sketch"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// traffic makes events whose names and clients follow a Zipf distribution, as those of households and offices do.
type traffic struct {
	random         *rand.Rand
	names, clients *rand.Zipf
}

func newTraffic(seed uint64, names, clients int) *traffic {
	r := rand.New(rand.NewPCG(seed, 3))
	return &traffic{r, rand.NewZipf(r, 1.1, 3, uint64(names-1)), rand.NewZipf(r, 1.2, 5, uint64(clients-1))}
}

func (g *traffic) event(at time.Time) fleet.QueryEvent {
	n, c := g.names.Uint64(), g.clients.Uint64()
	e := fleet.QueryEvent{
		Time: at, QName: fmt.Sprintf("host-%d.some-name-%d.example.", n%7, n), Outcome: fleet.Cached,
		Client: netip.AddrFrom4([4]byte{10, byte(c >> 16), byte(c >> 8), byte(c)}),
	}
	if n%5 == 1 {
		e.Outcome = fleet.Blocked
	}
	return e
}

func (g *traffic) batch(at time.Time, n int) []fleet.QueryEvent {
	list := make([]fleet.QueryEvent, n)
	for i := range list {
		list[i] = g.event(at)
	}
	return list
}

// truth counts events exactly.
type truth struct{ domains, blocked, clients map[string]uint64 }

func newTruth() truth { return truth{map[string]uint64{}, map[string]uint64{}, map[string]uint64{}} }

func (u truth) add(events []fleet.QueryEvent) {
	for _, e := range events {
		name := strings.TrimSuffix(e.QName, ".")
		u.domains[name]++
		if e.Outcome == fleet.Blocked {
			u.blocked[name]++
		}
		u.clients[cmp.Or(e.ClientName, e.Client.String())]++
	}
}

// check holds sketches against the truth: bounds hold, the first 20 names are the right ones with the right counts, and clients
// are within two percent. It returns the largest error bound.
func (u truth) check(t *testing.T, what string, s fleet.Sketches, limit int) (worst uint64) {
	t.Helper()
	if got, want := float64(s.Clients.Count()), float64(len(u.clients)); math.Abs(got-want) > 0.02*want {
		t.Errorf("%s: got %v clients, want %v within 2 %%", what, got, want)
	}
	for field, c := range map[string]struct {
		got  []fleet.TopItem
		want map[string]uint64
	}{"domains": {s.TopDomains, u.domains}, "blocked": {s.TopBlocked, u.blocked}, "clients": {s.TopClients, u.clients}} {
		if len(c.got) != min(limit, len(c.want)) {
			t.Errorf("%s %s: got %d names of %d, want %d", what, field, len(c.got), len(c.want), limit)
		}
		for _, e := range c.got {
			if n := c.want[e.Name]; n > e.Count || n < e.Count-e.ErrorBound {
				t.Errorf("%s %s: %s: got %d with an error of %d, want %d in between", what, field, e.Name, e.Count, e.ErrorBound, n)
			}
			worst = max(worst, e.ErrorBound)
		}
		if !slices.IsSortedFunc(c.got, fleet.TopItem.ByCount) {
			t.Errorf("%s %s: got an unsorted list", what, field)
		}
		counts := []uint64{}
		for _, n := range c.want {
			counts = append(counts, n)
		}
		slices.SortFunc(counts, func(a, b uint64) int { return cmp.Compare(b, a) })
		for i, e := range c.got[:min(20, len(c.got))] {
			if c.want[e.Name] != counts[i] {
				t.Errorf("%s %s: place %d: got %s, which has %d, want one that has %d", what, field, i+1, e.Name, c.want[e.Name], counts[i])
			}
		}
	}
	return worst
}

func complete(b *sketch.Buckets, size fleet.Size, start time.Time) fleet.Slice {
	s := fleet.Slice{Size: size, Start: start}
	b.Complete(&s)
	return s
}

// An hour of 360,000 queries for 200,000 names by 3,000 clients.
func TestAnHourIsWithinItsBounds(t *testing.T) {
	t.Parallel()
	b, g := sketch.New(noon), newTraffic(1, 200_000, 3000)
	if b.LastHour(noon, noon) != nil || !b.Idle() {
		t.Error("before the first event there is a last hour")
	}
	const tenMinutes = 120 // batches
	hour := newTruth()
	for i := range 6 {
		ten := newTruth()
		start := noon.Add(time.Duration(i) * 10 * time.Minute)
		for range tenMinutes {
			events := g.batch(start.Add(time.Minute), 500)
			b.Observe(events, start.Add(time.Minute))
			ten.add(events)
			hour.add(events)
		}
		s := complete(b, fleet.TenMinutes, start)
		if got, want := float64(s.Clients.Count()), float64(len(ten.clients)); math.Abs(got-want) > 0.02*want || s.TopDomains != nil {
			t.Errorf("ten minutes: got %v clients and %v, want %v and no names", got, s.TopDomains, want)
		}
	}
	s := complete(b, fleet.Hour, noon)
	worst := hour.check(t, "hour", s.Sketches, fleet.TopOfHour)
	t.Logf("largest error bound of an hour of %d queries for %d names: %d", 6*tenMinutes*500, len(hour.domains), worst)
	if worst > 6*tenMinutes*500/1000 {
		t.Errorf("error bound: got %d, want less than one in a thousand queries", worst)
	}
	events := g.batch(noon.Add(time.Hour), 500)
	b.Observe(events, noon.Add(time.Hour))
	recent := b.LastHour(noon.Add(-time.Hour), noon.Add(time.Hour))
	if !recent.From.Equal(noon.Add(10 * time.Minute)) {
		t.Errorf("last hour: got from %s, want the running ten minutes and the fifty before", recent.From)
	}
}

func TestTheLastHourIsTheRunningBucketAndFiveBefore(t *testing.T) {
	t.Parallel()
	b := sketch.New(noon.Add(3 * time.Minute))
	at := noon.Add(3 * time.Minute)
	for i := range 12 {
		b.Observe([]fleet.QueryEvent{{Time: at, QName: fmt.Sprintf("n%02d.", i), ClientName: fmt.Sprint("c", i)}}, at)
		got := b.LastHour(noon.Add(3*time.Minute), at)
		if n := min(i+1, 6); len(got.TopDomains) != n || got.TopDomains[0].Name != fmt.Sprintf("n%02d", i+1-n) || got.Clients.Count() != uint64(n) {
			t.Errorf("bucket %d: got %v and %d clients, want the last %d", i, got.TopDomains, got.Clients.Count(), n)
		}
		start := at.Truncate(10 * time.Minute)
		if want := start.Add(-50 * time.Minute); !got.From.Equal(want) && !(i < 6 && got.From.Equal(noon.Add(3*time.Minute))) {
			t.Errorf("bucket %d: got from %s, want %s or the start of the boot", i, got.From, want)
		}
		complete(b, fleet.TenMinutes, start)
		at = at.Add(10 * time.Minute)
	}
	b = sketch.New(noon)
	b.Observe([]fleet.QueryEvent{{QName: "x."}}, noon)
	for i := range 20 {
		complete(b, fleet.TenMinutes, noon.Add(time.Duration(i)*10*time.Minute))
	}
	if got := b.LastHour(noon, noon.Add(4*time.Hour)); got == nil || got.TopDomains != nil || !got.Clients.IsZero() {
		t.Errorf("after quiet hours: got %+v, want an empty last hour", got)
	}
}

func TestTheLastHourIsASecondOldAtMost(t *testing.T) {
	t.Parallel()
	b := sketch.New(noon)
	count := func(at time.Time) uint64 { return b.LastHour(noon, at).TopDomains[0].Count }
	observe := func() { b.Observe([]fleet.QueryEvent{{Time: noon, QName: "x."}}, noon) }
	observe()
	if got := count(noon); got != 1 {
		t.Errorf("first: got %d, want 1", got)
	}
	observe()
	if got := count(noon.Add(999 * time.Millisecond)); got != 1 {
		t.Errorf("within the second: got %d, want the same again", got)
	}
	if got := count(noon.Add(time.Second)); got != 2 {
		t.Errorf("after it: got %d, want 2", got)
	}
	observe()
	complete(b, fleet.TenMinutes, noon)
	if got := count(noon.Add(time.Second)); got != 3 {
		t.Errorf("when ten minutes ended: got %d, want 3", got)
	}
	observe()
	if got := count(noon.Add(time.Hour)); got != 4 {
		t.Errorf("the closed and the running one: got %d, want 4", got)
	}
}

func TestAnEventGoesByItsTimeOnlyWhileItsBucketIsOpen(t *testing.T) {
	t.Parallel()
	end := noon.Add(10 * time.Minute)
	for name, c := range map[string]struct {
		event, now time.Time
		first      bool // whether it counts into the bucket that ends at end
	}{
		"in time":                            {noon.Add(time.Minute), noon.Add(time.Minute), true},
		"from a clock that is ahead":         {noon.Add(time.Hour), noon.Add(time.Minute), true},
		"from a clock that is behind":        {noon.Add(-time.Hour), noon.Add(time.Minute), true},
		"late, before the bucket was closed": {end.Add(-time.Millisecond), end.Add(time.Millisecond), true},
		"early, before it was closed":        {end, end.Add(time.Millisecond), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := sketch.New(noon)
			b.Observe([]fleet.QueryEvent{{Time: c.event, QName: "x.", ClientName: "c"}}, c.now)
			if got := b.LastHour(noon, c.now).Clients.Count(); got != 1 {
				t.Errorf("last hour: got %d clients, want 1 in any case", got)
			}
			first := complete(b, fleet.TenMinutes, noon).Clients.Count()
			second := complete(b, fleet.TenMinutes, end).Clients.Count()
			if first+second != 1 || (first == 1) != c.first {
				t.Errorf("got %d in the first and %d in the second bucket, want it in the first: %v", first, second, c.first)
			}
			if got := complete(b, fleet.Hour, noon).TopDomains; len(got) != 1 || got[0].Count != 1 {
				t.Errorf("hour: got %v, want it once", got)
			}
		})
	}
	b := sketch.New(noon)
	complete(b, fleet.TenMinutes, noon)
	b.Observe([]fleet.QueryEvent{{Time: noon, QName: "x.", ClientName: "c"}}, end)
	if got := complete(b, fleet.TenMinutes, end).Clients.Count(); got != 1 {
		t.Errorf("late for a closed bucket: got %d in the next, want 1", got)
	}
}

func TestWhatIsCounted(t *testing.T) {
	t.Parallel()
	b := sketch.New(noon)
	addr := netip.MustParseAddr("2001:db8::1")
	b.Observe([]fleet.QueryEvent{
		{QName: "a.example.", Client: addr, Outcome: fleet.Cached},
		{QName: "a.example.", Client: addr, ClientName: "laptop", Outcome: fleet.Blocked},
		{QName: ".", Outcome: fleet.Upstream},
		{QName: "", Client: addr, Outcome: fleet.Invalid},
		{QName: strings.Repeat("x", 600) + ".", ClientName: strings.Repeat("y", 600), Outcome: fleet.Upstream},
		{QName: "\xff.", ClientName: "\xff", Outcome: fleet.Upstream},
	}, noon)
	b.Observe(nil, noon)
	got := b.LastHour(noon, noon)
	for field, c := range map[string]struct{ got, want []fleet.TopItem }{
		"domains": {got.TopDomains, []fleet.TopItem{{Name: "a.example", Count: 2}, {Name: "other", Count: 2}, {Name: ".", Count: 1}}},
		"blocked": {got.TopBlocked, []fleet.TopItem{{Name: "a.example", Count: 1}}},
		"clients": {got.TopClients, []fleet.TopItem{{Name: "2001:db8::1", Count: 2}, {Name: "other", Count: 2}, {Name: "laptop", Count: 1}}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", field, c.got, c.want)
		}
	}
	if n := got.Clients.Count(); n != 3 {
		t.Errorf("clients: got %d, want 3", n)
	}
}

// Names that are never asked for twice push all others out. What is left must still admit how often a name may be missing.
func TestAFloodOfNamesKeepsTheBoundsTrue(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1000, 1536, 1537, 1538, 5000, 20_000} {
		b := sketch.New(noon)
		var hour time.Time
		for bucket := range 3 {
			hour = noon.Add(time.Duration(bucket) * 10 * time.Minute)
			for i := range n {
				b.Observe([]fleet.QueryEvent{{QName: fmt.Sprintf("%d.%d.example.", bucket, i)}}, hour)
			}
			list := b.LastHour(noon, hour).TopDomains
			last := list[len(list)-1]
			if uint64((bucket+1)*n) > 1536 && last.ErrorBound == 0 && len(list) < fleet.TopOfNow {
				t.Errorf("%d names: got %v, want a list that admits to lack names", n, list)
			}
			for _, e := range list {
				if e.Count < 1 || e.Count-e.ErrorBound > 1 {
					t.Errorf("%d names: got %v, want 1 within its error", n, e)
				}
			}
			complete(b, fleet.TenMinutes, hour)
		}
		s := complete(b, fleet.Hour, noon)
		if len(s.TopDomains) == 0 || s.TopDomains[len(s.TopDomains)-1].Count < 1 {
			t.Errorf("%d names: hour: got %v, want names that admit what is missing", n, s.TopDomains)
		}
		if err := (fleet.Slice{Size: fleet.Hour, Start: noon, BootID: "b", Sketches: s.Sketches}).Validate(); err != nil {
			t.Error(err)
		}
	}
}

// No t.Parallel: others would be measured too.
func TestMemoryIsBounded(t *testing.T) {
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before, b, batch := heap(), sketch.New(noon), make([]fleet.QueryEvent, 3000)
	for bucket := range 40 {
		at := noon.Add(time.Duration(bucket) * 10 * time.Minute)
		for i := range batch {
			name := fmt.Sprintf("%0250d.", i+bucket*len(batch))
			batch[i] = fleet.QueryEvent{Time: at, QName: name, ClientName: name, Outcome: fleet.Blocked}
		}
		b.Observe(batch, at)
		complete(b, fleet.TenMinutes, at)
	}
	clear(batch)
	if got := heap() - before; got > 16<<20 {
		t.Errorf("got %d MiB after 40 buckets of the longest names, want those of an hour, 10 MiB", got>>20)
	}
	runtime.KeepAlive(b)
}

// cpu is the time that all threads of this process have run.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkObserve(b *testing.B) {
	for _, c := range []struct{ names, clients int }{{5000, 30}, {200_000, 1000}, {200_000, 8000}} {
		b.Run(fmt.Sprintf("%d names, %d clients", c.names, c.clients), func(b *testing.B) {
			g := newTraffic(1, c.names, c.clients)
			batches := make([][]fleet.QueryEvent, 400)
			for i := range batches {
				batches[i] = g.batch(noon, 500)
			}
			k := sketch.New(noon)
			for _, batch := range batches {
				k.Observe(batch, noon)
			}
			b.ReportAllocs()
			i, before := 0, cpu()
			for b.Loop() {
				k.Observe(batches[i%len(batches)], noon)
				i++
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N)/500, "cpu-ns/event")
		})
	}
}

func BenchmarkLastHour(b *testing.B) {
	for _, c := range []struct{ names, clients int }{{5000, 30}, {200_000, 8000}} {
		b.Run(fmt.Sprintf("%d names, %d clients", c.names, c.clients), func(b *testing.B) {
			g, k := newTraffic(1, c.names, c.clients), sketch.New(noon)
			for i := range 6 {
				at := noon.Add(time.Duration(i) * 10 * time.Minute)
				for range 200 {
					k.Observe(g.batch(at, 500), at)
				}
				if i < 5 {
					complete(k, fleet.TenMinutes, at)
				}
			}
			b.ReportAllocs()
			before, one := cpu(), g.batch(noon, 1)
			at := noon.Add(time.Hour)
			for b.Loop() {
				at = at.Add(time.Second)
				k.Observe(one, noon)
				k.LastHour(noon, at)
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
