// Package demo makes a fleet look alive without the internet: an upstream that knows every name, a block list, and
// clients that ask for names the way people do.
package demo

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
)

// How many names the demo's clients choose from.
const (
	goodNames = 5000
	adNames   = 400
)

var hosts = []string{"www", "api", "cdn", "img", "mail", "static", "m", "news"}

var words = []string{"lemon", "harbor", "willow", "copper", "meadow", "falcon", "amber", "cedar", "pebble", "orchid", "raven", "maple"}

func goodName(i int) string {
	return fmt.Sprintf("%s.%s-%d.example.", hosts[i%len(hosts)], words[i%len(words)], i)
}

func adName(i int) string { return fmt.Sprintf("ads%d.tracker.example.", i) }

// WriteBlockList writes the demo's block list as a hosts file. Its names are those that Traffic asks for as ads.
func WriteBlockList(w io.Writer) error {
	buf := bufio.NewWriter(w)
	fmt.Fprintln(buf, "# block list of the demo")
	for i := range adNames {
		fmt.Fprintf(buf, "0.0.0.0 ads%d.tracker.example\n", i)
	}
	return buf.Flush()
}

// chooser picks names: most from a Zipf distribution over good names, some from one over ads.
type chooser struct {
	rng       *rand.Rand
	good, ads *rand.Zipf
	adShare   float64
}

func newChooser(seed uint64, adShare float64) *chooser {
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a demo's traffic need not be unpredictable
	return &chooser{rng: rng, good: rand.NewZipf(rng, 1.2, 4, goodNames-1), ads: rand.NewZipf(rng, 1.3, 4, adNames-1), adShare: adShare}
}

func (c *chooser) next() string {
	if c.rng.Float64() < c.adShare {
		return adName(int(c.ads.Uint64()))
	}
	return goodName(int(c.good.Uint64()))
}
