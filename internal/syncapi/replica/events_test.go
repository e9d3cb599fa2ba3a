package replica_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

const keptOK = `{"ok":true,"stored":true,"query_log":"clickhouse","next_events_seconds":0.7,"of_a_later_release":1}`

// packed is a body that looks like a batch to whoever does not look into it, and that compression would shorten.
var packed = append([]byte{1}, bytes.Repeat([]byte("batch"), 1000)...)

func TestABatchGoesAsItIs(t *testing.T) {
	p := newStub(t, 200, keptOK)
	reply, err := newClient(t, []string{p.URL + "/fleet/"}).PostEvents(t.Context(), packed)
	if want := (syncapi.EventsReply{OK: true, Stored: true, QueryLog: "clickhouse", NextEventsSeconds: 0.7}); err != nil || reply != want {
		t.Fatalf("got %+v, %v, want %+v", reply, err, want)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer " + secret, syncapi.InstanceHeader: "attic-pi", "Content-Type": "application/octet-stream", "Content-Encoding": "",
	} {
		if got := p.last.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := p.last.Method + " " + p.last.URL.Path; got != "POST /fleet/sync/events" {
		t.Errorf("asked for %s", got)
	}
	if !bytes.Equal(p.sent, packed) {
		t.Errorf("sent %d bytes, want the %d as they are", len(p.sent), len(packed))
	}
}

func TestOnlyABadBatchIsNeverSentAgain(t *testing.T) {
	const ours = `{"error":"x"}`
	for name, tc := range map[string]struct {
		status  int
		body    string
		invalid bool
		fails   bool // over to the next primary
	}{
		"the batch is bad":                        {400, ours, true, false},
		"the batch is too long":                   {413, ours, true, false},
		"the batch is too long for a proxy":       {413, "<html>", true, false},
		"a port that wants TLS":                   {400, "Client sent an HTTP request to an HTTPS server.\n", false, true},
		"another server that knows no such thing": {400, `{"message":"x"}`, false, true},
		"the token is unknown":                    {401, ours, false, false},
		"the id is not ours":                      {403, ours, false, false},
		"an older primary":                        {404, ours, false, true},
		"the body did not arrive":                 {408, ours, false, true},
		"it was forgotten":                        {410, ours, false, false},
		"a proxy that packs":                      {415, ours, false, false},
		"it wants a pause":                        {429, ours, false, true},
		"it is ill":                               {500, ours, false, true},
		"neither log nor spool takes it":          {503, ours, false, true},
		"a login page":                            {200, "<html>", false, true},
		"another server's JSON":                   {200, `{"status":"up","stored":true}`, false, true},
		"null":                                    {200, "null", false, true},
		"a redirect":                              {302, "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := newStub(t, tc.status, tc.body), newStub(t, 200, keptOK)
			reply, err := newClient(t, []string{first.URL}).PostEvents(t.Context(), packed)
			if err == nil || errors.Is(err, fleet.ErrInvalid) != tc.invalid || reply != (syncapi.EventsReply{}) {
				t.Errorf("got %+v, %v, want nothing but an error that is invalid: %v", reply, err, tc.invalid)
			}
			c := newClient(t, []string{first.URL, second.URL})
			reply, err = c.PostEvents(t.Context(), packed)
			if tc.fails && (err != nil || !reply.Stored || !bytes.Equal(first.sent, packed) || !bytes.Equal(second.sent, packed) || c.Primary() != second.URL) {
				t.Errorf("got %+v, %v, want the second to keep the same bytes", reply, err)
			}
			if !tc.fails && (err == nil || second.asked.Load() != 0 || reply != syncapi.EventsReply{}) {
				t.Errorf("got %+v, %v and the second was asked %d times, want an error of the first alone", reply, err, second.asked.Load())
			}
		})
	}
	t.Run("also where it is sent to a real port that wants TLS", func(t *testing.T) {
		p := &stub{status: 200, body: keptOK}
		p.Server = httptest.NewUnstartedServer(p)
		p.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		p.StartTLS()
		defer p.Close()
		_, err := newClient(t, []string{strings.Replace(p.URL, "https", "http", 1)}).PostEvents(t.Context(), packed)
		if err == nil || errors.Is(err, fleet.ErrInvalid) { // a 400, or a connection that was reset before it came
			t.Errorf("got %v, want an error that is not invalid", err)
		}
	})
}

// ledger is the query log of two primaries that share one: it knows batches by their identity.
type ledger struct {
	codec *batch.Codec
	mute  atomic.Bool // it stores, and the answer gets lost

	mu    sync.Mutex
	taken map[string]int // how often each batch came
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	codec, err := batch.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return &ledger{codec: codec, taken: map[string]int{}}
}

func (l *ledger) QueryLog() string { return "clickhouse" }

func (l *ledger) StoreEvents(_ context.Context, instanceID string, body []byte) error {
	b, err := l.codec.Decode(body)
	if err != nil {
		return err
	}
	if b.InstanceID != instanceID {
		return fleet.ErrNotYours
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken[fmt.Sprintf("%s/%s/%d", b.InstanceID, b.BootID, b.Seq)]++
	if l.mute.Load() {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// times is how often a batch of attic-pi came.
func (l *ledger) times(seq int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken[fmt.Sprintf("attic-pi/boot/%d", seq)]
}

func (l *ledger) batch(t *testing.T, instance string, seq int) []byte {
	t.Helper()
	b := querylog.Batch{InstanceID: instance, BootID: "boot", Seq: uint64(seq)}
	for range 100 {
		b.Events = append(b.Events, fleet.QueryEvent{Time: time.Unix(1773480415, 0), QName: "www.example.", QType: 1, QClass: 1})
	}
	body, err := l.codec.Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// twoPrimaries share a store, as those of one fleet do, and each has a query log, which may be nil.
func twoPrimaries(t *testing.T, first, second syncapi.EventStore) (a, b *httptest.Server, store *sqlite.Store, token fleet.Token, secret string) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "store.db"), History: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	token, secret = fleet.NewToken("attic", nil, false, time.Now())
	if err := store.CreateToken(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	serve := func(events syncapi.EventStore) *httptest.Server {
		s := httptest.NewServer(syncapi.NewServer(syncapi.ServerOptions{Store: store, Events: events}).Handler())
		t.Cleanup(s.Close)
		return s
	}
	return serve(first), serve(second), store, token, secret
}

func TestBatchesReachOneOfTwoPrimaries(t *testing.T) {
	log := newLedger(t)
	a, b, store, token, secret := twoPrimaries(t, log, log)
	c := newClient(t, []string{a.URL, b.URL}, func(o *replica.ClientOptions) { o.Token = secret })
	send := func(from, to int) {
		t.Helper()
		var all sync.WaitGroup
		for seq := from; seq <= to; seq++ {
			body := log.batch(t, "attic-pi", seq)
			all.Go(func() {
				for range 5 { // as a shipper does
					_, err := c.PostEvents(t.Context(), body)
					if err == nil {
						return
					}
					if errors.Is(err, fleet.ErrInvalid) {
						t.Errorf("batch %d: got %v, want one that may be tried again", seq, err)
						return
					}
				}
				t.Errorf("batch %d was never kept", seq)
			})
		}
		all.Wait()
	}
	send(1, 20)
	if c.Primary() != a.URL {
		t.Errorf("is with %s, want the first", c.Primary())
	}
	a.CloseClientConnections()
	a.Close()
	send(21, 40)
	if c.Primary() != b.URL {
		t.Errorf("is with %s, want the second", c.Primary())
	}
	for seq := 1; seq <= 40; seq++ {
		if log.times(seq) == 0 {
			t.Errorf("batch %d is lost", seq)
		}
	}

	t.Run("one whose answer got lost goes to the other as the same", func(t *testing.T) {
		log := newLedger(t)
		deaf := newLedger(t)
		deaf.mute.Store(true)
		a, b, _, _, secret := twoPrimaries(t, deaf, log)
		c := newClient(t, []string{a.URL, b.URL}, func(o *replica.ClientOptions) { o.Token = secret })
		if _, err := c.PostEvents(t.Context(), log.batch(t, "attic-pi", 7)); err != nil {
			t.Fatal(err)
		}
		if deaf.times(7) == 0 || log.times(7) != 1 {
			t.Errorf("the first got it %d times and the second %d times, want the same batch at both", deaf.times(7), log.times(7))
		}
	})
	t.Run("none of another instance is taken", func(t *testing.T) {
		_, err := c.PostEvents(t.Context(), log.batch(t, "cellar-pi", 1))
		if !errors.Is(err, fleet.ErrNotYours) || errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("got %v, want %v", err, fleet.ErrNotYours)
		}
	})
	t.Run("garbage is refused for good", func(t *testing.T) {
		if _, err := c.PostEvents(t.Context(), packed); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
		}
	})
	t.Run("one that is too large is refused for good", func(t *testing.T) {
		if _, err := c.PostEvents(t.Context(), make([]byte, syncapi.MaxEventsBody+1)); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
		}
	})
	t.Run("nothing is taken of a revoked token, nor lost", func(t *testing.T) {
		if err := store.RevokeToken(t.Context(), token.ID); err != nil {
			t.Fatal(err)
		}
		_, err := c.PostEvents(t.Context(), log.batch(t, "attic-pi", 99))
		if syncapi.StatusOf(err) != 401 || errors.Is(err, fleet.ErrInvalid) || log.times(99) != 0 {
			t.Errorf("got %v, want a 401 that may be tried again", err)
		}
	})
	t.Run("a primary without query log is told apart", func(t *testing.T) {
		a, _, _, _, secret := twoPrimaries(t, nil, nil)
		c := newClient(t, []string{a.URL}, func(o *replica.ClientOptions) { o.Token = secret })
		reply, err := c.PostEvents(t.Context(), log.batch(t, "attic-pi", 1))
		if want := (syncapi.EventsReply{OK: true, QueryLog: "off", NextEventsSeconds: 10}); err != nil || reply != want {
			t.Errorf("got %+v, %v, want %+v", reply, err, want)
		}
	})
}

func TestHungEventsHoldUpNothingElse(t *testing.T) {
	release := make(chan struct{})
	hanging := atomic.Int64{}
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case syncapi.PathEvents, syncapi.PathWait:
			hanging.Add(1)
			select {
			case <-release:
			case <-r.Context().Done():
			}
		default:
			fmt.Fprint(w, pushedOK)
		}
	}))
	defer p.Close()
	defer close(release)
	c := newClient(t, []string{p.URL}, func(o *replica.ClientOptions) { o.Timeout = time.Minute })
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range 10 {
		all.Go(func() {
			if _, err := c.PostEvents(ctx, packed); !errors.Is(err, context.Canceled) {
				t.Errorf("a hung post: got %v, want canceled", err)
			}
		})
	}
	all.Go(func() { c.Wait(ctx, "h", time.Minute) }) //nolint:errcheck // it hangs, too
	eventually(t, "two posts of events and a wait hang", func() bool { return hanging.Load() == 3 })
	for range 20 { // a push, a pull and one more at a time find their connections
		var beside sync.WaitGroup
		for _, do := range []func(context.Context) error{
			func(ctx context.Context) error { _, err := c.Push(ctx, fleet.Report{}); return err },
			func(ctx context.Context) error { _, err := c.Config(ctx, ""); return err },
			func(ctx context.Context) error { _, err := c.Heartbeat(ctx); return err },
		} {
			beside.Go(func() {
				soon, cancel := context.WithTimeout(t.Context(), 2*time.Second*slack)
				defer cancel()
				if err := do(soon); err != nil {
					t.Errorf("beside hung events: %v", err)
				}
			})
		}
		beside.Wait()
	}
	if got := hanging.Load(); got != 3 {
		t.Errorf("%d requests hang, want 2 posts of events and the wait", got)
	}
}

func TestABatchHasTimeByItsSize(t *testing.T) {
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(400 * time.Millisecond):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, keptOK)
	}))
	defer p.Close()
	c := newClient(t, []string{p.URL}, func(o *replica.ClientOptions) { o.Timeout = 100 * time.Millisecond })
	if _, err := c.PostEvents(t.Context(), packed); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a small batch: got %v, want deadline exceeded", err)
	}
	if _, err := c.PostEvents(t.Context(), make([]byte, slack<<20)); err != nil {
		t.Errorf("a large batch: got %v, want it to be waited for", err)
	}
}
