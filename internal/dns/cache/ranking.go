package cache

import (
	"cmp"
	"slices"
)

// ranked is an entry and how popular it is.
type ranked struct {
	entry *Entry
	uses  int
}

// ranking gathers the most popular entries; those that expire sooner come first among equals.
type ranking []ranked

// add keeps memory within twice what is wanted.
func (r *ranking) add(e ranked, most int) {
	if *r = append(*r, e); len(*r) >= 2*most+64 {
		*r = r.best(most)
	}
}

func (r *ranking) best(most int) []ranked {
	slices.SortFunc(*r, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.uses, a.uses), cmp.Compare(a.entry.expires, b.entry.expires))
	})
	return (*r)[:min(len(*r), max(most, 0))]
}
