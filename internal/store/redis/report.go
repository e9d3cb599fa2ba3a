package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// SaveReport is part of store.Store. It is one script on keys of one slot.
func (s *Store) SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error) {
	operation := "save report of " + strconv.Quote(r.InstanceID)
	if err := store.CheckIDs(r); err != nil {
		return fleet.Saved{}, fmt.Errorf("%s: %w", operation, err)
	}
	args, err := s.reportArgs(r, role, tokenID)
	if err != nil {
		return fleet.Saved{}, fmt.Errorf("%s: %w", operation, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := s.saveReport.Run(ctx, s.client, s.keys.all(r.InstanceID), args...).StringSlice()
	if err != nil {
		return fleet.Saved{}, wrap(err, operation)
	}
	saved, err := readSaved(reply)
	if err != nil {
		return fleet.Saved{}, fmt.Errorf("%s: %w", operation, err)
	}
	s.publish(ctx, hintInstance+r.InstanceID)
	return saved, nil
}

// reportArgs are the arguments of save_report.lua, in its order.
func (s *Store) reportArgs(r fleet.Report, role fleet.Role, tokenID string) ([]any, error) {
	dns := "0"
	if r.AnswersDNS() {
		dns = "1"
	}
	seconds := func(d time.Duration) int64 { return int64(d / time.Second) }
	args := []any{
		r.InstanceID, r.BootID, r.Seq, inMS(r.SentAt), fleet.MaxFuture.Milliseconds(),
		string(role), tokenID, r.Name, dns, s.opt.StatsTTL.Milliseconds(), s.scriptChannel(),
	}
	for _, size := range fleet.Sizes() {
		args = append(args, seconds(s.opt.Keep(size)))
	}
	args = append(args, seconds(store.SliceAhead), seconds(store.MinutesBack), seconds(store.MinutesAhead),
		store.BootsKept, store.BootsMax, seconds(fleet.Hour.Keep()), uint64(store.MaxExact))

	args = append(args, fleet.NumOutcomes)
	for i, n := range r.ResponseDistribution.Outcomes {
		args = append(args, fleet.Outcome(i).String(), min(n, store.MaxExact))
	}
	fields, err := encodeReport(r)
	if err != nil {
		return nil, err
	}
	args = append(args, len(fields)/2)
	args = append(args, fields...)

	args = append(args, len(r.Slices))
	for _, slice := range store.SortSlices(r.Slices) {
		body, err := s.codec.Encode(slice)
		if err != nil {
			return nil, err
		}
		args = append(args, slices.Index(fleet.Sizes(), slice.Size)+1, slice.Start.Unix(), slice.BootID, body)
	}
	return args, nil
}

func readSaved(reply []string) (fleet.Saved, error) {
	if len(reply) < 2 || len(reply)%3 != 2 {
		return fleet.Saved{}, errNoReply
	}
	switch reply[0] {
	case "future":
		return fleet.Saved{}, fleet.ErrFutureReport
	case "forgotten":
		return fleet.Saved{}, fleet.ErrForgotten
	case "not_yours":
		return fleet.Saved{}, fleet.ErrNotYours
	}
	now, err := strconv.ParseInt(reply[1], 10, 64)
	if err != nil {
		return fleet.Saved{}, errNoReply
	}
	saved := fleet.Saved{Result: fleet.SaveResult(reply[0]), Time: fromMS(now), SlicesUntil: []fleet.SlicesUntil{}}
	for part := range slices.Chunk(reply[2:], 3) {
		size, err := strconv.Atoi(part[0])
		until, err2 := strconv.ParseInt(part[2], 10, 64)
		if err != nil || err2 != nil || size < 1 || size > len(fleet.Sizes()) {
			return fleet.Saved{}, errNoReply
		}
		saved.SlicesUntil = append(saved.SlicesUntil,
			fleet.SlicesUntil{BootID: part[1], Size: fleet.Sizes()[size-1], Until: time.Unix(until, 0).UTC()})
	}
	slices.SortFunc(saved.SlicesUntil, func(a, b fleet.SlicesUntil) int {
		return cmp.Or(cmp.Compare(a.BootID, b.BootID), cmp.Compare(a.Size, b.Size))
	})
	return saved, nil
}
