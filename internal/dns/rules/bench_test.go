package rules_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/rules"
)

// largeList is a hosts file of n names.
func largeList(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "0.0.0.0 ads-%d.tracker%d.example\n", i, i%1000)
	}
	return text.String()
}

// heap is what the heap holds after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestALargeListStaysSmallAndIsMatchedWithoutMemory(t *testing.T) {
	const names = 200_000
	text := largeList(names)
	before := heap()
	var b rules.Builder
	b.Add(readList(t, "large", text))
	set := b.Build()
	if got := heap() - before; got > 16<<20 {
		t.Errorf("heap of %d names: got %d bytes, want at most 16 MiB", names, got)
	}
	if set.Blocked() != names {
		t.Errorf("got %d names, want %d", set.Blocked(), names)
	}
	for name, blocked := range map[string]bool{"eu.ads-77.tracker77.example.": true, "www.some.site.example.": false} {
		travels := wire(t, name)
		for form, match := range map[string]func() rules.Decision{
			"as text": func() rules.Decision { return set.Match(name, dns.TypeA) },
			"as wire": func() rules.Decision { return set.MatchWire(travels, dns.TypeA) },
		} {
			if got := match().Blocked; got != blocked {
				t.Errorf("%s %s: got blocked %v, want %v", name, form, got, blocked)
			}
			if got := testing.AllocsPerRun(100, func() { match() }); got != 0 {
				t.Errorf("%s %s: got %v allocations, want none", name, form, got)
			}
		}
	}
	runtime.KeepAlive(text)
}

// BenchmarkHeap measures what lists and set hold, with the peak while they are made.
func BenchmarkHeap(b *testing.B) {
	for _, names := range []int{200_000, 1_000_000} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			text := largeList(names)
			for b.Loop() {
				before := heap()
				var builder rules.Builder
				builder.Add(readList(b, "large", text))
				set := builder.Build()
				b.ReportMetric(float64(heap()-before)/1e6, "MB")
				runtime.KeepAlive(set)
			}
			runtime.KeepAlive(text)
		})
	}
}

func BenchmarkMatchWire(b *testing.B) {
	for _, names := range []int{200_000, 1_000_000} {
		set := build(b, largeList(names))
		patterns := build(b, largeList(names), strings.Join([]string{
			`/^ad[0-9]+\./`, `/(track|pixel)er?\./`, `||ads*.doubleclick.example^`, `@@||metrics*.good.example^`, "",
		}, "\n"))
		const asked = 1 << 16
		pack := packer()
		hits, misses := make([][]byte, asked), make([][]byte, asked)
		for i := range asked {
			n := i * 7919 % names
			hits[i] = pack(wire(b, fmt.Sprintf("ads-%d.tracker%d.example", n, n%1000)))
			misses[i] = pack(wire(b, fmt.Sprintf("www.site-%d.some%d.example", n, n%1000)))
		}
		for _, c := range []struct {
			name    string
			set     *rules.Set
			queries [][]byte
		}{{"blocked", set, hits}, {"passed", set, misses}, {"passed by patterns too", patterns, misses}} {
			b.Run(fmt.Sprintf("names=%d/%s", names, c.name), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					c.set.MatchWire(c.queries[i%asked], dns.TypeA)
					i++
				}
			})
		}
	}
}

// packer lays many names side by side, as they lie in a buffer of queries.
func packer() func(name []byte) []byte {
	var all []byte
	return func(name []byte) []byte {
		all = append(all, name...)
		return slices.Clip(all[len(all)-len(name):])
	}
}

func BenchmarkMatch(b *testing.B) {
	set := build(b, largeList(200_000))
	for _, c := range []struct{ name, query string }{
		{"blocked", "eu.ads-77.tracker77.example."}, {"passed", "www.some.site.example."},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				set.Match(c.query, dns.TypeA)
			}
		})
	}
}

func BenchmarkReadList(b *testing.B) {
	text := largeList(200_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		readList(b, "large", text)
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, names := range []int{200_000, 1_000_000} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			var builder rules.Builder
			builder.Add(readList(b, "large", largeList(names)))
			for b.Loop() {
				builder.Build()
			}
		})
	}
}
