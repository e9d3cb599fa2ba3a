package main

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/stats"
)

// keptEvents is a log that keeps the events as they are.
type keptEvents struct {
	mu     sync.Mutex
	events []fleet.QueryEvent
}

func (k *keptEvents) Write(_ context.Context, b querylog.Batch) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, b.Events...) // copies: the room is lent
	return nil
}

func TestAQueryIsCountedAndKeptAsPrivacyAllows(t *testing.T) {
	for mode, want := range map[string]struct{ client, name string }{
		"full":      {"192.168.1.77", "tv"},
		"hash":      {"invalid IP", "client-"},
		"truncate":  {"192.168.1.0", ""},
		"anonymous": {"invalid IP", ""},
	} {
		t.Run(mode, func(t *testing.T) {
			counters, err := stats.New(stats.Options{})
			if err != nil {
				t.Fatal(err)
			}
			kept := &keptEvents{}
			target := logTarget{kind: "kept", name: func() string { return "kept" }, sink: kept}
			l, err := newEventLog(instanceConfig{InstanceID: "box1", DataDir: t.TempDir(), Privacy: mode, QueryLogRetention: time.Hour}, target, counters, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := l.free(); err != nil {
					t.Error(err)
				}
			}()
			for lane := range 3 {
				for turn := range 2 {
					name := []byte("www.example.")
					e := fleet.QueryEvent{
						Time: time.Now(), Client: netip.MustParseAddr("192.168.1.77"), ClientName: "tv", Protocol: "udp",
						QName: unsafe.String(unsafe.SliceData(name), len(name)), QType: 1, QClass: 1, Outcome: fleet.Cached, Duration: time.Millisecond,
					}
					before := e
					l.Record(lane, &e)
					if e != before {
						t.Errorf("the caller's event: got %+v, want it as it was: %+v", e, before)
					}
					copy(name, "!!!!!!!!!!!!")
					if turn == 1 {
						l.recorder.Flush(t.Context()) // the second collection has the room of the first
					}
				}
			}
			if n := counters.Counters().Outcomes[fleet.Cached]; n != 6 {
				t.Errorf("counters: got %d queries, want 6", n)
			}
			if len(kept.events) != 6 {
				t.Fatalf("log: got %d events, want 6", len(kept.events))
			}
			for _, e := range kept.events {
				if e.QName != "www.example." || e.Client.String() != want.client || !strings.HasPrefix(e.ClientName, want.name) || (want.name == "") != (e.ClientName == "") {
					t.Errorf("log: got %+v, want the name, and of the client %s and %q", e, want.client, want.name)
				}
			}
			if top := counters.LastHour().TopDomains; len(top) != 1 || top[0].Name != "www.example" || top[0].Count != 6 {
				t.Errorf("sketches: got %v, want www.example 6 times", top)
			}
		})
	}
}
