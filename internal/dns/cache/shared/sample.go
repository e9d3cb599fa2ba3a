package shared

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	sampleEvery   = 30 * time.Second
	sampleSize    = 100
	sampleTimeout = time.Second
)

// sample estimates the number of keys until ctx ends.
func (c *Cache) sample(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if !c.reads.opened() {
			c.estimate(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// estimate asks for the number of all keys and looks whose some of them are. What cannot be found out stays as it was.
func (c *Cache) estimate(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	all, err := c.opts.Client.DBSize(ctx).Result()
	if err != nil {
		return
	}
	ours, seen := 0, 0
	if all > 0 {
		pipe := c.opts.Client.Pipeline()
		keys := make([]*redis.StringCmd, sampleSize)
		for i := range keys {
			keys[i] = pipe.RandomKey(ctx)
		}
		_, _ = pipe.Exec(ctx) // an empty server has no key to tell
		for _, key := range keys {
			if key.Err() != nil {
				continue
			}
			seen++
			if strings.HasPrefix(key.Val(), c.opts.Prefix+":l1:") {
				ours++
			}
		}
		if seen == 0 {
			return
		}
	}
	keys := int64(0)
	if ours > 0 {
		keys = int64(math.Round(float64(all) * float64(ours) / float64(seen)))
	}
	c.keys.Store(keys)
	if info, err := c.opts.Client.Info(ctx, "memory").Result(); err == nil {
		c.maxKeys.Store(most(keys, memory(info, "maxmemory"), memory(info, "used_memory")))
	}
}

// most is how many keys there would be if they used all that Redis may use; 0 when there is no bound.
func most(keys, bound, used int64) int64 {
	if bound <= 0 || used <= 0 {
		return 0
	}
	return max(keys, int64(float64(keys)*float64(bound)/float64(used)))
}

func memory(info, field string) int64 {
	for line := range strings.Lines(info) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), field+":"); found {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}
