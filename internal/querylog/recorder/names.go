package recorder

import "hash/maphash"

// Bounds of the names that are remembered: some megabytes with the longest, two with those that people ask for.
const (
	nameSets = 1 << 13
	nameWays = 4
	longName = 255 // longer ones are made anew each time; DNS has none, but with bytes that must be escaped
)

// names gives equal bytes one string as long as it remembers it, so that a popular name is made once for many collections.
// It is for one user at a time.
type names struct {
	seed maphash.Seed
	sets [][nameWays]name // nil until there is a name
}

type name struct {
	hash uint64
	text string
}

func newNames() *names { return &names{seed: maphash.MakeSeed()} }

// of is the string of these bytes, clean as a batch may hold it.
func (n *names) of(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if n.sets == nil {
		n.sets = make([][nameWays]name, nameSets)
	}
	hash := maphash.Bytes(n.seed, b)
	set := &n.sets[hash%nameSets]
	for i := range set {
		if known := &set[i]; known.hash == hash && known.text == string(b) {
			return known.text
		}
	}
	text := string(b)
	if clean := cleanText(text); clean != text || len(text) > longName {
		return clean
	}
	set[hash>>32%nameWays] = name{hash, text} // as good as any: popular ones come again
	return text
}
