package breakdown_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/breakdown"
	"dnsfleet/internal/querylog/sqlite"
)

// noon is when the tests take place: a little after a full hour, when the slices of that hour have not been pushed yet.
var noon = time.Date(2026, 11, 20, 12, 0, 7, 300e6, time.UTC)

const (
	pushed = 10 * time.Second // how old the last push is
	ours   = "sqlite:p1"
)

type event struct {
	instance, boot string
	fleet.QueryEvent
}

// traffic is what three instances answered in the 50 hours until noon. A boot of "b" ended in the middle of an hour.
var traffic = sync.OnceValue(func() (events []event) {
	now := noon
	r := rand.New(rand.NewPCG(1, 2))
	for i, id := range []string{"a", "b", "c"} {
		pause := 20 * time.Minute
		for at := now.Add(-50 * time.Hour); at.Before(now); at = at.Add(time.Duration(r.Int64N(int64(pause)))) {
			if at.After(now.Add(-3 * time.Hour)) {
				pause = 2 * time.Minute
			}
			e := event{instance: id, boot: "boot1"}
			if id == "b" && at.After(now.Add(-95*time.Minute)) {
				e.boot = "boot2"
			}
			e.QueryEvent = fleet.QueryEvent{
				Time: at.Truncate(time.Millisecond), Client: netip.AddrFrom4([4]byte{10, 0, byte(i), byte(r.IntN(9))}), Protocol: "udp",
				QName: fmt.Sprintf("n%d.example.", min(int(r.ExpFloat64()*8), 60)), QType: 1, QClass: 1,
				Outcome:  []fleet.Outcome{fleet.Blocked, fleet.Cached, fleet.Upstream, fleet.UpstreamError}[r.IntN(4)],
				Duration: time.Duration(1+r.IntN(50_000)) * time.Microsecond,
			}
			if e.Outcome == fleet.Upstream || e.Outcome == fleet.UpstreamError {
				e.Upstream = fmt.Sprintf("udp://192.0.2.%d:53", r.IntN(3))
			}
			events = append(events, e)
		}
	}
	return events
})

// pushedHistory is the history of that traffic.
func pushedHistory() history { return maps.Clone(wholeHistory()) }

var wholeHistory = sync.OnceValue(func() history { return historyOf(traffic(), noon.Add(-pushed)) })

// history is what a store has: the slices of each instance that were complete at its last push.
type history map[string][]fleet.Slice

func historyOf(events []event, until time.Time) history {
	type key struct {
		instance, boot string
		size           fleet.Size
		start          time.Time
	}
	parts := map[key][]event{}
	for at := noon.Add(-50 * time.Hour).Truncate(time.Hour); at.Before(noon); at = at.Add(time.Minute) {
		for _, id := range []string{"a", "b", "c"} { // silent minutes have slices, too
			boot := "boot1"
			if id == "b" && at.After(noon.Add(-95*time.Minute)) {
				boot = "boot2"
			}
			parts[key{id, boot, fleet.Minute, at}] = nil
		}
	}
	for _, e := range events {
		for _, size := range fleet.Sizes() {
			k := key{e.instance, e.boot, size, e.Time.Truncate(size.Duration())}
			parts[k] = append(parts[k], e)
		}
	}
	h := history{}
	for k, part := range parts {
		ended := k.instance == "b" && k.boot == "boot1" // and with it all its slices
		if !ended && k.start.Add(k.size.Duration()).After(until) {
			continue
		}
		h[k.instance] = append(h[k.instance], sliceOf(k.size, k.start, k.boot, part))
	}
	for _, list := range h {
		slices.SortFunc(list, func(a, b fleet.Slice) int {
			if c := a.Start.Compare(b.Start); c != 0 {
				return c
			}
			return len(a.BootID) - len(b.BootID)
		})
	}
	return h
}

func sliceOf(size fleet.Size, start time.Time, boot string, events []event) fleet.Slice {
	s := fleet.Slice{Size: size, Start: start, BootID: boot}
	var durations []time.Duration
	upstreams := map[string]*fleet.UpstreamSlice{}
	answers := map[string][]time.Duration{}
	domains, blocked, clients := map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	for _, e := range events {
		s.Outcomes[e.Outcome]++
		durations = append(durations, e.Duration)
		name := e.QName[:len(e.QName)-1]
		domains[name]++
		clients[e.Client.String()]++
		if e.Outcome == fleet.Blocked {
			blocked[name]++
		}
		if e.Upstream == "" {
			continue
		}
		u := upstreams[e.Upstream]
		if u == nil {
			u = &fleet.UpstreamSlice{Address: e.Upstream}
			upstreams[e.Upstream] = u
		}
		if u.Count++; e.Outcome == fleet.UpstreamError {
			u.Errors++
		} else {
			answers[e.Upstream] = append(answers[e.Upstream], e.Duration)
		}
	}
	s.Latency = fleet.NewLatency(durations...)
	for _, address := range slices.Sorted(maps.Keys(upstreams)) {
		u := *upstreams[address]
		u.Latency = fleet.NewLatency(answers[address]...)
		s.Upstreams = append(s.Upstreams, u)
	}
	if size == fleet.Hour {
		s.TopDomains, s.TopBlocked, s.TopClients = topOf(domains), topOf(blocked), topOf(clients)
	}
	return s
}

func topOf(counts map[string]uint64) (top []fleet.TopItem) {
	for name, n := range counts {
		top = append(top, fleet.TopItem{Name: name, Count: n})
	}
	slices.SortFunc(top, fleet.TopItem.ByCount)
	return top
}

// slices answers as a store does.
func (h history) slices(_ context.Context, id string, size fleet.Size, from, to time.Time) (out []fleet.Slice, err error) {
	for _, s := range h[id] {
		if s.Size == size && !s.Start.Before(from) && s.Start.Before(to) {
			out = append(out, s)
		}
	}
	return out, nil
}

// openLog is a real log that has the events of the given instances.
func openLog(t *testing.T, events []event, instances ...string) *sqlite.Log {
	t.Helper()
	log, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "queries.db"), Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	batches := map[string]*querylog.Batch{}
	for _, e := range events {
		if !slices.Contains(instances, e.instance) {
			continue
		}
		key := e.instance + e.Time.Format(time.DateOnly)
		if batches[key] == nil {
			batches[key] = &querylog.Batch{InstanceID: e.instance, BootID: "boot1", Seq: uint64(len(batches) + 1)}
		}
		batches[key].Events = append(batches[key].Events, e.QueryEvent)
	}
	for _, b := range batches {
		if err := log.Write(t.Context(), *b); err != nil {
			t.Fatal(err)
		}
	}
	return log
}

func members(queryLogs ...string) (list []breakdown.Member) {
	for i, id := range []string{"a", "b", "c"} {
		list = append(list, breakdown.Member{ID: id, Name: "name of " + id, DNS: true, QueryLog: queryLogs[i]})
	}
	return append(list, breakdown.Member{ID: "web", Primary: true, QueryLog: "off"}) // a pure frontend
}

// options are those of a primary whose log is ours, with all that it may need.
func options(log querylog.Reader, h history, list []breakdown.Member) breakdown.Options {
	return breakdown.Options{
		Reader: log, LogID: func() string { return ours }, Slices: h.slices, Members: func() []breakdown.Member { return list },
		Now: func() time.Time { return noon }, Retention: 7 * 24 * time.Hour, History: 90 * 24 * time.Hour,
	}
}

func last(d time.Duration) fleet.QueryFilter { return fleet.QueryFilter{From: noon.Add(-d), To: noon} }

// off is what is known where there is no log.
func off(h history, list []breakdown.Member) breakdown.Options {
	o := options(nil, h, list)
	o.Reader, o.LogID = nil, func() string { return "off" }
	return o
}
