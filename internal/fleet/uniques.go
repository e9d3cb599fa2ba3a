package fleet

import (
	"encoding/base64"
	"fmt"

	"github.com/axiomhq/hyperloglog"
)

// Uniques is a sketch of how many different things there were: a HyperLogLog of 2^14 registers, with a standard error of
// 0.8 %. Its zero value is empty. A copy shares what it holds with the original: only Add and Merge change a sketch, so
// whoever changes one owns it. It is not safe for concurrent changes.
type Uniques struct{ sketch *hyperloglog.Sketch }

// Add counts a thing.
func (u *Uniques) Add(thing []byte) {
	if u.sketch == nil {
		u.sketch = hyperloglog.New14()
	}
	u.sketch.Insert(thing)
}

// Merge makes u the sketch of what was added to either. It does not change other.
func (u *Uniques) Merge(other Uniques) {
	switch {
	case other.sketch == nil:
	case u.sketch == nil:
		u.sketch = other.sketch.Clone()
	default:
		if err := u.sketch.Merge(other.sketch); err != nil {
			panic(err) // cannot be: all have one precision, which UnmarshalText holds
		}
	}
}

// Count is how many different things were added, within the sketch's error.
func (u Uniques) Count() uint64 {
	if u.sketch == nil {
		return 0
	}
	return u.sketch.Estimate()
}

// IsZero reports whether nothing was added.
func (u Uniques) IsZero() bool { return u.sketch == nil }

// MarshalText is the sketch in base64.
func (u Uniques) MarshalText() ([]byte, error) {
	if u.sketch == nil {
		return nil, nil
	}
	b, err := u.sketch.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode sketch of uniques: %w", err)
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}
