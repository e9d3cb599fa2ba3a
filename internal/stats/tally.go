package stats

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"dnsfleet/internal/fleet"
)

// A report may name 64 upstreams; the last place is for all that found none.
const (
	maxAddresses     = 63
	maxAddressLength = 512
	otherAddress     = "other"
)

// tally counts for the whole boot and is never reset, so that nothing can get lost between one slice and the next.
// Its counters are spread over shards: cores that count at the same time rarely write to the same cache line.
type tally struct {
	shards []shard // of each lane one, then those that all lanes share
	lanes  int
	mask   uint32 // of the shared ones' numbers
	table  *binTable

	upstreams atomic.Pointer[map[string]*exchanges] // copied to add one
	adding    sync.Mutex
}

type shard struct {
	outcomes [fleet.NumOutcomes]atomic.Uint64
	nanos    atomic.Int64
	bins     []atomic.Uint64
	_        [128]byte // keeps neighbours off this shard's cache lines
}

// exchanges counts what was asked of one upstream. Each exchange is counted in one place only, so that no reader
// can see more errors than exchanges.
type exchanges struct {
	errors atomic.Uint64
	nanos  atomic.Int64
	bins   []atomic.Uint64 // of those that brought an answer
}

func newTally() *tally {
	n := uint32(8)
	for int(n) < 2*runtime.GOMAXPROCS(0) && n < 16 {
		n *= 2
	}
	lanes := min(2*runtime.GOMAXPROCS(0), 64)
	t := &tally{shards: make([]shard, lanes+int(n)), lanes: lanes, mask: n - 1, table: bins()}
	for i := range t.shards {
		t.shards[i].bins = make([]atomic.Uint64, fleet.LatencyBins)
	}
	t.upstreams.Store(&map[string]*exchanges{})
	return t
}

// shard is the one of a lane. A lane beyond those that have one shares that of another.
func (t *tally) shard(lane int) *shard {
	if lane > 0 {
		return &t.shards[(lane-1)%t.lanes]
	}
	return &t.shards[t.lanes+int(rand.Uint32()&t.mask)] //nolint:gosec // spreads load, keeps no secret
}

func (t *tally) query(lane int, o fleet.Outcome, d time.Duration) {
	if int(o) >= fleet.NumOutcomes {
		o = fleet.Invalid // no caller has such a one; a wrong name is better than a lost query
	}
	s := t.shard(lane)
	s.outcomes[o].Add(1)
	s.bins[t.table.bin(d)].Add(1)
	s.nanos.Add(int64(max(d, 0)))
}

func (t *tally) exchange(address string, d time.Duration, failed bool) {
	u := (*t.upstreams.Load())[address]
	if u == nil {
		u = t.addUpstream(address)
	}
	if failed {
		u.errors.Add(1)
		return
	}
	u.bins[fleet.LatencyBin(d)].Add(1)
	u.nanos.Add(int64(max(d, 0)))
}

// addUpstream finds the counter for an address that had none.
func (t *tally) addUpstream(address string) *exchanges {
	t.adding.Lock()
	defer t.adding.Unlock()
	known := *t.upstreams.Load()
	named := len(known)
	if known[otherAddress] != nil {
		named--
	}
	if known[address] == nil && (named >= maxAddresses || !validAddress(address)) {
		address = otherAddress
	}
	if u := known[address]; u != nil {
		return u
	}
	u := &exchanges{bins: make([]atomic.Uint64, fleet.LatencyBins)}
	more := make(map[string]*exchanges, len(known)+1)
	maps.Copy(more, known)
	more[address] = u
	t.upstreams.Store(&more)
	return u
}

func validAddress(a string) bool { return a != "" && len(a) <= maxAddressLength && utf8.ValidString(a) }

// totals is a copy of what a tally has counted at one instant.
type totals struct {
	outcomes  fleet.Outcomes
	bins      []uint64
	nanos     int64
	upstreams map[string]exchangeTotals
}

type exchangeTotals struct {
	errors uint64
	bins   []uint64
	nanos  int64
}

func (t *tally) totals() totals {
	out := totals{bins: make([]uint64, fleet.LatencyBins), upstreams: map[string]exchangeTotals{}}
	for i := range t.shards {
		s := &t.shards[i]
		for o := range s.outcomes {
			out.outcomes[o] += s.outcomes[o].Load()
		}
		addBins(out.bins, s.bins)
		out.nanos += s.nanos.Load()
	}
	for address, u := range *t.upstreams.Load() {
		e := exchangeTotals{errors: u.errors.Load(), bins: make([]uint64, fleet.LatencyBins), nanos: u.nanos.Load()}
		addBins(e.bins, u.bins)
		out.upstreams[address] = e
	}
	return out
}

func addBins(sum []uint64, bins []atomic.Uint64) {
	for i := range bins {
		sum[i] += bins[i].Load()
	}
}

// since is what was counted after before was taken.
func (t totals) since(before totals) totals {
	out := totals{
		outcomes: t.outcomes.Minus(before.outcomes), bins: minus(t.bins, before.bins), nanos: t.nanos - before.nanos,
		upstreams: make(map[string]exchangeTotals, len(t.upstreams)),
	}
	for address, u := range t.upstreams {
		was := before.upstreams[address] // the zero value for a new one
		out.upstreams[address] = exchangeTotals{
			errors: u.errors - was.errors, bins: minus(u.bins, was.bins), nanos: u.nanos - was.nanos,
		}
	}
	return out
}

func minus(a, b []uint64) []uint64 {
	out := make([]uint64, len(a))
	copy(out, a)
	for i := range b {
		out[i] -= b[i]
	}
	return out
}
