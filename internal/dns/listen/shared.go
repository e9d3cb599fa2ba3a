package listen

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns/listen/gate"
	"dnsfleet/internal/dns/listen/streams"
)

// sharedHandler brings messages of connections to the Handler, on lane 0.
type sharedHandler struct {
	server   *Server
	handler  Handler
	tcp, dot streams.Server
	messages sync.Pool // of *Message
	panics   atomic.Uint64
}

func newSharedHandler(s *Server, handler Handler) *sharedHandler {
	shared := &sharedHandler{server: s, handler: handler}
	shared.messages.New = func() any { return new(Message) }
	limits := s.opts.Limits.streams()
	shared.tcp = streams.Server{Gate: s.gate, Handler: streamHandler{shared, TCP}, Limits: limits}
	shared.dot = streams.Server{Gate: s.gate, Handler: streamHandler{shared, DoT}, Limits: limits}
	return shared
}

// handle returns whether the answer comes later.
func (h *sharedHandler) handle(m Message, out []byte) (reply []byte, later bool) {
	shared := h.messages.Get().(*Message)
	*shared = m
	shared.pending = &h.server.pending
	reply = h.handler.Handle(shared, out)
	later = shared.later
	*shared = Message{}
	h.messages.Put(shared)
	h.handler.BatchDone(0)
	return reply, later
}

// streamHandler is one protocol's streams.Handler.
type streamHandler struct {
	*sharedHandler
	protocol Protocol
}

// Handle answers a message of a stream.
func (h streamHandler) Handle(s *streams.Stream, raw, out []byte, arrived time.Time) (reply []byte, later bool) {
	return h.handle(Message{Raw: raw, Client: s.Client(), Protocol: h.protocol, Arrived: arrived, stream: s}, out)
}

// ask answers a message that came by HTTP. It is a doh.Ask.
func (h *sharedHandler) ask(ctx context.Context, c *gate.Conn, query []byte) (reply []byte) {
	defer func() {
		if fault := recover(); fault != nil {
			h.panics.Add(1)
			logPanic(h.server.opts.Log, fault)
			reply = nil
		}
	}()
	answer := make(chan []byte, 1)
	reply, later := h.handle(Message{Raw: query, Client: c.Client(), Protocol: DoH, Arrived: time.Now(), answer: answer}, make([]byte, 0, replyRoom))
	if !later {
		return reply
	}
	select {
	case reply := <-answer:
		return reply
	case <-ctx.Done():
		return nil
	}
}
