// Package cookie makes and checks DNS server cookies (RFC 7873, in the form of RFC 9018): whoever sends one back has
// received an answer of ours at its address a while ago, so its address is no forged one.
package cookie

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/dchest/siphash"
)

const (
	clientSize = 8
	serverSize = 16
	// Size is how long a whole COOKIE option is that Append writes.
	Size    = clientSize + serverSize
	version = 1

	maxAge    = time.Hour        // RFC 9018, section 4.3
	maxAhead  = 5 * time.Minute  // of our clock
	renewFrom = 30 * time.Minute // a cookie this old is answered with a new one
)

// Jar makes cookies with a secret of its own. It is safe for concurrent use.
type Jar struct{ k0, k1 uint64 }

// New makes a Jar with a new secret, which ends with the process: clients that come back with an older cookie get a
// new one.
func New() *Jar {
	var secret [SecretSize]byte
	_, _ = rand.Read(secret[:]) // never fails
	return NewWith(secret)
}

// SecretSize is how long a secret is.
const SecretSize = 16

// NewWith makes a Jar of a secret: Jars of one secret know each other's cookies.
func NewWith(secret [SecretSize]byte) *Jar {
	return &Jar{binary.LittleEndian.Uint64(secret[:8]), binary.LittleEndian.Uint64(secret[8:])}
}

// Append appends the COOKIE option to answer with: the client's part of the option that came, which must have at least 8
// bytes, and the server's. A server's part that came and is valid and not old is kept.
func (j *Jar) Append(dst, option []byte, client netip.Addr, now time.Time) []byte {
	if made, ok := j.made(option, client, now); ok && now.Sub(made) < renewFrom {
		return append(dst, option...)
	}
	dst = append(dst, option[:clientSize]...)
	return j.appendServer(dst, option[:clientSize], client, uint32(now.Unix()))
}

// Valid reports whether the COOKIE option holds a server's part that this Jar made for this client and that is not too old.
func (j *Jar) Valid(option []byte, client netip.Addr, now time.Time) bool {
	_, ok := j.made(option, client, now)
	return ok
}

// made is when a cookie was made. ok is false for one that is none of ours.
func (j *Jar) made(option []byte, client netip.Addr, now time.Time) (made time.Time, ok bool) {
	if len(option) != Size || option[clientSize] != version {
		return made, false
	}
	stamp := binary.BigEndian.Uint32(option[clientSize+4:])
	age := int32(uint32(now.Unix()) - stamp) // serial arithmetic (RFC 1982): the stamp has 32 bits
	if age > int32(maxAge/time.Second) || age < -int32(maxAhead/time.Second) {
		return made, false
	}
	var buf [serverSize]byte
	want := j.appendServer(buf[:0], option[:clientSize], client, stamp)
	if subtle.ConstantTimeCompare(want, option[clientSize:]) != 1 {
		return made, false
	}
	return now.Add(-time.Duration(age) * time.Second), true
}

func (j *Jar) appendServer(dst, clientCookie []byte, client netip.Addr, stamp uint32) []byte {
	var msg [clientSize + 8 + 16]byte
	copy(msg[:], clientCookie)
	head := msg[clientSize : clientSize+8]
	head[0] = version
	binary.BigEndian.PutUint32(head[4:], stamp)
	n := clientSize + 8
	if client = client.Unmap(); client.Is4() {
		a := client.As4()
		n += copy(msg[n:], a[:])
	} else {
		a := client.As16()
		n += copy(msg[n:], a[:])
	}
	dst = append(dst, head...)
	return binary.LittleEndian.AppendUint64(dst, siphash.Hash(j.k0, j.k1, msg[:n]))
}
