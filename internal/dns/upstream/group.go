package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/wire"
)

// group is the upstreams of one policy, or of one domain of it.
type group struct {
	strategy string
	members  []*member
	credit   atomic.Int32 // for hedging
	pool     *Pool
}

// attempt is how one exchange ended.
type attempt struct {
	member *member
	answer wire.Answer
	msg    *dns.Msg // what readFunc read
	err    error
}

// readFunc reads an answer, of which no more is known than that it is whole.
type readFunc func(answer []byte) (*dns.Msg, error)

func (a attempt) good() bool { return a.err == nil && a.answer.RCode != dns.RcodeServerFailure }

// outcome gathers the attempts of one query.
type outcome struct {
	failed attempt // a SERVFAIL, if member is not nil
	errs   []error
}

func (o *outcome) add(a attempt) {
	if a.err != nil {
		o.errs = append(o.errs, fmt.Errorf("%s: %w", a.member.address, a.err))
	} else {
		o.failed = a
	}
}

// end is what nobody knew better than.
func (o *outcome) end() (attempt, error) {
	if o.failed.member != nil {
		return o.failed, nil
	}
	return attempt{}, fmt.Errorf("%w: %w", ErrNoAnswer, errors.Join(o.errs...))
}

// ask asks until one upstream gives a good answer. SERVFAIL is passed on only if nobody knows better.
func (g *group) ask(ctx context.Context, query []byte, read readFunc) (attempt, error) {
	a := &asking{read: read}
	if !g.inOrder() {
		query = bytes.Clone(query) // whoever loses the race still has it when the caller has not
	}
	if err := a.prepare(g, query); err != nil {
		return attempt{}, err
	}
	if given, ok := ctx.Deadline(); ok && given.Before(a.deadline) {
		a.deadline = given
	}
	return a.run(ctx)
}
