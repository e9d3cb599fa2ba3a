package fleet

import (
	"bytes"
	"encoding/base64"
	"fmt"

	"github.com/axiomhq/hyperloglog"
)

// Uniques is a sketch of how many different things there were: a HyperLogLog of 2^14 registers, with a standard error of
// 0.8 %, and nearly exact below a few thousand. It takes four bytes for each thing, and never more than 16 KiB. Its zero value is
// empty. A copy shares what it holds with the original: only Add, Merge and the Unmarshal methods change a sketch, so
// whoever changes one owns it. All else may be called concurrently.
type Uniques struct{ held *heldUniques }

type heldUniques struct {
	sketch *hyperloglog.Sketch
	loose  bool // the library would tidy it up when it is read
}

// Add counts a thing.
func (u *Uniques) Add(thing []byte) {
	if u.held == nil {
		u.held = &heldUniques{sketch: hyperloglog.New14()}
	}
	u.held.sketch.Insert(thing)
	u.held.loose = true
}

// Merge makes u the sketch of what was added to either. It does not change other.
func (u *Uniques) Merge(other Uniques) {
	switch {
	case other.held == nil || other.held == u.held:
	case u.held == nil:
		u.held = &heldUniques{other.held.sketch.Clone(), other.held.loose}
	default:
		if err := u.held.sketch.Merge(other.held.sketch); err != nil {
			panic(err) // cannot be: all have one precision, which UnmarshalBinary holds
		}
		u.held.loose = true
	}
}

// Count is how many different things were added, within the sketch's error, and at most MaxCount.
func (u Uniques) Count() uint64 {
	if u.held == nil {
		return 0
	}
	b, err := u.held.sketch.AppendBinary(nil)
	if err != nil {
		return 0 // cannot be: it has its precision
	}
	if b[sparseAt] == 0 {
		return min(estimate(b[registersAt:]), MaxCount) // only a forged sketch tells more
	}
	sketch := u.held.sketch
	if u.held.loose {
		sketch = sketch.Clone()
	}
	return min(sketch.Estimate(), MaxCount)
}

// IsZero reports whether nothing was added.
func (u Uniques) IsZero() bool { return u.held == nil }

// Equal reports whether both sketches are the same.
func (u Uniques) Equal(other Uniques) bool {
	a, errA := u.AppendBinary(nil)
	b, errB := other.AppendBinary(nil)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// AppendBinary appends the sketch in the library's own form, nothing when it is empty. Sketches of the same things have
// the same form.
func (u Uniques) AppendBinary(b []byte) ([]byte, error) {
	if u.held == nil {
		return b, nil
	}
	out, err := u.held.sketch.AppendBinary(b)
	if err == nil && u.held.loose && out[len(b)+sparseAt] == 1 {
		sketch := u.held.sketch.Clone()
		sketch.Estimate() // tidies it up
		out, err = sketch.AppendBinary(b)
	}
	if err != nil {
		return b, fmt.Errorf("encode sketch of uniques: %w", err)
	}
	return out, nil
}

// Where things are in the library's form.
const (
	sparseAt    = 3 // 0 = it has all registers, one byte each
	registersAt = 8
)

// What a foreign sketch may be: of the one version and precision that all instances use, because others cannot be
// merged, and no longer than the longest honest one, which has all its registers.
const (
	uniquesVersion   = 2
	uniquesPrecision = 14
	maxUniquesBytes  = 1<<uniquesPrecision + 64
)

// UnmarshalBinary reads what AppendBinary wrote; other bytes are ErrInvalid. It keeps nothing of b.
func (u *Uniques) UnmarshalBinary(b []byte) error {
	*u = Uniques{}
	if len(b) == 0 {
		return nil
	}
	if len(b) <= registersAt || len(b) > maxUniquesBytes || b[0] != uniquesVersion || b[1] != uniquesPrecision {
		return fmt.Errorf("%w: a sketch of uniques must be a HyperLogLog of precision %d and of at most %d bytes", ErrInvalid, uniquesPrecision, maxUniquesBytes)
	}
	sketch := new(hyperloglog.Sketch)
	if err := sketch.UnmarshalBinary(b); err != nil {
		return fmt.Errorf("%w: sketch of uniques: %w", ErrInvalid, err)
	}
	if b[sparseAt] == 1 {
		sketch.Estimate() // tidies it up, so that later readers change nothing
	}
	u.held = &heldUniques{sketch: sketch}
	return nil
}

// MarshalText is the sketch in base64, "" when it is empty.
func (u Uniques) MarshalText() ([]byte, error) {
	b, err := u.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText wrote; other text is ErrInvalid.
func (u *Uniques) UnmarshalText(text []byte) error {
	if len(text) > base64.StdEncoding.EncodedLen(maxUniquesBytes) {
		return fmt.Errorf("%w: a sketch of uniques has at most %d bytes", ErrInvalid, maxUniquesBytes)
	}
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("%w: a sketch of uniques must be base64 text", ErrInvalid)
	}
	return u.UnmarshalBinary(b)
}
