package recorder

import (
	"cmp"
	"slices"
)

// place is where in the chunks an event is.
type place struct {
	at    int64
	chunk int32
	index int32
}

// order sorts places by time. It keeps room between calls.
type order struct {
	places, spare []place
	ends          []int
}

// sort puts the places in order. What a thread recorded is in order already, so there are
// few runs to merge, most of the time.
func (o *order) sort() {
	o.ends = o.ends[:0]
	for i := 1; i <= len(o.places); i++ {
		if i == len(o.places) || o.places[i].at < o.places[i-1].at {
			o.ends = append(o.ends, i)
		}
	}
	if len(o.ends) > 2+len(o.places)/8 { // sorting moves places less often than merging so many does
		slices.SortFunc(o.places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
		return
	}
	o.spare = slices.Grow(o.spare[:0], len(o.places))[:len(o.places)]
	for len(o.ends) > 1 {
		begin, runs := 0, 0
		for i := 0; i < len(o.ends); i += 2 {
			mid, end := o.ends[i], o.ends[min(i+1, len(o.ends)-1)]
			merge(o.spare[begin:end], o.places[begin:mid], o.places[mid:end])
			o.ends[runs] = end
			begin, runs = end, runs+1
		}
		o.ends = o.ends[:runs]
		o.places, o.spare = o.spare, o.places
	}
}

// merge fills into with a and b, which are in order.
func merge(into, a, b []place) {
	for len(a) > 0 && len(b) > 0 {
		if b[0].at < a[0].at {
			into[0], b = b[0], b[1:]
		} else {
			into[0], a = a[0], a[1:]
		}
		into = into[1:]
	}
	copy(into, a) // of which one is empty
	copy(into, b)
}
