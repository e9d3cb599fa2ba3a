package cache_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/fleet"
)

var begin = time.Unix(1_800_000_000, 0)

func wire(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	m.Compress = true
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func question(t testing.TB, name string, qtype uint16) cache.Question {
	t.Helper()
	b, err := cache.Name(name)
	if err != nil {
		t.Fatal(err)
	}
	return cache.Question{Name: b, Type: qtype}
}

// insert keeps an answer and fails the test if it was not kept.
func insert(t testing.TB, c *cache.Cache, now time.Time, m *dns.Msg) *cache.Entry {
	t.Helper()
	e, ok := c.Insert(question(t, m.Question[0].Name, m.Question[0].Qtype), wire(t, m), now)
	if !ok {
		t.Fatalf("insert %s: got false, want true", m.Question[0].Name)
	}
	return e
}

func address(t testing.TB, name string, ttl int) *dns.Msg {
	t.Helper()
	return message(t, name, dns.TypeA, 0, []string{fmt.Sprintf("%s %d IN A 192.0.2.1", name, ttl)}, nil)
}

// numbered is an answer whose name begins with a number of six digits, which is cheap to change.
type numbered struct {
	question cache.Question
	response []byte
}

func newNumbered(t testing.TB, m *dns.Msg) *numbered {
	t.Helper()
	return &numbered{question(t, m.Question[0].Name, m.Question[0].Qtype), wire(t, m)}
}

func (n *numbered) set(number int) {
	for i := 6; i > 0; i-- {
		n.question.Name[i] = byte('0' + number%10)
		n.response[12+i] = n.question.Name[i]
		number /= 10
	}
}

func unpack(t testing.TB, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("unpack %x: %v", b, err)
	}
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} { // Unpack takes fewer records than the header promises
		if got := int(binary.BigEndian.Uint16(b[6+2*i:])); got != len(section) {
			t.Fatalf("section %d: the header promises %d records, there are %d", i, got, len(section))
		}
	}
	return m
}

func ttls(m *dns.Msg) []uint32 {
	all := []uint32{}
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		all = append(all, rr.Header().Ttl)
	}
	return all
}

func TestWhatIsServed(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	m := message(t, "wWw.ExAmple.", dns.TypeA, 0, []string{"wWw.ExAmple. 100 IN CNAME a.example.", "a.example. 200 IN A 192.0.2.1"}, []string{"example. 300 IN NS ns.example."})
	m.Id, m.Authoritative, m.AuthenticatedData, m.RecursionDesired = 4711, true, true, false
	m.Zero = true
	m.SetEdns0(1232, true)
	before := wire(t, m)
	given := bytes.Clone(before)
	q := question(t, "www.example.", dns.TypeA)
	q.CD = true
	e, ok := c.Insert(q, given, begin)
	if !ok {
		t.Fatal("insert: got false")
	}
	if !bytes.Equal(given, before) {
		t.Error("insert changed the response")
	}
	clear(given) // the cache must have its own copy
	clear(q.Name)
	out := e.AppendAnswer([]byte("xy"), begin)
	if string(out[:2]) != "xy" || len(out) != 2+e.Size() {
		t.Errorf("got %d bytes after %q, want %d after xy", len(out)-2, out[:2], e.Size())
	}
	got := unpack(t, out[2:])
	want := dns.MsgHdr{Response: true, RecursionDesired: true, RecursionAvailable: true, AuthenticatedData: true, CheckingDisabled: true}
	if got.MsgHdr != want {
		t.Errorf("got header %+v, want %+v", got.MsgHdr, want)
	}
	if got.Question[0].Name != "www.example." || got.IsEdns0() != nil || len(got.Answer) != 2 || len(got.Ns) != 1 {
		t.Errorf("got %v, want the question in lower case, all records and no OPT", got)
	}
	copy(out[2+12:], "\x03WWW\x07Example")
	if patched := unpack(t, out[2:]); patched.Question[0].Name != "WWW.Example." || patched.Answer[0].Header().Name != "WWW.Example." {
		t.Errorf("with the client's name: got %v", patched)
	}
	if e.Name() != "www.example." || e.Type() != dns.TypeA || !e.AD() || e.RCode() != 0 || e.Answers() != 2 || e.TTL(begin) != 100*time.Second || e.Stamp() != 0 {
		t.Errorf("got %q, type %d, AD %v, rcode %d, %d answers, TTL %v, stamp %d", e.Name(), e.Type(), e.AD(), e.RCode(), e.Answers(), e.TTL(begin), e.Stamp())
	}
	e.SetStamp(7)
	if e.Stamp() != 7 {
		t.Errorf("stamp: got %d, want 7", e.Stamp())
	}
}

func TestNamesAreToldAsMessagesAre(t *testing.T) {
	t.Parallel()
	for _, name := range []string{".", "a.", `a\.b.x.`, `\000\255.x.`, `sp\ ace.x.`, strings.Repeat(strings.Repeat("x", 63)+".", 3) + strings.Repeat("y", 61) + "."} {
		c := cache.New(nil)
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		m.Response, m.Rcode = true, dns.RcodeServerFailure
		e := insert(t, c, begin, m)
		if got, want := e.Name(), unpack(t, wire(t, m)).Question[0].Name; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if found, _ := c.Find(question(t, name, dns.TypeA), begin); found != e {
			t.Errorf("%q: not found again", name)
		}
	}
}

func TestTTLsAge(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	m := message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 100 IN A 192.0.2.1", "a.x. 200 IN A 192.0.2.2"}, []string{"x. 40 IN NS ns.x.", "x. 0 IN NS ns2.x."})
	e := insert(t, c, begin, m)
	for _, step := range []struct {
		name string
		at   time.Duration
		want []uint32
	}{
		{"before it was stored nothing ages", -time.Minute, []uint32{100, 200, 40, 0}},
		{"a new answer has its TTLs, and 0 stays 0", 0, []uint32{100, 200, 40, 0}},
		{"parts of a second do not count", 999 * time.Millisecond, []uint32{100, 200, 40, 0}},
		{"a second counts", time.Second, []uint32{99, 199, 39, 0}},
		{"what is shorter than the answer ends at 1", 60 * time.Second, []uint32{40, 140, 1, 0}},
		{"a fresh answer has at least 1", 99999 * time.Millisecond, []uint32{1, 101, 1, 0}},
		{"a stale answer has 30 everywhere", 100 * time.Second, []uint32{30, 30, 30, 30}},
		{"a very old answer has 30", 20 * time.Hour, []uint32{30, 30, 30, 30}},
	} {
		if got := ttls(unpack(t, e.AppendAnswer(nil, begin.Add(step.at)))); !slices.Equal(got, step.want) {
			t.Errorf("%s: got %v, want %v", step.name, got, step.want)
		}
	}
}

func TestTTLsAreWithinTheLimits(t *testing.T) {
	t.Parallel()
	bounds := limits(func(l *fleet.CachePolicy) {
		l.MinTTL, l.MaxTTL = fleet.Duration(time.Minute), fleet.Duration(time.Hour)
	})
	const soa = " IN SOA ns.x. h.x. 1 1 1 1 "
	for _, c := range []struct {
		name   string
		limits fleet.CachePolicy
		msg    *dns.Msg
		want   []uint32
	}{
		{"the floor and the ceiling are told", bounds, message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 1 IN A 192.0.2.1", "a.x. 9999 IN A 192.0.2.2"}, nil), []uint32{60, 3600}},
		{"the SOA of a negative answer has its lifetime", limits(nil), message(t, "a.x.", dns.TypeA, dns.RcodeNameError, nil, []string{"x. 900" + soa + "60"}), []uint32{60}},
		{"the SOA of a negative answer has the floor", bounds, message(t, "a.x.", dns.TypeA, dns.RcodeNameError, nil, []string{"x. 900" + soa + "5"}), []uint32{60}},
		{"a TTL with the high bit is told as 0", limits(nil), message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 10 IN A 192.0.2.1"}, []string{"x. 4294967295 IN NS ns.x."}), []uint32{10, 0}},
		{"without a ceiling the largest is told", limits(func(l *fleet.CachePolicy) { l.MaxTTL = 0 }), message(t, "a.x.", dns.TypeA, 0, []string{"a.x. 2147483647 IN A 192.0.2.1"}, nil), []uint32{2147483647}},
	} {
		kept := cache.New(nil)
		kept.SetLimits(c.limits)
		if got := ttls(unpack(t, insert(t, kept, begin, c.msg).AppendAnswer(nil, begin))); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestQuestionsAreKeptApart(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	var kept []cache.Question
	for i := range 8 {
		q := question(t, "a.x.", dns.TypeA)
		q.DO, q.CD = i&1 != 0, i&2 != 0
		if i&4 != 0 {
			q.Type = dns.TypeTXT
		}
		m := message(t, "a.x.", q.Type, 0, nil, []string{fmt.Sprintf("x. %d IN SOA ns.x. h.x. 1 1 1 1 600", 100+i)})
		if _, ok := c.Insert(q, wire(t, m), begin); !ok {
			t.Fatalf("insert %d: got false", i)
		}
		kept = append(kept, q)
	}
	for i, q := range kept {
		e, state := c.Lookup(q, begin)
		if state != cache.Fresh || e.TTL(begin) != time.Duration(100+i)*time.Second {
			t.Errorf("question %d: got state %d, want its own answer", i, state)
		}
	}
	for _, name := range []string{"b.x.", "x.", "a.", ".", "aa.x.", "a.x.x."} {
		if e, state := c.Find(question(t, name, dns.TypeA), begin); e != nil || state != cache.Miss {
			t.Errorf("%s: got state %d, want a miss", name, state)
		}
	}
	if _, state := c.Find(cache.Question{Type: dns.TypeA}, begin); state != cache.Miss {
		t.Error("a question without a name: got no miss")
	}
	if s := c.Stats(); s.Hits != 8 || s.Misses != 0 {
		t.Errorf("got %d hits and %d misses, want 8 and 0: only Lookup counts", s.Hits, s.Misses)
	}
}

func TestInsertRefuses(t *testing.T) {
	t.Parallel()
	good := wire(t, address(t, "a.x.", 100))
	for name, c := range map[string]struct {
		question cache.Question
		response []byte
	}{
		"an answer to another name":            {question(t, "b.x.", dns.TypeA), good},
		"an answer to another type":            {question(t, "a.x.", dns.TypeAAAA), good},
		"a cut message":                        {question(t, "a.x.", dns.TypeA), good[:len(good)-1]},
		"nothing":                              {question(t, "a.x.", dns.TypeA), nil},
		"a question in upper case":             {cache.Question{Name: []byte("\x01A\x01x\x00"), Type: dns.TypeA}, good},
		"a question without an end":            {cache.Question{Name: []byte("\x01a\x01x"), Type: dns.TypeA}, good},
		"an answer that the RFCs do not allow": {question(t, "a.x.", dns.TypeA), wire(t, address(t, "a.x.", 0))},
	} {
		kept := cache.New(nil)
		if e, ok := kept.Insert(c.question, c.response, begin); ok || e != nil || kept.Bytes() != 0 {
			t.Errorf("%s: got kept, want refused", name)
		}
	}
}

func TestWhatTakesThePlaceOfWhat(t *testing.T) {
	t.Parallel()
	failure := message(t, "a.x.", dns.TypeA, dns.RcodeServerFailure, nil, nil)
	nothing := message(t, "a.x.", dns.TypeA, dns.RcodeNameError, nil, []string{"x. 100 IN SOA ns.x. h.x. 1 1 1 1 100"})
	answer := address(t, "a.x.", 100)
	for _, c := range []struct {
		name         string
		first, then  *dns.Msg
		after        time.Duration
		want         bool
		wantedRCode  int
		wantedAnswer bool
	}{
		{"an answer replaces an answer", answer, nothing, time.Second, true, dns.RcodeNameError, true},
		{"an answer replaces a failure", failure, answer, time.Second, true, 0, true},
		{"a failure replaces a failure", failure, failure, time.Second, true, dns.RcodeServerFailure, true},
		{"a failure does not replace a fresh answer", answer, failure, time.Second, false, 0, true},
		{"a failure does not replace a stale answer", answer, failure, time.Hour, false, 0, true},
		{"a failure does not replace a stale NXDOMAIN", nothing, failure, time.Hour, false, dns.RcodeNameError, true},
		{"a failure replaces what is too old", answer, failure, 25 * time.Hour, true, dns.RcodeServerFailure, true},
	} {
		kept := cache.New(nil)
		q := question(t, "a.x.", dns.TypeA)
		first := insert(t, kept, begin, c.first)
		first.SetStamp(9)
		now := begin.Add(c.after)
		got, ok := kept.Insert(q, wire(t, c.then), now)
		if ok != c.want {
			t.Errorf("%s: got %v, want %v", c.name, ok, c.want)
		}
		e, _ := kept.Find(q, now)
		if e == nil || e.RCode() != c.wantedRCode {
			t.Errorf("%s: got %+v in the cache, want rcode %d", c.name, e, c.wantedRCode)
		}
		if ok && (got != e || e.Stamp() != 0) {
			t.Errorf("%s: got stamp %d, want the new entry with 0", c.name, e.Stamp())
		}
		if s := kept.Stats(); s.LRU.Entries != 1 {
			t.Errorf("%s: got %d entries, want 1", c.name, s.LRU.Entries)
		}
	}
	kept := cache.New(nil)
	insert(t, kept, begin, failure)
	if _, state := kept.Find(question(t, "a.x.", dns.TypeA), begin.Add(5*time.Second)); state != cache.Miss {
		t.Errorf("an old failure: got state %d, want a miss: failures are never stale", state)
	}
}

func TestSweepTakesWhatIsTooOld(t *testing.T) {
	t.Parallel()
	now := begin
	c := cache.New(func() time.Time { return now })
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.ServeStale = fleet.Duration(time.Hour) }))
	const n = 3000
	for i := range n {
		insert(t, c, begin, address(t, fmt.Sprintf("n%d.x.", i), 100+i%2*100))
		insert(t, c, begin, message(t, fmt.Sprintf("f%d.x.", i), dns.TypeA, dns.RcodeServerFailure, nil, nil))
	}
	full := c.Bytes()
	for _, step := range []struct {
		at                      time.Duration
		removed                 int
		fresh, stale, leftovers int
	}{
		{0, 0, 2 * n, 0, 0},
		{10 * time.Second, n, n, 0, n},
		{150 * time.Second, 0, n / 2, n / 2, 0},
		{time.Hour + 150*time.Second, n / 2, 0, n / 2, n / 2},
		{2 * time.Hour, n / 2, 0, 0, n / 2},
	} {
		now = begin.Add(step.at)
		if s := c.Stats().LRU; s.Fresh != step.fresh || s.Stale != step.stale || s.Expired != step.leftovers || s.Entries != step.fresh+step.stale+step.leftovers {
			t.Errorf("after %v: got %+v, want %d fresh, %d stale, %d expired", step.at, s, step.fresh, step.stale, step.leftovers)
		}
		if got := c.Sweep(now); got != step.removed {
			t.Errorf("after %v: swept %d, want %d", step.at, got, step.removed)
		}
	}
	if got := c.Bytes(); got != 0 || full == 0 {
		t.Errorf("got %d of %d bytes left, want 0", got, full)
	}
}

func TestASweepGoesOnWhereTheLastEnded(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	const n = 70_000
	m := newNumbered(t, address(t, "000000.x.", 1))
	for i := range n {
		m.set(i)
		c.Insert(m.question, m.response, begin)
	}
	now := begin.Add(48 * time.Hour)
	first := c.Sweep(now)
	if first == 0 || first == n {
		t.Errorf("the first sweep: got %d of %d, want a piece", first, n)
	}
	if rest := c.Sweep(now) + c.Sweep(now); first+rest != n {
		t.Errorf("two more: got %d, want the other %d", rest, n-first)
	}
}

// TestTheHeapStaysWithinItsBound is why Bytes can be believed.
func TestTheHeapStaysWithinItsBound(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const bound = 12 << 20
	text := strings.Repeat("x", 250)
	var kinds []*numbered
	for i := range 280 {
		name := fmt.Sprintf("000000.%s.example.", text[:i%40+1])
		m := address(t, name, 100)
		for range i % 7 {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeAAAA, Class: 1, Ttl: 300}, AAAA: make([]byte, 16)})
		}
		if i == 100 {
			for range 20 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: 1, Ttl: 300}, Txt: []string{text}})
			}
		}
		kinds = append(kinds, newNumbered(t, m))
	}
	before := heap()
	c := cache.New(nil)
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = bound }))
	for i := range 200_000 {
		m := kinds[i%len(kinds)]
		m.set(i)
		if _, ok := c.Insert(m.question, m.response, begin); !ok {
			t.Fatalf("insert %d: got false", i)
		}
		if got := c.Bytes(); got > bound {
			t.Fatalf("after %d inserts: got %d bytes, want at most %d", i+1, got, bound)
		}
	}
	grown, entries := heap()-before, c.Stats().LRU.Entries
	t.Logf("%d entries: %d bytes counted, %d on the heap, %d each", entries, c.Bytes(), grown, grown/int64(entries))
	if grown > bound*115/100 || c.Bytes() < bound*9/10 || grown < c.Bytes()*85/100 {
		t.Errorf("got %d bytes on the heap and %d counted, want both near %d", grown, c.Bytes(), bound)
	}
	removed := c.Clear()
	if left := heap() - before; removed != entries || c.Bytes() != 0 || left > 1<<20 {
		t.Errorf("clear: got %d of %d entries, %d bytes counted, %d left on the heap", removed, entries, c.Bytes(), left)
	}
	runtime.KeepAlive(c)
}

func TestWhatIsUsedStaysAndWhatHasExpiredGoesFirst(t *testing.T) {
	t.Parallel()
	c := cache.New(func() time.Time { return begin })
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 1 << 20 }))
	names := func(kind string) (all []cache.Question) {
		for i := range 500 {
			all = append(all, question(t, fmt.Sprintf("%s%d.x.", kind, i), dns.TypeA))
		}
		return all
	}
	used, unused := names("used"), names("unused")
	for i := range used {
		insert(t, c, begin, address(t, fmt.Sprintf("used%d.x.", i), 10_000))
		insert(t, c, begin, address(t, fmt.Sprintf("unused%d.x.", i), 10_000))
	}
	count := func(all []cache.Question, now time.Time) (found int) {
		for _, q := range all {
			if _, state := c.Find(q, now); state == cache.Fresh {
				found++
			}
		}
		return found
	}
	m := newNumbered(t, address(t, "000000.x.", 1000))
	for i := range 20_000 {
		now := begin.Add(time.Duration(i) * 10 * time.Millisecond)
		m.set(i)
		c.Insert(m.question, m.response, now)
		if i%500 == 0 {
			count(used, now)
		}
	}
	now := begin.Add(201 * time.Second)
	if u, n := count(used, now), count(unused, now); u < len(used)*99/100 || n > len(unused)/10 {
		t.Errorf("got %d of the %d that were used and %d of the %d that were not, want nearly all and few", u, len(used), n, len(unused))
	}
}

func TestExpiredAnswersGoFirst(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 1 << 20 }))
	const old, fresh = 2000, 2000
	for i := range old {
		insert(t, c, begin, address(t, fmt.Sprintf("old%d.x.", i), 10))
	}
	now := begin.Add(time.Minute)
	for i := range fresh {
		insert(t, c, now, address(t, fmt.Sprintf("fresh%d.x.", i), 1000))
		c.Find(question(t, fmt.Sprintf("old%d.x.", i), dns.TypeA), now) // use does not save it
	}
	for i := 0; c.Bytes() < 1<<20-400; i++ { // until it is nearly full
		insert(t, c, now, address(t, fmt.Sprintf("more%d.x.", i), 1000))
	}
	for i := range 500 {
		insert(t, c, now, address(t, fmt.Sprintf("last%d.x.", i), 1000))
	}
	kept := 0
	for i := range fresh {
		if _, state := c.Find(question(t, fmt.Sprintf("fresh%d.x.", i), dns.TypeA), now); state == cache.Fresh {
			kept++
		}
	}
	if kept < fresh*95/100 {
		t.Errorf("got %d of %d fresh answers, want nearly all while there are expired ones", kept, fresh)
	}
}

func TestTinyCaches(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{0, 1, 100, 1 << 10, 10 << 10, 100 << 10} {
		c := cache.New(nil)
		c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = fleet.Bytes(size) }))
		kept := 0
		for i := range 500 {
			if _, ok := c.Insert(question(t, fmt.Sprintf("n%d.x.", i), dns.TypeA), wire(t, address(t, fmt.Sprintf("n%d.x.", i), 100)), begin); ok {
				kept++
			}
			if got := c.Bytes(); got > size {
				t.Fatalf("%d bytes: got %d after %d inserts", size, got, i+1)
			}
		}
		if kept > 0 != (size >= 1<<10) {
			t.Errorf("%d bytes: kept %d", size, kept)
		}
	}
}

// TestNothingIsLost compares the cache with a map while answers come and go.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.ServeStale = 0 }))
	random := rand.New(rand.NewPCG(1, 2))
	m := newNumbered(t, address(t, "000000.x.", 0))
	expires := map[int]time.Time{}
	now := begin
	for round := range 60 {
		for range 600 {
			n, ttl := random.IntN(30_000), 1+random.IntN(200)
			m.set(n)
			binary.BigEndian.PutUint32(m.response[len(m.response)-10:], uint32(ttl))
			c.Insert(m.question, m.response, now)
			expires[n] = now.Add(time.Duration(ttl) * time.Second)
		}
		now = now.Add(time.Duration(random.IntN(20)) * time.Second)
		if round%2 == 0 {
			c.Sweep(now)
		}
		if round%6 != 5 {
			continue
		}
		for n, end := range expires {
			m.set(n)
			e, state := c.Find(m.question, now)
			if now.Before(end) != (state == cache.Fresh) {
				t.Fatalf("round %d: %d: got state %d %v before its end", round, n, state, end.Sub(now))
			}
			if e != nil && e.TTL(now) != end.Sub(now) {
				t.Fatalf("round %d: %d: got TTL %v, want %v", round, n, e.TTL(now), end.Sub(now))
			}
		}
	}
}

func TestReadersWritersEvictionAndClearTogether(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 96 << 10 }))
	const names, rounds = 600, 6000
	questions, answers := make([]cache.Question, names), make([][]byte, names)
	for i := range names {
		name := fmt.Sprintf("n%d.x.", i)
		questions[i], answers[i] = question(t, name, dns.TypeA), wire(t, message(t, name, dns.TypeA, 0, []string{fmt.Sprintf("%s %d IN A 192.0.2.%d", name, 1000+i, i%256)}, nil))
	}
	var users sync.WaitGroup
	for worker := range 4 {
		users.Go(func() {
			var buf []byte
			for i := range rounds {
				n := (i*7 + worker*131) % names
				e, state := c.Lookup(questions[n], begin)
				if state == cache.Miss {
					c.Insert(questions[n], answers[n], begin)
					continue
				}
				buf = e.AppendAnswer(buf[:0], begin)
				if !bytes.Equal(buf[12:], answers[n][12:]) {
					t.Errorf("n%d: got %x, want %x", n, buf, answers[n])
					return
				}
				e.SetStamp(uint64(i))
			}
		})
	}
	users.Go(func() {
		for i := range 60 {
			c.Stats()
			c.Popular(begin, time.Hour, 10)
			c.Sweep(begin)
			if err := c.Save(new(bytes.Buffer), "", begin); err != nil {
				t.Error(err)
			}
			size := 96 << 10
			if i%2 == 0 {
				size = 48 << 10
			}
			c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = fleet.Bytes(size) }))
			if i%10 == 9 {
				c.Clear()
			}
		}
	})
	users.Wait()
	s := c.Stats()
	if s.Hits+s.Misses != 4*rounds || s.Hits == 0 || c.Bytes() > 96<<10 {
		t.Errorf("got %d hits, %d misses, %d bytes, want %d look-ups within 96 KiB", s.Hits, s.Misses, c.Bytes(), 4*rounds)
	}
	if c.Clear(); c.Bytes() != 0 {
		t.Errorf("an empty cache: got %d bytes counted, want 0", c.Bytes())
	}
}

// FuzzInsert: nothing makes it panic. What is kept is served as the records that came, without OPT and with TTLs that are
// never longer than the limits; a second later each is a second less, and stale it is 30 s.
func FuzzInsert(f *testing.F) {
	f.Add(wire(f, address(f, "a.x.", 100)))
	f.Add(wire(f, message(f, "a.x.", dns.TypeA, dns.RcodeNameError, nil, []string{"x. 100 IN SOA ns.x. h.x. 1 1 1 1 100"})))
	withOPT := message(f, "a.x.", dns.TypeMX, 0, []string{"a.x. 100 IN MX 1 b.a.x."}, []string{"x. 7 IN NS ns.x."})
	withOPT.SetEdns0(1232, true)
	f.Add(wire(f, withOPT))
	f.Add(wire(f, message(f, "a.x.", dns.TypeHTTPS, 0, []string{"a.x. 60 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1"}, nil)))
	f.Fuzz(func(t *testing.T, response []byte) {
		end := 12
		for end < len(response) && response[end] != 0 {
			end += 1 + int(response[end])
		}
		if end+3 > len(response) {
			return
		}
		q := cache.Question{Name: bytes.Clone(response[12 : end+1]), Type: uint16(response[end+1])<<8 | uint16(response[end+2])}
		for i, b := range q.Name {
			if 'A' <= b && b <= 'Z' {
				q.Name[i] = b + 'a' - 'A'
			}
		}
		c := cache.New(nil)
		e, ok := c.Insert(q, response, begin)
		if found, _ := c.Find(q, begin); found != e || ok != (e != nil) {
			t.Fatalf("got entry %v, %v, then found %v", e, ok, found)
		}
		in := new(dns.Msg)
		if !ok || in.Unpack(bytes.Clone(response)) != nil {
			return
		}
		var served [3]*dns.Msg
		for i, at := range []time.Time{begin, begin.Add(time.Second), begin.Add(24 * time.Hour)} {
			served[i] = unpack(t, e.AppendAnswer(nil, at))
			if got, want := records(served[i]), records(in); !slices.Equal(got, want) {
				t.Fatalf("got  %q\nwant %q", got, want)
			}
		}
		fresh, later, stale := ttls(served[0]), ttls(served[1]), ttls(served[2])
		for i, ttl := range fresh {
			if ttl > 24*60*60 || e.TTL(begin) > time.Second && later[i] != max(ttl, 1)-1 && later[i] != min(ttl, 1) || stale[i] != 30 {
				t.Errorf("record %d: got TTLs %d, then %d, then %d", i, ttl, later[i], stale[i])
			}
		}
	})
}

// records are the records of a message without OPT and TTLs.
func records(m *dns.Msg) []string {
	all := []string{}
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT {
				rr = dns.Copy(rr)
				rr.Header().Ttl, rr.Header().Rdlength = 0, 0
				all = append(all, strings.ToLower(fmt.Sprint(i, rr)))
			}
		}
	}
	return all
}
