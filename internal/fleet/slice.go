package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Size is the length of a slice: Minute, TenMinutes or Hour.
type Size time.Duration

// The three sizes in which every instance builds its history.
const (
	Minute     = Size(time.Minute)
	TenMinutes = Size(10 * time.Minute)
	Hour       = Size(time.Hour)
)

// Sizes are all sizes, shortest first.
func Sizes() []Size { return []Size{Minute, TenMinutes, Hour} }

// Duration is the size as a duration.
func (s Size) Duration() time.Duration { return time.Duration(s) }

// String is "1m", "10m" or "1h".
func (s Size) String() string {
	switch s {
	case Minute:
		return "1m"
	case TenMinutes:
		return "10m"
	case Hour:
		return "1h"
	}
	return time.Duration(s).String()
}

// ParseSize reads what String writes.
func ParseSize(text string) (Size, error) {
	for _, s := range Sizes() {
		if s.String() == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%w: size %q is none of 1m, 10m, 1h", ErrInvalid, text)
}

// MarshalText writes String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Size) UnmarshalText(b []byte) error {
	size, err := ParseSize(string(b))
	if err == nil {
		*s = size
	}
	return err
}

// Keep is how long a store keeps slices of this size at most; DNSFLEET_HISTORY may say less.
func (s Size) Keep() time.Duration {
	switch s {
	case Minute:
		return 2 * time.Hour
	case TenMinutes:
		return 24 * time.Hour
	default:
		return 90 * 24 * time.Hour
	}
}

// Slice is the unit of history: what one instance counted in one UTC minute, ten minutes or hour of one boot. It
// is complete before it leaves the instance and is stored under (instance, size, start, boot) as absolute values,
// so sending it twice, late or out of order changes nothing. Any window of any instances is the merge of slices.
type Slice struct {
	Size      Size            `json:"size"`
	Start     time.Time       `json:"start"` // a whole multiple of Size, UTC
	BootID    string          `json:"boot_id"`
	Seconds   float64         `json:"seconds,omitempty"` // how much of it the boot lived through; 0 = all of it
	Outcomes  Outcomes        `json:"outcomes"`
	Latency   Latency         `json:"latency"`
	Upstreams []UpstreamSlice `json:"upstreams"`
	Sketches                  // clients in ten-minute and hour slices, tops in hour slices
}

// UpstreamSlice is what a slice says of one upstream. Latency covers only exchanges that brought an answer, so
// that time-outs show as errors and not as a slow mean.
type UpstreamSlice struct {
	Address string  `json:"address"`
	Count   uint64  `json:"count"` // exchanges, errors included
	Errors  uint64  `json:"errors"`
	Latency Latency `json:"latency"`
}

// End is the first instant after the slice.
func (s Slice) End() time.Time { return s.Start.Add(s.Size.Duration()) }

// Covered is how much of the slice the boot lived through.
func (s Slice) Covered() time.Duration {
	if s.Seconds > 0 {
		return min(time.Duration(s.Seconds*float64(time.Second)), s.Size.Duration())
	}
	return s.Size.Duration()
}

// Validate says what is wrong with a slice that came from elsewhere.
func (s Slice) Validate() error {
	switch {
	case !slices.Contains(Sizes(), s.Size):
		return fmt.Errorf("%w: slice size %s is none of 1m, 10m, 1h", ErrInvalid, s.Size)
	case s.Start.Unix() <= 0 || !s.Start.Equal(s.Start.Truncate(s.Size.Duration())):
		return fmt.Errorf("%w: slice start %s is not a whole multiple of %s", ErrInvalid, s.Start.UTC().Format(time.RFC3339), s.Size)
	case !ValidID(s.BootID):
		return fmt.Errorf("%w: slice boot_id must match %s", ErrInvalid, idPattern)
	case s.Seconds < 0 || s.Seconds > s.Size.Duration().Seconds():
		return fmt.Errorf("%w: slice seconds must lie between 0 and its size", ErrInvalid)
	case len(s.Upstreams) > maxUpstreams:
		return fmt.Errorf("%w: a slice names at most %d upstreams", ErrInvalid, maxUpstreams)
	}
	for _, u := range s.Upstreams {
		if err := validUpstream(u.Address, u.Count, u.Errors); err != nil {
			return err
		}
	}
	return s.validate()
}

// Normalize makes a valid slice that came from elsewhere one that every store keeps alike: it has the sketches that slices
// of its size have, and no others, with sorted lists.
func (s *Slice) Normalize() {
	switch s.Size {
	case Minute:
		s.Sketches = Sketches{}
	case TenMinutes:
		s.Sketches = Sketches{Clients: s.Clients}
	default:
		s.Sketches.Normalize()
	}
}

// MergeSlices adds slices of any instances and boots into one sum: outcomes, latency, upstreams (sorted by address) and
// sketches (lists with TopOfHour names). Size, Start and BootID of the result are those of the first; Seconds is the sum of what each covered.
// It does not change its arguments.
func MergeSlices(parts ...Slice) Slice {
	if len(parts) == 0 {
		return Slice{Upstreams: []UpstreamSlice{}}
	}
	sum := Slice{Size: parts[0].Size, Start: parts[0].Start, BootID: parts[0].BootID}
	at := map[string]int{}
	sum.Upstreams = []UpstreamSlice{}
	sketches := make([]Sketches, len(parts))
	for i, p := range parts {
		sketches[i] = p.Sketches
		sum.Outcomes = sum.Outcomes.Plus(p.Outcomes)
		sum.Latency.Merge(p.Latency)
		sum.Seconds += p.Covered().Seconds()
		for _, u := range p.Upstreams {
			i, known := at[u.Address]
			if !known {
				i = len(sum.Upstreams)
				at[u.Address] = i
				sum.Upstreams = append(sum.Upstreams, UpstreamSlice{Address: u.Address})
			}
			sum.Upstreams[i].Count += u.Count
			sum.Upstreams[i].Errors += u.Errors
			sum.Upstreams[i].Latency.Merge(u.Latency)
		}
	}
	sum.Sketches = mergeSketches(TopOfHour, TopOfHour, sketches)
	slices.SortFunc(sum.Upstreams, func(a, b UpstreamSlice) int { return strings.Compare(a.Address, b.Address) })
	return sum
}

// SlicesUntil tells up to which instant (exclusive) a store holds every slice that a boot has built, without a hole.
type SlicesUntil struct {
	BootID string    `json:"boot_id"`
	Size   Size      `json:"size"`
	Until  time.Time `json:"until"`
}
