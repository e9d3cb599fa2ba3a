package demo_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/demo"
)

func TestTheUpstreamAnswersEveryNameTheSameOverBothTransports(t *testing.T) {
	up, err := demo.NewUpstream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- up.Run(ctx) }()
	var first string
	for _, network := range []string{"udp", "tcp"} {
		m := new(dns.Msg)
		m.SetQuestion("www.lemon-0.example.", dns.TypeA)
		r, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).ExchangeContext(t.Context(), m, up.Addr())
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		if len(r.Answer) != 1 {
			t.Fatalf("%s: got %v, want one address", network, r)
		}
		if first == "" {
			first = r.Answer[0].String()
		} else if got := r.Answer[0].String(); got != first {
			t.Errorf("%s: got %s, want %s", network, got, first)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v, want nil", err)
	}
}

func TestTrafficAsksForAdsAndForOtherNames(t *testing.T) {
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var ads, others atomic.Int64
	enough := make(chan struct{})
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if strings.HasPrefix(q.Question[0].Name, "ads") {
			ads.Add(1)
		} else {
			others.Add(1)
		}
		if ads.Load()+others.Load() == 200 {
			close(enough)
		}
		m := new(dns.Msg)
		if err := w.WriteMsg(m.SetReply(q)); err != nil {
			t.Error(err)
		}
	})}
	started, served := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { served <- server.ActivateAndServe() }()
	<-started
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- demo.Traffic(ctx, []demo.Target{{Addr: conn.LocalAddr().String(), PerSec: 2000, AdShare: 0.3, Clients: 3}})
	}()
	<-enough
	stop()
	if err := <-done; err != nil {
		t.Errorf("Traffic ended with %v, want nil", err)
	}
	if err := server.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if ads.Load() < 20 || others.Load() < 80 {
		t.Errorf("got %d ads and %d other names, want about 30 %% ads", ads.Load(), others.Load())
	}
}

func TestTheBlockListHoldsTheAds(t *testing.T) {
	var list bytes.Buffer
	if err := demo.WriteBlockList(&list); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(list.String(), "\n0.0.0.0 ads0.tracker.example\n") {
		t.Errorf("the first ad is not in %.200q", list.String())
	}
}
