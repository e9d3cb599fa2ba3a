package shared_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/redis/go-redis/v9"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/cache/shared"
	"dnsfleet/internal/store/storetest/redistest"
)

const (
	// deadline is generous where a test wants an answer, patience is what a Get may take beyond its deadline on a machine
	// that has other things to do.
	deadline = 250 * time.Millisecond
	patience = 150 * time.Millisecond
)

// client gives up as an impatient or a patient program would; Get must not depend on it.
func client(t *testing.T, addr string) redis.UniversalClient {
	t.Helper()
	c := redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, ContextTimeoutEnabled: true, DialTimeout: time.Second, DialerRetries: 1,
	})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close client: %v", err)
		}
	})
	return c
}

// run makes a cache that works until the test ends.
func run(t *testing.T, o shared.Options) *shared.Cache {
	t.Helper()
	if o.Deadline == 0 {
		o.Deadline = deadline
	}
	c := shared.New(o)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("run did not end within 5 s of its context")
		}
	})
	eventually(t, "run has begun", c.Running)
	return c
}

func question(t testing.TB, name string) cache.Question {
	t.Helper()
	wire, err := cache.Name(name)
	if err != nil {
		t.Fatal(err)
	}
	return cache.Question{Name: wire, Type: dns.TypeA}
}

// response is a message for name as an upstream sends it; records after "/" are in the authority section.
func response(t testing.TB, name string, rcode int, records ...string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Response, m.Rcode, m.Compress = true, rcode, true
	m.SetEdns0(1232, true)
	for i, text := range records {
		if text == "/" {
			continue
		}
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(records[:i], "/") {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func address(t testing.TB, name string, ttl int) []byte {
	t.Helper()
	return response(t, name, 0, fmt.Sprintf("%s %d IN A 192.0.2.1", name, ttl))
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within 20 s", what)
		case <-tick.C:
		}
	}
}

// found waits until an answer is there.
func found(t *testing.T, c *shared.Cache, q cache.Question) (answer []byte, ttl time.Duration) {
	t.Helper()
	eventually(t, "the answer is found", func() (ok bool) {
		answer, ttl, ok = c.Get(t.Context(), q)
		return ok
	})
	return answer, ttl
}

// timely makes many Gets that must find nothing, each within time: but one or two, since a busy machine lets any of them
// wait for a core. It returns how long each took, in order.
func timely(t *testing.T, c *shared.Cache, q cache.Question, times int, limit time.Duration) []time.Duration {
	t.Helper()
	var took []time.Duration
	for range times {
		begin := time.Now()
		if _, _, ok := c.Get(t.Context(), q); ok {
			t.Fatal("get: got an answer, want nothing")
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	if late := took[max(len(took)-3, 0)]; late > limit {
		t.Errorf("get: got nothing after up to %v, want it within %v", late, limit)
	}
	return took
}

func TestAnAnswerIsShared(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one := run(t, shared.Options{Client: client(t, server.Addr()), Prefix: "fleet"})
	other := run(t, shared.Options{Client: client(t, server.Addr()), Prefix: "fleet"})
	raw := client(t, server.Addr())
	q := question(t, "www.example.")
	wire := response(t, "wWw.example.", 0, "wWw.example. 300 IN A 192.0.2.1", "/", "example. 900 IN NS ns.example.")
	given := slices.Clone(q.Name)
	one.Put(cache.Question{Name: given, Type: q.Type}, wire, 100*time.Second)
	clear(wire) // the cache must have its own copies
	clear(given)
	answer, ttl := found(t, other, q)
	if ttl <= 90*time.Second || ttl > 100*time.Second {
		t.Errorf("got TTL %v, want some 100 s", ttl)
	}
	m := new(dns.Msg)
	if err := m.Unpack(answer); err != nil {
		t.Fatal(err)
	}
	if m.Id != 0 || m.Question[0].Name != "www.example." || m.IsEdns0() != nil || !m.RecursionAvailable || m.Answer[0].Header().Ttl < 290 || m.Ns[0].Header().Ttl < 890 {
		t.Errorf("got %v, want the answer in the cache's own form", m)
	}
	if _, kept := cache.New(nil).Insert(q, answer, time.Now()); !kept {
		t.Error("what was found is not fit for the cache")
	}
	// An older one, as it is when it has been there for a minute.
	if err := raw.PExpire(t.Context(), "fleet:l1::1::www.example.", 40*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	answer, ttl = found(t, other, q)
	if err := m.Unpack(answer); err != nil || ttl > 40*time.Second {
		t.Fatalf("got %v, TTL %v", err, ttl)
	}
	if got := m.Answer[0].Header().Ttl; got > 240 || got < 230 {
		t.Errorf("a minute later: got TTL %d, want some 240", got)
	}
	with := q
	with.DO = true
	if _, _, ok := other.Get(t.Context(), with); ok {
		t.Error("the question with DO: got an answer to the one without")
	}
	with.DO, with.CD = false, true
	if _, _, ok := other.Get(t.Context(), with); ok {
		t.Error("the question with CD: got an answer to the one without")
	}
	other.SetMark("other upstreams")
	if _, _, ok := other.Get(t.Context(), q); ok {
		t.Error("another mark: got an answer")
	}
	other.SetMark("")
	found(t, other, q)
	if s := other.Stats(); s.Hits < 3 || s.Misses < 3 || s.Errors != 0 || s.Open {
		t.Errorf("got %+v, want hits, misses and no errors", s)
	}
}

func TestWhatIsNotShared(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, shared.Options{Client: client(t, server.Addr())})
	raw := client(t, server.Addr())
	cut := address(t, "a.x.", 100)
	cut[2] |= 2
	for _, r := range []struct {
		response []byte
		ttl      time.Duration
	}{
		{response(t, "a.x.", dns.RcodeServerFailure), time.Minute},
		{response(t, "a.x.", dns.RcodeRefused), time.Minute},
		{response(t, "a.x.", dns.RcodeNameError), time.Minute},
		{address(t, "a.x.", 0), time.Minute},
		{address(t, "a.x.", 100), 999 * time.Millisecond},
		{address(t, "b.x.", 100), time.Minute},
		{cut, time.Minute},
		{nil, time.Minute},
	} {
		c.Put(question(t, "a.x."), r.response, r.ttl)
	}
	c.Put(cache.Question{Name: []byte("\x01a"), Type: 1}, address(t, "a.x.", 100), time.Minute)
	c.Put(question(t, "last.x."), response(t, "last.x.", dns.RcodeNameError, "/", "x. 60 IN SOA ns.x. h.x. 1 1 1 1 60"), time.Minute)
	found(t, c, question(t, "last.x."))
	if keys := raw.Keys(t.Context(), "*").Val(); len(keys) != 1 {
		t.Errorf("got keys %q, want only the last", keys)
	}
	c.Put(question(t, "long.x."), address(t, "long.x.", 2_000_000_000), 2_000_000_000*time.Second)
	if _, ttl := found(t, c, question(t, "long.x.")); ttl > 7*24*time.Hour {
		t.Errorf("a very long TTL: got %v, want a week at most", ttl)
	}
	if s := c.Stats(); s.Dropped != 0 || s.Errors != 0 {
		t.Errorf("got %+v, want nothing dropped and no errors", s)
	}
}

func TestForeignValuesAreNotServed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, shared.Options{Client: client(t, server.Addr())})
	raw := client(t, server.Addr())
	const key = "dnsfleet:l1::1::a.x."
	q := question(t, "a.x.")
	c.Put(q, address(t, "a.x.", 100), 100*time.Second)
	found(t, c, q)
	good := raw.Get(t.Context(), key).Val()
	c.Put(question(t, "b.x."), address(t, "b.x.", 100), 100*time.Second)
	found(t, c, question(t, "b.x."))
	foreign := raw.Get(t.Context(), "dnsfleet:l1::1::b.x.").Val()
	before := c.Stats()
	bad := map[string]string{
		"nothing": "", "a version alone": "\x01", "text": "hello, world", "another version": "\x02" + good[1:], "a cut value": good[:len(good)-1],
		"bytes that follow": good + "x", "an answer to another question": foreign, "a query": good[:7] + "\x01" + good[8:],
		"a life shorter than is left": "\x01\x00\x00\x00\x01" + good[5:], "a failure": good[:8] + "\x82" + good[9:], "noise": strings.Repeat("\xff", 300),
	}
	for name, value := range bad {
		if err := raw.Set(t.Context(), key, value, 50*time.Second).Err(); err != nil {
			t.Fatal(err)
		}
		if got, _, ok := c.Get(t.Context(), q); ok {
			t.Errorf("%s: got %x, want nothing", name, got)
		}
	}
	if err := raw.Set(t.Context(), key, good, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := c.Get(t.Context(), q); ok {
		t.Error("a value without an end: got it, want nothing")
	}
	if err := raw.Del(t.Context(), key).Err(); err != nil {
		t.Fatal(err)
	}
	if err := raw.HSet(t.Context(), key, "a", "b").Err(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, _, ok := c.Get(t.Context(), q); ok {
			t.Error("a hash: got it, want nothing")
		}
	}
	s := c.Stats()
	if want := before.Errors + uint64(len(bad)) + 21; s.Errors != want || s.Open {
		t.Errorf("got %+v, want %d errors and no open breaker: the server is well", s, want)
	}
}

// trouble is a server in trouble: what a cache does meanwhile, and afterwards.
func TestServersInTrouble(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]struct {
		begin, end func(*testing.T, *redistest.Server)
	}{
		"killed and restarted": {
			func(_ *testing.T, s *redistest.Server) { s.Kill() },
			func(_ *testing.T, s *redistest.Server) { s.Restart() },
		},
		"hung": {
			func(_ *testing.T, s *redistest.Server) { s.Pause() },
			func(_ *testing.T, s *redistest.Server) { s.Resume() },
		},
		"asleep for a second": {
			func(t *testing.T, s *redistest.Server) {
				conn, err := net.Dial("tcp", s.Addr())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				if _, err := io.WriteString(conn, "DEBUG SLEEP 1\r\n"); err != nil {
					t.Fatal(err)
				}
				// It sleeps when it no longer answers others.
				eventually(t, "the server sleeps", func() bool {
					c, err := net.Dial("tcp", s.Addr())
					if err != nil {
						return false
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(20 * time.Millisecond)) //nolint:errcheck // the read tells
					io.WriteString(c, "PING\r\n")
					_, err = c.Read(make([]byte, 1))
					return err != nil
				})
			},
			func(*testing.T, *redistest.Server) {},
		},
		"without a password": {
			func(t *testing.T, s *redistest.Server) {
				if reply, err := redistest.Command(s.Addr(), "CONFIG SET requirepass secret\r\nCLIENT KILL TYPE normal"); err != nil {
					t.Fatalf("got %q, %v", reply, err)
				}
			},
			func(t *testing.T, s *redistest.Server) {
				conn, err := net.Dial("tcp", s.Addr())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, "AUTH secret\r\nCONFIG SET requirepass \"\"\r\nQUIT\r\n")
				io.ReadAll(conn) //nolint:errcheck // it ends when the server has done it
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			const short = 20 * time.Millisecond
			c := run(t, shared.Options{Client: client(t, server.Addr()), Deadline: short})
			q := question(t, "a.x.")
			c.Put(q, address(t, "a.x.", 1000), 1000*time.Second)
			found(t, c, q)
			trouble.begin(t, server)
			timely(t, c, q, 50, short+patience)
			s := c.Stats()
			if !s.Open || s.Errors < 5 || s.Errors > 8 || s.Dropped < 40 {
				t.Errorf("got %+v, want an open breaker after 5 errors", s)
			}
			begin := time.Now()
			for range 1000 {
				c.Get(t.Context(), q)
				c.Put(q, address(t, "a.x.", 1000), 1000*time.Second)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("a thousand Get and Put while it is open: took %v, want nearly nothing", took)
			}
			trouble.end(t, server)
			eventually(t, "it is found again", func() bool {
				_, _, ok := c.Get(t.Context(), q)
				return ok && !c.Stats().Open || func() bool { c.Put(q, address(t, "a.x.", 1000), 1000*time.Second); return false }()
			})
		})
	}
}

func TestAServerThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"full":      "CONFIG SET maxmemory 1",
		"read-only": "REPLICAOF 127.0.0.1 1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			c := run(t, shared.Options{Client: client(t, server.Addr())})
			q := question(t, "a.x.")
			c.Put(q, address(t, "a.x.", 1000), 1000*time.Second)
			found(t, c, q)
			if reply, err := redistest.Command(server.Addr(), line); err != nil || !strings.HasPrefix(reply, "+OK") {
				t.Fatalf("%s: got %q, %v", line, reply, err)
			}
			eventually(t, "writes are left", func() bool {
				c.Put(question(t, "b.x."), address(t, "b.x.", 1000), 1000*time.Second)
				return c.Stats().Open
			})
			for range 100 {
				if _, _, ok := c.Get(t.Context(), q); !ok {
					t.Fatal("get: got nothing, want what is there: only writes fail")
				}
			}
		})
	}
}

// listen is a server that accepts, and does as it is told with each connection.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			conns.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return l.Addr().String()
}

// silent takes everything and answers nothing.
func silent(c net.Conn) {
	io.Copy(io.Discard, c) //nolint:errcheck // it ends when either end closes
}

func TestServersThatAreNone(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"accepts and says nothing": silent,
		"closes at once":           func(c net.Conn) { c.Close() },
		"speaks HTTP":              func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); silent(c) },
		"is loading": func(c net.Conn) {
			io.WriteString(c, strings.Repeat("-LOADING Redis is loading\r\n", 20))
			silent(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const short = 3 * time.Millisecond
			c := run(t, shared.Options{Client: client(t, listen(t, serve)), Deadline: short})
			q := question(t, "a.x.")
			c.Put(q, address(t, "a.x.", 1000), 1000*time.Second)
			took := timely(t, c, q, 60, short+patience)
			if median := took[len(took)/2]; median > time.Millisecond {
				t.Errorf("got a median of %v, want the breaker open and no wait", median)
			}
			if s := c.Stats(); !s.Open || s.Hits != 0 {
				t.Errorf("got %+v, want an open breaker", s)
			}
		})
	}
}

func TestNothingHappensWithoutRun(t *testing.T) {
	t.Parallel()
	c := shared.New(shared.Options{Client: client(t, "127.0.0.1:1")})
	c.Put(question(t, "a.x."), address(t, "a.x.", 100), time.Minute)
	timely(t, c, question(t, "a.x."), 10, patience)
	if s := c.Stats(); s != (shared.Stats{}) {
		t.Errorf("got %+v, want zeros", s)
	}
}

func TestACallerMayLeave(t *testing.T) {
	t.Parallel()
	c := run(t, shared.Options{Client: client(t, listen(t, silent)), Deadline: time.Minute})
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, _, ok := c.Get(ctx, question(t, "a.x.")); ok || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the caller's own time", ok)
		}
		cancel()
	}
}

func TestTheQueueOfWritesIsBounded(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	c := run(t, shared.Options{Client: client(t, listen(t, func(c net.Conn) { <-block }))})
	defer close(block)
	wire := address(t, "a.x.", 1000)
	for range 5000 {
		c.Put(question(t, "a.x."), wire, time.Minute)
	}
	if s := c.Stats(); s.Dropped < 3500 || s.Dropped > 4000 {
		t.Errorf("got %d of 5000 dropped, want all that the queue has no room for", s.Dropped)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := run(t, shared.Options{Client: client(t, server.Addr()), Deadline: 5 * time.Second})
	const names = 100
	var questions []cache.Question
	for i := range names {
		name := fmt.Sprintf("n%d.x.", i)
		questions = append(questions, question(t, name))
		c.Put(questions[i], address(t, name, 1000), 1000*time.Second)
	}
	found(t, c, questions[names-1])
	var users sync.WaitGroup
	for range 20 {
		users.Go(func() {
			for _, q := range questions {
				answer, _, ok := c.Get(t.Context(), q)
				if !ok || string(answer[12:12+len(q.Name)]) != string(q.Name) {
					t.Errorf("got %x, %v, want the answer to %q", answer, ok, q.Name)
				}
			}
		})
	}
	users.Wait()
}

func TestKeysAreEstimated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	raw := client(t, server.Addr())
	for i := range 300 {
		if err := raw.Set(t.Context(), fmt.Sprintf("fleet:l1::1::n%d.x.", i), "x", time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		if err := raw.Set(t.Context(), fmt.Sprintf("fleet:other:%d", i), "x", time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
	c := run(t, shared.Options{Client: client(t, server.Addr()), Prefix: "fleet"})
	eventually(t, "keys are estimated", func() bool { return c.Stats().MaxKeys > 0 })
	if s := c.Stats(); s.Keys < 150 || s.Keys > 450 || s.MaxKeys < 1000 {
		t.Errorf("got %+v, want some 300 keys, and many more that 1 GiB has room for", s)
	}
}

func TestACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	var addrs []string
	for _, node := range cluster.Nodes {
		addrs = append(addrs, node.Addr())
	}
	nodes := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true})
	t.Cleanup(func() { nodes.Close() })
	c := run(t, shared.Options{Client: nodes, Deadline: time.Second})
	for i := range 20 {
		name := fmt.Sprintf("n%d.x.", i)
		c.Put(question(t, name), address(t, name, 1000), 1000*time.Second)
		found(t, c, question(t, name))
	}
}

func TestOneQueryAsksWhetherRedisIsBack(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	c := run(t, shared.Options{Client: client(t, listen(t, silent)), Deadline: 3 * time.Millisecond, Now: clock})
	q := question(t, "a.x.")
	timely(t, c, q, 20, patience)
	before := c.Stats()
	for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		mu.Lock()
		now = now.Add(pause)
		mu.Unlock()
		var users sync.WaitGroup
		for range 20 {
			users.Go(func() { c.Get(t.Context(), q) })
		}
		users.Wait()
		after := c.Stats()
		if asked := after.Errors - before.Errors; asked != 1 || after.Dropped-before.Dropped != 19 || !after.Open {
			t.Errorf("after a pause of %v: got %d that asked and %d that did not, want 1 and 19", pause, asked, after.Dropped-before.Dropped)
		}
		before = after
	}
}
