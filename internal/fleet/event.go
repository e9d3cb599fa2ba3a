package fleet

import (
	"net/netip"
	"time"
)

// QueryEvent is one answered query: what is counted, and what the query log keeps.
type QueryEvent struct {
	Time       time.Time // when the query arrived
	Client     netip.Addr
	ClientName string // "" when unknown
	Protocol   string // udp, tcp, dot, doh, doq
	QName      string // lower case, with the final dot
	QType      uint16
	QClass     uint16
	Outcome    Outcome
	RCode      int
	Duration   time.Duration // from arrival to the answer being ready
	Upstream   string        // address of the upstream that answered, "" for none
	List       string        // name of the list whose rule blocked, "" for none
}
