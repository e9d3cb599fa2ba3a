package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

// errNoEventsReply says that something answered in JSON, but not as a primary does: what it was sent may be lost.
var errNoEventsReply = errors.New("reply does not say that events arrived")

// PostEvents sends a batch of query events, encoded and compressed, which names its instance and may go more than once. No
// error means that a primary keeps it, or has no query log to keep it in. An error that is fleet.ErrInvalid means that no
// primary ever will; any other, that the batch should be sent again, for even a refused token may be mended. Two posts run
// at once, more wait for their turn.
func (c *Client) PostEvents(ctx context.Context, body []byte) (syncapi.EventsReply, error) {
	select {
	case c.events <- struct{}{}:
		defer func() { <-c.events }()
	case <-ctx.Done():
		return syncapi.EventsReply{}, ctx.Err()
	}
	var reply syncapi.EventsReply
	_, err := c.do(ctx, call{
		method: http.MethodPost, path: syncapi.PathEvents, body: body, kind: syncapi.EventsType,
		wait: syncapi.TransferTime(int64(len(body))), limit: maxReply, into: &reply,
		check: func() error {
			if !reply.OK {
				return errNoEventsReply
			}
			return nil
		},
	})
	if err != nil {
		if syncapi.StatusOf(err) == http.StatusRequestEntityTooLarge {
			err = fmt.Errorf("%w: %w", fleet.ErrInvalid, err) // a batch keeps its size, and holds up those behind it
		}
		return syncapi.EventsReply{}, err
	}
	return reply, nil
}

// EventPoster is what an EventSender sends with: a Client.
type EventPoster interface {
	PostEvents(ctx context.Context, body []byte) (syncapi.EventsReply, error)
}

// EventSenderOptions are what NewEventSender needs. Client is required.
type EventSenderOptions struct {
	Client EventPoster
	// OnInterval is told, after each batch, how often the primary wants events, with jitter; nil for nobody.
	OnInterval func(time.Duration)
	Log        *slog.Logger
}

// EventSender sends batches of query events to a primary. It is safe for concurrent use.
type EventSender struct {
	o        EventSenderOptions
	queryLog atomic.Pointer[string]
	off      atomic.Bool // the last answer was that nothing is kept

	sent, discarded, failed atomic.Uint64
}

// EventSenderStats count batches since the sender was made.
type EventSenderStats struct {
	Sent      uint64 // that a primary keeps
	Discarded uint64 // that a primary without a query log threw away
	Failed    uint64 // tries that ended with an error
}

// NewEventSender is a sender that has sent nothing.
func NewEventSender(o EventSenderOptions) *EventSender {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &EventSender{o: o}
}

// Send brings an encoded batch to a primary; its error is that of PostEvents. A primary without a query log is no error:
// then the batch is gone.
func (s *EventSender) Send(ctx context.Context, body []byte) error {
	reply, err := s.o.Client.PostEvents(ctx, body)
	if err != nil {
		s.failed.Add(1)
		return fmt.Errorf("send query events: %w", err)
	}
	if name := cut(reply.QueryLog); name != s.QueryLog() {
		s.queryLog.Store(&name)
	}
	if reply.Stored {
		s.sent.Add(1)
		if s.off.CompareAndSwap(true, false) {
			s.o.Log.InfoContext(ctx, "primary keeps query events again", "query_log", s.QueryLog())
		}
	} else {
		s.discarded.Add(1)
		if s.off.CompareAndSwap(false, true) {
			s.o.Log.WarnContext(ctx, "primary has no query log, query events are thrown away")
		}
	}
	if next := reply.NextEventsSeconds; next > 0 && s.o.OnInterval != nil {
		s.o.OnInterval(jittered(time.Duration(min(next, time.Hour.Seconds()) * float64(time.Second))))
	}
	return nil
}

// QueryLog names the log that keeps the events, as a primary said last; "" before the first answer. See
// fleet.Report.QueryLog.
func (s *EventSender) QueryLog() string {
	if name := s.queryLog.Load(); name != nil {
		return *name
	}
	return ""
}

// Stats tell what became of batches.
func (s *EventSender) Stats() EventSenderStats {
	return EventSenderStats{Sent: s.sent.Load(), Discarded: s.discarded.Load(), Failed: s.failed.Load()}
}
