package listen

import "dnsfleet/internal/dns/listen/datagrams"

// Outbox sends the answers of many messages: those that leave by one UDP socket with few system calls. The zero value
// is ready. It is for one goroutine.
type Outbox struct {
	queues []*queue // one for each lane that was met
}

// queue is the datagrams of one lane.
type queue struct {
	lane       *lane
	responders []*Responder
	peers      []*datagrams.Peer
	replies    [][]byte
}

// Add is like r.Send(reply), but UDP waits for Flush, or for 64 of one socket.
func (o *Outbox) Add(r *Responder, reply []byte) {
	if r.lane == nil || len(reply) == 0 {
		r.Send(reply)
		return
	}
	if !r.take() {
		return
	}
	q := o.queue(r.lane)
	q.responders = append(q.responders, r)
	q.peers = append(q.peers, &r.peer)
	q.replies = append(q.replies, reply)
	if len(q.replies) == datagrams.Batch {
		q.flush()
	}
}

// Flush sends what was added.
func (o *Outbox) Flush() {
	for _, q := range o.queues {
		q.flush()
	}
}

func (o *Outbox) queue(l *lane) *queue {
	for _, q := range o.queues {
		if q.lane == l {
			return q
		}
	}
	q := &queue{lane: l}
	o.queues = append(o.queues, q)
	return q
}

func (q *queue) flush() {
	if len(q.replies) == 0 {
		return
	}
	q.lane.socket.Send(q.peers, q.replies)
	for _, r := range q.responders {
		r.hand(nil)
	}
	clear(q.responders)
	clear(q.peers)
	clear(q.replies)
	q.responders, q.peers, q.replies = q.responders[:0], q.peers[:0], q.replies[:0]
}
