package demo

import (
	"context"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Target is an instance that gets traffic.
type Target struct {
	Addr    string  // host:port
	PerSec  float64 // mean queries per second
	AdShare float64 // 0–1
	Clients int     // how many clients ask
}

// Traffic asks every target for names until ctx ends. A target that does not answer gets on being asked.
func Traffic(ctx context.Context, targets []Target) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, target := range targets {
		for c := range max(target.Clients, 1) {
			g.Go(func() error {
				return ask(ctx, target, uint64(i*1000+c+1), net.IPv4(127, 0, byte(i+1), byte(c+1)))
			})
		}
	}
	return g.Wait()
}

// ask is one client, with a loopback address of its own where the system has them.
func ask(ctx context.Context, target Target, seed uint64, from net.IP) error {
	names := newChooser(seed, target.AdShare)
	client := &dns.Client{Timeout: 2 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: from}, Timeout: 2 * time.Second}}
	if conn, err := client.Dialer.DialContext(ctx, "udp", target.Addr); err != nil {
		client.Dialer.LocalAddr = nil
	} else if err := conn.Close(); err != nil {
		return fmt.Errorf("close probe: %w", err)
	}
	mean := float64(time.Second) * float64(max(target.Clients, 1)) / target.PerSec
	for {
		// People come and go: a slow wave over a few minutes on top of exponential gaps.
		wave := 1 + 0.4*math.Sin(float64(time.Now().UnixMilli())/60_000+float64(seed%7))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(names.rng.ExpFloat64() * mean / wave)):
		}
		query := new(dns.Msg)
		query.SetQuestion(names.next(), dns.TypeA)
		if names.rng.IntN(4) == 0 {
			query.Question[0].Qtype = dns.TypeAAAA
		}
		query.SetEdns0(1232, false)
		// A query without an answer is part of the demo: the instance may have been stopped on purpose.
		client.ExchangeContext(ctx, query, target.Addr) //nolint:errcheck // see above
	}
}
