package sqlite

import (
	"context"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"dnsfleet/internal/fleet"
)

// Lengths of the rollups, in seconds.
const (
	minute = 60
	hour   = 3600
)

// tally is counts and a latency that grow by single events and by what rollups hold. Its zero value is empty.
type tally struct {
	outcomes fleet.Outcomes
	us       int64 // sum of all durations
	latency  fleet.Latency
	bins     []uint64 // what came by single events and is not in latency yet; nil = nothing
}

func (t *tally) add(o fleet.Outcome, us int64, bin int) {
	t.outcomes[o]++
	t.us += us
	t.addBin(bin)
}

func (t *tally) addBin(bin int) {
	if t.bins == nil {
		t.bins = make([]uint64, fleet.LatencyBins)
	}
	t.bins[bin]++
}

// settle moves the bins into latency.
func (t *tally) settle() {
	if t.bins != nil {
		t.latency.Merge(fleet.LatencyFromBins(t.bins))
		t.bins = nil
	}
}

func (t *tally) merge(other *tally) {
	other.settle()
	t.outcomes = t.outcomes.Plus(other.outcomes)
	t.us += other.us
	t.latency.Merge(other.latency)
}

// upstreamTally is what one upstream did. Durations are those of the answers that were no errors.
type upstreamTally struct {
	count, errors uint64
	tally         // of its outcomes nothing is kept
}

func (u *upstreamTally) addEvent(o fleet.Outcome, us int64, bin int) {
	u.count++
	if o == fleet.Servfail || o == fleet.UpstreamError {
		u.errors++
		return
	}
	u.us += us
	u.addBin(bin)
}

func (u *upstreamTally) mergeUpstream(other *upstreamTally) {
	u.count += other.count
	u.errors += other.errors
	u.merge(&other.tally)
}

type upstreamTallies map[string]*upstreamTally

func (m upstreamTallies) of(address string) *upstreamTally {
	u := m[address]
	if u == nil {
		u = new(upstreamTally)
		m[address] = u
	}
	return u
}

// period is the sums of one minute or hour.
type period struct {
	tally
	upstreams upstreamTallies
}

func (p *period) merge(other *period) {
	p.tally.merge(&other.tally)
	for address, u := range other.upstreams {
		p.upstreams.of(address).mergeUpstream(u)
	}
}

// batchSums are the sums of one batch, by their start in seconds.
type batchSums struct{ minutes, hours map[int64]*period }

// sum counts events. It needs no lock, so a batch is counted while another one is written.
func sum(events []fleet.QueryEvent) *batchSums {
	sums := &batchSums{map[int64]*period{}, map[int64]*period{}}
	var p *period
	var start int64
	for i := range events {
		e := &events[i]
		if at := e.Time.Unix() / minute * minute; p == nil || at != start {
			start = at
			p = periodOf(sums.minutes, at)
		}
		us := micros(e.Duration)
		bin := fleet.LatencyBin(time.Duration(us) * time.Microsecond)
		p.add(e.Outcome, us, bin)
		if e.Upstream != "" {
			p.upstreams.of(e.Upstream).addEvent(e.Outcome, us, bin)
		}
	}
	for at, p := range sums.minutes {
		periodOf(sums.hours, at/hour*hour).merge(p)
	}
	return sums
}

func periodOf(m map[int64]*period, start int64) *period {
	p := m[start]
	if p == nil {
		p = &period{upstreams: upstreamTallies{}}
		m[start] = p
	}
	return p
}

const (
	findRollup = "SELECT outcomes, us, latency, upstreams FROM rollups WHERE size = ? AND start = ? AND instance = ?"
	putRollup  = "INSERT OR REPLACE INTO rollups (size, start, instance, outcomes, us, latency, upstreams) VALUES (?, ?, ?, ?, ?, ?, ?)"
)

// addSums adds the sums of a batch to those in the file.
func (w *writer) addSums(ctx context.Context, instanceID string, sums *batchSums) error {
	instance := blob(instanceID)
	for size, periods := range map[int64]map[int64]*period{minute: sums.minutes, hour: sums.hours} {
		for start, p := range periods {
			err := w.query(ctx, findRollup, []any{size, start, instance}, func(row []driver.Value) error {
				stored, err := readPeriod(row[0], row[1], row[2], row[3])
				if err == nil {
					p.merge(stored)
				}
				return err
			})
			if err != nil {
				return err
			}
			p.settle()
			latency, err := p.latency.AppendBinary([]byte{})
			if err != nil {
				return err
			}
			upstreams, err := p.upstreams.appendBinary([]byte{})
			if err != nil {
				return err
			}
			if _, err := w.exec(ctx, putRollup, size, start, instance, appendOutcomes([]byte{}, p.outcomes), p.us, latency, upstreams); err != nil {
				return err
			}
		}
	}
	return nil
}

// errRollup says that a rollup is not as it was written.
var errRollup = fmt.Errorf("%w: a rollup is damaged", fleet.ErrUnavailable)

// readPeriod reads the columns of a rollup; a column that is nil was not asked for.
func readPeriod(outcomes, us, latency, upstreams driver.Value) (*period, error) {
	p := &period{upstreams: upstreamTallies{}}
	p.us = integer(us)
	b, _ := outcomes.([]byte)
	if err := readOutcomes(b, &p.outcomes); err != nil {
		return nil, err
	}
	b, _ = latency.([]byte)
	if err := p.latency.UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("%w: %w", errRollup, err)
	}
	b, _ = upstreams.([]byte)
	return p, p.upstreams.readBinary(b)
}

func appendOutcomes(b []byte, o fleet.Outcomes) []byte {
	for _, n := range o {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// readOutcomes reads what appendOutcomes wrote; outcomes that a later version adds are read by that version only.
func readOutcomes(b []byte, o *fleet.Outcomes) error {
	for i := 0; len(b) > 0; i++ {
		n, used := binary.Uvarint(b)
		if used <= 0 || i >= len(o) {
			return errRollup
		}
		o[i], b = n, b[used:]
	}
	return nil
}

func (m upstreamTallies) appendBinary(b []byte) ([]byte, error) {
	for _, address := range slices.Sorted(maps.Keys(m)) {
		u := m[address]
		u.settle()
		latency, err := u.latency.AppendBinary(nil)
		if err != nil {
			return nil, err
		}
		b = appendBytes(b, []byte(address))
		for _, n := range []uint64{u.count, u.errors, uint64(u.us)} {
			b = binary.AppendUvarint(b, n)
		}
		b = appendBytes(b, latency)
	}
	return b, nil
}

func (m upstreamTallies) readBinary(b []byte) error {
	for len(b) > 0 {
		var address, latency []byte
		var numbers [3]uint64
		var good bool
		if address, b, good = cutBytes(b); !good {
			return errRollup
		}
		for i := range numbers {
			n, used := binary.Uvarint(b)
			if used <= 0 {
				return errRollup
			}
			numbers[i], b = n, b[used:]
		}
		if latency, b, good = cutBytes(b); !good {
			return errRollup
		}
		u := m.of(string(address))
		u.count, u.errors, u.us = numbers[0], numbers[1], int64(numbers[2])
		if err := u.latency.UnmarshalBinary(latency); err != nil {
			return fmt.Errorf("%w: %w", errRollup, err)
		}
	}
	return nil
}

func appendBytes(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

func cutBytes(b []byte) (part, rest []byte, good bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	return b[used : used+int(n)], b[used+int(n):], true
}
