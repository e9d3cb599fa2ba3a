package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/address"
	"dnsfleet/internal/dns/upstream/exchange"
	"dnsfleet/internal/dns/upstream/loop"
	"dnsfleet/internal/dns/upstream/wire"
	"dnsfleet/internal/fleet"
)

const (
	// tryTimeout is how long one upstream has for one exchange.
	tryTimeout = 1500 * time.Millisecond
	// A failed upstream is asked last for firstRest, doubling with each further failure up to maxRest.
	firstRest = 2 * time.Second
	maxRest   = 30 * time.Second
	// outAfter is how many failures in a row take an upstream out until a probe finds it answering.
	outAfter = 3
	// plainTime is how long a server is asked without EDNS that does not understand it.
	plainTime = 15 * time.Minute
)

// errRCode says that an upstream answered, but nothing about the question.
var errRCode = errors.New("answers")

// member is one upstream and how it does. It is shared by all policies that name it.
type member struct {
	address   string
	exchanger exchange.Exchanger
	udp       *exchange.UDP  // the exchanger, if it is one
	era       *atomic.Uint64 // counts all that come back

	latency    atomic.Uint64 // float64 bits: smoothed, in milliseconds; 0 = not known
	faults     atomic.Uint64 // float64 bits: smoothed share of exchanges that failed
	lastOK     atomic.Int64  // Unix nanoseconds
	restUntil  atomic.Int64  // Unix nanoseconds; 0 = it does well
	plainUntil atomic.Int64  // Unix nanoseconds: no EDNS before

	mu        sync.Mutex // guards the following
	failures  int        // in a row
	refuses   bool       // the last failure was an answer
	lastErr   error
	nextProbe time.Time
}

func newMember(u fleet.PolicyUpstream, a address.Address, o Options, era *atomic.Uint64, l *loop.Loop) *member {
	target := exchange.Target{Host: a.Host, Port: a.Port, Bootstrap: u.Bootstrap, Dial: exchange.DialFunc(o.Dial)}
	m := &member{address: u.Address, era: era}
	switch a.Scheme {
	case "tcp":
		m.exchanger = exchange.NewStream(target, nil)
	case "tls":
		m.exchanger = exchange.NewStream(target, tlsConfig(a, o))
	case "https":
		m.exchanger = exchange.NewHTTPS(target, "https://"+net.JoinHostPort(a.Host, a.Port)+a.Path, tlsConfig(a, o))
	default:
		m.udp = exchange.NewUDP(target, l)
		m.exchanger = m.udp
	}
	return m
}

func tlsConfig(a address.Address, o Options) *tls.Config {
	return &tls.Config{
		ServerName: a.Name, RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
}

// key tells members apart.
func key(u fleet.PolicyUpstream) string { return u.Address + "\n" + strings.Join(u.Bootstrap, "\n") }

// try makes one exchange, and judges it.
func (m *member) try(ctx context.Context, q exchange.Query, o *Options, read readFunc) attempt {
	begun := time.Now()
	q, edns := m.withEDNS(q, o)
	answer, err := m.exchanger.Exchange(ctx, q)
	answer, err = m.withoutEDNS(ctx, q, o, edns, answer, err)
	return m.judge(ctx, begun, answer, err, o, read)
}

// judge notes how an exchange went that began then. An answer that says nothing about the question (REFUSED, FORMERR,
// NOTIMP) is an error, and so is what read, unless it is nil, cannot read.
func (m *member) judge(ctx context.Context, begun time.Time, answer wire.Answer, err error, o *Options, read readFunc) attempt {
	a := attempt{member: m, answer: answer, err: err}
	if a.err == nil && !usable(a.answer.RCode) {
		a.err = fmt.Errorf("%w %s", errRCode, dns.RcodeToString[a.answer.RCode])
	}
	if a.err == nil && read != nil {
		a.msg, a.err = read(a.answer.Wire)
	}
	if a.err != nil && (errors.Is(ctx.Err(), context.Canceled) || errors.Is(a.err, exchange.ErrBudget) || errors.Is(a.err, exchange.ErrBusy) || errors.Is(a.err, loop.ErrClosed)) {
		return a // we stopped: no fault of the upstream
	}
	now := o.Now()
	took := time.Since(begun)
	if o.Observer != nil {
		o.Observer.ObserveExchange(m.address, took, !a.good())
	}
	m.note(a.err, took, now)
	return a
}

// withEDNS is the query as it is sent first, and whether that is with EDNS: not to a server that lately did not
// understand it.
func (m *member) withEDNS(q exchange.Query, o *Options) (exchange.Query, bool) {
	edns := wire.HasOPT(q.Wire)
	if until := m.plainUntil.Load(); edns && until != 0 && o.Now().UnixNano() < until {
		q.Wire, edns = wire.WithoutOPT(q.Wire), false
	}
	return q, edns
}

// understood is false for the answer of a server that may be from before EDNS (RFC 6891, section 7).
func understood(a wire.Answer) bool {
	return a.RCode != dns.RcodeFormatError && a.RCode != dns.RcodeNotImplemented
}

// withoutEDNS asks again without EDNS whoever did not understand the query that was sent with it.
func (m *member) withoutEDNS(ctx context.Context, q exchange.Query, o *Options, edns bool, answer wire.Answer, err error) (wire.Answer, error) {
	if err != nil || !edns || understood(answer) {
		return answer, err
	}
	q.Wire = wire.WithoutOPT(q.Wire)
	plain, err := m.exchanger.Exchange(ctx, q)
	if err != nil || !usable(plain.RCode) {
		return answer, nil //nolint:nilerr // it was not for EDNS: the first answer tells more
	}
	m.plainUntil.Store(o.Now().Add(plainTime).UnixNano())
	return plain, nil
}

// usable reports whether an answer with the rcode says something about the question, not only about the server.
func usable(rcode int) bool {
	switch rcode {
	case dns.RcodeSuccess, dns.RcodeNameError, dns.RcodeServerFailure, dns.RcodeYXDomain:
		return true
	}
	return false
}

// note remembers how an exchange went. A failure counts as a slow answer, too.
func (m *member) note(err error, took time.Duration, now time.Time) {
	ms := float64(took) / float64(time.Millisecond)
	if err != nil {
		m.lasted(max(ms, min(2*load(&m.latency), 3000), 300))
		smooth(&m.faults, 1)
		m.failed(err, now)
		return
	}
	m.lasted(ms)
	smooth(&m.faults, 0)
	m.lastOK.Store(now.UnixNano())
	if m.restUntil.Load() != 0 {
		m.recover()
	}
}

// lasted takes a latency in milliseconds into the average; the first one is the average.
func (m *member) lasted(ms float64) {
	if m.latency.CompareAndSwap(0, math.Float64bits(ms)) {
		return
	}
	smooth(&m.latency, ms)
}

func (m *member) failed(err error, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restUntil.Store(now.Add(min(firstRest<<min(m.failures, 8), maxRest)).UnixNano())
	m.failures++
	m.lastErr = err
	m.refuses = errors.Is(err, errRCode)
}

func (m *member) recover() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restUntil.Store(0)
	m.failures, m.lastErr, m.refuses = 0, nil, false
	m.era.Add(1)
}

// rests returns until when a member is to be asked last, in Unix nanoseconds, 0 if it is not. One that is out rests until
// it has answered.
func (m *member) rests(now time.Time) int64 {
	until := m.restUntil.Load()
	if until == 0 {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failures >= outAfter {
		return math.MaxInt64
	}
	if until <= now.UnixNano() {
		return 0
	}
	return until
}

func (m *member) state(now time.Time) State {
	s := State{Address: m.address, Healthy: m.rests(now) == 0, LatencyMS: math.Round(load(&m.latency)*1000) / 1000}
	if ok := m.lastOK.Load(); ok != 0 {
		s.LastOK = time.Unix(0, ok)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Failures = m.failures
	if m.lastErr != nil {
		s.LastError = m.lastErr.Error()
	}
	return s
}

func load(a *atomic.Uint64) float64 { return math.Float64frombits(a.Load()) }

// smooth takes a sample into an average that forgets. A sample that is lost to another core does not matter.
func smooth(a *atomic.Uint64, sample float64) {
	before := load(a)
	a.Store(math.Float64bits(before + 0.15*(sample-before)))
}
