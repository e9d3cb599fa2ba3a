package wire

// name is where a name begins in msg; it has been walked by skip before.
type name struct {
	msg []byte
	off int
}

const (
	headerSize = 12
	maxName    = 255
)

// skip walks the name at off and returns where what follows it begins. Pointers must lead strictly backwards, so there
// are no loops, and all labels together must fit into 255 bytes (RFC 1035, sections 2.3.4 and 4.1.4).
func skip(msg []byte, off int) (next int, ok bool) {
	length, start, jumped := 0, off, false
	for off < len(msg) {
		b := int(msg[off])
		switch b & 0xC0 {
		case 0:
			length += b + 1
			off += b + 1
			if length > maxName || off > len(msg) {
				return 0, false
			}
			if b > 0 {
				continue
			}
			if !jumped {
				next = off
			}
			return next, true
		case 0xC0:
			if off+2 > len(msg) {
				return 0, false
			}
			target := (b&0x3F)<<8 | int(msg[off+1])
			if target < headerSize || target >= start {
				return 0, false
			}
			if !jumped {
				next, jumped = off+2, true
			}
			off, start = target, target
		default:
			return 0, false
		}
	}
	return 0, false
}

// label returns the label at n and the rest of the name; nil at its end.
func (n name) label() (label []byte, rest name) {
	off := n.off
	for n.msg[off]&0xC0 == 0xC0 {
		off = int(n.msg[off]&0x3F)<<8 | int(n.msg[off+1])
	}
	length := int(n.msg[off])
	if length == 0 {
		return nil, name{n.msg, off}
	}
	return n.msg[off+1 : off+1+length], name{n.msg, off + 1 + length}
}

// equal compares without regard to case (RFC 4343).
func (n name) equal(other name) bool {
	for {
		if n.off == other.off && &n.msg[0] == &other.msg[0] {
			return true
		}
		var a, b []byte
		a, n = n.label()
		b, other = other.label()
		if len(a) != len(b) || !equalFold(a, b) {
			return false
		}
		if len(a) == 0 {
			return true
		}
	}
}

// within reports whether n is zone or below it.
func (n name) within(zone name) bool {
	for {
		if n.equal(zone) {
			return true
		}
		var label []byte
		if label, n = n.label(); label == nil {
			return false
		}
	}
}

func equalFold(a, b []byte) bool {
	for i, x := range a {
		if lower(x) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b | 0x20
	}
	return b
}
