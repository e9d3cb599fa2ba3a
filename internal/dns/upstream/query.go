package upstream

import (
	"github.com/miekg/dns"

	"dnsfleet/internal/dns/upstream/wire"
)

// NewQuery is the question as it is sent to upstreams: recursion and the AD bit asked for, the client's DO and CD kept,
// nothing else of the client's query. Its id is set by the transport.
func NewQuery(q dns.Question, do, cd bool) *dns.Msg {
	query := &dns.Msg{Question: []dns.Question{q}}
	query.RecursionDesired = true
	query.AuthenticatedData = true
	query.CheckingDisabled = cd
	query.SetEdns0(wire.UDPSize, do)
	return query
}
