package bootstrap_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/bootstrap"
	"dnsfleet/internal/fleet"
)

// nameServer is a real DNS server on loopback.
type nameServer struct {
	addr  netip.AddrPort
	asked atomic.Int64
	stop  func()
}

func serveNames(t *testing.T, records map[string][]string) *nameServer {
	t.Helper()
	pc, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }}
	server.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.asked.Add(1)
		reply := new(dns.Msg).SetReply(q)
		texts, found := records[q.Question[0].Name]
		if !found {
			reply.Rcode = dns.RcodeNameError
		}
		for _, text := range texts {
			if text == "SERVFAIL" {
				reply.Rcode = dns.RcodeServerFailure
				continue
			}
			if rr, err := dns.NewRR(q.Question[0].Name + " " + text); err == nil && rr.Header().Rrtype == q.Question[0].Qtype {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		_ = w.WriteMsg(reply)
	})
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	<-started // Shutdown refuses a server that has not started
	s.stop = sync.OnceFunc(func() {
		_ = server.Shutdown()
		<-done
	})
	t.Cleanup(s.stop)
	return s
}

func newDialer(t *testing.T, o bootstrap.Options) *bootstrap.Dialer {
	t.Helper()
	d, err := bootstrap.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// echo accepts connections until the test ends.
func echo(t *testing.T) (port string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestAHostIsReachedThroughTheGivenServers(t *testing.T) {
	port := echo(t)
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(closed.LocalAddr().String())
	_ = closed.Close()
	failing := serveNames(t, map[string][]string{"primary.example.": {"SERVFAIL"}, "both.example.": {"SERVFAIL"}})
	good := serveNames(t, map[string][]string{
		"primary.example.": {"60 IN A 127.0.0.1"},
		"both.example.":    {"60 IN AAAA 100::1", "60 IN A 127.0.0.1"}, // 100::/64 is discard-only
	})
	d := newDialer(t, bootstrap.Options{Servers: []netip.AddrPort{dead, failing.addr, good.addr}})
	for _, host := range []string{"primary.example", "both.example", "127.0.0.1", "localhost"} {
		conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("%s: got %v, want a connection", host, err)
			continue
		}
		_ = conn.Close()
	}
	if _, err := d.DialContext(t.Context(), "tcp", "nowhere.example:"+port); !errors.Is(err, bootstrap.ErrNoSuchHost) {
		t.Errorf("nowhere.example: got %v, want ErrNoSuchHost", err)
	}
	if _, err := d.DialContext(t.Context(), "tcp6", "primary.example:"+port); err == nil {
		t.Error("tcp6 to a name with IPv4 only: got a connection, want an error")
	}
	udp, err := d.DialContext(t.Context(), "udp", "primary.example:53")
	if err != nil {
		t.Fatalf("udp: got %v, want a connection", err)
	}
	_ = udp.Close()
}

func TestAnAddressIsRememberedWhileItsTTLLastsAndWhenNobodyAnswers(t *testing.T) {
	s := serveNames(t, map[string][]string{"primary.example.": {"60 IN A 127.0.0.1"}})
	now := time.Now()
	d := newDialer(t, bootstrap.Options{Servers: []netip.AddrPort{s.addr}, Now: func() time.Time { return now }})
	for range 3 {
		if got, err := d.LookupNetIP(t.Context(), "Primary.example"); err != nil || len(got) != 1 || got[0].String() != "127.0.0.1" {
			t.Fatalf("got %v %v, want 127.0.0.1", got, err)
		}
	}
	if got := s.asked.Load(); got != 2 {
		t.Errorf("server was asked %d times, want A and AAAA once", got)
	}
	s.stop()
	now = now.Add(time.Hour)
	if got, err := d.LookupNetIP(t.Context(), "primary.example"); err != nil || len(got) != 1 {
		t.Errorf("server gone: got %v %v, want the last address", got, err)
	}
	if _, err := d.LookupNetIP(t.Context(), "other.example"); err == nil {
		t.Error("server gone, a name never seen: got nil, want an error")
	}
}

func TestTheProgramsOwnListenersAreNeverAsked(t *testing.T) {
	s := serveNames(t, map[string][]string{"primary.example.": {"60 IN A 127.0.0.1"}})
	for name, own := range map[string]string{
		"by address": s.addr.String(), "by port": ":" + portOf(s), "by every address": "[::]:" + portOf(s),
	} {
		d := newDialer(t, bootstrap.Options{Servers: []netip.AddrPort{s.addr}, Own: []string{own}})
		_, err := d.LookupNetIP(t.Context(), "primary.example")
		if err == nil || !strings.Contains(err.Error(), "listener of this program") || s.asked.Load() != 0 {
			t.Errorf("%s: got %v and %d questions, want an error and none", name, err, s.asked.Load())
		}
	}
	d := newDialer(t, bootstrap.Options{Servers: []netip.AddrPort{s.addr}, Own: []string{"192.0.2.1:" + portOf(s)}})
	if _, err := d.LookupNetIP(t.Context(), "primary.example"); err != nil {
		t.Errorf("another address with the same port: got %v, want it asked", err)
	}
	if _, err := bootstrap.New(bootstrap.Options{Own: []string{"nonsense"}}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("a listener that is none: got %v, want fleet.ErrInvalid", err)
	}
}

func portOf(s *nameServer) string {
	_, port, _ := net.SplitHostPort(s.addr.String())
	return port
}

func TestASilentServerEndsWithTheCallersContext(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d := newDialer(t, bootstrap.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort(silent.LocalAddr().String())}})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := d.DialContext(ctx, "tcp", "primary.example:80"); err == nil {
		t.Error("got a connection, want an error")
	}
	if took := time.Since(begun); took > 1500*time.Millisecond {
		t.Errorf("took %v, want about 100 ms", took)
	}
}

func TestParseServers(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		bad              bool
	}{
		{"nothing is the system's", " ", "", false},
		{"an address has port 53", "9.9.9.9", "9.9.9.9:53", false},
		{"a list with ports and IPv6", "9.9.9.9:5353, 2620:fe::fe ,[2620:fe::9]:54,[::1]", "9.9.9.9:5353 [2620:fe::fe]:53 [2620:fe::9]:54 [::1]:53", false},
		{"a name is refused", "dns.quad9.net", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			servers, err := bootstrap.ParseServers(c.text)
			var parts []string
			for _, s := range servers {
				parts = append(parts, s.String())
			}
			if got := strings.Join(parts, " "); got != c.want || errors.Is(err, fleet.ErrInvalid) != c.bad {
				t.Errorf("got %q %v, want %q, invalid %v", got, err, c.want, c.bad)
			}
		})
	}
}
