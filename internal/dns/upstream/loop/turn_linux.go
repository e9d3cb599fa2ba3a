package loop

import (
	"cmp"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// loop runs until open is false.
func (t *thread) loop() {
	for {
		open, timeout := t.rest()
		if !open {
			return
		}
		t.wait(timeout)
		t.read()
		t.expire()
		if t.told {
			t.told = false
			if t.Burst != nil {
				t.Burst()
			}
		}
		t.write()
	}
}

// rest says how long to wait for events: not at all while queries are to be sent.
func (t *thread) rest() (open bool, timeout time.Duration) {
	now := time.Since(t.begun)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) > 0 || t.told || !t.open {
		return t.open, 0
	}
	t.asleep.Store(true)
	if t.started > 0 {
		t.alone, t.started = t.started == 1, 0
	}
	if len(t.active) > 0 {
		t.busy = now
	} else if now > t.busy+doze {
		return true, -1
	}
	if t.alone {
		if t.spare = t.pop(0); t.spare == nil {
			t.spare = t.pop(1)
		}
	}
	return true, max(t.looked+Tick-now, Tick/10)
}

// rise takes back what others may use while the thread sleeps.
func (t *thread) rise() {
	t.mu.Lock()
	spare, sent := t.spare, t.sent
	t.spare, t.sent = nil, nil
	t.asleep.Store(false)
	t.mu.Unlock()
	if spare != nil {
		t.idle[spare.family] = append(t.idle[spare.family], spare)
	}
	if sent == nil {
		return
	}
	t.started++
	t.busy = time.Since(t.begun)
	t.activate(sent)
	if sent.failed != 0 {
		t.told = true
		t.fail(sent, os.NewSyscallError("send", sent.failed))
	}
}

// wait collects the sockets that something came for.
func (t *thread) wait(timeout time.Duration) {
	ms := int(timeout / time.Millisecond)
	if timeout > 0 {
		ms++
	} else if timeout < 0 {
		ms = -1
	}
	n, err := unix.EpollWait(t.epoll, t.events[:], ms)
	t.rise()
	if err != nil {
		return // EINTR
	}
	for _, e := range t.events[:n] {
		if e.Fd == wakeUp || t.sockets[e.Fd] == nil {
			continue
		}
		t.reading = append(t.reading, t.sockets[e.Fd])
	}
}

// read hands out what came, until nothing is left: there is no second event for it.
func (t *thread) read() {
	for len(t.reading) > 0 {
		t.ops = t.ops[:0]
		for i, s := range t.reading {
			t.ops = append(t.ops, op{kind: receive, fd: s.fd, buf: t.buffers[i][:]})
		}
		t.calls.do(t.ops)
		again := t.reading[:0]
		for i, s := range t.reading {
			if t.receive(s, &t.ops[i]) {
				again = append(again, s)
			}
		}
		t.reading = again
	}
}

// receive reports whether the socket is to be read again.
func (t *thread) receive(s *socket, o *op) bool {
	if o.err == unix.EAGAIN || o.err == unix.EINTR {
		return o.err == unix.EINTR
	}
	if s.query.Handler == nil {
		t.stray(s)
		return false
	}
	t.told = true
	if o.err != 0 {
		t.fail(s, os.NewSyscallError("recv", o.err))
		return false
	}
	over, clean := s.query.Handler.Receive(o.buf[:o.n])
	if over {
		t.end(s, clean)
	}
	return !over
}

// expire ends the queries whose time is up.
func (t *thread) expire() {
	now := time.Since(t.begun)
	if now < t.looked+Tick {
		return
	}
	t.looked = now
	for _, s := range slices.Backward(t.active) { // as the last one takes the place of one that ends
		switch {
		case now >= s.deadline:
			t.told = true
			t.fail(s, os.ErrDeadlineExceeded)
		case s.slow != 0 && now >= s.slow:
			s.slow = 0
			t.told = true
			s.query.Handler.Slow()
		}
	}
}

// write disconnects the sockets whose queries have ended, and sends new queries.
func (t *thread) write() {
	t.mu.Lock()
	t.pending -= t.ended
	t.ended = 0
	t.taken, t.queue = t.queue, t.taken[:0]
	t.mu.Unlock()
	t.started += len(t.taken)
	t.ops = t.ops[:0]
	for _, s := range t.leaving {
		t.ops = append(t.ops, op{kind: connect, fd: s.fd, addr: &unspecified})
	}
	for i := range t.taken {
		q := &t.taken[i]
		s, err := t.take(q)
		if err != nil {
			t.ended++
			t.told = true
			q.Handler.Fail(err)
			continue
		}
		t.fresh = append(t.fresh, s)
		t.ops = append(t.ops, op{kind: connect, fd: s.fd, addr: &s.addr}, op{kind: send, fd: s.fd, buf: q.Wire})
	}
	t.calls.do(t.ops)
	for i, s := range t.leaving {
		t.release(s, t.ops[i].err == 0)
	}
	sent := t.ops[len(t.leaving):]
	for i, s := range t.fresh {
		if err := cmp.Or(sent[2*i].err, sent[2*i+1].err); err != 0 {
			t.told = true
			t.fail(s, os.NewSyscallError("send", err))
		}
	}
	clear(t.ops)
	clear(t.taken)
	t.leaving, t.fresh = t.leaving[:0], t.fresh[:0]
	if cap(t.taken) > maxQueue {
		t.taken = nil
	}
}
