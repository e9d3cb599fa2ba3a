package fleet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/axiomhq/hyperloglog"

	"dnsfleet/internal/fleet"
)

// uniques is the sketch of the things from to to-1.
func uniques(from, to int) (u fleet.Uniques) {
	for i := from; i < to; i++ {
		u.Add(fmt.Appendf(nil, "192.0.2.%d", i))
	}
	return u
}

func TestUniquesCountWithinTwoPercent(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 50, 163, 164, 165, 1000, 5000, 20_000, 100_000} {
		u := uniques(0, n)
		got := u.Count()
		if math.Abs(float64(got)-float64(n)) > 0.02*float64(n) {
			t.Errorf("got %d, want %d within 2 %%", got, n)
		}
		var merged fleet.Uniques
		for i := range 8 { // overlapping parts
			merged.Merge(uniques(i*n/10, (i+3)*n/10))
		}
		if got := merged.Count(); math.Abs(float64(got)-float64(n)) > 0.02*float64(n) {
			t.Errorf("merged: got %d, want %d within 2 %%", got, n)
		}
		merged.Merge(u)
		merged.Merge(merged)
		if got, want := merged.Count(), u.Count(); n <= 1000 && got != want {
			t.Errorf("what was there already, %d: got %d, want %d", n, got, want)
		}
	}
}

func TestUniquesCountAsTheLibraryDoes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 1000, 10_000, 16_384, 50_000, 1_000_000} {
		sketch := hyperloglog.NewNoSparse()
		for i := range n {
			sketch.Insert(fmt.Append(nil, i))
		}
		b, err := sketch.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var u fleet.Uniques
		if err := u.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if got, want := u.Count(), sketch.Estimate(); got != want {
			t.Errorf("%d: got %d, want %d", n, got, want)
		}
	}
}

func TestMergingUniquesChangesOnlyTheOneMergedInto(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 20_000} {
		a, b := uniques(0, n), uniques(n, 2*n)
		before := a.Count()
		var sum fleet.Uniques
		sum.Merge(a)
		sum.Merge(b)
		if a.Count() != before || !a.Equal(uniques(0, n)) || !b.Equal(uniques(n, 2*n)) || a.Equal(sum) {
			t.Errorf("merging %d and %d changed its arguments", n, n)
		}
		if got := sum.Count(); math.Abs(float64(got)-2*float64(n)) > 0.04*float64(n) {
			t.Errorf("got %d, want %d within 2 %%", got, 2*n)
		}
	}
}

// The race detector sees a reader that changes what it reads.
func TestUniquesMayBeReadConcurrently(t *testing.T) {
	t.Parallel()
	for _, u := range []fleet.Uniques{uniques(0, 100), decoded(t, uniques(0, 5000)), uniques(0, 30_000)} {
		var group sync.WaitGroup
		start := make(chan struct{})
		for range 4 {
			group.Go(func() {
				<-start
				var sum fleet.Uniques
				sum.Merge(u)
				sum.Merge(u)
				sum.Add([]byte("x"))
				if u.Count() == 0 || sum.Count() == 0 {
					t.Error("got 0, want more")
				}
				if _, err := u.MarshalText(); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		group.Wait()
	}
}

func decoded(t *testing.T, u fleet.Uniques) (out fleet.Uniques) {
	t.Helper()
	text, err := u.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := out.UnmarshalText(text); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUniquesComeThroughUnchanged(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 100, 164, 1000, 6000, 30_000} {
		u := uniques(0, n)
		got := decoded(t, u)
		if !got.Equal(u) || got.Count() != u.Count() || got.IsZero() != (n == 0) {
			t.Errorf("%d: got a sketch of %d, want the same", n, got.Count())
		}
		backwards := fleet.Uniques{}
		for i := n - 1; i >= 0; i-- {
			backwards.Add(fmt.Appendf(nil, "192.0.2.%d", i))
			if i%500 == 0 {
				backwards.Count()
			}
		}
		if !backwards.Equal(u) {
			t.Errorf("%d things in another order: got another sketch", n)
		}
	}
	s := fleet.Sketches{}
	if b, err := json.Marshal(s); err != nil || string(b) != "{}" {
		t.Errorf("nothing: got %s, %v, want {}", b, err)
	}
	if err := json.Unmarshal([]byte(`{"clients":""}`), &s); err != nil || !s.Clients.IsZero() {
		t.Errorf("an empty text: got %v, want an empty sketch", err)
	}
}

func TestForeignUniquesAreRefused(t *testing.T) {
	t.Parallel()
	sixteen := hyperloglog.New16()
	sixteen.Insert([]byte("x"))
	foreign, err := sixteen.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	long, err := hyperloglog.New16NoSparse().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	good, err := uniques(0, 10).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Clone(good)
	old[0] = 1
	for name, b := range map[string][]byte{
		"one byte": {2}, "another precision": foreign, "a long one": long, "an older version": old, "one that is cut off": good[:len(good)-1],
		"one with more behind": append(bytes.Clone(good), 0), "a header alone": good[:8], "zeros": make([]byte, 100),
	} {
		var u fleet.Uniques
		if err := u.UnmarshalBinary(b); !errors.Is(err, fleet.ErrInvalid) || !u.IsZero() {
			t.Errorf("%s: got %v, want ErrInvalid and an empty sketch", name, err)
		}
	}
	for name, text := range map[string]string{"no base64": `"§"`, "much text": `"` + strings.Repeat("A", 30_000) + `"`, "a number": `7`} {
		var s fleet.Slice
		if err := json.Unmarshal([]byte(`{"clients":`+text+`}`), &s); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// FuzzUniques: any bytes are refused, or are a sketch that can be counted, merged in every way and encoded, counts at most
// MaxCount, and comes through again unchanged.
func FuzzUniques(f *testing.F) {
	for _, n := range []int{0, 1, 200, 6000, 30_000} {
		b, err := uniques(0, n).AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	highest := append([]byte{2, 14, 0, 0, 0, 0, 0x40, 0}, bytes.Repeat([]byte{51}, 1<<14)...)
	f.Add(highest)
	f.Add(append([]byte{2, 14, 0, 1, 0, 0, 0, 2}, make([]byte, 20)...))
	some, many := uniques(0, 300), uniques(0, 20_000)
	f.Fuzz(func(t *testing.T, b []byte) {
		var u, again fleet.Uniques
		if err := u.UnmarshalBinary(b); err != nil {
			if !errors.Is(err, fleet.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
			return
		}
		once, err := u.AppendBinary(nil)
		if err != nil || u.Count() > fleet.MaxCount {
			t.Fatalf("got %v and a count of %d", err, u.Count())
		}
		if err := again.UnmarshalBinary(once); err != nil || !again.Equal(u) {
			t.Fatalf("read again: %v", err)
		}
		for _, other := range []fleet.Uniques{{}, some, many, again} {
			a, c := fleet.Uniques{}, fleet.Uniques{}
			a.Merge(u)
			a.Merge(other)
			c.Merge(other)
			c.Merge(u)
			a.Add([]byte("one more"))
			if a.Count() > fleet.MaxCount || c.Count() > fleet.MaxCount {
				t.Fatalf("merged: got a count of %d and %d", a.Count(), c.Count())
			}
		}
		if !again.Equal(u) {
			t.Error("merging changed what was merged")
		}
	})
}

func BenchmarkUniques(b *testing.B) {
	for _, n := range []int{50, 5000, 100_000} {
		u := uniques(0, n)
		text, err := u.MarshalText()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("count/%d", n), func(b *testing.B) {
			for b.Loop() {
				u.Count()
			}
		})
		b.Run(fmt.Sprintf("decode/%d", n), func(b *testing.B) {
			b.ReportMetric(float64(len(text)), "bytes")
			for b.Loop() {
				var v fleet.Uniques
				if err := v.UnmarshalText(text); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("merge/%d", n), func(b *testing.B) {
			sum := uniques(n/2, n+n/2)
			for b.Loop() {
				sum.Merge(u)
			}
		})
	}
}
