package flight_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"dnsfleet/internal/dns/flight"
)

type counter struct{ got []int }

func (c *counter) Land(n int) { c.got = append(c.got, n) }

func TestAllWhoAskTheSameShareOneFlight(t *testing.T) {
	g := flight.New[int]()
	var a, b, other, late counter
	if !g.Join([]byte("a"), &a) || g.Join([]byte("a"), &b) || g.Join([]byte("a"), nil) || !g.Join([]byte("other"), &other) {
		t.Fatal("got the wrong ones first, want one for each key")
	}
	g.Land([]byte("a"), 7)
	if fmt.Sprint(a.got, b.got, other.got) != "[7] [7] []" {
		t.Errorf("got %v %v %v, want the result once for each who waits for it", a.got, b.got, other.got)
	}
	if !g.Join([]byte("a"), &late) {
		t.Error("got no first after the end, want another flight")
	}
	g.Land([]byte("a"), 8)
	g.Land([]byte("other"), 9)
	g.Wait()
	if fmt.Sprint(a.got, late.got, other.got) != "[7] [8] [9]" {
		t.Errorf("got %v %v %v, want each flight's own result", a.got, late.got, other.got)
	}
}

func TestAFlightThatNobodyWaitsForIsOneAllTheSame(t *testing.T) {
	g := flight.New[int]()
	if !g.Join([]byte("a"), nil) || g.Join([]byte("a"), nil) {
		t.Error("got two flights for one key, want one")
	}
	g.Land([]byte("a"), 1)
	g.Wait()
}

type landing struct{ landed *atomic.Int64 }

func (l landing) Land(int) { l.landed.Add(1) }

func TestEveryWaiterIsCalledOnceHoweverManyJoin(t *testing.T) {
	g := flight.New[int]()
	var landed, flights atomic.Int64
	var all sync.WaitGroup
	const each = 2000
	for range 8 {
		all.Go(func() {
			for i := range each {
				key := []byte{byte(i % 3)}
				if g.Join(key, landing{&landed}) {
					flights.Add(1)
					all.Go(func() { g.Land(key, i) })
				}
			}
		})
	}
	all.Wait()
	g.Wait()
	if landed.Load() != 8*each {
		t.Errorf("got %d calls in %d flights, want %d", landed.Load(), flights.Load(), 8*each)
	}
}
