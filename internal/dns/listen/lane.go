package listen

import (
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/listen/datagrams"
)

const (
	// replyRoom is what Handle gets as out: enough for all that is sent over UDP. It is an odd number of cache lines, so
	// that replies do not compete for the same one.
	replyRoom = 21 * 64
	// Errors of a socket in a row that are not waited for: they tell of clients that are gone. After that each is.
	freeErrors      = 8
	pauseAfterError = 10 * time.Millisecond
)

// lane is the reader of one UDP socket.
type lane struct {
	number  int
	socket  datagrams.Socket
	log     *slog.Logger
	room    []byte
	replies [][]byte
	message Message
	pending atomic.Int64
	panics  atomic.Uint64
}

func newLane(number int, socket datagrams.Socket, log *slog.Logger) *lane {
	return &lane{
		number: number, socket: socket, log: log,
		room: make([]byte, socket.Batch()*replyRoom), replies: make([][]byte, socket.Batch()),
	}
}

// run reads until the socket is woken up.
func (l *lane) run(h Handler) {
	if l.socket.Batch() > 1 {
		runtime.LockOSThread() // the thread that blocks is the one that answers
		defer runtime.UnlockOSThread()
	}
	failed := 0
	for {
		batch, err := l.socket.Receive()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if failed++; failed > freeErrors {
				<-time.After(pauseAfterError)
			}
			continue
		}
		failed = 0
		arrived := time.Now()
		for next := 0; next < len(batch); {
			next = l.handle(h, batch, next, arrived)
		}
		l.finish(h)
		l.socket.Reply(l.replies[:len(batch)])
	}
}

// handle handles the batch from number next on, and returns where to go on: a message that makes the Handler panic is
// passed over.
func (l *lane) handle(h Handler, batch []datagrams.Datagram, next int, arrived time.Time) (resume int) {
	defer func() {
		if fault := recover(); fault != nil {
			l.contain(fault)
			resume = next + 1
		}
	}()
	m := &l.message
	for ; next < len(batch); next++ {
		d := &batch[next]
		l.replies[next] = nil
		if !d.From.IsValid() || isResponse(d.Data) {
			continue
		}
		*m = Message{
			Raw: d.Data, Client: d.From, Protocol: UDP, Lane: l.number, Arrived: arrived,
			pending: &l.pending, lane: l, number: next,
		}
		out := l.room[next*replyRoom : next*replyRoom : (next+1)*replyRoom]
		if reply := h.Handle(m, out); !m.later {
			l.replies[next] = reply
		}
	}
	return next
}

func (l *lane) finish(h Handler) {
	defer func() {
		if fault := recover(); fault != nil {
			l.contain(fault)
		}
	}()
	h.BatchDone(l.number)
}

func (l *lane) contain(fault any) {
	l.panics.Add(1)
	logPanic(l.log, fault)
}

func logPanic(log *slog.Logger, fault any) {
	stack := make([]byte, 8<<10)
	log.Error("handling a query panicked", "fault", fault, "stack", string(stack[:runtime.Stack(stack, false)]))
}

// isResponse reports whether the QR bit is set.
func isResponse(raw []byte) bool { return len(raw) > 2 && raw[2]&0x80 != 0 }
