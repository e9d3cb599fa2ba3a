package upstream

import (
	"context"
	"net"

	"github.com/miekg/dns"
)

// NewQuery is the question as it is sent to upstreams: recursion and the AD bit asked for, the client's DO and CD kept,
// nothing else of the client's query. Its id is set by the transport.
func NewQuery(q dns.Question, do, cd bool) *dns.Msg {
	query := &dns.Msg{Question: []dns.Question{q}}
	query.RecursionDesired = true
	query.AuthenticatedData = true
	query.CheckingDisabled = cd
	query.SetEdns0(udpSize, do)
	return query
}

func dialPlain(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}
