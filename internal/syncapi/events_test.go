package syncapi_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/syncapi"
)

const goldenEvents = "testdata/events-v1.bin"

// shelf is an EventStore in memory that reads batches as a primary does. Its fields may be set before it is used, and
// through do while it is.
type shelf struct {
	codec *batch.Codec

	mu     sync.Mutex
	bodies [][]byte
	kept   []querylog.Batch
	fault  error
	panics bool
	hold   chan struct{} // StoreEvents waits for it
}

func newShelf(tb testing.TB) *shelf {
	tb.Helper()
	codec, err := batch.NewCodec()
	if err != nil {
		tb.Fatal(err)
	}
	return &shelf{codec: codec}
}

func (s *shelf) do(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *shelf) QueryLog() string { return "sqlite" }

func (s *shelf) StoreEvents(ctx context.Context, instanceID string, body []byte) error {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b, err := s.codec.Decode(body)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.panics:
		panic("no such luck")
	case s.fault != nil:
		return s.fault
	case err != nil:
		return err
	case b.InstanceID != instanceID:
		return fmt.Errorf("store events of %s: %w", b.InstanceID, fleet.ErrNotYours)
	}
	s.bodies = append(s.bodies, bytes.Clone(body))
	s.kept = append(s.kept, b)
	return nil
}

func (s *shelf) batches() []querylog.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]querylog.Batch{}, s.kept...)
}

func withEvents(s *shelf) func(*syncapi.ServerOptions) {
	return func(o *syncapi.ServerOptions) { o.Events = s }
}

// batchOf is an encoded batch of n events.
func batchOf(tb testing.TB, s *shelf, instance string, seq uint64, n int) []byte {
	tb.Helper()
	b := querylog.Batch{InstanceID: instance, BootID: "boot", Seq: seq}
	for i := range n {
		b.Events = append(b.Events, fleet.QueryEvent{Time: storeTime.Add(time.Duration(i) * time.Millisecond), QName: strconv.Itoa(i) + ".example.", QType: 1, QClass: 1})
	}
	body, err := s.codec.Encode(b)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}

// post is a batch on its way from attic-pi.
func (p *primary) post(t *testing.T, body []byte, change ...func(*http.Request)) *http.Request {
	t.Helper()
	return p.request(t, "POST", "/sync/events", body, append([]func(*http.Request){header("Content-Type", syncapi.EventsType)}, change...)...)
}

func TestTheGoldenEvents(t *testing.T) {
	want := querylog.Batch{InstanceID: "attic-pi", BootID: "p8Qk2mVxT0aJr5Zc", Seq: 42, Events: []fleet.QueryEvent{
		{
			Time: storeTime, Client: netip.MustParseAddr("192.168.1.23"), ClientName: "küche", Protocol: "udp", QName: "www.example.com.",
			QType: 1, QClass: 1, Outcome: fleet.Upstream, Duration: 12345 * time.Microsecond, Upstream: "udp://9.9.9.9:53",
		},
		{
			Time: storeTime.Add(time.Millisecond), Client: netip.MustParseAddr("2001:db8::7"), Protocol: "doh", QName: "ads.example.net.",
			QType: 28, QClass: 1, Outcome: fleet.Blocked, RCode: 3, Duration: 80 * time.Microsecond, List: "ads",
		},
		{Time: storeTime.Add(time.Second), Protocol: "tcp", QName: "www.example.com.", QType: 65, QClass: 1, Outcome: fleet.Servfail, RCode: 2},
	}}
	body, err := os.ReadFile(goldenEvents)
	if err != nil {
		t.Fatal(err)
	}
	store := newShelf(t)
	p := newPrimary(t, withEvents(store))
	res := p.do(t, p.post(t, body))
	const reply = `{"ok":true,"stored":true,"query_log":"sqlite","next_events_seconds":0.5}` + "\n"
	if res.status != http.StatusOK || res.body != reply {
		t.Errorf("answer is %d %s, want %s", res.status, res.body, reply)
	}
	kept := store.batches()
	if len(kept) != 1 || !bytes.Equal(store.bodies[0], body) {
		t.Fatalf("kept %d batches, want one of the bytes that were sent", len(kept))
	}
	if diff := cmp.Diff(want, kept[0], cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("golden batch (-want +kept):\n%s", diff)
	}
	got := p.sync.Stats()
	if got.Events["stored"] != 1 || got.EventBytes != uint64(len(body)) || got.EventSenders != 1 || got.EventsNow != 0 {
		t.Errorf("counted %+v, want one batch of %d bytes from one instance", got, len(body))
	}
}

func TestBadBatches(t *testing.T) {
	store := newShelf(t)
	good := batchOf(t, store, "attic-pi", 1, 100)
	none := func(*http.Request) {}
	for name, tc := range map[string]struct {
		body   []byte
		change func(*http.Request)
		status int
		says   string
		count  string
	}{
		"an empty body":                  {nil, none, 400, "decode batch: invalid: the batch is cut short", "refused"},
		"JSON":                           {[]byte(`{"events":[]}`), none, 400, "this version of a batch is not known here: got 123", "refused"},
		"a later version":                {append([]byte{2}, good[1:]...), none, 400, "this version of a batch is not known here: got 2", "refused"},
		"a batch that is cut":            {good[:len(good)/2], none, 400, "decode batch", "refused"},
		"two batches":                    {append(bytes.Clone(good), good...), none, 400, "decode batch", "refused"},
		"garbage":                        {append([]byte{1}, bytes.Repeat([]byte{0xff}, 10_000)...), none, 400, "decode batch", "refused"},
		"a batch of another instance":    {batchOf(t, store, "cellar-pi", 1, 1), none, 403, "token may not speak for this instance", "refused"},
		"the header of another instance": {batchOf(t, store, "cellar-pi", 1, 1), header(syncapi.InstanceHeader, "cellar-pi"), 403, "token may not speak for this instance", ""},
		"a byte too many":                {make([]byte, syncapi.MaxEventsBody+1), none, 413, "a batch of events must have at most 1048576 bytes", "refused"},
		"a batch compressed once more":   {zip(t, good), header("Content-Encoding", "gzip"), 415, "a batch of events has no content-encoding", "refused"},
		"no token":                       {good, without("Authorization"), 401, "a token is required", ""},
		"an unknown token":               {good, header("Authorization", "Bearer tAAAAAAAAAAAA.nothing"), 401, "unknown token", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t, withEvents(store))
			res := p.do(t, p.post(t, tc.body, tc.change))
			if got := res.sentence(t); res.status != tc.status || !strings.Contains(got, tc.says) {
				t.Errorf("answer is %d %q, want %d with %q", res.status, got, tc.status, tc.says)
			}
			if n := len(store.batches()); n != 0 {
				t.Errorf("kept %d batches, want none", n)
			}
			for result, n := range p.sync.Stats().Events {
				if want := result == tc.count; (n == 1) != want || n > 1 {
					t.Errorf("counted %d %s, want only one %q", n, result, tc.count)
				}
			}
			if p.sync.Stats().EventsNow != 0 {
				t.Error("the slot is still held")
			}
			if strings.Contains(p.log.String(), p.secret) {
				t.Errorf("the secret was logged: %s", p.log)
			}
		})
	}
}

func TestEventsOfARevokedTokenAreRefused(t *testing.T) {
	store := newShelf(t)
	p := newPrimary(t, withEvents(store))
	p.store.do(func() { p.store.tokens[0].RevokedAt = storeTime })
	res := p.do(t, p.post(t, batchOf(t, store, "attic-pi", 1, 1)))
	if got := res.sentence(t); res.status != http.StatusUnauthorized || got != "token is revoked" {
		t.Errorf("answer is %d %q, want 401", res.status, got)
	}
	if n := len(store.batches()); n != 0 {
		t.Errorf("kept %d batches, want none", n)
	}
	if n := p.sync.Stats().EventSenders; n != 0 {
		t.Errorf("counts %d senders, want none", n)
	}
}

func TestWhatTheQueryLogSaysDecides(t *testing.T) {
	const busy = "the query log takes no events now"
	for name, tc := range map[string]struct {
		fault  error
		status int
		says   string
	}{
		"unavailable":         {fmt.Errorf("%w: dial 10.0.0.7:9000: refused", fleet.ErrUnavailable), 503, busy},
		"a full disk":         {errors.New("write /var/lib/dnsfleet/spool: no space left on device"), 503, busy},
		"too slow":            {fmt.Errorf("insert: %w", context.DeadlineExceeded), 503, busy},
		"forgotten":           {fleet.ErrForgotten, 410, "instance was forgotten"},
		"never":               {fmt.Errorf("%w: day lies before the retention", fleet.ErrInvalid), 400, "day lies before the retention"},
		"of another instance": {fleet.ErrNotYours, 403, "token may not speak for this instance"},
	} {
		t.Run(name, func(t *testing.T) {
			store := newShelf(t)
			store.fault = tc.fault
			p := newPrimary(t, withEvents(store))
			res := p.do(t, p.post(t, batchOf(t, store, "attic-pi", 1, 1)))
			if got := res.sentence(t); res.status != tc.status || got != tc.says {
				t.Errorf("answer is %d %q, want %d %q", res.status, got, tc.status, tc.says)
			}
			if got := res.header.Get("Retry-After"); (got != "") != (tc.status == 503) {
				t.Errorf("Retry-After is %q with status %d", got, tc.status)
			}
		})
	}
	t.Run("a panic is one answer and no more", func(t *testing.T) {
		store := newShelf(t)
		store.panics = true
		p := newPrimary(t, withEvents(store), func(o *syncapi.ServerOptions) { o.MaxEvents = 1 })
		if res := p.do(t, p.post(t, batchOf(t, store, "attic-pi", 1, 1))); res.status != 500 || res.sentence(t) != "internal error" {
			t.Errorf("answer is %d %s, want 500 internal error", res.status, res.body)
		}
		store.do(func() { store.panics = false })
		if res := p.do(t, p.post(t, batchOf(t, store, "attic-pi", 1, 1))); res.status != 200 {
			t.Errorf("the next is %d %s, want 200", res.status, res.body)
		}
	})
}

func TestAQueryLogThatHangsIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf(t)
		store.hold = make(chan struct{})
		reports, secret := newMemory()
		log := new(logBuffer)
		s := syncapi.NewServer(syncapi.ServerOptions{Store: reports, Events: store, Log: slog.New(slog.NewTextHandler(log, nil))})
		body := batchOf(t, store, "attic-pi", 1, 1)
		w := httptest.NewRecorder()
		before := time.Now()
		s.Handler().ServeHTTP(w, eventsRequest(body, secret))
		if took := time.Since(before); w.Code != 503 || w.Header().Get("Retry-After") == "" || took != 8*time.Second {
			t.Errorf("answer is %d %s after %v, want 503 with Retry-After after 8 s", w.Code, w.Body, took)
		}
		if got := log.String(); !strings.Contains(got, "query log takes no events of replicas") {
			t.Errorf("logged %q, want that the query log takes nothing", got)
		}
	})
	t.Run("nor blamed for senders that hang up", func(t *testing.T) {
		store := newShelf(t)
		store.hold = make(chan struct{})
		p := newPrimary(t, withEvents(store))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		p.sync.Handler().ServeHTTP(w, eventsRequest(batchOf(t, store, "attic-pi", 1, 1), p.secret).WithContext(ctx))
		if got := p.log.String(); strings.Contains(got, "takes no events") || p.sync.Stats().Events["unavailable"] != 1 {
			t.Errorf("logged %q and counted %v, want no word and one unavailable", got, p.sync.Stats().Events)
		}
	})
}

func TestAnOutageOfTheQueryLogIsLoggedOnce(t *testing.T) {
	store := newShelf(t)
	store.fault = fleet.ErrUnavailable
	p := newPrimary(t, withEvents(store))
	for range 5 {
		p.do(t, p.post(t, batchOf(t, store, "attic-pi", 1, 1)))
		p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t))) // the store of reports is well meanwhile
	}
	store.do(func() { store.fault = nil })
	p.do(t, p.post(t, batchOf(t, store, "attic-pi", 1, 1)))
	for sentence, want := range map[string]int{
		"query log takes no events of replicas": 1, "query log takes events of replicas again": 1, "store is ": 0,
	} {
		if got := strings.Count(p.log.String(), sentence); got != want {
			t.Errorf("logged %q %d times, want %d:\n%s", sentence, got, want, p.log)
		}
	}
	if got := p.sync.Stats().Events; got["unavailable"] != 5 || got["stored"] != 1 {
		t.Errorf("counted %v, want 5 unavailable and 1 stored", got)
	}
}

func TestAPrimaryWithoutQueryLogThrowsEventsAway(t *testing.T) {
	p := newPrimary(t)
	res := p.do(t, p.post(t, batchOf(t, newShelf(t), "attic-pi", 1, 1000)))
	const want = `{"ok":true,"stored":false,"query_log":"off","next_events_seconds":10}` + "\n"
	if res.status != http.StatusOK || res.body != want {
		t.Errorf("answer is %d %s, want %s", res.status, res.body, want)
	}
	res = p.do(t, p.post(t, make([]byte, syncapi.MaxEventsBody+1)))
	if res.sentence(t); res.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a byte too many is %d, want 413", res.status)
	}
	if res := p.do(t, p.post(t, nil, header("Authorization", "Bearer guess"))); res.status != http.StatusUnauthorized {
		t.Errorf("a stranger is answered %d, want 401", res.status)
	}
	if got := p.sync.Stats().Events; got["discarded"] != 1 || got["refused"] != 1 || got["stored"] != 0 {
		t.Errorf("counted %v, want one discarded and one refused", got)
	}
}

func TestAWorstBatchFits(t *testing.T) {
	if batch.MaxPacked > syncapi.MaxEventsBody {
		t.Errorf("a batch may have %d bytes, want at most the %d that a body may have", batch.MaxPacked, syncapi.MaxEventsBody)
	}
	store := newShelf(t)
	b := querylog.Batch{InstanceID: "attic-pi", BootID: "boot", Seq: 1}
	random := rand.NewChaCha8([32]byte{1})
	for range batch.MaxEvents {
		name := make([]byte, batch.MaxText*3/4)
		random.Read(name) //nolint:errcheck // never fails
		b.Events = append(b.Events, fleet.QueryEvent{Time: storeTime, QName: base64.URLEncoding.EncodeToString(name)})
	}
	b.Events = b.Events[:batch.Cut(b.Events)]
	body, err := store.codec.Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	reports, secret := newMemory()
	w := httptest.NewRecorder()
	syncapi.NewServer(syncapi.ServerOptions{Store: reports, Events: store}).Handler().ServeHTTP(w, eventsRequest(body, secret))
	if w.Code != http.StatusOK {
		t.Errorf("%d events with random names of %d bytes, packed into %d, are %d %s, want 200", len(b.Events), batch.MaxText, len(body), w.Code, w.Body)
	}
}

func TestEventsAndPushesDoNotStarveEachOther(t *testing.T) {
	store := newShelf(t)
	body := batchOf(t, store, "attic-pi", 1, 10)
	t.Run("while all slots of events are held", func(t *testing.T) {
		store.hold = make(chan struct{})
		p := newPrimary(t, withEvents(store), func(o *syncapi.ServerOptions) { o.MaxEvents = 3 })
		answers := make(chan response, 3)
		for range 3 {
			r := p.post(t, body)
			go func() { answers <- p.do(t, r) }()
		}
		eventually(t, "three batches hold their slots", func() bool { return p.sync.Stats().EventsNow == 3 })
		res := p.do(t, p.post(t, body))
		if got := res.sentence(t); res.status != 503 || got != "too many batches of events at once" {
			t.Errorf("the fourth is %d %q, want 503", res.status, got)
		}
		if after, err := strconv.Atoi(res.header.Get("Retry-After")); err != nil || after < 1 || after > 5 {
			t.Errorf("Retry-After is %q, want 1 to 5", res.header.Get("Retry-After"))
		}
		if res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t))); res.status != 200 {
			t.Errorf("a push meanwhile is %d %s, want 200", res.status, res.body)
		} else if next := decode[syncapi.PushReply](t, res).NextPushSeconds; next != 10 {
			t.Errorf("next push in %v s, want 10: events do not slow pushes down", next)
		}
		close(store.hold)
		for range 3 {
			if res := <-answers; res.status != 200 {
				t.Errorf("a batch that held a slot is %d %s, want 200", res.status, res.body)
			}
		}
		if got := p.sync.Stats().Events; got["shed"] != 1 || got["stored"] != 3 {
			t.Errorf("counted %v, want 1 shed and 3 stored", got)
		}
		store.hold = nil
	})
	t.Run("while all slots of pushes are held", func(t *testing.T) {
		p := newPrimary(t, withEvents(store), func(o *syncapi.ServerOptions) { o.MaxPushes = 1 })
		p.store.hold = make(chan struct{})
		defer close(p.store.hold)
		push := p.request(t, "POST", "/sync/stats", readGolden(t))
		ended := make(chan response)
		go func() { ended <- p.do(t, push) }()
		defer func() { p.store.hold <- struct{}{}; <-ended }()
		eventually(t, "a push holds its slot", func() bool { return p.sync.Stats().PushesNow == 1 })
		if res := p.do(t, p.post(t, body)); res.status != 200 {
			t.Errorf("a batch meanwhile is %d %s, want 200", res.status, res.body)
		}
	})
}

func TestEventsOfManyInstancesAreKeptOnce(t *testing.T) {
	const instances, each = 8, 10
	store := newShelf(t)
	p := newPrimary(t, withEvents(store), func(o *syncapi.ServerOptions) { o.MaxEvents = instances / 2 })
	p.store.do(func() { p.store.tokens[0].Any = true })
	var all sync.WaitGroup
	for i := range instances {
		id := "pi-" + strconv.Itoa(i)
		var requests []*http.Request
		for seq := range uint64(each) {
			requests = append(requests, p.post(t, batchOf(t, store, id, seq+1, 50), header(syncapi.InstanceHeader, id)))
		}
		all.Go(func() {
			for _, r := range requests {
				keep(t, p, r)
			}
		})
	}
	all.Wait()
	seen := map[string]int{}
	for _, b := range store.batches() {
		seen[b.InstanceID+"/"+strconv.FormatUint(b.Seq, 10)]++
		if len(b.Events) != 50 {
			t.Errorf("a batch has %d events, want 50", len(b.Events))
		}
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("batch %s was kept %d times, want once", id, n)
		}
	}
	if len(seen) != instances*each {
		t.Errorf("kept %d batches, want %d", len(seen), instances*each)
	}
	if got := p.sync.Stats(); got.EventSenders != instances || got.Events["stored"] != instances*each || got.EventsNow != 0 {
		t.Errorf("counted %+v, want %d batches of %d senders", got, instances*each, instances)
	}
}

// keep sends a batch until it is kept: it may be shed.
func keep(t *testing.T, p *primary, r *http.Request) {
	t.Helper()
	for range 1000 {
		again := r.Clone(r.Context())
		var err error
		if again.Body, err = r.GetBody(); err != nil {
			t.Error(err)
			return
		}
		res, err := p.Client().Do(again)
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(io.Discard, res.Body) //nolint:errcheck // only so that the connection is kept
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
		if res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("answer is %d, want 200 or 503", res.StatusCode)
			return
		}
	}
	t.Error("the batch was never kept")
}

// A 400 would make the sender throw away a batch that its line has cut.
func TestABatchThatDoesNotArriveMayComeAgain(t *testing.T) {
	for name, options := range map[string][]func(*syncapi.ServerOptions){
		"with a query log":    {withEvents(newShelf(t))},
		"without a query log": nil,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t, options...)
			server := httptest.NewServer(p.sync.Handler()) // p's own reads the body before the handler does
			defer server.Close()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /sync/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s: attic-pi\r\nContent-Length: 1000\r\n\r\n\x01abc", p.secret, syncapi.InstanceHeader)
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 408 ")) {
				t.Errorf("answer is %q, %v, want 408", answer, err)
			}
		})
	}
}

// deadlines is a writer that notes until when a body may take.
type deadlines struct {
	*httptest.ResponseRecorder

	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = t; return nil }

func TestABatchHasTimeByItsSize(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes int
		want  time.Duration
	}{"a small one": {1000, 10 * time.Second}, "the largest": {syncapi.MaxEventsBody, 14 * time.Second}} {
		for _, events := range []syncapi.EventStore{nil, newShelf(t)} {
			store, secret := newMemory()
			s := syncapi.NewServer(syncapi.ServerOptions{Store: store, Events: events})
			w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			before := time.Now()
			s.Handler().ServeHTTP(w, eventsRequest(make([]byte, tc.bytes), secret))
			if got := w.read.Sub(before); got < tc.want || got > tc.want+slack*time.Second {
				t.Errorf("%s with a query log %v: the body may take %v, want %v", name, events != nil, got, tc.want)
			}
		}
	}
}

// eventsRequest is one of attic-pi that goes to a handler without a socket.
func eventsRequest(body []byte, secret string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/sync/events", bytes.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set(syncapi.InstanceHeader, "attic-pi")
	return r
}
