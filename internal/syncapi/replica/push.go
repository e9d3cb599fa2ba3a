package replica

import (
	"context"
	"errors"
	"net/http"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

// pushInTime pushes, and once more at once if the clock was the reason for a refusal: by then it is right.
func (r *Reporter) pushInTime(ctx context.Context) (reply syncapi.PushReply, more bool, err error) {
	reply, more, err = r.push(ctx)
	if errors.Is(err, fleet.ErrFutureReport) {
		reply, more, err = r.push(ctx)
	}
	return reply, more, err
}

// push makes one attempt, and draws from its outcome what the next one should know. It reports whether more slices wait.
func (r *Reporter) push(ctx context.Context) (reply syncapi.PushReply, more bool, err error) {
	slices := []fleet.Slice{}
	bare := r.bare
	if !bare {
		slices = notNil(r.o.Source.Pending(r.budget))
	}
	reply, err = r.o.Sender.Push(ctx, r.report(slices))
	r.count(len(slices), err)
	if err != nil {
		r.adapt(err, len(slices) > 0)
		return reply, false, err
	}
	r.bare = false
	r.learnTime(reply.ServerTime, reply.Latency)
	r.o.Source.Sent(slices, reply.SlicesStored)
	return reply, !bare && r.moreThan(slices), nil
}

func (r *Reporter) report(slices []fleet.Slice) fleet.Report {
	report := r.o.Report()
	r.seq++
	report.Protocol, report.Seq = fleet.Protocol, r.seq
	report.SentAt = r.o.Source.Now().Add(-r.ahead).UTC()
	report.IntervalSeconds = r.o.Interval.Seconds()
	report.Slices = slices
	if skew := r.Stats().ClockSkew; skew != nil {
		report.ClockSkew = new(skew.Seconds())
	}
	report.PolicyUnapplied, report.Upstreams = notNil(report.PolicyUnapplied), notNil(report.Upstreams)
	report.Blocklist.Lists, report.Acks = notNil(report.Blocklist.Lists), notNil(report.Acks)
	return report
}

// adapt draws from a refusal what a retry should do differently.
func (r *Reporter) adapt(err error, withSlices bool) {
	r.bare = false
	var future *syncapi.FutureError
	switch {
	case errors.As(err, &future):
		r.learnTime(future.ServerTime, future.Latency)
	case syncapi.StatusOf(err) == http.StatusRequestEntityTooLarge:
		r.budget = max(r.budget/2, minSliceBytes) // for good: what stands between does not change often
	case errors.Is(err, fleet.ErrInvalid):
		r.bare = withSlices // one bad slice must not silence the instance
	}
}

// learnTime draws the clocks' offset from the server's time, which was read latency ago.
func (r *Reporter) learnTime(server time.Time, latency time.Duration) {
	if server.IsZero() {
		return
	}
	server = server.Add(latency)
	skew := r.o.Wall().Sub(server)
	r.mu.Lock()
	r.stats.ClockSkew = &skew
	r.mu.Unlock()
	r.o.Source.Correct(server.Sub(r.o.Source.Now()))
	// A Source that has handed out slices keeps its clock. Its reports must get through all the same.
	r.ahead = 0
	if left := r.o.Source.Now().Sub(server); left > fleet.MaxFuture/2 {
		r.ahead = left
	}
}

// moreThan reports whether slices wait that a push at once would bring nearer to the store. One that has just been sent
// and waits again would not.
func (r *Reporter) moreThan(sent []fleet.Slice) bool {
	next := r.o.Source.Pending(r.budget)
	if len(next) == 0 || len(sent) == 0 {
		return len(next) > 0
	}
	a, b := next[0], sent[0]
	return a.BootID != b.BootID || a.Size != b.Size || !a.Start.Equal(b.Start)
}

func (r *Reporter) count(slices int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.stats.Failures++
		return
	}
	r.stats.Pushes++
	r.stats.Slices += uint64(slices)
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
