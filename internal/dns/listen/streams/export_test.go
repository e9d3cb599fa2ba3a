package streams

import "time"

// Split is the whole messages in stream, read by pieces of the given sizes, and whether all of it was in order.
func Split(stream []byte, sizes []byte) (messages [][]byte, ok bool) {
	in := inbox{buffer: make([]byte, smallBuffer)}
	for i := 0; len(stream) > 0; i++ {
		size := len(stream)
		if len(sizes) > 0 {
			size = min(size, 1+int(sizes[i%len(sizes)]))
		}
		n := copy(in.free(), stream[:size])
		stream = stream[n:]
		in.add(n, time.Time{})
		for {
			raw, ok := in.next()
			if !ok {
				return messages, false
			}
			if raw == nil {
				break
			}
			messages = append(messages, append([]byte(nil), raw...))
		}
		in.compact(time.Time{})
		if cap(in.buffer) > 2*maxMessage {
			panic("the buffer grows without bound")
		}
	}
	return messages, true
}
