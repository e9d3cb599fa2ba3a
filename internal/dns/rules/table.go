package rules

import (
	"bytes"
	"hash/maphash"
	"math/bits"
)

// seed is one for the process. Nobody outside can know it, so nobody can craft names that collide.
var seed = maphash.MakeSeed()

func hash(subject []byte) uint64 { return maphash.Bytes(seed, subject) }

// table finds entries by what they are about: open addressing over one flat array. A slot holds 24 bits of the hash
// and a ref; 0 is free. Entries about the same lie in the order in which they were added.
type table struct {
	slots []uint64
	used  int
}

// newTable has room for capacity entries, and spare free slots beside each, which make searches short.
func newTable(capacity int, spare float64) table {
	if capacity == 0 {
		return table{}
	}
	return table{slots: make([]uint64, capacity+int(spare*float64(capacity))+1)}
}

// first is where a search begins; it scales the hash to the table, so that any size will do.
func (t *table) first(h uint64) int {
	hi, _ := bits.Mul64(h, uint64(len(t.slots)))
	return int(hi)
}

func (t *table) next(i int) int {
	if i++; i == len(t.slots) {
		return 0
	}
	return i
}

// tag is the part of a hash that a slot holds. It comes from the other end than what first uses.
func tag(h uint64) uint64 { return h << refBits }

// What add returns when it enters nothing.
const (
	isThere = -1
	isFull  = -2
)

// add enters the entry of ref unless same says that one about the same is there already, or limit others are about
// the same. It returns how many others there are. There must be a free slot.
func (t *table) add(a *arena, ref uint64, same func(other uint64) bool, limit int) (others int) {
	about := subject(a.entry(ref))
	h := hash(about)
	i := t.first(h)
	for ; t.slots[i] != 0; i = t.next(i) {
		if t.slots[i]&^refMask != tag(h) {
			continue
		}
		other := t.slots[i] & refMask
		if !bytes.HasPrefix(a.entry(other)[1:], about) {
			continue
		}
		if same(other) {
			return isThere
		}
		if others++; others >= limit {
			return isFull
		}
	}
	t.slots[i] = tag(h) | ref
	t.used++
	return others
}

// sameRule reports whether two entries say the same, however they were written.
func sameRule(a, b []byte) bool {
	if a[0]&^flagAdblock != b[0]&^flagAdblock {
		return false
	}
	return bytes.Equal(a[1:entrySize(a)], b[1:entrySize(b)])
}
