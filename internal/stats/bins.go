package stats

import (
	"math/bits"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
)

// binTable is fleet.LatencyBin without its logarithm, which takes longer than all else that counting does. It parts
// durations by their highest bits into cells so small that each lies in two bins at most.
type binTable [cells]cell

type cell struct {
	bin  int32 // of its first duration
	next int64 // the first duration of the next bin; of no use beyond the cell
}

const (
	cellBits = 6 // a cell is 1/64 of its power of two: less than a bin, which is 2 %
	leastBit = 9 // below 512 ns, and from 2^38 ns, there is one bin
	mostBit  = 38
	cells    = (mostBit - leastBit) << cellBits
)

// bin is fleet.LatencyBin(d).
func (t *binTable) bin(d time.Duration) int {
	n := uint64(min(max(d, 1<<leastBit), 1<<mostBit-1))
	power := bits.Len64(n) - 1
	c := &t[(power-leastBit)<<cellBits|int(n>>(power-cellBits)&(1<<cellBits-1))]
	bin := int(c.bin)
	if int64(n) >= c.next {
		bin++
	}
	return bin
}

// bins is the table, made when it is first needed.
var bins = sync.OnceValue(func() *binTable {
	var t binTable
	for i := range t {
		power := i>>cellBits + leastBit
		first := time.Duration(1<<cellBits|i&(1<<cellBits-1)) << (power - cellBits)
		low, high := first, first+1<<(power-cellBits)
		c := cell{bin: int32(fleet.LatencyBin(first))}
		for low < high { // the first of another bin
			mid := low + (high-low)/2
			if fleet.LatencyBin(mid) > int(c.bin) {
				high = mid
			} else {
				low = mid + 1
			}
		}
		c.next = int64(low)
		t[i] = c
	}
	return &t
})
