package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/wire"
)

const (
	probeTick = time.Second
	maxProbes = 8 // at once
)

// probe asks a member that is out whether it is back: for the root's name servers, which every resolver knows. Nobody
// but the member is told. One that went out silently is back when it answers at all, since a server of one zone may
// refuse the question; one that went out for what it answered must answer well.
func (m *member) probe(ctx context.Context, now time.Time) {
	query := wire.AppendQuery(nil, []byte{0}, 2, 1, false, false)
	answer, err := m.exchanger.Exchange(ctx, exchange.Query{Wire: query, Deadline: time.Now().Add(tryTimeout), Budget: exchange.NewBudget(2)})
	m.mu.Lock()
	refuses := m.refuses
	m.mu.Unlock()
	if err == nil && (usable(answer.RCode) || !refuses) {
		m.recover()
		return
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := min(probeTick<<min(max(m.failures-outAfter, 0), 8), maxRest)
	m.failures++
	m.nextProbe = now.Add(rest + time.Duration(rand.Int64N(int64(rest)/4))) //nolint:gosec // jitter
	if err != nil {
		m.lastErr = err
	}
}

// due reports whether a member is out and to be probed now.
func (m *member) due(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failures >= outAfter && !now.Before(m.nextProbe)
}

// probeAll probes those that are due, and returns when all have answered or not.
func probeAll(ctx context.Context, members []*member, now time.Time) {
	var probes sync.WaitGroup
	slots := make(chan struct{}, maxProbes)
	for _, m := range members {
		if !m.due(now) {
			continue
		}
		slots <- struct{}{}
		probes.Go(func() {
			defer func() { <-slots }()
			m.probe(ctx, now)
		})
	}
	probes.Wait()
}
