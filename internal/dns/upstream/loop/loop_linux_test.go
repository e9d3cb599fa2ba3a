package loop_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dnsfleet/internal/dns/upstream/loop"
)

// patient is a time that only a bug takes.
const patient = 10 * time.Second

// waiter is a Handler that takes the first datagram with its id for the answer.
type waiter struct {
	id       uint16
	answer   []byte
	wrong    int
	slow     atomic.Int32
	ends     atomic.Int32
	deadline time.Time
	late     time.Duration // after the deadline
	over     chan error
}

func newWaiter(id uint16) *waiter { return &waiter{id: id, over: make(chan error, 10)} }

func (w *waiter) Receive(msg []byte) (over, clean bool) {
	if len(msg) < 2 || binary.NativeEndian.Uint16(msg) != w.id {
		w.wrong++
		return false, false
	}
	w.answer = append([]byte(nil), msg...)
	w.ends.Add(1)
	w.over <- nil
	return true, w.wrong == 0
}

func (w *waiter) Slow() { w.slow.Add(1) }

func (w *waiter) Fail(err error) {
	w.late = time.Since(w.deadline)
	w.ends.Add(1)
	w.over <- err
}

// query asks so that the answer, if there is one, has to come within d.
func (w *waiter) query(to netip.AddrPort, d time.Duration) loop.Query {
	wire := binary.NativeEndian.AppendUint16(nil, w.id)
	w.deadline = time.Now().Add(d)
	return loop.Query{To: to, Wire: append(wire, "question"...), Deadline: w.deadline, Handler: w}
}

// both runs a test with io_uring and without.
func both(t *testing.T, test func(t *testing.T, o loop.Options)) {
	t.Helper()
	t.Run("many by one call", func(t *testing.T) { test(t, loop.Options{}) })
	t.Run("one by one", func(t *testing.T) { test(t, loop.Options{OneByOne: true}) })
}

// run runs a loop until the function is called, or the test ends.
func run(t testing.TB, o loop.Options) (l *loop.Loop, end func()) {
	t.Helper()
	l = loop.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("run: got %v, want nil", err)
		}
	})
	end = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(end)
	eventually(t, "the loop runs", l.Running)
	return l, end
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patient)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("did not happen within %v: %s", patient, what)
		case <-tick.C:
		}
	}
}

// server hands datagrams to answer, with a way to write to who sent it, until the test ends.
func server(t testing.TB, host string, answer func(msg []byte, from netip.AddrPort, conn *net.UDPConn)) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(host)))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(8 << 20)
	var done sync.WaitGroup
	done.Go(func() {
		buffer := make([]byte, 5000)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			answer(buffer[:n], from, conn)
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		done.Wait()
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func echo(msg []byte, from netip.AddrPort, conn *net.UDPConn) {
	_, _ = conn.WriteToUDPAddrPort(msg, from)
}

func silent([]byte, netip.AddrPort, *net.UDPConn) {}

func TestAnswersComeToWhomTheyAreFor(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		var bursts atomic.Int64
		o.Burst = func() { bursts.Add(1) }
		l, _ := run(t, o)
		four, six := server(t, "127.0.0.1:0", echo), server(t, "[::1]:0", echo)
		var callers sync.WaitGroup
		for caller := range 20 {
			callers.Go(func() {
				for i := range 100 {
					to := four
					if i%3 == 0 {
						to = six
					}
					w := newWaiter(uint16(caller*100 + i))
					if !l.Start(w.query(to, patient)) {
						t.Error("got not started")
						return
					}
					if err := <-w.over; err != nil || string(w.answer[2:]) != "question" || w.wrong > 0 {
						t.Errorf("got %q, %v, %d wrong ones, want the answer", w.answer, err, w.wrong)
						return
					}
				}
			})
		}
		callers.Wait()
		if bursts.Load() == 0 {
			t.Error("got no bursts told, want some")
		}
	})
}

func TestEachQueryLeavesFromAPortThatTheKernelDraws(t *testing.T) {
	const queries = 10000
	both(t, func(t *testing.T, o loop.Options) {
		l, _ := run(t, o)
		var mu sync.Mutex // guards the following
		ports, next := map[uint16]bool{}, 0
		last := uint16(0)
		to := server(t, "127.0.0.1:0", func(msg []byte, from netip.AddrPort, conn *net.UDPConn) {
			mu.Lock()
			ports[from.Port()] = true
			if from.Port()-last < 16 {
				next++
			}
			last = from.Port()
			mu.Unlock()
			echo(msg, from, conn)
		})
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				for i := range queries / 20 {
					w := newWaiter(uint16(i))
					l.Start(w.query(to, patient))
					if err := <-w.over; err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(ports) < 8000 || next > 60 {
			t.Errorf("%d queries: got %d ports, %d right after the one before; want at least 8000 and hardly any", queries, len(ports), next)
		}
	})
}

func TestTimeEndsEveryQueryAndTheirNumberIsBounded(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		o.Limit = 1000
		l, _ := run(t, o)
		to := server(t, "127.0.0.1:0", silent)
		const wait = 300 * time.Millisecond
		var started []*waiter
		before := open(t)
		for i := range 10000 {
			w := newWaiter(uint16(i))
			q := w.query(to, wait)
			q.Slow = time.Now().Add(wait / 3)
			if i%2 == 0 {
				q.Slow = time.Time{}
			}
			if l.Start(q) {
				started = append(started, w)
			}
		}
		if len(started) < 1000 || len(started) > 4000 {
			t.Errorf("got %d of 10000 started, want 1000 at once", len(started))
		}
		if got := open(t) - before; got > 1000 {
			t.Errorf("got %d files open, want at most 1000", got)
		}
		for i, w := range started {
			if err := <-w.over; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("got %v, want a deadline", err)
			}
			if w.late < 0 || w.late > 2*time.Second {
				t.Errorf("got the end %v after the deadline", w.late)
			}
			if got, want := int(w.slow.Load()), i%2; got != want && len(started) == 1000 {
				t.Errorf("got told %d times that it is slow, want %d", got, want)
			}
			if w.ends.Load() != 1 {
				t.Errorf("got %d ends, want 1", w.ends.Load())
			}
		}
		w := newWaiter(7)
		eventually(t, "there is room again", func() bool { return l.Start(w.query(to, time.Millisecond)) })
		<-w.over
		eventually(t, "the sockets are closed", func() bool { return open(t) <= before })
	})
}

func TestALoneQueryEndsAlthoughNothingHappens(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		l, _ := run(t, o)
		well, to := server(t, "127.0.0.1:0", echo), server(t, "127.0.0.1:0", silent)
		for i := range 5 { // from the queue, and alone
			w := newWaiter(uint16(2 * i))
			l.Start(w.query(well, patient))
			if err := <-w.over; err != nil {
				t.Fatal(err)
			}
			w = newWaiter(uint16(2*i + 1))
			q := w.query(to, 60*time.Millisecond)
			q.Slow = time.Now().Add(20 * time.Millisecond)
			l.Start(q)
			if err := <-w.over; !errors.Is(err, os.ErrDeadlineExceeded) || w.slow.Load() != 1 {
				t.Errorf("got %v, slow %d times; want a deadline after it was slow once", err, w.slow.Load())
			}
		}
	})
}

func TestWhatComesFromElsewhereIsNotHeard(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		l, _ := run(t, o)
		other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		to := server(t, "127.0.0.1:0", func(msg []byte, from netip.AddrPort, conn *net.UDPConn) {
			forged := append([]byte(nil), msg[0], msg[1], 'e', 'v', 'i', 'l')
			_, _ = other.WriteToUDPAddrPort(forged, from)
			elsewhere, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9), Port: conn.LocalAddr().(*net.UDPAddr).Port})
			if err == nil {
				_, _ = elsewhere.WriteToUDPAddrPort(forged, from)
				_ = elsewhere.Close()
			}
			echo(msg, from, conn)
		})
		for i := range 100 {
			w := newWaiter(uint16(i))
			l.Start(w.query(to, patient))
			if err := <-w.over; err != nil || string(w.answer[2:]) != "question" || w.wrong > 0 {
				t.Fatalf("got %q, %v, want only what the server sent", w.answer, err)
			}
		}
	})
}

func TestLateAnswersAreForNobody(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		l, _ := run(t, o)
		to := server(t, "127.0.0.1:0", func(msg []byte, from netip.AddrPort, conn *net.UDPConn) {
			for range 3 {
				echo(msg, from, conn)
			}
		})
		// Two ids in turn, and one again and again: what is left of the query before must not answer the next.
		for i := range 2000 {
			w := newWaiter(uint16(i / 2 % 2))
			q := w.query(to, patient)
			q.Wire = binary.NativeEndian.AppendUint32(q.Wire[:2], uint32(i))
			l.Start(q)
			if err := <-w.over; err != nil || binary.NativeEndian.Uint32(w.answer[2:]) != uint32(i) {
				t.Fatalf("query %d: got % x, %v, want its own answer", i, w.answer, err)
			}
		}
	})
}

func TestThatNobodyListensIsNoticedAtOnce(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		l, _ := run(t, o)
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		_ = conn.Close()
		for i := range 20 {
			w := newWaiter(uint16(i))
			begun := time.Now()
			l.Start(w.query(to, patient))
			if err := <-w.over; !errors.Is(err, syscall.ECONNREFUSED) || time.Since(begun) > patient/2 {
				t.Errorf("got %v after %v, want refused at once", err, time.Since(begun))
			}
		}
		everybody := newWaiter(1)
		l.Start(everybody.query(netip.MustParseAddrPort("255.255.255.255:53"), patient))
		if err := <-everybody.over; !errors.Is(err, syscall.EACCES) {
			t.Errorf("an address that nothing may be sent to: got %v, want permission denied", err)
		}
	})
}

func TestTheEndOfTheLoopEndsEveryQueryAndLeavesNothingOpen(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		to := server(t, "127.0.0.1:0", silent)
		well := server(t, "127.0.0.1:0", echo)
		filesBefore, threadsBefore := open(t), threads(t)
		for range 20 {
			l, end := run(t, o)
			w := newWaiter(1)
			l.Start(w.query(well, patient))
			<-w.over
			var waiters []*waiter
			for i := range 100 {
				w := newWaiter(uint16(i))
				waiters = append(waiters, w)
				if !l.Start(w.query(to, patient)) {
					t.Fatal("got not started")
				}
			}
			end()
			for _, w := range waiters {
				if err := <-w.over; !errors.Is(err, loop.ErrClosed) || w.ends.Load() != 1 {
					t.Fatalf("got %v, %d ends, want ErrClosed once", err, w.ends.Load())
				}
			}
			if l.Running() || l.Start(w.query(to, patient)) {
				t.Error("after its end: got a query started")
			}
		}
		eventually(t, "no file more than before is open", func() bool { return open(t) <= filesBefore })
		// The runtime keeps a few threads for itself.
		eventually(t, "the threads have ended", func() bool { return threads(t) < threadsBefore+10 })
	})
}

func TestALoopThatDoesNotRunStartsNothing(t *testing.T) {
	l := loop.New(loop.Options{})
	if w := newWaiter(1); l.Running() || l.Start(w.query(netip.MustParseAddrPort("127.0.0.1:53"), patient)) {
		t.Error("got a query started")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Errorf("a run that is over at once: got %v, want nil", err)
	}
}

func TestWithoutFilesQueriesFailAndGoOnWhenThereAreSomeAgain(t *testing.T) {
	both(t, func(t *testing.T, o loop.Options) {
		l, _ := run(t, o)
		to := server(t, "127.0.0.1:0", echo)
		var before unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		small := before
		small.Cur = 3
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &small); err != nil {
			t.Fatal(err)
		}
		w := newWaiter(1)
		l.Start(w.query(to, patient))
		err := <-w.over
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("got %v, want too many open files", err)
		}
		w = newWaiter(2)
		l.Start(w.query(to, patient))
		if err := <-w.over; err != nil {
			t.Errorf("with files again: got %v, want an answer", err)
		}
	})
}

// open is how many files this process has open.
func open(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// threads is how many threads this process has.
func threads(t testing.TB) int {
	t.Helper()
	status, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(status)
}

func BenchmarkLoop(b *testing.B) {
	for name, o := range map[string]loop.Options{"ring": {}, "plain": {OneByOne: true}} {
		b.Run(strings.ToLower(name), func(b *testing.B) {
			l, end := run(b, o)
			defer end()
			to := server(b, "127.0.0.1:0", echo)
			const inFlight = 256
			idle := make(chan *waiter, inFlight)
			for i := range inFlight {
				w := newWaiter(uint16(i))
				go func() {
					for range w.over {
						idle <- w
					}
				}()
				idle <- w
			}
			b.ReportAllocs()
			for b.Loop() {
				w := <-idle
				l.Start(w.query(to, patient))
			}
			for range inFlight {
				close((<-idle).over)
			}
		})
	}
}
