package loop

import (
	"context"
	"math/rand/v2"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Loop is a few threads that exchange datagrams while it runs. It is safe for concurrent use.
type Loop struct{ threads []*thread }

// New makes a Loop, with a thread for every two processors. It starts and opens nothing.
func New(o Options) *Loop {
	n := max(1, runtime.GOMAXPROCS(0)/2)
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	l := new(Loop)
	for range n {
		l.threads = append(l.threads, &thread{Options: o, share: n})
	}
	return l
}

// Run opens the loop, and exchanges datagrams until ctx ends. Then all queries under way fail. It may be called once.
func (l *Loop) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range l.threads {
		group.Go(func() error { return t.run(ctx) })
	}
	return group.Wait()
}

// Start sends a query soon. It reports false, and calls nothing, when the Loop does not run, or as many queries are under
// way as may be. The Handler may be called before Start has returned.
func (l *Loop) Start(q Query) bool {
	t := l.threads[0]
	if n := len(l.threads); n > 1 {
		t = l.threads[rand.IntN(n)] //nolint:gosec // spreads load, guards nothing
	}
	return t.start(q)
}

// Running reports whether queries can be started.
func (l *Loop) Running() bool {
	for _, t := range l.threads {
		if !t.running() {
			return false
		}
	}
	return true
}

// files is how many sockets the process may have for this.
func files() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 256
	}
	return int(min(limit.Cur/4, 1<<20))
}
