package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// udpSize is the largest UDP answer that is asked for (DNS flag day 2020).
const udpSize = 1232

// errMismatch says that a stream brought an answer to something else.
var errMismatch = errors.New("answer does not match the question")

// DialFunc opens a connection to host:port, whose host may be a name.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// transport is one way to one upstream: it sends a question and returns the answer that matches it. Later transports
// (DoT, DoH) keep connections behind the same method.
type transport interface {
	Exchange(ctx context.Context, query *dns.Msg) (*dns.Msg, error)
}

// plain is DNS over UDP, with TCP for answers that are cut short, or over TCP alone.
type plain struct {
	scheme    string
	addresses []string // host:port, tried in order
	dial      DialFunc
	buffers   *sync.Pool
}

func newPlain(e endpoint, bootstrap []string, dial DialFunc) *plain {
	p := &plain{scheme: e.scheme, dial: dial}
	p.buffers = &sync.Pool{New: func() any { return new([dns.MaxMsgSize]byte) }}
	hosts := bootstrap
	if len(hosts) == 0 || net.ParseIP(e.host) != nil {
		hosts = []string{e.host}
	}
	for _, h := range hosts {
		p.addresses = append(p.addresses, net.JoinHostPort(h, e.port))
	}
	return p
}

// Exchange asks the first address that can be dialed.
func (p *plain) Exchange(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	query = query.Copy()
	query.Id = uint16(rand.Uint32()) //nolint:gosec // the runtime's generator is ChaCha8, seeded by the system
	wire, err := query.Pack()
	if err != nil {
		return nil, fmt.Errorf("pack question: %w", err)
	}
	if p.scheme == "tcp" {
		return p.overTCP(ctx, query, wire)
	}
	reply, err := p.overUDP(ctx, query, wire)
	if err != nil || !reply.Truncated {
		return reply, err
	}
	if reply, err = p.overTCP(ctx, query, wire); err != nil {
		return nil, fmt.Errorf("answer was truncated, and over tcp: %w", err)
	}
	return reply, nil
}

// connect opens a connection of its own for each exchange, so that each UDP question leaves from a fresh random port
// and the kernel drops what comes from elsewhere.
func (p *plain) connect(ctx context.Context, network string) (net.Conn, error) {
	var errs []error
	for _, address := range p.addresses {
		conn, err := p.dial(ctx, network, address)
		if err == nil {
			deadline, _ := ctx.Deadline()
			return conn, conn.SetDeadline(deadline)
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// overUDP waits for the right answer until ctx ends; others, which anybody can send, are passed over.
func (p *plain) overUDP(ctx context.Context, query *dns.Msg, wire []byte) (*dns.Msg, error) {
	conn, err := p.connect(ctx, "udp")
	if err != nil {
		return nil, err
	}
	defer conn.Close()                                                          //nolint:errcheck // nothing is buffered
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })() // an end before the deadline
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buffer := p.buffers.Get().(*[dns.MaxMsgSize]byte)
	defer p.buffers.Put(buffer)
	for {
		n, err := conn.Read(buffer[:])
		if err != nil {
			return nil, err
		}
		reply := new(dns.Msg)
		err = reply.Unpack(buffer[:n])
		if Answers(reply, query) && (err == nil || reply.Truncated) { // some cut in the middle of a record
			return reply, nil
		}
	}
}

func (p *plain) overTCP(ctx context.Context, query *dns.Msg, wire []byte) (*dns.Msg, error) {
	conn, err := p.connect(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	defer conn.Close()                                                          //nolint:errcheck // nothing is buffered
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })() // an end before the deadline
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	buffer := p.buffers.Get().(*[dns.MaxMsgSize]byte)
	defer p.buffers.Put(buffer)
	if _, err := io.ReadFull(conn, buffer[:2]); err != nil {
		return nil, err
	}
	body := buffer[:binary.BigEndian.Uint16(buffer[:2])]
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	reply := new(dns.Msg)
	if err := reply.Unpack(body); err != nil {
		return nil, err
	}
	if !Answers(reply, query) || reply.Truncated {
		return nil, errMismatch
	}
	return reply, nil
}

// Answers reports whether reply is a response to query: its id, its opcode, its question. A server that understood
// nothing may leave the question out.
func Answers(reply, query *dns.Msg) bool {
	if !reply.Response || reply.Id != query.Id || reply.Opcode != query.Opcode {
		return false
	}
	if len(reply.Question) == 0 {
		return reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError && len(reply.Answer) == 0
	}
	got, want := reply.Question[0], query.Question[0]
	return len(reply.Question) == 1 && got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}
