package syncapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// receiveStats answers POST /sync/stats: one report, stored once, before it is acknowledged.
func (s *Server) receiveStats(w http.ResponseWriter, r *http.Request) {
	select {
	case s.pushes <- struct{}{}:
		defer func() { <-s.pushes }()
	default:
		s.counts.shed.Add(1)
		s.busy(w, "too many pushes at once")
		return
	}
	var report fleet.Report
	err := s.withBody(w, r, func(body []byte) (err error) {
		report, err = decodeReport(body)
		s.counts.bodyBytes.Add(uint64(len(body)))
		return err
	})
	who := callerFrom(r.Context())
	if err == nil && report.InstanceID != who.instance {
		err = fmt.Errorf("%w: instance_id is not that of %s", fleet.ErrNotYours, InstanceHeader)
	}
	if err != nil {
		s.refusePush(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	saved, err := s.store.SaveReport(ctx, report, fleet.RoleReplica, who.tokenID)
	if err != nil {
		s.refusePush(w, r, err)
		return
	}
	s.countPush(saved, len(report.Slices))
	if s.down.CompareAndSwap(true, false) {
		s.log.InfoContext(ctx, "store is available to the sync api again")
	}
	httpjson.Write(w, http.StatusOK, pushReply(saved, s.nextPush(report)))
}

func pushReply(saved fleet.Saved, next float64) PushReply {
	return PushReply{
		OK: true, Result: saved.Result, ServerTime: saved.Time.UTC(), NextPushSeconds: next,
		SlicesStored: append([]fleet.SlicesUntil{}, saved.SlicesUntil...), Commands: []json.RawMessage{},
	}
}

// nextPush is the sender's own interval, half as long again while most slots are taken. More would make the sender look
// stale: that is two intervals and some seconds.
func (s *Server) nextPush(r fleet.Report) float64 {
	if 4*len(s.pushes) > 3*cap(s.pushes) {
		return 1.5 * r.IntervalSeconds
	}
	return r.IntervalSeconds
}

// refusePush answers a push that was not stored.
func (s *Server) refusePush(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, fleet.ErrUnavailable):
		s.counts.unavailable.Add(1)
	default:
		s.counts.refused.Add(1)
	}
	switch {
	case errors.Is(err, errBodyTooLarge):
		s.refuse(w, r, http.StatusRequestEntityTooLarge, err.Error())
	case errors.Is(err, errContentCoding):
		w.Header().Set("Accept-Encoding", "zstd, gzip, identity")
		s.refuse(w, r, http.StatusUnsupportedMediaType, err.Error())
	case errors.Is(err, errBodyUnreadable):
		s.refuse(w, r, http.StatusBadRequest, errBodyUnreadable.Error())
	case errors.Is(err, fleet.ErrFutureReport):
		s.refuseFuture(w, r)
	case errors.Is(err, fleet.ErrForgotten):
		s.refuse(w, r, http.StatusGone, fleet.ErrForgotten.Error())
	default:
		s.fail(w, r, err)
	}
}

// refuseFuture tells the sender the time, so that its next report is right.
func (s *Server) refuseFuture(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	now, err := s.store.Now(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.refuseWith(w, r, http.StatusBadRequest, ErrorReply{Error: fleet.ErrFutureReport.Error(), ServerTime: now.UTC()})
}

func (s *Server) countPush(saved fleet.Saved, slices int) {
	s.counts.slices.Add(uint64(slices))
	switch saved.Result {
	case fleet.Stored:
		s.counts.stored.Add(1)
	case fleet.Duplicate:
		s.counts.duplicate.Add(1)
	case fleet.Older:
		s.counts.older.Add(1)
	case fleet.EndedBoot:
		s.counts.ended.Add(1)
	}
}

// decodeReport reads a report that is valid, with no list nil and all times in UTC.
func decodeReport(body []byte) (fleet.Report, error) {
	var r fleet.Report
	if err := httpjson.ReadTolerant(bytes.NewReader(body), &r); err != nil {
		// A later protocol may well have another shape; its number says more than where the shapes differ.
		var version struct {
			Protocol int `json:"protocol"`
		}
		if json.Unmarshal(body, &version) == nil && version.Protocol > fleet.Protocol {
			return r, fleet.Report{Protocol: version.Protocol}.Validate()
		}
		return r, err
	}
	if err := r.Validate(); err != nil {
		return r, err
	}
	return r, normalize(&r)
}

// normalize makes a valid report one that every store keeps alike. It refuses times that JSON cannot hold in UTC.
func normalize(r *fleet.Report) error {
	times := []*time.Time{&r.StartedAt, &r.SentAt}
	if swept := r.CacheRefresh.LastSweepTime; swept != nil {
		times = append(times, swept)
	}
	for i := range r.Blocklist.Lists {
		times = append(times, &r.Blocklist.Lists[i].UpdatedAt, &r.Blocklist.Lists[i].CheckedAt)
	}
	for i := range r.Slices {
		times = append(times, &r.Slices[i].Start)
		r.Slices[i].Upstreams = notNil(r.Slices[i].Upstreams)
		r.Slices[i].Normalize()
	}
	if r.LastHour != nil {
		times = append(times, &r.LastHour.From)
		r.LastHour.Normalize()
	}
	for _, t := range times {
		*t = t.UTC()
		if t.Year() < 1 || t.Year() > 9999 {
			return fmt.Errorf("%w: times must lie in the years 1 to 9999", fleet.ErrInvalid)
		}
	}
	r.PolicyUnapplied, r.Upstreams = notNil(r.PolicyUnapplied), notNil(r.Upstreams)
	r.Blocklist.Lists, r.Slices, r.Acks = notNil(r.Blocklist.Lists), notNil(r.Slices), notNil(r.Acks)
	return nil
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
