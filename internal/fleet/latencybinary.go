package fleet

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

// AppendBinary appends the short form that stores keep: for each bin that is not empty its distance from the one
// before and its count, about two bytes. It is a tenth of the JSON form and read ten times as fast. It never fails.
func (l Latency) AppendBinary(b []byte) ([]byte, error) {
	if l.Count() == 0 {
		return b, nil
	}
	last := firstBin
	l.sketch.GetPositiveValueStore().ForEach(func(bin int, n float64) (stop bool) {
		if n <= 0 {
			return false
		}
		b = binary.AppendUvarint(b, uint64(bin-last)) // bins come in order, and none lies below firstBin
		last = bin
		if n == math.Trunc(n) && n <= MaxCount {
			b = binary.AppendUvarint(b, uint64(n)<<1)
			return false
		}
		// A sender with another mapping may count in fractions, and sums may go beyond MaxCount.
		b = binary.AppendUvarint(b, 1)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(n))
		return false
	})
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote. It keeps nothing of b.
func (l *Latency) UnmarshalBinary(b []byte) error {
	*l = Latency{}
	if len(b) == 0 {
		return nil
	}
	bad := fmt.Errorf("%w: a binary latency sketch is malformed", ErrInvalid)
	sketch := ddsketch.NewDDSketchFromStoreProvider(latencyMapping, store.DenseStoreConstructor)
	bins := sketch.GetPositiveValueStore()
	for bin, first := firstBin, true; len(b) > 0; first = false {
		step, used := binary.Uvarint(b)
		if used <= 0 || step >= uint64(LatencyBins) || (step == 0 && !first) {
			return bad
		}
		b = b[used:]
		packed, used := binary.Uvarint(b)
		if used <= 0 {
			return bad
		}
		b = b[used:]
		n := float64(packed >> 1)
		if packed&1 == 1 {
			if packed != 1 || len(b) < 8 {
				return bad
			}
			n = math.Float64frombits(binary.LittleEndian.Uint64(b))
			b = b[8:]
		}
		if bin += int(step); bin >= firstBin+LatencyBins || !(n > 0) || math.IsInf(n, 0) {
			return bad
		}
		bins.AddWithCount(bin, n)
	}
	l.sketch = sketch
	return nil
}
