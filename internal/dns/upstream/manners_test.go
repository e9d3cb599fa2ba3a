package upstream_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream"
	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/upstreamtest"
	"dnsfleet/internal/fleet"
)

// unmannered is one way of asking one server.
type unmannered struct {
	name       string
	url        string
	right      bool
	server     *upstreamtest.Server
	strategies []string
}

// alone is the only upstream; by the others an honest one stands beside it.
const alone = "alone"

// TestNoBadMannersOfAnUpstreamReachAClient asks each server alone, and each with an honest one beside it, by every
// strategy, and by Resolve and Start. All are asked at the same time, since many let their clients wait.
func TestNoBadMannersOfAnUpstreamReachAClient(t *testing.T) {
	before := runtime.NumGoroutine()
	ca := upstreamtest.NewAuthority(t)
	targets, servers := unmanneredServers(t, ca)
	if len(targets) < 40 {
		t.Fatalf("got %d servers, want at least 40", len(targets))
	}
	honest := upstreamtest.Start(t, upstreamtest.Manner{})
	servers = append(servers, honest)

	var pools []*upstream.Pool
	var ends []func()
	var clients sync.WaitGroup
	slots := make(chan struct{}, 240)
	ask := func(i int, strategy string, w way) {
		bad := targets[i]
		p := fleet.DefaultPolicy()
		p.Upstreams = []fleet.PolicyUpstream{{Address: bad.url}}
		if strategy != alone {
			p.UpstreamStrategy = strategy
			p.Upstreams = append(p.Upstreams, fleet.PolicyUpstream{Address: honest.UDP()})
		}
		pool := upstream.NewPool(upstream.Options{RootCAs: ca.Pool})
		pools = append(pools, pool)
		if w == starting {
			ends = append(ends, run(t, pool))
		}
		router, unapplied := pool.Use(p, nil)
		if len(unapplied) > 0 {
			t.Fatalf("%s: got unapplied %v", bad.name, unapplied)
		}
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			for again := range 10 { // a busy machine makes honest servers late, too
				name := fmt.Sprintf("n%d.%d.%s.%s.test.", again, i, strategy, w)
				what := fmt.Sprintf("%s, %s, %s", bad.name, strategy, w)
				begun := time.Now()
				query := upstream.NewQuery(dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}, false, false)
				result, err := w.resolve(router, query)
				if took := time.Since(begun); took > upstream.Timeout+2*time.Second {
					t.Errorf("%s: got an end after %v, want within %v", what, took, upstream.Timeout)
				}
				if heard := bad.server.HeardOf(name) + honest.HeardOf(name); heard > 3 {
					t.Errorf("%s: got %d queries, want at most 3", what, heard)
				}
				right := bad.right || strategy != alone
				if right && exchange.Timeout(err) && again < 9 {
					continue
				}
				judge(t, what, right, result, err)
				return
			}
		})
	}
	for i, bad := range targets {
		for _, strategy := range bad.strategies {
			ask(i, strategy, resolving)
			ask(i, strategy, starting)
		}
	}
	clients.Wait()
	for _, end := range ends {
		end()
	}
	for _, p := range pools {
		p.Close()
	}
	for _, s := range servers {
		s.Close()
	}
	eventually(t, "no goroutine more than before", func() bool { return runtime.NumGoroutine() <= before })
}

func unmanneredServers(t *testing.T, ca *upstreamtest.Authority) (targets []unmannered, servers []*upstreamtest.Server) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{ca.Certificate(t, time.Now().Add(time.Hour), "127.0.0.1")}}
	every := []string{alone, "failover", "fastest", "parallel", "balance"}
	start := func(m upstreamtest.Manner) *upstreamtest.Server {
		s := upstreamtest.Start(t, m)
		servers = append(servers, s)
		return s
	}
	for _, m := range upstreamtest.Messages() {
		udp, tcp, dot, doh := start(m), start(m), start(m), start(m)
		targets = append(targets,
			unmannered{m.Name + " over UDP", udp.UDP(), m.Right, udp, every},
			unmannered{m.Name + " over TCP", tcp.TCP(), m.Right, tcp, every[:2]},
			unmannered{m.Name + " over TLS", "tls://" + dot.ServeTLS(t, config), m.Right, dot, every[:1]},
			unmannered{m.Name + " over HTTPS", "https://" + doh.ServeHTTPS(t, config, doh.DoH) + "/dns-query", m.Right, doh, every[:1]},
		)
	}
	for _, m := range upstreamtest.Datagrams() {
		s := start(m)
		targets = append(targets, unmannered{m.Name, s.UDP(), m.Right, s, every})
	}
	for _, m := range upstreamtest.Streams() {
		tcp, dot := start(m), start(m)
		targets = append(targets,
			unmannered{m.Name + ": TCP", tcp.TCP(), m.Right, tcp, every},
			unmannered{m.Name + ": TLS", "tls://" + dot.ServeTLS(t, config), m.Right, dot, every[:2]},
		)
	}
	return targets, servers
}

// judge looks whether a client got the right answer or, where there is none, at least no wrong one.
func judge(t *testing.T, name string, right bool, result upstream.Result, err error) {
	t.Helper()
	if err != nil {
		if right {
			t.Errorf("%s: got %v, want the right answer", name, err)
		}
		return
	}
	packed, err := result.Msg.Pack()
	if err != nil || bytes.Contains(packed, net.ParseIP(upstreamtest.WrongAddress).To4()) || bytes.Contains(packed, []byte(upstreamtest.WrongAddress)) {
		t.Errorf("%s: got a wrong answer, %v:\n%v", name, err, result.Msg)
	}
	good := false
	if len(result.Msg.Answer) > 0 {
		a, ok := result.Msg.Answer[0].(*dns.A)
		good = ok && a.A.Equal(net.ParseIP(upstreamtest.RightAddress))
	}
	if right && !good || !right && result.Msg.Rcode != dns.RcodeServerFailure {
		t.Errorf("%s: got\n%v\nwant the right answer: %v", name, result.Msg, right)
	}
}
