package dns

import (
	"context"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/packet"
	"dnsfleet/internal/dns/upstream/wire"
)

// patience is how long a client waits for upstreams when there is an expired answer to give instead (RFC 8767,
// section 5: the client response timer).
const patience = 1800 * time.Millisecond

// flown is what a flight brought. All who waited share it, and change nothing of it.
type flown struct {
	answer []byte       // as the upstream gave it, without OPT; nil on an error or when entry tells
	entry  *cache.Entry // what is kept of it; nil when nothing is
	found  bool         // entry was there already, or another instance had it: no upstream was asked
	from   string       // the upstream's address
	err    error
	burst  bool // others may land right after it, and the outbox is flushed then
}

// failed reports whether a stale answer is better.
func (f *flown) failed() bool {
	switch {
	case f.err != nil:
		return true
	case f.entry != nil:
		return f.entry.RCode() == dns.RcodeServerFailure
	}
	return f.answer[3]&0xF == dns.RcodeServerFailure
}

// size is how long the answer is.
func (f *flown) size() int {
	if f.entry != nil {
		return f.entry.Size()
	}
	return len(f.answer)
}

// appendAnswer appends the whole answer, as cache.Entry.AppendAnswer does.
func (f *flown) appendAnswer(dst []byte, now time.Time) []byte {
	if f.entry != nil {
		return f.entry.AppendAnswer(dst, now)
	}
	return append(dst, f.answer...)
}

// waiter is somebody who waits for a flight.
type waiter interface{ Land(f *flown) }

// fly lets w wait for the answer to a question, and asks for it unless somebody has done so already. It does not block.
// What the question's name lies in may change afterwards.
func (e *Engine) fly(st *state, q cache.Question, w waiter) { e.depart(st, q, w, false) }

// refresh asks for an answer anew that is still fresh. landed may be nil.
func (e *Engine) refresh(st *state, q cache.Question, w waiter) { e.depart(st, q, w, true) }

func (e *Engine) depart(st *state, q cache.Question, w waiter, anew bool) {
	var buf [260]byte
	key := appendKey(buf[:0], q)
	if !e.flights.Join(key, w) {
		return
	}
	f := &journey{engine: e, state: st, anew: anew}
	f.key = append(f.room[:0], key...)
	f.question = cache.Question{Name: f.key[:len(q.Name)], Type: q.Type, DO: q.DO, CD: q.CD}
	if e.opts.SharedCache != nil && !anew && !e.opts.SharedCache.Stats().Open {
		go f.byShared()
		return
	}
	f.byUpstream()
}

func appendKey(dst []byte, q cache.Question) []byte {
	flags := byte(0)
	if q.DO {
		flags |= 1
	}
	if q.CD {
		flags |= 2
	}
	return append(append(dst, q.Name...), byte(q.Type>>8), byte(q.Type), flags)
}

// journey is a flight from the side of who asks.
type journey struct {
	engine   *Engine
	state    *state
	key      []byte         // in room, if it fits
	room     [64]byte       // what most names fit in
	question cache.Question // its name lies in key
	anew     bool           // even if it is in the cache
}

func (f *journey) land(got *flown) { f.engine.flights.Land(f.key, got) }

// byUpstream asks the upstreams. It looks into the cache again, since the flight before may have ended after the caller had
// looked.
func (f *journey) byUpstream() {
	e := f.engine
	if entry, state := e.cache.Find(f.question, e.opts.Now()); state == cache.Fresh && !f.anew {
		f.land(&flown{entry: entry, found: true})
		return
	}
	var buf [300]byte
	query := wire.AppendQuery(buf[:0], f.question.Name, f.question.Type, dns.ClassINET, f.question.DO, f.question.CD)
	f.state.upstreams.Start(query, f.arrived)
}

// arrived takes what an upstream has answered.
func (f *journey) arrived(answer []byte, from string, err error) {
	got := &flown{from: from, err: err, burst: true}
	if err == nil {
		got.answer = packet.CutOPT(answer)
		f.keep(got)
	}
	f.land(got)
}

// keep takes an answer into the cache, unless the policy has moved to other upstreams meanwhile.
func (f *journey) keep(got *flown) {
	e := f.engine
	defer func() {
		if p := recover(); p != nil { // the thread goes on with others' answers
			e.panicked(p, f.question.Type)
			got.err = fmt.Errorf("panic: %v", p)
		}
	}()
	if e.state.Load().upstreams != f.state.upstreams {
		return
	}
	if entry, kept := e.cache.Insert(f.question, got.answer, e.opts.Now()); kept {
		got.entry = entry
		e.share(f.question, entry)
	}
}

// share lets other instances have an answer. Failures are not for others: they may have a better way to the upstreams.
func (e *Engine) share(q cache.Question, entry *cache.Entry) {
	if e.opts.SharedCache == nil || entry.RCode() == dns.RcodeServerFailure {
		return
	}
	now := e.opts.Now()
	e.opts.SharedCache.Put(q, entry.AppendAnswer(nil, now), entry.TTL(now))
}

// headStart is how long another instance's answer is waited for before upstreams are asked as well.
const headStart = time.Millisecond

// byShared asks the cache that instances share, and the upstreams as well when that one has nothing or takes long: no
// answer is slower for it than upstreams are.
func (f *journey) byShared() {
	found := make(chan *cache.Entry, 1)
	go func() { found <- f.shared() }()
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	select {
	case entry := <-found:
		if entry != nil {
			f.land(&flown{entry: entry, found: true})
			return
		}
	case <-timer.C:
	}
	f.byUpstream()
}

// shared takes an answer that another instance has put into the shared cache into this one; nil if there is none.
func (f *journey) shared() *cache.Entry {
	e := f.engine
	answer, _, ok := e.opts.SharedCache.Get(context.Background(), f.question)
	if !ok || e.state.Load().upstreams != f.state.upstreams {
		return nil
	}
	entry, _ := e.cache.Insert(f.question, answer, e.opts.Now())
	return entry
}
