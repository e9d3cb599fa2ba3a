package querylogtest

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

const (
	batchSize = 2000
	day       = 24 * time.Hour
	days      = 3
)

// log is what was written, and by that what has to be answered.
type log struct {
	start   time.Time // of the first of the days
	events  []event
	batches []querylog.Batch
}

type event struct {
	instance string
	fleet.QueryEvent
}

// Texts that mean something to a database, a shell or a pattern, and are names here.
var odd = []string{
	`o'brien`, `say "hi"`, `100%`, `%`, `under_score`, `back\slash`, `'; DROP TABLE events; --`, "`tick`", "nul\x00byte", `{x:String}`, `?1 $1 :a @b`,
}

// generate makes n events of five instances over three days that end before today, the same ones each time.
func generate(n int) *log {
	l := &log{start: time.Now().UTC().Truncate(day).Add(-4 * day)}
	r := rand.New(rand.NewPCG(1, 2))
	names := newNames(r)
	clients := newClients()
	for range n {
		e := event{instance: fmt.Sprintf("box%d", pick(r, 40, 30, 15, 10, 5)+1)}
		e.Time = l.start.Add(randomTime(r))
		client := clients[min(int(r.ExpFloat64()*60), len(clients)-1)]
		e.Client, e.ClientName = client.addr, client.name
		e.Protocol = []string{"udp", "tcp", "dot", "doh", "doq"}[pick(r, 70, 10, 8, 8, 4)]
		e.QName = names.pick()
		e.QType = []uint16{1, 28, 65, 12, 16, 65280}[pick(r, 50, 30, 12, 4, 3, 1)]
		e.QClass = 1
		e.Duration = time.Duration(math.Exp(r.NormFloat64()*1.5+7)) * time.Microsecond
		e.become(fleet.Outcome(pick(r, 20, 35, 3, 25, 3, 2, 1, 3, 3, 1, 1, 1, 2)), r)
		l.events = append(l.events, e)
	}
	slices.SortStableFunc(l.events, func(a, b event) int { return a.Time.Compare(b.Time) })
	l.batches = batches(l.events, "boot1")
	return l
}

// become gives the event the fields that go with its outcome.
func (e *event) become(o fleet.Outcome, r *rand.Rand) {
	upstreams := []string{"udp://192.0.2.1:53", "tls://192.0.2.2:853", "https://dns.example/q?a='b'&c=%20_", "udp://[2001:db8::1]:53"}
	e.Outcome = o
	switch o {
	case fleet.Blocked:
		e.RCode, e.List = 3, []string{"ads", "mine", `list "7" \ '%_`}[pick(r, 6, 3, 1)]
	case fleet.Upstream:
		e.Upstream = upstreams[pick(r, 50, 30, 15, 5)]
		e.RCode = 3 * pick(r, 9, 1)
	case fleet.Servfail:
		e.RCode, e.Upstream = 2, upstreams[pick(r, 1, 1, 1, 1)]
	case fleet.UpstreamError:
		e.RCode, e.Duration = 2, e.Duration+5*time.Second
		if r.IntN(2) == 0 {
			e.Upstream = upstreams[pick(r, 1, 1, 1, 1)]
		}
	case fleet.Refused, fleet.RateLimited:
		e.RCode = 5
	case fleet.Invalid:
		e.RCode = 1
	default:
	}
}

// pick is an index, with the odds that the weights say.
func pick(r *rand.Rand, weights ...int) int {
	total := 0
	for _, w := range weights {
		total += w
	}
	n := r.IntN(total)
	for i, w := range weights {
		if n -= w; n < 0 {
			return i
		}
	}
	return 0
}

// randomTime leaves the hours from 2 to 4 empty, so that a series has steps without queries, and is dense in one minute,
// so that many events share a millisecond.
func randomTime(r *rand.Rand) time.Duration {
	if r.IntN(10) == 0 {
		return day + 12*time.Hour + time.Duration(r.Int64N(int64(time.Minute)))
	}
	for {
		at := time.Duration(r.Int64N(int64(days * day)))
		if hour := at % day / time.Hour; hour < 2 || hour >= 4 {
			return at
		}
	}
}

type names struct {
	zipf *rand.Zipf
	all  []string
}

func newNames(r *rand.Rand) *names {
	zones := []string{"example.com", "badexample.com", "example.com.evil.test", "example.net", "com", "cdn.example.com", "example_com", "a%b.test"}
	n := &names{all: []string{"example.com.", "badexample.com.", "com.", "."}}
	for i := range 20_000 {
		n.all = append(n.all, fmt.Sprintf("h%d.%s.", i, zones[i%len(zones)]))
	}
	for _, text := range odd {
		n.all = append(n.all, strings.ReplaceAll(text, ".", "")+".odd.test.")
	}
	n.zipf = rand.NewZipf(r, 1.1, 3, uint64(len(n.all)-1))
	r.Shuffle(len(n.all), func(i, j int) { n.all[i], n.all[j] = n.all[j], n.all[i] })
	return n
}

func (n *names) pick() string { return n.all[n.zipf.Uint64()] }

type client struct {
	addr netip.Addr
	name string
}

func newClients() []client {
	clients := []client{{}} // what an anonymous log keeps of all
	for _, text := range odd {
		clients = append(clients, client{netip.AddrFrom4([4]byte{10, 1, 0, byte(len(clients))}), text})
	}
	for i := range 400 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)})
		switch i % 4 {
		case 0:
			clients = append(clients, client{addr, ""})
		case 1: // one machine with two addresses
			v6 := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i / 250), 15: byte(i % 250)})
			clients = append(clients, client{addr, fmt.Sprintf("host%d.lan", i)}, client{v6, fmt.Sprintf("host%d.lan", i)})
		default:
			clients = append(clients, client{addr, fmt.Sprintf("host%d.lan", i)})
		}
	}
	return clients
}

// batches are the events as their instances send them.
func batches(events []event, boot string) []querylog.Batch {
	var list []querylog.Batch
	open := map[string]int{} // by instance, its newest batch
	seqs := map[string]uint64{}
	for _, e := range events {
		i, known := open[e.instance]
		if !known || len(list[i].Events) >= batchSize || !sameDay(list[i].Events[0].Time, e.Time) {
			seqs[e.instance]++
			i = len(list)
			open[e.instance] = i
			list = append(list, querylog.Batch{InstanceID: e.instance, BootID: boot, Seq: seqs[e.instance]})
		}
		list[i].Events = append(list[i].Events, e.QueryEvent)
	}
	// They come interleaved, and some late.
	slices.SortStableFunc(list, func(a, b querylog.Batch) int { return cmp.Compare(a.Seq%7, b.Seq%7) })
	return list
}

func sameDay(a, b time.Time) bool { return a.Truncate(day).Equal(b.Truncate(day)) }

// write writes all batches, four at a time.
func (l *log) write(t *testing.T, sink querylog.Sink) {
	t.Helper()
	began := time.Now()
	errs := make(chan error)
	const writers = 4
	for w := range writers {
		go func() {
			for i := w; i < len(l.batches); i += writers {
				if err := sink.Write(t.Context(), l.batches[i]); err != nil {
					errs <- fmt.Errorf("write batch %d of %s: %w", l.batches[i].Seq, l.batches[i].InstanceID, err)
					return
				}
			}
			errs <- nil
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	t.Logf("wrote %d events in %d batches in %s", len(l.events), len(l.batches), time.Since(began).Round(time.Millisecond))
	if t.Failed() {
		t.FailNow()
	}
}
