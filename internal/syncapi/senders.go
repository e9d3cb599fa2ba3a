package syncapi

import (
	"sync"
	"time"
)

// The interval at which an instance is asked to send events: so that all of them together make ten batches a second,
// where they are not too few or too many for that.
const (
	eventsPerSender   = 100 * time.Millisecond
	minEventsInterval = 500 * time.Millisecond
	maxEventsInterval = 10 * time.Second
	senderMemory      = time.Minute
	maxSenders        = int(maxEventsInterval / eventsPerSender) // more would not change the interval
)

// senders remembers who sent events within the last minute.
type senders struct {
	mu   sync.Mutex // guards the following
	seen map[string]time.Time
}

func newSenders() *senders { return &senders{seen: map[string]time.Time{}} }

// saw notes that an instance sent events now.
func (s *senders) saw(instance string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.forget(now)
	if _, known := s.seen[instance]; known || len(s.seen) < maxSenders {
		s.seen[instance] = now
	}
}

func (s *senders) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(time.Now())
	return len(s.seen)
}

func (s *senders) forget(now time.Time) {
	for instance, at := range s.seen {
		if now.Sub(at) > senderMemory {
			delete(s.seen, instance)
		}
	}
}

// interval is how often each of them should send.
func (s *senders) interval() time.Duration {
	return min(max(time.Duration(s.count())*eventsPerSender, minEventsInterval), maxEventsInterval)
}
