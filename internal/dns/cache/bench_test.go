package cache_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/fleet"
)

// start has a monotonic part, as the times of packets have.
var start = time.Now()

func BenchmarkLookup(b *testing.B) {
	for _, size := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c, questions := filled(b, size)
			var buf [512]byte
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				e, _ := c.Lookup(questions[i], start.Add(time.Minute))
				e.AppendAnswer(buf[:0], start.Add(time.Minute))
				if i++; i == len(questions) {
					i = 0
				}
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		c, questions := filled(b, 1000)
		b.ReportAllocs()
		var lanes sync.Mutex
		lane := 0
		b.RunParallel(func(pb *testing.PB) {
			lanes.Lock()
			lane++
			own := lane
			lanes.Unlock()
			var buf [512]byte
			for i := 0; pb.Next(); i++ {
				e, state := c.Find(questions[i%len(questions)], start.Add(time.Minute))
				c.Count(own, state)
				e.AppendAnswer(buf[:0], start.Add(time.Minute))
			}
		})
	})
}

func BenchmarkInsert(b *testing.B) {
	c, questions := filled(b, 10_000)
	answers := make([][]byte, len(questions))
	for i := range answers {
		answers[i] = wire(b, address(b, fmt.Sprintf("%06d.name.example.", i), 300))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		c.Insert(questions[i], answers[i], start)
		if i++; i == len(questions) {
			i = 0
		}
	}
}

func BenchmarkSweepsOf500000(b *testing.B) {
	c, _ := filled(b, 500_000)
	b.Run("Stats", func(b *testing.B) {
		for b.Loop() {
			c.Stats()
		}
	})
	b.Run("Popular", func(b *testing.B) {
		for b.Loop() {
			c.Popular(start.Add(time.Minute), 10*time.Second, 100)
		}
	})
	b.Run("Sweep", func(b *testing.B) {
		for b.Loop() {
			c.Sweep(start)
		}
	})
	b.Run("Save", func(b *testing.B) {
		var buf bytes.Buffer
		for b.Loop() {
			buf.Reset()
			if err := c.Save(&buf, "", start); err != nil {
				b.Fatal(err)
			}
		}
	})
	var buf bytes.Buffer
	if err := c.Save(&buf, "", start); err != nil {
		b.Fatal(err)
	}
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			other := cache.New(nil)
			other.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 1 << 30 }))
			if _, err := other.Load(bytes.NewReader(buf.Bytes()), "", start); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			continue
		}
		b.ReportMetric(float64(c.Bytes())/500_000, "B/entry")
	})
}

func filled(b *testing.B, n int) (*cache.Cache, []cache.Question) {
	b.Helper()
	c := cache.New(nil)
	c.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes = 1 << 30 }))
	questions := make([]cache.Question, n)
	m := newNumbered(b, address(b, "000000.name.example.", 300))
	for i := range n {
		m.set(i)
		binary.BigEndian.PutUint32(m.response[len(m.response)-10:], uint32(300+i%3000))
		if _, ok := c.Insert(m.question, m.response, start); !ok {
			b.Fatal("insert: got false")
		}
		questions[i] = cache.Question{Name: bytes.Clone(m.question.Name), Type: dns.TypeA}
	}
	return c, questions
}
