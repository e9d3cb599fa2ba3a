package sketch

import (
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/apache/datasketches-go/frequencies"

	"dnsfleet/internal/fleet"
)

// A top has room for 2,048 names, fills three quarters of it, and forgets the rarest beyond. It begins with room for 8.
const (
	logMost  = 11
	logLeast = 3
)

// top counts names and forgets the rare ones. Its zero value is empty.
type top struct {
	sketch *frequencies.ItemsSketch[string]
	beyond int64  // error of merged sketches that had forgotten all names, which the library leaves out
	last   string // counted last
}

// hasher makes it impossible to choose names that meet in one place of a table.
type hasher struct{ seed maphash.Seed }

// Hash is what the library asks for.
func (h hasher) Hash(name string) uint64 { return maphash.String(h.seed, name) }

// add counts a name n times.
func (t *top) add(h hasher, name string, n int64) {
	t.last = name
	t.begin(h, logLeast)
	must(t.sketch.UpdateMany(name, n))
}

// merge adds all of other, which stays as it is.
func (t *top) merge(h hasher, other *top) {
	if other.sketch == nil {
		return
	}
	if other.sketch.IsEmpty() {
		t.beyond += other.sketch.GetMaximumError()
	}
	t.beyond += other.beyond
	t.last = other.last
	t.begin(h, bits.Len(uint(other.sketch.GetCurrentMapCapacity())))
	_, err := t.sketch.Merge(other.sketch)
	must(err)
}

func (t *top) begin(h hasher, logRoom int) {
	if t.sketch == nil {
		s, err := frequencies.NewFrequencyItemsSketch[string](logMost, logRoom, h, nil)
		must(err)
		t.sketch = s
	}
}

// list is the first limit names, as fleet.Sketches promises; nil when nothing was counted.
func (t *top) list(limit int) []fleet.TopItem {
	if t.sketch == nil {
		return nil
	}
	rows, err := t.sketch.GetFrequentItems(frequencies.ErrorTypeEnum.NoFalseNegatives)
	must(err)
	unsure := uint64(t.sketch.GetMaximumError() + t.beyond)
	if len(rows) == 0 { // all were rare and are forgotten, which the list must tell
		return []fleet.TopItem{{Name: t.last, Count: unsure, ErrorBound: unsure}}
	}
	items := make([]fleet.TopItem, len(rows))
	for i, r := range rows {
		items[i] = fleet.TopItem{Name: r.GetItem(), Count: uint64(r.GetLowerBound()) + unsure, ErrorBound: unsure}
	}
	slices.SortFunc(items, fleet.TopItem.ByCount)
	return slices.Clone(items[:min(limit, len(items))])
}

// must ends the program where the library finds its own table broken, which no name or count can do.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
