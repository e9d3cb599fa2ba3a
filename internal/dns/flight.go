package dns

import (
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
)

// flown is what an exchange brought. msg is shared: whoever changes it copies it first.
type flown struct {
	msg     *dns.Msg
	address string
	cached  bool
	err     error
}

type flight struct {
	done   chan struct{} // closed when result is set
	result flown
}

// flights lets all who ask the same at the same time share one exchange. The zero value is ready.
type flights struct {
	mu      sync.Mutex // guards the following
	running map[cache.Key]*flight
	group   sync.WaitGroup
}

// join returns the flight of the key, which calls fly if there is none.
func (f *flights) join(key cache.Key, fly func() flown) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if running := f.running[key]; running != nil {
		return running
	}
	if f.running == nil {
		f.running = map[cache.Key]*flight{}
	}
	started := &flight{done: make(chan struct{})}
	f.running[key] = started
	f.group.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				started.result = flown{err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
			}
			f.mu.Lock()
			delete(f.running, key)
			f.mu.Unlock()
			close(started.done)
		}()
		started.result = fly()
	})
	return started
}

// wait returns when nothing is under way.
func (f *flights) wait() { f.group.Wait() }
