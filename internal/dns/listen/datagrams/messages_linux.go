package datagrams

import "golang.org/x/sys/unix"

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

// stride is between two input buffers: a multiple of the page size would have all headers compete for one cache line.
const stride = MaxSize + 128

// incoming is a batch to read into. Its addresses are in the messages, so it is not copied.
type incoming struct {
	messages    [Batch]message
	vectors     [Batch]unix.Iovec
	names       [Batch][nameSize]byte
	controls    [Batch][controlSize]byte
	buffers     [Batch][stride]byte
	datagrams   [Batch]Datagram
	used        int // messages that the kernel wrote to
	controlSize int
}

func (in *incoming) init(control bool) {
	for i := range in.messages {
		h := &in.messages[i].header
		in.vectors[i].Base = &in.buffers[i][0]
		in.vectors[i].SetLen(MaxSize)
		h.Iov = &in.vectors[i]
		h.SetIovlen(1)
		h.Name = &in.names[i][0]
		if control {
			h.Control = &in.controls[i][0]
			in.controlSize = controlSize
		}
	}
	in.used = Batch
}

// reset says again how much room there is.
func (in *incoming) reset() {
	for i := range in.messages[:in.used] {
		in.messages[i].header.Namelen = nameSize
		in.messages[i].header.SetControllen(in.controlSize)
	}
	in.used = 0
}

func (in *incoming) take(n int) []Datagram {
	in.used = n
	for i := range n {
		m := &in.messages[i]
		in.datagrams[i] = Datagram{Data: in.buffers[i][:m.length:MaxSize], From: senderOf(in.names[i][:m.header.Namelen])}
	}
	return in.datagrams[:n]
}

// outgoing is a batch to write from.
type outgoing struct {
	messages [Batch]message
	vectors  [Batch]unix.Iovec
}

func newOutgoing() *outgoing {
	out := new(outgoing)
	out.init()
	return out
}

func (out *outgoing) init() {
	for i := range out.messages {
		out.messages[i].header.Iov = &out.vectors[i]
		out.messages[i].header.SetIovlen(1)
	}
}

// set makes message i of parts that stay where they are until it is sent.
func (out *outgoing) set(i int, data, name, control []byte) {
	h := &out.messages[i].header
	out.vectors[i].Base = &data[0]
	out.vectors[i].SetLen(len(data))
	h.Name, h.Namelen = &name[0], uint32(len(name))
	h.Control = nil
	if len(control) > 0 {
		h.Control = &control[0]
	}
	h.SetControllen(len(control))
}

// forget lets the collector have what was sent.
func (out *outgoing) forget() {
	for i := range out.vectors {
		h := &out.messages[i].header
		out.vectors[i].Base, h.Name, h.Control = nil, nil, nil
	}
}

// forgetInterface takes the interface out of pktinfo: the route back need not be the way a query came. An answer from a
// link-local address has no other route.
func forgetInterface(control []byte) {
	const v4, v6 = unix.SizeofCmsghdr, unix.SizeofCmsghdr + 16 // where the index is
	switch {
	case len(control) >= v6+4: // in_pktinfo is shorter, also with its padding
		if address := control[unix.SizeofCmsghdr:]; address[0] != 0xFE || address[1]&0xC0 != 0x80 {
			clear(control[v6 : v6+4])
		}
	case len(control) >= v4+4:
		clear(control[v4 : v4+4])
	}
}
