package local

import "github.com/miekg/dns"

// packName is a name with the final dot in wire form and lower case.
func packName(name string) (string, bool) {
	var buf [256]byte
	wire, ok := appendName(buf[:], name)
	return string(wire), ok
}

// appendName is packName into the 256 bytes of buf.
func appendName(buf []byte, name string) ([]byte, bool) {
	end, err := dns.PackDomainName(name, buf, 0, nil, false)
	if err != nil || end == 0 || end > 255 {
		return nil, false
	}
	wire := buf[:end]
	for i, c := range wire {
		if c >= 'A' && c <= 'Z' { // the length of a label is below them
			wire[i] = c + 'a' - 'A'
		}
	}
	return wire, true
}

// unpackName is a name in wire form with the final dot.
func unpackName(wire []byte) string {
	name, _, err := dns.UnpackDomainName(wire, 0)
	if err != nil {
		return "."
	}
	return name
}

// parent is the name in wire form without its first label; that of the root is the root.
func parent(name string) string {
	if len(name) <= 1 {
		return "\x00"
	}
	return name[1+int(name[0]):]
}

// filter tells most names that are not in a set from those that are.
type filter [64]uint64

func (f *filter) add(name []byte) {
	bit := mix(name)
	f[bit/64] |= 1 << (bit % 64)
}

func (f *filter) has(name []byte) bool {
	bit := mix(name)
	return f[bit/64]&(1<<(bit%64)) != 0
}

// mix is a number below 4096 made of a few bytes of a name that is not the root.
func mix(name []byte) uint32 {
	n := len(name)
	word := uint32(name[0]) | uint32(name[1])<<8 | uint32(name[n/2])<<16 | uint32(name[n-2])<<24
	return ((word ^ uint32(n)*0x85ebca6b) * 0x9e3779b1) >> 20
}
