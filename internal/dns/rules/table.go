package rules

import (
	"iter"
	"math/bits"
)

// table maps hashes of names to small values: open addressing over two flat arrays, 12.5 bytes a name, nothing in it
// for the collector to walk. Two names share a 64-bit hash by chance once in 10^13 look-ups of a million names.
type table struct {
	keys   []uint64 // 0 = free
	values []uint16
	names  int
}

// belowOnly marks a value whose rule holds for what is below the name, not the name itself.
const belowOnly = 1 << 15

func newTable(capacity int) table {
	if capacity == 0 {
		return table{}
	}
	slots := capacity + capacity/4 + 1
	return table{keys: make([]uint64, slots), values: make([]uint16, slots)}
}

// slot is where a search for the hash begins; it scales the hash to the table, so that any size will do.
func (t *table) slot(hash uint64) int {
	hi, _ := bits.Mul64(hash, uint64(len(t.keys)))
	return int(hi)
}

// add keeps the first value of a name, except that a rule for the name itself replaces one for what is below it.
func (t *table) add(hash uint64, value uint16) {
	i := t.slot(hash)
	for t.keys[i] != 0 && t.keys[i] != hash {
		if i++; i == len(t.keys) {
			i = 0
		}
	}
	switch {
	case t.keys[i] == 0:
		t.keys[i], t.values[i] = hash, value
		t.names++
	case t.values[i]&belowOnly != 0 && value&belowOnly == 0:
		t.values[i] = value
	}
}

func (t *table) addAll(hashes []uint64, value uint16) {
	for _, h := range hashes {
		t.add(h, value)
	}
}

func (t *table) find(hash uint64) (value uint16, found bool) {
	if t.names == 0 {
		return 0, false
	}
	for i := t.slot(hash); ; {
		switch t.keys[i] {
		case hash:
			return t.values[i], true
		case 0:
			return 0, false
		}
		if i++; i == len(t.keys) {
			i = 0
		}
	}
}

// suffixes are the name and its parents, most specific first.
func suffixes(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := name; s != ""; s = parent(s) {
			if !yield(s) {
				return
			}
		}
	}
}
