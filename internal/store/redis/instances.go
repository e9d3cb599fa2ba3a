package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

const (
	// readChunk is how many instances one pipeline reads: about 2 MB of answers.
	readChunk = 250
	// readers is how many pipelines are read at once.
	readers = 4
	// tombstoneStays is longer than any push can be on its way.
	tombstoneStays = 90 * 24 * time.Hour
)

// Instances is part of store.Store. An entry that cannot be read, because something else wrote to it, is logged and
// left out; it does not cost the others.
func (s *Store) Instances(ctx context.Context, ids ...string) ([]fleet.Instance, error) {
	if len(ids) == 0 {
		all, err := s.allIDs(ctx)
		if err != nil {
			return nil, err
		}
		ids = all
	}
	ids = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(ids))), func(id string) bool { return !fleet.ValidID(id) })
	chunks := slices.Collect(slices.Chunk(ids, readChunk))
	read := make([][]fleet.Instance, len(chunks))
	group, ctx := errgroup.WithContext(ctx) // the first that fails ends the others
	group.SetLimit(readers)
	for i, chunk := range chunks {
		group.Go(func() (err error) {
			read[i], err = s.readInstances(ctx, chunk)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, wrap(err, "read instances")
	}
	return slices.Concat(read...), nil
}

func (s *Store) allIDs(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found := make([]*redis.StringSliceCmd, buckets)
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for b := range buckets {
			found[b] = p.ZRange(ctx, s.keys.seen(b), 0, -1)
		}
		return nil
	})
	if err != nil {
		return nil, wrap(err, "list instances")
	}
	var ids []string
	for _, f := range found {
		ids = append(ids, f.Val()...)
	}
	return ids, nil
}

func rowFields() []string {
	fields := []string{"name", "role", "dns", "token_id", "first_seen", "last_seen", "expires_at", "boot_id", "seq", "forgotten"}
	for o := range fleet.Outcome(fleet.NumOutcomes) {
		fields = append(fields, "cur:"+o.String(), "end:"+o.String())
	}
	return fields
}

func (s *Store) readInstances(ctx context.Context, ids []string) ([]fleet.Instance, error) {
	names := rowFields()
	rows, stats := make([]*redis.SliceCmd, len(ids)), make([]*redis.MapStringStringCmd, len(ids))
	err := s.pipeline(ctx, func(ctx context.Context, p redis.Pipeliner) error {
		for i, id := range ids {
			rows[i] = p.HMGet(ctx, s.keys.instance(id), names...)
			stats[i] = p.HGetAll(ctx, s.keys.stats(id))
		}
		return nil
	})
	if err := s.onlyFatal(err); err != nil {
		return nil, err
	}
	found := make([]fleet.Instance, 0, len(ids))
	minutes := map[string][]string{}
	for i, id := range ids {
		instance, known, err := readRow(id, names, rows[i])
		if err != nil {
			s.log.WarnContext(ctx, "stored instance is unreadable", "instance", id, "err", err)
		}
		if err != nil || !known {
			s.minutes.Drop(id)
			continue
		}
		fields := stats[i].Val()
		if len(fields) == 0 {
			s.minutes.Drop(id)
		} else {
			if instance.Report, err = decodeReport(fields); err != nil {
				s.log.WarnContext(ctx, "stored report is unreadable", "instance", id, "err", err)
				instance.Report = nil
			}
			if list := fields["minutes"]; list != "" {
				minutes[id] = strings.Split(list, ",")
			}
		}
		found = append(found, instance)
	}
	return found, s.readMinutes(ctx, found, minutes)
}

// pipeline sends what fill puts in and reads the answers within the time of one call. Decoding them has all the time
// that it takes.
func (s *Store) pipeline(ctx context.Context, fill func(context.Context, redis.Pipeliner) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error { return fill(ctx, p) })
	return err
}

// onlyFatal keeps errors that concern the connection. An answer that is an error, such as WRONGTYPE for one key, is dealt
// with where that answer is read.
func (s *Store) onlyFatal(err error) error {
	if err == nil || wrongUse(err) {
		return nil
	}
	return err
}

func readRow(id string, names []string, answer *redis.SliceCmd) (in fleet.Instance, known bool, err error) {
	values, err := answer.Result()
	if err != nil {
		return in, false, err
	}
	fields := make(map[string]string, len(names))
	for i, v := range values {
		if text, isText := v.(string); isText {
			fields[names[i]] = text
		}
	}
	if fields["boot_id"] == "" { // never seen, or only a tombstone is left
		return in, false, nil
	}
	p := parser{fields: fields}
	in = fleet.Instance{
		ID: id, Name: fields["name"], Role: fleet.Role(fields["role"]), DNS: fields["dns"] == "1", TokenID: fields["token_id"],
		FirstSeen: p.ms("first_seen"), LastSeen: p.ms("last_seen"), ExpiresAt: p.ms("expires_at"),
		BootID: fields["boot_id"], Seq: p.uint("seq"),
	}
	for o := range fleet.Outcome(fleet.NumOutcomes) {
		in.Current[o], in.Ended[o] = p.uint("cur:"+o.String()), p.uint("end:"+o.String())
	}
	return in, true, p.err
}

// readMinutes fills in the minute slices whose fields the stats hashes name.
func (s *Store) readMinutes(ctx context.Context, instances []fleet.Instance, fields map[string][]string) error {
	if len(fields) == 0 {
		return nil
	}
	answers := map[string]*redis.SliceCmd{}
	err := s.pipeline(ctx, func(ctx context.Context, p redis.Pipeliner) error {
		for id, names := range fields {
			answers[id] = p.HMGet(ctx, s.keys.slices(fleet.Minute, id), names...)
		}
		return nil
	})
	if err := s.onlyFatal(err); err != nil {
		return err
	}
	for i, in := range instances {
		answer := answers[in.ID]
		if answer == nil {
			continue
		}
		var bodies [][]byte
		for _, v := range answer.Val() {
			if body, isText := v.(string); isText { // else it has aged meanwhile
				bodies = append(bodies, []byte(body))
			}
		}
		instances[i].Minutes = s.minutes.Decode(in.ID, bodies, func(err error) { s.badSlice(ctx, in.ID, err) })
	}
	return nil
}

func (s *Store) badSlice(ctx context.Context, id string, err error) {
	s.log.WarnContext(ctx, "stored slice is unreadable", "instance", id, "err", err)
}

// Seen is part of store.Store.
func (s *Store) Seen(ctx context.Context, since time.Time) (map[string]time.Time, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// The clock is read before the sets: what is received meanwhile is then found by the next sweep at the latest.
	now, err := s.Now(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	found := make([]*redis.ZSliceCmd, buckets)
	from := &redis.ZRangeBy{Min: strconv.FormatInt(inMS(since), 10), Max: "+inf"}
	_, err = s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for b := range buckets {
			found[b] = p.ZRangeByScoreWithScores(ctx, s.keys.seen(b), from)
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, wrap(err, "list instances seen")
	}
	seen := map[string]time.Time{}
	for _, f := range found {
		for _, z := range f.Val() {
			if id, isText := z.Member.(string); isText {
				seen[id] = fromMS(int64(z.Score))
			}
		}
	}
	return seen, now, nil
}

// Slices is part of store.Store.
func (s *Store) Slices(ctx context.Context, instanceID string, size fleet.Size, from, to time.Time) ([]fleet.Slice, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key := s.keys.slices(size, instanceID)
	operation := fmt.Sprintf("read %s slices of %q", size, instanceID)
	fields, err := s.client.HKeys(ctx, key).Result()
	if err != nil {
		return nil, wrap(err, operation)
	}
	fields = slices.DeleteFunc(fields, func(f string) bool {
		text, _, _ := strings.Cut(f, ":")
		start, err := strconv.ParseInt(text, 10, 64)
		return err != nil || time.Unix(start, 0).Before(from) || !time.Unix(start, 0).Before(to)
	})
	list := make([]fleet.Slice, 0, len(fields))
	for chunk := range slices.Chunk(fields, readChunk) {
		values, err := s.client.HMGet(ctx, key, chunk...).Result()
		if err != nil {
			return nil, wrap(err, operation)
		}
		for _, v := range values {
			body, isText := v.(string)
			if !isText { // it has aged meanwhile
				continue
			}
			slice, err := s.codec.Decode([]byte(body))
			if err != nil {
				s.badSlice(ctx, instanceID, err)
				continue
			}
			list = append(list, slice)
		}
	}
	slices.SortFunc(list, store.ByStart)
	return list, nil
}

// Forget is part of store.Store. The boots of a forgotten instance are remembered for 90 days, for late reports.
func (s *Store) Forget(ctx context.Context, instanceID string) error {
	operation := fmt.Sprintf("forget %q", instanceID)
	if !fleet.ValidID(instanceID) {
		return fmt.Errorf("%s: %w", operation, fleet.ErrNotFound)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := s.forget.Run(ctx, s.client, s.keys.all(instanceID),
		instanceID, fleet.RandomID(), tombstoneStays.Milliseconds(), s.scriptChannel()).Text()
	if err != nil {
		return wrap(err, operation)
	}
	if result != "ok" {
		return fmt.Errorf("%s: %w", operation, fleet.ErrNotFound)
	}
	s.minutes.Drop(instanceID)
	s.publish(ctx, hintInstance+instanceID)
	return nil
}
