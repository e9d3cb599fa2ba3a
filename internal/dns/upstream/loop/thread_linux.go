package loop

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxEvents is how many sockets are read at once.
	maxEvents = 64
	// maxIdle bounds the sockets that wait for their next query; they hold no port meanwhile.
	maxIdle = 1024
	// maxQueue is how long a queue keeps its memory.
	maxQueue = 1024
	// doze is how long after its last query a thread goes on looking at the time, so that others need not wake it.
	doze   = time.Second
	wakeUp = -1 // in place of a socket's index
)

// thread is one thread and its sockets.
type thread struct {
	Options
	share int // how many threads share the limit

	mu      sync.Mutex // guards the following
	open    bool       // takes queries
	queue   []Query
	pending int // queries under way, the queue's included
	limit   int
	waker   int     // an eventfd
	spare   *socket // whoever starts a query while the thread sleeps may send it from there, once
	sent    *socket // that one, with its query

	asleep atomic.Bool // has to be woken; set while mu is held

	// The following is the thread's alone.
	epoll   int
	calls   caller
	keeps   bool // the kernel does not give ports back, so no socket is used twice
	begun   time.Time
	looked  time.Duration // when it last looked whose time is up
	busy    time.Duration // when it last had a query
	started int           // queries since it slept last
	alone   bool          // so far they come one at a time: it is not worth waking for the next one
	sockets []*socket     // nil where there is none any more
	holes   []int         // in sockets
	active  []*socket     // with a query
	fresh   []*socket     // that send now
	leaving []*socket     // whose query has ended, and that are still connected
	idle    [2][]*socket  // by family
	reading []*socket
	taken   []Query
	ops     []op
	ended   int // queries since pending was set
	told    bool
	buffers *[maxEvents][MaxDatagram]byte
	events  [maxEvents]unix.EpollEvent
}

// start puts a query into the queue.
func (t *thread) start(q Query) bool {
	t.mu.Lock()
	if !t.open || t.pending >= t.limit {
		t.mu.Unlock()
		return false
	}
	t.pending++
	if t.asleep.Load() && t.sendAlone(&q) {
		t.mu.Unlock()
		return true
	}
	t.queue = append(t.queue, q)
	if t.asleep.CompareAndSwap(true, false) {
		t.wake()
	}
	t.mu.Unlock()
	return true
}

func (t *thread) running() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// sendAlone sends the first query since the thread fell asleep without waking it: the answer will. t.mu is held.
func (t *thread) sendAlone(q *Query) bool {
	s := t.spare
	if s == nil || s.family != family(q) || !s.fits(q) {
		return false
	}
	t.spare, t.sent = nil, s
	s.give(q, t.begun)
	ops := [2]op{{kind: connect, fd: s.fd, addr: &s.addr}, {kind: send, fd: s.fd, buf: q.Wire}}
	plain{}.do(ops[:])
	if s.failed = cmp.Or(ops[0].err, ops[1].err); s.failed != 0 {
		t.asleep.Store(false)
		t.wake()
	}
	return true
}

// wake ends the wait for events. t.mu is held, so that the eventfd is open.
func (t *thread) wake() { _, _ = unix.Write(t.waker, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (t *thread) run(ctx context.Context) error {
	ended := make(chan error, 1)
	opened := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
		err := t.setUp()
		close(opened)
		if err == nil {
			t.loop()
		}
		t.tearDown()
		ended <- err
	}()
	<-opened
	stop := context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open {
			t.open = false
			t.wake()
		}
	})
	defer stop()
	return <-ended
}

func (t *thread) setUp() error {
	t.begun = time.Now()
	t.epoll, t.waker = -1, -1
	t.buffers = new([maxEvents][MaxDatagram]byte)
	var err error
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("open epoll: %w", err)
	}
	waker, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("open eventfd: %w", err)
	}
	t.mu.Lock()
	t.waker = waker
	t.mu.Unlock()
	// Edge-triggered, it need not be read: each write is an event.
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeUp}
	if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, waker, &event); err != nil {
		return fmt.Errorf("watch eventfd: %w", err)
	}
	t.calls = plain{}
	if !t.OneByOne {
		if r := newRing(); r != nil {
			t.calls = r
		}
	}
	t.keeps = !givesPortsBack(t.calls)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = max(1, min(t.Limit, files())/t.share)
	t.open = true
	return nil
}

// tearDown fails what is under way, and closes everything.
func (t *thread) tearDown() {
	t.mu.Lock()
	t.open = false
	queue := t.queue
	t.queue = nil
	waker := t.waker
	t.waker = -1
	t.mu.Unlock()
	for _, q := range queue {
		q.Handler.Fail(ErrClosed)
	}
	for len(t.active) > 0 {
		t.fail(t.active[len(t.active)-1], ErrClosed)
	}
	for _, s := range t.sockets {
		if s != nil {
			_ = unix.Close(s.fd)
		}
	}
	t.sockets, t.holes, t.idle, t.leaving = nil, nil, [2][]*socket{}, nil
	if t.calls != nil {
		t.calls.close()
	}
	for _, fd := range []int{t.epoll, waker} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if t.Burst != nil {
		t.Burst()
	}
}
