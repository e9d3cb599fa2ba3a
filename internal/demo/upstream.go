package demo

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Upstream is a resolver on loopback that has an answer for every name, the same one each time.
type Upstream struct {
	conn     net.PacketConn
	listener net.Listener
}

// NewUpstream binds an upstream to a free UDP and TCP port of 127.0.0.1; Run serves it.
func NewUpstream(ctx context.Context) (*Upstream, error) {
	var lc net.ListenConfig
	// The port that UDP gets may be taken on TCP: try another one then.
	for range 10 {
		conn, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("bind demo upstream: %w", err)
		}
		listener, err := lc.Listen(ctx, "tcp", conn.LocalAddr().String())
		if err == nil {
			return &Upstream{conn, listener}, nil
		}
		if err := conn.Close(); err != nil {
			return nil, fmt.Errorf("bind demo upstream: %w", err)
		}
	}
	return nil, errors.New("bind demo upstream: no port that is free on UDP and TCP")
}

// Addr is the upstream's host:port.
func (u *Upstream) Addr() string { return u.conn.LocalAddr().String() }

// Run answers until ctx ends.
func (u *Upstream) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, server := range []*dns.Server{{PacketConn: u.conn}, {Listener: u.listener}} {
		server.Handler = dns.HandlerFunc(answer)
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		g.Go(server.ActivateAndServe)
		g.Go(func() error {
			<-started // Shutdown refuses a server that has not started
			<-ctx.Done()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			return server.ShutdownContext(stop)
		})
	}
	return g.Wait()
}

// answer gives a name an address made from its hash. One name in fifty does not exist, one in two hundred fails, and
// some take their time, so that every part of the dashboard has something to show.
func answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		w.WriteMsg(m) //nolint:errcheck // the client will ask again
		return
	}
	question := q.Question[0]
	hash := fnv.New32a()
	hash.Write([]byte(dns.CanonicalName(question.Name)))
	sum := hash.Sum32()
	<-time.After(time.Duration(sum%17) * time.Millisecond)
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: 20 + sum%200}
	switch {
	case sum%200 == 7:
		m.Rcode = dns.RcodeServerFailure
	case sum%50 == 9:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{soa()}
	case question.Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(198, 51, 100, byte(sum))}}
	case question.Qtype == dns.TypeAAAA && sum%2 == 0:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: net.ParseIP(fmt.Sprintf("2001:db8::%x", sum%0xffff))}}
	default:
		m.Ns = []dns.RR{soa()}
	}
	w.WriteMsg(m) //nolint:errcheck // the client will ask again
}

func soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60},
		Ns:  "ns.example.", Mbox: "hostmaster.example.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: 60,
	}
}
