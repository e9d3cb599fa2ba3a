package fleet

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and writes as text: "24h", "90s", and "7d" for days.
type Duration time.Duration

// MarshalText writes the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration that is not negative.
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := ParseDuration(string(b))
	if err == nil {
		*d = Duration(parsed)
	}
	return err
}

// ParseDuration reads "24h", "90s", "0" or "7d" (whole days); it refuses what is negative.
func ParseDuration(text string) (time.Duration, error) {
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n > 36500 {
			return 0, fmt.Errorf("%w: %q is not a duration such as 60s, 24h or 7d", ErrInvalid, text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%w: %q is not a duration such as 60s, 24h or 7d", ErrInvalid, text)
	}
	return d, nil
}

// Bytes is a size in bytes that reads "64MiB", "512KiB", "1GiB" or a plain number, and writes the shortest of them.
type Bytes int64

var byteUnits = []struct {
	suffix string
	size   int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// MarshalText writes the size.
func (n Bytes) MarshalText() ([]byte, error) {
	for _, u := range byteUnits {
		if n > 0 && int64(n)%u.size == 0 {
			return fmt.Appendf(nil, "%d%s", int64(n)/u.size, u.suffix), nil
		}
	}
	return strconv.AppendInt(nil, int64(n), 10), nil
}

// UnmarshalJSON reads a text or a number.
func (n *Bytes) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		text = string(b)
	}
	return n.UnmarshalText([]byte(text))
}

// UnmarshalText reads what MarshalText writes.
func (n *Bytes) UnmarshalText(b []byte) error {
	text, unit := string(b), int64(1)
	for _, u := range byteUnits {
		if digits, found := strings.CutSuffix(text, u.suffix); found {
			text, unit = digits, u.size
			break
		}
	}
	count, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || count < 0 || count > math.MaxInt64/unit {
		return fmt.Errorf("%w: %q is not a size such as 64MiB", ErrInvalid, string(b))
	}
	*n = Bytes(count * unit)
	return nil
}

// BlockMode is how a blocked query is answered: by Mode "nxdomain", "zero" (0.0.0.0 and ::) or "refused", or with
// the Addresses of one's own. In YAML and JSON it is a word or {address: […]}.
type BlockMode struct {
	Mode      string
	Addresses []netip.Addr
}

type blockAddresses struct {
	Address []netip.Addr `json:"address"`
}

// MarshalJSON writes the word or the addresses.
func (m BlockMode) MarshalJSON() ([]byte, error) {
	if len(m.Addresses) > 0 {
		return json.Marshal(blockAddresses{m.Addresses})
	}
	return json.Marshal(m.Mode)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *BlockMode) UnmarshalJSON(b []byte) error {
	var word string
	if json.Unmarshal(b, &word) == nil {
		switch word {
		case "nxdomain", "zero", "refused":
			*m = BlockMode{Mode: word}
			return nil
		}
		return fmt.Errorf("%w: block_mode %q is none of nxdomain, zero, refused, {address: […]}", ErrInvalid, word)
	}
	var a blockAddresses
	if err := json.Unmarshal(b, &a); err != nil || len(a.Address) == 0 {
		return fmt.Errorf("%w: block_mode must be nxdomain, zero, refused or {address: [IP…]}", ErrInvalid)
	}
	*m = BlockMode{Addresses: a.Address}
	return nil
}
