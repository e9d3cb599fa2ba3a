package listen

// Stats are counts since Bind, but for ConnectionsOpen.
type Stats struct {
	ConnectionsOpen     uint64 // of TCP, DoT and DoH, now
	ConnectionsAccepted uint64
	ConnectionsRefused  uint64 // because there were too many that were all busy
	ConnectionsEvicted  uint64 // to make room for another one
	ConnectionsSlow     uint64 // closed because they did not take their answers
	HandshakesFailed    uint64
	AcceptsFailed       uint64 // such as for want of descriptors
	DatagramsDropped    uint64 // by the kernel, because they were not read in time; 0 where it does not say
	AnswersShed         uint64 // over UDP, for want of room in the kernel
	SendErrors          uint64 // over UDP
	Panics              uint64 // of the Handler
}

// Stats are the counts so far. It is safe for concurrent use.
func (s *Server) Stats() Stats {
	connections := s.gate.Stats()
	stats := Stats{
		ConnectionsOpen: connections.Open, ConnectionsAccepted: connections.Accepted, ConnectionsRefused: connections.Refused,
		ConnectionsEvicted: connections.Evicted, HandshakesFailed: connections.Handshakes, AcceptsFailed: connections.Accepts,
		Panics: connections.Panics,
	}
	if shared := s.streamStats.Load(); shared != nil {
		tcp, dot := shared.tcp.Stats(), shared.dot.Stats()
		stats.Panics += shared.panics.Load()
		stats.ConnectionsSlow = tcp.Overflows + tcp.Timeouts + dot.Overflows + dot.Timeouts
	}
	for _, l := range s.lanes {
		d := l.socket.Stats()
		stats.DatagramsDropped += d.Dropped
		stats.AnswersShed += d.Shed
		stats.SendErrors += d.Errors
		stats.Panics += l.panics.Load()
	}
	return stats
}
