package pattern

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Index finds which of many patterns may match a name. It is immutable.
type Index struct {
	patterns []*Pattern
	always   []int // patterns of which nothing is known
	pairs    grams // by two characters
	triples  grams // by three
}

// grams finds patterns by short texts of which one is in every name that they match.
type grams struct {
	width int
	bits  []uint64 // which texts there are, by hash; nil when there are none
	rows  []gram   // sorted by key
}

type gram struct {
	key     uint32
	pattern int32
}

const gramBits = 16

// NewIndex makes an index of patterns; their positions are how Scan names them.
func NewIndex(patterns []*Pattern) *Index {
	x := &Index{patterns: patterns, pairs: grams{width: 2}, triples: grams{width: 3}}
	uses := map[uint32]int{} // texts that many patterns have tell little
	for i, p := range patterns {
		if !p.Filtered() {
			x.always = append(x.always, i)
		}
		for _, literal := range p.literals {
			if len(literal) < 3 {
				x.pairs.add(key(literal), i)
				continue
			}
			best, lowest := uint32(0), math.MaxInt
			for at := range len(literal) - 2 {
				text := literal[at : at+3]
				if score := weight(text) + uses[key(text)]; score < lowest {
					best, lowest = key(text), score
				}
			}
			uses[best]++
			x.triples.add(best, i)
		}
	}
	x.pairs.sort()
	x.triples.sort()
	return x
}

// Empty reports whether there is nothing to scan for.
func (x *Index) Empty() bool { return x == nil || len(x.patterns) == 0 }

// Scan calls try with each pattern that may match the name, some of them more than once. The name is one as Pattern
// matches it.
func (x *Index) Scan(name []byte, try func(i int)) {
	for _, i := range x.always {
		try(i)
	}
	x.triples.scan(name, try)
	x.pairs.scan(name, try)
}

func (g *grams) add(k uint32, pattern int) {
	if g.bits == nil {
		g.bits = make([]uint64, 1<<gramBits/64)
	}
	h := slot(k)
	g.bits[h/64] |= 1 << (h % 64)
	g.rows = append(g.rows, gram{k, int32(pattern)})
}

func (g *grams) sort() {
	slices.SortFunc(g.rows, func(a, b gram) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.pattern, b.pattern)) })
	g.rows = slices.Clip(slices.Compact(g.rows))
}

func (g *grams) scan(name []byte, try func(i int)) {
	if g.bits == nil {
		return
	}
	mask := uint32(1)<<(8*g.width) - 1
	k := uint32(0)
	for i, c := range name {
		k = k<<8&mask | uint32(c)
		if i+1 < g.width {
			continue
		}
		if h := slot(k); g.bits[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(g.rows, k, func(row gram, k uint32) int { return cmp.Compare(row.key, k) })
		for ; at < len(g.rows) && g.rows[at].key == k; at++ {
			try(int(g.rows[at].pattern))
		}
	}
}

func key(text string) uint32 {
	k := uint32(0)
	for i := range len(text) {
		k = k<<8 | uint32(text[i])
	}
	return k
}

func slot(k uint32) uint32 { return k * 0x9E3779B1 >> (32 - gramBits) }

// weight is high for texts that are in many names.
func weight(text string) int {
	n := strings.Count(text, ".")
	for _, common := range []string{"com", "net", "org", "www"} {
		if strings.Contains(text, common) {
			n += 4
		}
	}
	return n
}
