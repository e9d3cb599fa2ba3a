package syncapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// EventStore is the query log of a primary. It may be called concurrently.
type EventStore interface {
	// StoreEvents returns nil once the batch in body is committed to the query log or synced to disk on its way there; a
	// batch that it has already is no error. body is its only until it returns. fleet.ErrInvalid says that body can never
	// be stored, fleet.ErrNotYours that it is a batch of another instance; any other error, fleet.ErrUnavailable foremost,
	// that it may be sent again.
	StoreEvents(ctx context.Context, instanceID string, body []byte) error
	// QueryLog names the log that keeps the events; see fleet.Report.QueryLog.
	QueryLog() string
}

// noQueryLog is what a primary without a query log names as such.
const noQueryLog = "off"

type eventCounts struct {
	stored, discarded, refused, unavailable, shed, bytes atomic.Uint64
}

func (c *eventCounts) byResult() map[string]uint64 {
	return map[string]uint64{
		"stored": c.stored.Load(), "discarded": c.discarded.Load(), "refused": c.refused.Load(),
		"unavailable": c.unavailable.Load(), "shed": c.shed.Load(),
	}
}

// receiveEvents answers POST /sync/events: one batch, kept before it is acknowledged.
func (s *Server) receiveEvents(w http.ResponseWriter, r *http.Request) {
	who := callerFrom(r.Context())
	s.senders.saw(who.instance)
	select {
	case s.batches <- struct{}{}:
		defer func() { <-s.batches }()
	default:
		s.counts.events.shed.Add(1)
		s.busy(w, "too many batches of events at once")
		return
	}
	if s.events == nil {
		s.discardEvents(w, r)
		return
	}
	body, err := receiveBatch(w, r)
	if err != nil {
		s.refuseEvents(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), eventsTimeout)
	defer cancel()
	if err := s.events.StoreEvents(ctx, who.instance, body); err != nil {
		s.refuseEvents(w, r, err)
		return
	}
	s.counts.events.stored.Add(1)
	s.counts.events.bytes.Add(uint64(len(body)))
	if s.logDown.CompareAndSwap(true, false) {
		s.log.InfoContext(ctx, "query log takes events of replicas again")
	}
	httpjson.Write(w, http.StatusOK, EventsReply{
		OK: true, Stored: true, QueryLog: s.events.QueryLog(), NextEventsSeconds: s.senders.interval().Seconds(),
	})
}

func receiveBatch(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if coding := strings.TrimSpace(r.Header.Get("Content-Encoding")); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, errContentCoding
	}
	return receive(w, r, MaxEventsBody, bodyTimeout+TransferTime(r.ContentLength))
}

// discardEvents reads a batch to its end, so that the sender's connection stays, and says that nothing is kept of it.
func (s *Server) discardEvents(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout + TransferTime(r.ContentLength)))
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, MaxEventsBody)); err != nil {
		s.refuseEvents(w, r, bodyError(err))
		return
	}
	s.counts.events.discarded.Add(1)
	httpjson.Write(w, http.StatusOK, EventsReply{OK: true, QueryLog: noQueryLog, NextEventsSeconds: maxEventsInterval.Seconds()})
}

// refuseEvents answers a batch that was not kept.
func (s *Server) refuseEvents(w http.ResponseWriter, r *http.Request, err error) {
	status, sentence := http.StatusServiceUnavailable, "the query log takes no events now"
	switch {
	case errors.Is(err, errBodyTooLarge):
		status, sentence = http.StatusRequestEntityTooLarge, "a batch of events must have at most "+strconv.Itoa(MaxEventsBody)+" bytes"
	case errors.Is(err, errContentCoding):
		w.Header().Set("Accept-Encoding", "identity")
		status, sentence = http.StatusUnsupportedMediaType, "a batch of events has no content-encoding: it is compressed in itself"
	case errors.Is(err, errBodyUnreadable):
		// Not a 400, which would say that the batch is at fault.
		status, sentence = http.StatusRequestTimeout, errBodyUnreadable.Error()
	case errors.Is(err, fleet.ErrInvalid), errors.Is(err, fleet.ErrNotYours), errors.Is(err, fleet.ErrForgotten):
		status, sentence = httpjson.Status(err), httpjson.Sentence(err)
	}
	if status != http.StatusServiceUnavailable {
		s.counts.events.refused.Add(1)
		s.refuse(w, r, status, sentence)
		return
	}
	s.counts.events.unavailable.Add(1)
	if r.Context().Err() == nil && s.logDown.CompareAndSwap(false, true) { // a sender that hung up is no fault of the log
		s.log.WarnContext(r.Context(), "query log takes no events of replicas", "err", err)
	}
	s.busy(w, sentence)
}
