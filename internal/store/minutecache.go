package store

import (
	"hash/maphash"
	"slices"
	"sync"

	"dnsfleet/internal/fleet"
)

// MinuteCache decodes the minute slices of instances and remembers them, because the same few are read again with
// every report. It holds what it decoded last for each instance, which a view holds as well, and no more. What it
// returns is shared: it may be read, not changed. It may be used concurrently.
type MinuteCache struct {
	codec *SliceCodec
	seed  maphash.Seed

	mu   sync.Mutex // guards the following
	held map[string][]heldMinute
}

type heldMinute struct {
	sum   uint64 // of the stored bytes
	slice fleet.Slice
}

// NewMinuteCache makes an empty cache.
func NewMinuteCache(codec *SliceCodec) *MinuteCache {
	return &MinuteCache{codec: codec, seed: maphash.MakeSeed(), held: map[string][]heldMinute{}}
}

// Decode turns the stored minutes of an instance into those that fleet.Recent needs: all of the last five minutes
// before the end of the newest, by start, then boot. What cannot be decoded is left out and told to bad.
func (c *MinuteCache) Decode(instanceID string, bodies [][]byte, bad func(error)) []fleet.Slice {
	c.mu.Lock()
	before := c.held[instanceID]
	c.mu.Unlock()
	now := make([]heldMinute, 0, len(bodies))
	for _, body := range bodies {
		sum := maphash.Bytes(c.seed, body)
		if i := slices.IndexFunc(before, func(h heldMinute) bool { return h.sum == sum }); i >= 0 {
			now = append(now, before[i])
			continue
		}
		slice, err := c.codec.Decode(body)
		if err != nil {
			bad(err)
			continue
		}
		now = append(now, heldMinute{sum, slice})
	}
	now = newest(now)
	c.mu.Lock()
	if len(now) == 0 {
		delete(c.held, instanceID)
	} else {
		c.held[instanceID] = now
	}
	c.mu.Unlock()
	list := make([]fleet.Slice, len(now))
	for i, h := range now {
		list[i] = h.slice
	}
	return list
}

// Drop forgets the minutes of an instance that is gone or offline.
func (c *MinuteCache) Drop(instanceID string) {
	c.mu.Lock()
	delete(c.held, instanceID)
	c.mu.Unlock()
}

func newest(list []heldMinute) []heldMinute {
	slices.SortFunc(list, func(a, b heldMinute) int { return ByStart(a.slice, b.slice) })
	if len(list) == 0 {
		return list
	}
	oldest := list[len(list)-1].slice.End().Add(-fleet.RecentWindow)
	return slices.DeleteFunc(list, func(h heldMinute) bool { return h.slice.Start.Before(oldest) })
}
