// Package privacy decides what is kept of a client. It is applied to an event before anything counts or keeps it.
package privacy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"

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
	maxRemembered  = 4096
)

// Filter takes from events what is not to be kept. It may be used concurrently.
type Filter struct {
	mode Mode
	key  []byte

	mu    sync.RWMutex
	names map[client]string // pseudonyms, because to make one takes longer than to answer a query
}

type client struct {
	addr netip.Addr
	name string
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
	return &Filter{mode: mode, key: key, names: map[client]string{}}, nil
}

// Apply takes from the event what is not to be kept.
func (f *Filter) Apply(e *fleet.QueryEvent) {
	switch f.mode {
	case Full:
	case Hash:
		if e.Client.IsValid() || e.ClientName != "" {
			e.ClientName = f.pseudonym(client{e.Client.Unmap().WithZone(""), e.ClientName})
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
	f.mu.RLock()
	name, known := f.names[c]
	f.mu.RUnlock()
	if known {
		return name
	}
	mac := hmac.New(sha256.New, f.key)
	address, _ := c.addr.MarshalBinary() // never fails
	if c.name != "" {                    // a client with a name is known by it, whatever its address
		address = nil
	}
	mac.Write(address)
	mac.Write([]byte{0})
	mac.Write([]byte(c.name))
	name = "client-" + hex.EncodeToString(mac.Sum(nil)[:pseudonymBytes])
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.names) >= maxRemembered {
		clear(f.names)
	}
	f.names[c] = name
	return name
}
