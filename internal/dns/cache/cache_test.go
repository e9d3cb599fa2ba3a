package cache_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/fleet"
)

func message(t testing.TB, name string, qtype uint16, rcode int, answer, authority []string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.Response, m.Rcode = true, rcode
	for _, section := range []struct {
		texts []string
		into  *[]dns.RR
	}{{answer, &m.Answer}, {authority, &m.Ns}} {
		for _, text := range section.texts {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			*section.into = append(*section.into, rr)
		}
	}
	return m
}

func key(name string, qtype uint16) cache.Key {
	return cache.Key{Name: name, Type: qtype, Class: dns.ClassINET}
}

func limits(change func(*fleet.CachePolicy)) fleet.CachePolicy {
	l := fleet.DefaultCachePolicy()
	if change != nil {
		change(&l)
	}
	return l
}

func TestLifetime(t *testing.T) {
	if got := cache.Lifetime(message(t, "A.x.", dns.TypeA, 0, []string{"a.x. 100 IN A 192.0.2.1"}, nil), limits(nil)); got != 100*time.Second {
		t.Errorf("an answer: got %v, want 100s", got)
	}
	if got := cache.Lifetime(new(dns.Msg), limits(nil)); got != 0 {
		t.Errorf("a message without question: got %v, want 0", got)
	}
}

func TestAnswersAgeTurnStaleAndEnd(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := cache.New(func() time.Time { return now })
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.ServeStale = fleet.Duration(time.Hour) }))
	m := message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 100 IN A 192.0.2.1"}, []string{"x. 5000 IN NS ns.x."})
	m.SetEdns0(1232, true)
	if !c.Put(key("a.x.", dns.TypeA), m) {
		t.Fatal("put: got false, want true")
	}
	if m.Answer[0].Header().Ttl != 100 || m.IsEdns0() == nil {
		t.Error("put changed the caller's message")
	}
	for _, step := range []struct {
		at    time.Duration
		state cache.State
		ttl   uint32
	}{{0, cache.Fresh, 100}, {99 * time.Second, cache.Fresh, 1}, {100 * time.Second, cache.Stale, 30}, {100*time.Second + time.Hour, cache.Miss, 0}} {
		now = time.Unix(1_800_000_000, 0).Add(step.at)
		hit := c.Get(key("a.x.", dns.TypeA))
		if hit.State != step.state {
			t.Fatalf("after %v: got state %d, want %d", step.at, hit.State, step.state)
		}
		if hit.Msg != nil && (hit.Msg.Answer[0].Header().Ttl != step.ttl || hit.Msg.IsEdns0() != nil) {
			t.Errorf("after %v: got %v, want TTL %d and no OPT", step.at, hit.Msg, step.ttl)
		}
	}
	stats := c.Stats()
	if stats.Hits != 2 || stats.Misses != 2 || stats.HitRate == nil || *stats.HitRate != 50 || stats.LRU.Expired != 1 {
		t.Errorf("stats: got %+v, want 2 hits, 2 misses, 50 %%, one expired", stats)
	}
	if got := c.Sweep(now); got != 1 || c.Stats().LRU.Entries != 0 || c.Bytes() != 0 {
		t.Errorf("sweep: got %d, %d bytes left, want the entry and its bytes gone", got, c.Bytes())
	}
}

func TestTTLBoundsAreTold(t *testing.T) {
	c := cache.New(nil)
	c.SetLimits(limits(func(l *fleet.CachePolicy) {
		l.MinTTL, l.MaxTTL = fleet.Duration(time.Minute), fleet.Duration(time.Hour)
	}))
	c.Put(key("a.x.", dns.TypeA), message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 1 IN A 192.0.2.1", "a.x. 9999 IN A 192.0.2.2"}, nil))
	hit := c.Get(key("a.x.", dns.TypeA))
	if got := []uint32{hit.Msg.Answer[0].Header().Ttl, hit.Msg.Answer[1].Header().Ttl}; got[0] != 60 || got[1] != 3600 {
		t.Errorf("got TTLs %v, want 60 and 3600", got)
	}
}

func TestKeysTellQuestionsApart(t *testing.T) {
	c := cache.New(nil)
	base := cache.Key{Name: "a.x.", Type: dns.TypeA, Class: dns.ClassINET}
	c.Put(base, message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 100 IN A 192.0.2.1"}, nil))
	for name, change := range map[string]func(*cache.Key){
		"name": func(k *cache.Key) { k.Name = "b.x." }, "type": func(k *cache.Key) { k.Type = dns.TypeAAAA },
		"class": func(k *cache.Key) { k.Class = dns.ClassCHAOS }, "DO": func(k *cache.Key) { k.DO = true }, "CD": func(k *cache.Key) { k.CD = true },
	} {
		other := base
		change(&other)
		if hit := c.Get(other); hit.State != cache.Miss {
			t.Errorf("another %s: got a hit, want none", name)
		}
	}
	if hit := c.Get(base); hit.State != cache.Fresh {
		t.Error("the same key: got no hit")
	}
}

func TestAFailureDoesNotReplaceAnAnswerThatMayBeServedStale(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := cache.New(func() time.Time { return now })
	k := key("a.x.", dns.TypeA)
	c.Put(k, message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 100 IN A 192.0.2.1"}, nil))
	now = now.Add(200 * time.Second)
	if c.Put(k, message(t, "a.x.", dns.TypeA, dns.RcodeServerFailure, nil, nil)) {
		t.Error("put: got true, want the failure not kept")
	}
	if hit := c.Get(k); hit.State != cache.Stale || hit.Msg.Rcode != 0 {
		t.Errorf("got %+v, want the stale answer", hit)
	}
}

func TestTheCacheStaysWithinItsBytesAndDropsTheLeastUsed(t *testing.T) {
	c := cache.New(nil)
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 256 << 10 }))
	popular := key("popular.x.", dns.TypeA)
	c.Put(popular, message(t, "popular.x.", dns.TypeA, 0, []string{"popular.x. 100 IN A 192.0.2.1"}, nil))
	for i := range 20_000 {
		name := fmt.Sprintf("n%d.x.", i)
		c.Put(key(name, dns.TypeA), message(t, name, dns.TypeA, 0, []string{name + " 100 IN A 192.0.2.1"}, nil))
		if i%10 == 0 {
			c.Get(popular)
		}
	}
	stats := c.Stats()
	if stats.LRU.Entries < 500 || stats.LRU.Entries > 1600 || stats.LRU.MaxEntries < stats.LRU.Entries || stats.LRU.MaxEntries > 1600 {
		t.Errorf("got %+v, want about 1,400 entries of some 190 bytes", stats.LRU)
	}
	if hit := c.Get(popular); hit.State != cache.Fresh {
		t.Error("the most used entry was dropped")
	}
	if hit := c.Get(key("n0.x.", dns.TypeA)); hit.State != cache.Miss {
		t.Error("the least used entry was kept")
	}
	big := message(t, "big.x.", dns.TypeTXT, 0, nil, nil)
	for range 200 {
		big.Answer = append(big.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: "big.x.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60}, Txt: []string{strings.Repeat("x", 250)}})
	}
	if c.Put(key("big.x.", dns.TypeTXT), big) {
		t.Error("an answer larger than an eighth of the cache was kept")
	}
	entries := c.Stats().LRU.Entries
	if got := c.Clear(); got != entries {
		t.Errorf("clear: got %d, want %d", got, entries)
	}
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 0 }))
	if c.Put(popular, message(t, "popular.x.", dns.TypeA, 0, []string{"popular.x. 100 IN A 192.0.2.1"}, nil)) {
		t.Error("a cache of 0 bytes kept something")
	}
}

func TestFewerBytesTakeEffectAtOnce(t *testing.T) {
	c := cache.New(nil)
	for i := range 2000 {
		name := fmt.Sprintf("n%d.x.", i)
		c.Put(key(name, dns.TypeA), message(t, name, dns.TypeA, 0, []string{name + " 100 IN A 192.0.2.1"}, nil))
	}
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 64 << 10 }))
	if got := c.Stats().LRU.Entries; got == 0 || got > 400 {
		t.Errorf("got %d entries, want a few hundred at most", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := cache.New(nil)
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for i := range 500 {
				name := fmt.Sprintf("n%d.x.", i%50)
				c.Put(key(name, dns.TypeA), message(t, name, dns.TypeA, 0, []string{name + " 100 IN A 192.0.2.1"}, nil))
				if hit := c.Get(key(name, dns.TypeA)); hit.Msg != nil {
					hit.Msg.Answer[0].Header().Ttl = 1 // the caller's own
				}
				if i%100 == 0 {
					c.Stats()
					c.Clear()
				}
			}
		})
	}
	users.Wait()
	if s := c.Stats(); s.Hits+s.Misses != 4000 {
		t.Errorf("got %d look-ups, want 4000", s.Hits+s.Misses)
	}
}

func BenchmarkGet(b *testing.B) {
	c := cache.New(nil)
	k := key("www.example.", dns.TypeA)
	c.Put(k, message(b, "www.example.", dns.TypeA, 0, []string{"www.example. 100 IN A 192.0.2.1"}, nil))
	b.ReportAllocs()
	for b.Loop() {
		c.Get(k)
	}
}
