package render

import (
	"encoding/json"
	"reflect"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"dnsfleet/internal/fleet"
)

// partQueries is the part of a view that tells of each instance's last hour.
const partQueries = "queries"

// Queries tells the last hour of each instance by its id, as far as it is known, and why not all of it is. The same map means
// that nothing has changed. It may wait.
type Queries func() (map[string]fleet.QueryBreakdown, error)

// queries is what a Queries last told. It does not change.
type queries struct {
	edition uint64 // changes when anything does
	told    map[string]fleet.QueryBreakdown
	err     string // "" = none
	rows    map[string]*queriesRow
}

// queriesRow is a row's last hour, beside its line: it changes when nothing else of the row does, and the other way round.
type queriesRow struct {
	fleet.QueryBreakdown

	encoded atomic.Pointer[[]byte] // made when first needed
}

func (q *queriesRow) encode() []byte {
	if text := q.encoded.Load(); text != nil {
		return *text
	}
	text, err := json.Marshal(q.QueryBreakdown)
	if err != nil { // a number that JSON has no word for
		text = []byte("null")
	}
	q.encoded.Store(&text)
	return text
}

// of is nil where nothing is known of the line's instance.
func (q *queries) of(l *line) *queriesRow {
	if l.row.InstanceID == nil {
		return nil
	}
	return q.rows[*l.row.InstanceID]
}

// errors are those of a snapshot and that of the queries.
func (q *queries) errors(others []fleet.PartError) []fleet.PartError {
	all := slices.Clone(others)
	if q.err != "" {
		all = append(all, fleet.PartError{Part: partQueries, Error: q.err})
	}
	if all == nil {
		all = []fleet.PartError{}
	}
	return all
}

// newest are the snapshot and the queries of now, got at the same time.
func (r *Renderer) newest() (*snapshot, *queries) {
	var s *snapshot
	var q *queries
	var both errgroup.Group
	both.Go(func() error {
		q = r.lastHour()
		return nil
	})
	s = r.snapshot()
	both.Wait() //nolint:errcheck // it has none
	return s, q
}

func (r *Renderer) lastHour() *queries {
	told, err := r.queries()
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	if q := r.hour.Load(); q != nil && q.is(told, reason) {
		return q
	}
	r.hourBuild.Lock()
	defer r.hourBuild.Unlock()
	old := r.hour.Load()
	if old != nil && old.is(told, reason) {
		return old
	}
	q := &queries{told: told, err: reason, rows: make(map[string]*queriesRow, len(told)), edition: 1}
	for id, one := range told {
		q.rows[id] = &queriesRow{QueryBreakdown: one}
	}
	if old != nil {
		q.edition = old.edition
		if old.err != reason || !reflect.DeepEqual(old.told, told) {
			q.edition++
		}
	}
	r.hour.Store(q)
	return q
}

// is reports whether q was made of this very map and error.
func (q *queries) is(told map[string]fleet.QueryBreakdown, reason string) bool {
	return q.err == reason && reflect.ValueOf(q.told).UnsafePointer() == reflect.ValueOf(told).UnsafePointer()
}
