package cache_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
)

// popularAt are the names that are popular at a time.
func popularAt(t *testing.T, c *cache.Cache, at, within time.Duration, most int) []string {
	t.Helper()
	names := []string{}
	for _, q := range c.Popular(begin.Add(at), within, most) {
		name, _, err := dns.UnpackDomainName(q.Name, 0)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// use looks a name up at each of the times.
func use(t *testing.T, c *cache.Cache, name string, at ...time.Duration) {
	t.Helper()
	for _, d := range at {
		c.Lookup(question(t, name, dns.TypeA), begin.Add(d))
	}
}

func every(step, until time.Duration) (all []time.Duration) {
	for d := time.Duration(0); d < until; d += step {
		all = append(all, d)
	}
	return all
}

func TestPopular(t *testing.T) {
	t.Parallel()
	const minute = time.Minute
	soa := []string{"x. 600 IN SOA ns.x. h.x. 1 1 1 1 600"}
	for _, c := range []struct {
		name   string
		msg    *dns.Msg
		uses   []time.Duration
		at     time.Duration
		within time.Duration
		want   bool
	}{
		{"what is used all the time is", address(t, "a.x.", 600), every(10*time.Second, 9*minute), 9*minute + time.Second, 0, true},
		{"the last tenth begins at its ninth", address(t, "a.x.", 600), every(10*time.Second, 9*minute), 9*minute - 2*time.Second, 0, false},
		{"within reaches further than the last tenth", address(t, "a.x.", 600), every(10*time.Second, 9*minute), 8 * minute, 2 * minute, true},
		{"what has expired is not", address(t, "a.x.", 600), every(10*time.Second, 10*minute), 10 * minute, minute, false},
		{"what is never used is not", address(t, "a.x.", 600), nil, 9*minute + time.Second, 0, false},
		{"what is used once is not", address(t, "a.x.", 600), []time.Duration{8 * minute}, 9*minute + time.Second, 0, false},
		{"many uses at once are one", address(t, "a.x.", 600), slices.Repeat([]time.Duration{8 * minute}, 50), 9*minute + time.Second, 0, false},
		{"what was used often, but a TTL ago, is not", address(t, "a.x.", 6000), every(10*time.Second, 9*minute), 99 * minute, 0, false},
		{"two uses within a long TTL are enough", address(t, "a.x.", 600), []time.Duration{4 * minute, 8 * minute}, 9*minute + time.Second, 0, true},
		{"a short TTL takes more uses", address(t, "a.x.", 30), []time.Duration{0, 15 * time.Second}, 28 * time.Second, 0, true},
		{"NXDOMAIN is", message(t, "a.x.", dns.TypeA, dns.RcodeNameError, nil, soa), every(10*time.Second, 9*minute), 9*minute + time.Second, 0, true},
		{"NODATA is not", message(t, "a.x.", dns.TypeA, 0, nil, soa), every(10*time.Second, 9*minute), 9*minute + time.Second, 0, false},
		{"a failure is not", message(t, "a.x.", dns.TypeA, dns.RcodeServerFailure, nil, nil), every(time.Second, 5*time.Second), 4 * time.Second, 10 * minute, false},
	} {
		kept := cache.New(nil)
		insert(t, kept, begin, c.msg)
		use(t, kept, "a.x.", c.uses...)
		want := []string{}
		if c.want {
			want = append(want, "a.x.")
		}
		if got := popularAt(t, kept, c.at, c.within, 10); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", c.name, got, want)
		}
	}
}

func TestPopularityOutlivesTheAnswer(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	insert(t, c, begin, address(t, "a.x.", 60))
	use(t, c, "a.x.", every(5*time.Second, 54*time.Second)...)
	insert(t, c, begin.Add(55*time.Second), address(t, "a.x.", 60))
	if got := popularAt(t, c, 110*time.Second, 0, 10); len(got) != 1 {
		t.Errorf("after one TTL without use: got %v, want it refreshed once more", got)
	}
	for i := range 20 {
		insert(t, c, begin.Add(time.Duration(110+55*i)*time.Second), address(t, "a.x.", 60))
	}
	if got := popularAt(t, c, (110+55*20)*time.Second, 0, 10); len(got) != 0 {
		t.Errorf("after twenty: got %v, want it given up", got)
	}
}

func TestTheMostPopularComeFirst(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("n%03d.x.", i)
		insert(t, c, begin, address(t, name, 600))
		if i < 30 {
			use(t, c, name, every(15*time.Second, time.Duration(30-i)*15*time.Second)...)
			want = append(want, name)
		} else {
			use(t, c, name, 30*time.Second)
		}
	}
	if got := popularAt(t, c, 550*time.Second, 0, 20); !slices.Equal(got, want[:20]) {
		t.Errorf("got %v, want %v", got, want[:20])
	}
	for _, most := range []int{0, -1} {
		if got := popularAt(t, c, 550*time.Second, 0, most); len(got) != 0 {
			t.Errorf("at most %d: got %v", most, got)
		}
	}
	q := question(t, "a.x.", dns.TypeA)
	q.DO, q.CD = true, true
	if _, ok := c.Insert(q, wire(t, address(t, "a.x.", 60)), begin); !ok {
		t.Fatal("insert: got false")
	}
	c.Find(q, begin)
	c.Find(q, begin.Add(20*time.Second))
	if got := c.Popular(begin.Add(55*time.Second), 0, 9); len(got) != 1 || !bytes.Equal(got[0].Name, q.Name) || !got[0].DO || !got[0].CD || got[0].Type != q.Type {
		t.Errorf("got %+v, want the question as it was asked", got)
	}
}
