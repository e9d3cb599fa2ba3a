package redis

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
)

// What is published on the events channel.
const (
	hintInstance = "instance " // then the id
	hintTokens   = "tokens"
	hintPolicy   = "policy"
)

const (
	// watchBuffer holds hints while the receiver is busy. When it is full for a second, hints are dropped: a sweep finds
	// what they were about.
	watchBuffer = 4096
	// watchCheck is how soon a silent connection is tried.
	watchCheck = 2 * time.Second
)

// Watch is part of store.Store. While Redis is away it tries again several times a second.
func (s *Store) Watch(ctx context.Context, hint func(fleet.Hint)) error {
	var subscription *redis.PubSub
	if s.cluster {
		subscription = s.client.SSubscribe(ctx, s.keys.events())
	} else {
		subscription = s.client.Subscribe(ctx, s.keys.events())
	}
	defer subscription.Close() //nolint:errcheck // nothing is left to be done about a connection that is given up
	events := subscription.ChannelWithSubscriptions(redis.WithChannelSize(watchBuffer),
		redis.WithChannelSendTimeout(time.Second), redis.WithChannelHealthCheckInterval(watchCheck),
		redis.WithChannelPingTimeout(ioTimeout), redis.WithChannelReconnectTimeout(dialTimeout))
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-events:
			if !open { // the store was closed
				return nil
			}
			switch e := event.(type) {
			case *redis.Subscription: // first, and after every reconnect: what happened before is unknown
				hint(fleet.Hint{})
			case *redis.Message:
				hint(readHint(e.Payload))
			}
		}
	}
}

func readHint(message string) fleet.Hint {
	if id, isInstance := strings.CutPrefix(message, hintInstance); isInstance {
		return fleet.Hint{InstanceID: id}
	}
	switch message {
	case hintTokens:
		return fleet.Hint{Tokens: true}
	case hintPolicy:
		return fleet.Hint{Policy: true}
	}
	return fleet.Hint{} // of another release: look at everything
}
