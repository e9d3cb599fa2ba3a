package failure_test

import (
	"strconv"
	"testing"
	"time"

	"dnsfleet/internal/dns/upstream/failure"
	"dnsfleet/internal/dns/upstream/wire"
)

var start = time.Unix(1_800_000_000, 0)

func query(label string, qtype uint16, cd bool) []byte {
	name := append(append([]byte{byte(len(label))}, label...), 0)
	return wire.AppendQuery(nil, name, qtype, 1, false, cd)
}

func TestAFailureIsOfOneQuestionInAnyCase(t *testing.T) {
	c := failure.New()
	failed := query("www", 1, false)
	if c.Has(failed, start, 1) {
		t.Error("nothing has failed: got a failure")
	}
	c.Add(failed, start, 0)
	for what, q := range map[string]struct {
		query []byte
		want  bool
	}{
		"the same":                       {failed, true},
		"in another case":                {query("WwW", 1, false), true},
		"with DNSSEC records":            {wire.AppendQuery(nil, []byte("\x03www\x00"), 1, 1, true, false), true},
		"without validation":             {query("www", 1, true), false},
		"another type":                   {query("www", 28, false), false},
		"another name":                   {query("ww", 1, false), false},
		"a name that only looks similar": {query("w\xc3\x89", 1, false), false},
	} {
		if got := c.Has(q.query, start, 1); got != q.want {
			t.Errorf("%s: got %v, want %v", what, got, q.want)
		}
	}
	c.Add(query("w\xc3\x89", 1, false), start, 0)
	if c.Has(query("w\xc3\xa9", 1, false), start, 1) {
		t.Error("letters beyond ASCII: got their case ignored")
	}
}

func TestAFailureLastsTwiceAsLongEachTimeUpToFiveMinutes(t *testing.T) {
	c, q, now := failure.New(), query("www", 1, false), start
	for i, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		c.Add(q, now, 0)
		now = now.Add(time.Duration(seconds) * time.Second)
		if !c.Has(q, now.Add(-1), 1) || c.Has(q, now, 1) {
			t.Errorf("failure %d: want it to last %d s", i+1, seconds)
		}
	}
	now = now.Add(2 * time.Minute)
	c.Add(q, now, 0)
	if c.Has(q, now.Add(time.Second), 1) {
		t.Error("long after: got a failure that lasts longer than the first")
	}
	c.Add(q, now, 0)
	c.Forget(q)
	if c.Has(q, now, 1) {
		t.Error("forgotten: got a failure")
	}
}

func TestOfAnEarlierEraOnlyTheFirstSecondCounts(t *testing.T) {
	c, q := failure.New(), query("www", 1, false)
	c.Add(q, start, 7)
	c.Add(q, start, 7) // for two seconds
	for _, when := range []struct {
		after time.Duration
		era   uint64
		want  bool
	}{{900 * time.Millisecond, 7, true}, {900 * time.Millisecond, 8, true}, {1100 * time.Millisecond, 7, true}, {1100 * time.Millisecond, 8, false}} {
		if got := c.Has(q, start.Add(when.after), when.era); got != when.want {
			t.Errorf("after %v in era %d: got %v, want %v", when.after, when.era, got, when.want)
		}
	}
}

func TestAsManyAreRememberedAsThereIsRoomFor(t *testing.T) {
	c := failure.New()
	name := func(i int) []byte { return query(strconv.Itoa(i), 1, false) }
	for i := range 10000 {
		c.Add(name(i), start, 0)
	}
	remembered := 0
	for i := range 10000 {
		if c.Has(name(i), start, 1) {
			remembered++
		}
	}
	if remembered < 3500 || remembered > 4096 {
		t.Errorf("got %d of 10000 remembered, want nearly 4096 and no more", remembered)
	}
}

func BenchmarkHas(b *testing.B) {
	c, q := failure.New(), query("www", 1, false)
	c.Add(query("other", 1, false), start, 0)
	b.ReportAllocs()
	for b.Loop() {
		if c.Has(q, start, 1) {
			b.Fatal("got a failure")
		}
	}
}
