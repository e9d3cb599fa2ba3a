package fleet

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Outcome is what became of a query. Outcomes partition all client queries: their counts add up to the total.
type Outcome uint8

// The outcomes, in the order in which people read them.
const (
	Blocked       Outcome = iota // a rule said no
	Cached                       // fresh from the L0 or L1 cache
	Stale                        // from the cache, past its TTL (RFC 8767)
	Upstream                     // an upstream answered, NXDOMAIN included
	Local                        // own record or special-use name
	Rewritten                    // answered by a rewrite rule
	SafeSearch                   // answered by a safe-search rule
	Servfail                     // upstream said SERVFAIL, or a failure is cached
	UpstreamError                // no usable answer from any upstream
	Refused                      // client or class is not allowed
	RateLimited                  // client asked too often
	Invalid                      // malformed, or not a query that is served (FORMERR, NOTIMP, BADVERS)
	Dropped                      // shed under load
	NumOutcomes   = iota         // how many outcomes there are; not an outcome
)

var outcomeNames = [NumOutcomes]string{
	"blocked", "cached", "stale", "upstream", "local", "rewritten", "safe_search",
	"servfail", "upstream_error", "refused", "rate_limited", "invalid", "dropped",
}

// String is the outcome's name in every API; "outcome(n)" for a value that is none.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// ParseOutcome finds the outcome of that name.
func ParseOutcome(name string) (Outcome, bool) {
	for i, n := range outcomeNames {
		if n == name {
			return Outcome(i), true
		}
	}
	return 0, false
}

// MaxCount bounds every counter that an instance may report. A million queries a second take 35 years to reach
// it, it is exact in a float64 (JavaScript, Lua), and 4,096 instances at the bound still add up in a uint64.
const MaxCount = 1 << 50

// Outcomes counts queries by outcome, indexed by Outcome. The zero value is empty.
type Outcomes [NumOutcomes]uint64

// Total is the number of queries; it stays at the largest uint64 rather than wrap.
func (o Outcomes) Total() uint64 { return o.sum() }

func (o Outcomes) sum(which ...Outcome) uint64 {
	var total uint64
	add := func(n uint64) {
		if total+n < total {
			total = math.MaxUint64
			return
		}
		total += n
	}
	if len(which) == 0 {
		for _, n := range o {
			add(n)
		}
		return total
	}
	for _, w := range which {
		add(o[w])
	}
	return total
}

// Plus is the sum of both, outcome by outcome.
func (o Outcomes) Plus(p Outcomes) Outcomes {
	for i := range o {
		o[i] += p[i]
	}
	return o
}

// Minus is what o has more than p, outcome by outcome, and 0 where p has more.
func (o Outcomes) Minus(p Outcomes) Outcomes {
	for i := range o {
		o[i] -= min(o[i], p[i])
	}
	return o
}

// BlockedPercent is blocked ÷ total in percent (0–100), nil when nothing was asked.
func (o Outcomes) BlockedPercent() *float64 { return Percent(o[Blocked], o.Total()) }

// CachedPercent is (cached + stale) ÷ total in percent, nil when nothing was asked.
func (o Outcomes) CachedPercent() *float64 { return Percent(o.sum(Cached, Stale), o.Total()) }

// ErrorPercent is (servfail + upstream_error + invalid) ÷ total in percent, nil when nothing was asked.
func (o Outcomes) ErrorPercent() *float64 {
	return Percent(o.sum(Servfail, UpstreamError, Invalid), o.Total())
}

// Percent is part ÷ whole × 100, nil when whole is 0: a ratio of nothing is unknown, not zero.
func Percent(part, whole uint64) *float64 {
	if whole == 0 {
		return nil
	}
	p := 100 * float64(part) / float64(whole)
	return &p
}

// MarshalJSON writes the outcomes that happened: {"blocked":3}. Distribution writes all of them and the total.
func (o Outcomes) MarshalJSON() ([]byte, error) {
	return o.appendJSON(make([]byte, 0, 64), false), nil
}

func (o Outcomes) appendJSON(b []byte, all bool) []byte {
	b = append(b, '{')
	for i, n := range o {
		if n == 0 && !all {
			continue
		}
		if len(b) > 1 && b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), outcomeNames[i]...), `":`...)
		b = strconv.AppendUint(b, n, 10)
	}
	if all {
		b = strconv.AppendUint(append(b, `,"total":`...), o.Total(), 10)
	}
	return append(b, '}')
}

// UnmarshalJSON reads counts by outcome name. Names it does not know (a newer sender's) are ignored; a negative
// count, a fraction or one above MaxCount is an error.
func (o *Outcomes) UnmarshalJSON(b []byte) error {
	read, _, err := readOutcomes(b)
	if err == nil {
		*o = read
	}
	return err
}

func readOutcomes(b []byte) (o Outcomes, total *uint64, err error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return o, nil, err
	}
	for name, value := range raw {
		outcome, known := ParseOutcome(name)
		if !known && name != "total" {
			continue
		}
		var n uint64
		if err := json.Unmarshal(value, &n); err != nil || n > MaxCount*NumOutcomes || (known && n > MaxCount) {
			return o, nil, fmt.Errorf("%w: count of %q must be a whole number from 0 to %d", ErrInvalid, name, uint64(MaxCount))
		}
		if known {
			o[outcome] = n
		} else {
			total = &n
		}
	}
	return o, total, nil
}

// Distribution is Outcomes in the shape that reports and views use: every outcome, zeros included, and "total".
type Distribution struct{ Outcomes }

// MarshalJSON writes every outcome and the total.
func (d Distribution) MarshalJSON() ([]byte, error) {
	return d.appendJSON(make([]byte, 0, 256), true), nil
}

// UnmarshalJSON reads what MarshalJSON writes. The total may be absent; a total below the sum of the known
// outcomes is an error.
func (d *Distribution) UnmarshalJSON(b []byte) error {
	o, total, err := readOutcomes(b)
	if err != nil {
		return err
	}
	if total != nil && *total < o.Total() {
		return fmt.Errorf("%w: total %d is less than the sum of the outcomes, %d", ErrInvalid, *total, o.Total())
	}
	d.Outcomes = o
	return nil
}
