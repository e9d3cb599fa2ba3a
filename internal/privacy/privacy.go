// Package privacy decides what is kept of a client. It is applied to an event before anything counts or keeps it.
package privacy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"dnsfleet/internal/fleet"
)

// Mode says what is kept of a client.
type Mode string

// The modes.
const (
	Full      Mode = "full"      // address and name
	Hash      Mode = "hash"      // a pseudonym that is always the same for a client of one instance
	Truncate  Mode = "truncate"  // the network: an IPv4 address without its last 8 bits, an IPv6 address without its last 80
	Anonymous Mode = "anonymous" // nothing
)

// KeyBytes is how long the key of pseudonyms is at least.
const KeyBytes = 32

const (
	prefix4 = 24
	prefix6 = 48
	// pseudonymBytes keeps two of a million clients from having one pseudonym, with a chance of 1 in 2^20.
	pseudonymBytes = 8
)

// How many pseudonyms are remembered, in sets of which each has the clients of some hashes.
const (
	sets = 1024
	ways = 4
)

// Filter takes from events what is not to be kept. It may be used concurrently.
type Filter struct {
	mode Mode
	key  []byte

	// Pseudonyms are remembered, because to make one takes longer than to answer a query, and read without a lock, because all
	// cores do so all the time. nil for other modes than Hash.
	seed  maphash.Seed
	known *[sets][ways]atomic.Pointer[pseudonym]
}

// client is whom a pseudonym stands for: by name, whatever the address, or by address.
type client struct {
	addr netip.Addr
	name string
}

type pseudonym struct {
	of   client
	text string
}

// New makes a filter. key is a secret of KeyBytes or more, which only Hash needs: whoever has it can try which client a
// pseudonym stands for.
func New(mode Mode, key []byte) (*Filter, error) {
	switch mode {
	case Full, Truncate, Anonymous:
	case Hash:
		if len(key) < KeyBytes {
			return nil, fmt.Errorf("%w: the key of pseudonyms must have %d bytes", fleet.ErrInvalid, KeyBytes)
		}
	default:
		return nil, fmt.Errorf("%w: privacy mode %q is none of full, hash, truncate, anonymous", fleet.ErrInvalid, mode)
	}
	f := &Filter{mode: mode, key: key, seed: maphash.MakeSeed()}
	if mode == Hash {
		f.known = new([sets][ways]atomic.Pointer[pseudonym])
	}
	return f, nil
}

// Apply takes from the event what is not to be kept.
func (f *Filter) Apply(e *fleet.QueryEvent) {
	switch f.mode {
	case Full:
	case Hash:
		switch {
		case e.ClientName != "":
			e.ClientName = f.pseudonym(client{name: e.ClientName})
		case e.Client.IsValid():
			e.ClientName = f.pseudonym(client{addr: e.Client.Unmap().WithZone("")})
		}
		e.Client = netip.Addr{}
	case Truncate:
		e.Client, e.ClientName = network(e.Client), ""
	case Anonymous:
		e.Client, e.ClientName = netip.Addr{}, ""
	}
}

func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	bits := prefix6
	if a.Is4() {
		bits = prefix4
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Addr{} // a is no address
	}
	return p.Addr()
}

func (f *Filter) pseudonym(c client) string {
	set := &f.known[f.hash(c)%sets]
	free := -1
	for i := range set {
		p := set[i].Load()
		switch {
		case p == nil:
			free = i
		case p.of == c:
			return p.text
		}
	}
	if free < 0 {
		free = int(rand.Uint32() % ways) //nolint:gosec // any will do
	}
	text := f.make(c)
	set[free].Store(&pseudonym{c, text})
	return text
}

func (f *Filter) hash(c client) uint64 {
	if c.name != "" {
		return maphash.String(f.seed, c.name)
	}
	address := c.addr.As16()
	return maphash.Bytes(f.seed, address[:])
}

func (f *Filter) make(c client) string {
	mac := hmac.New(sha256.New, f.key)
	address, _ := c.addr.MarshalBinary() // never fails; empty for a client with a name
	mac.Write(address)
	mac.Write([]byte{0})
	mac.Write([]byte(c.name))
	return "client-" + hex.EncodeToString(mac.Sum(nil)[:pseudonymBytes])
}
