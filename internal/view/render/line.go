package render

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"dnsfleet/internal/fleet"
)

// line is one row and its encoding, without its queries. All but the age is fixed.
type line struct {
	row    fleet.Row // its age is that of when it was made
	key    string
	seen   time.Time     // what the age counts from; zero = no age
	report *fleet.Report // nil where none counts

	byAge   fleet.Status // what the row was made with, like the next two
	revoked bool
	policy  string

	encoded atomic.Pointer[encodedLine] // made when first needed
}

func newLine(row fleet.Row, seen time.Time) *line { return &line{row: row, key: row.Key(), seen: seen} }

// at is the row with its age at now, and with its queries where they are known.
func (l *line) at(now time.Time, q *queriesRow) fleet.Row {
	row := l.row
	if q != nil {
		row.Queries = new(q.QueryBreakdown)
	}
	if age, known := l.age(now); known {
		row.AgeSeconds = &age
	}
	return row
}

// age is in seconds, to the millisecond, never negative.
func (l *line) age(now time.Time) (age float64, known bool) {
	if l.seen.IsZero() {
		return 0, false
	}
	return milli(max(0, now.Sub(l.seen).Seconds())), true
}

func milli(seconds float64) float64 { return math.Round(seconds*1000) / 1000 }

// encodedLine is a row as JSON: for each field `"name":value`, one after another.
type encodedLine struct {
	text []byte
	ends []int
}

func (e *encodedLine) field(i int) []byte {
	start := 0
	if i > 0 {
		start = e.ends[i-1]
	}
	return e.text[start:e.ends[i]]
}

func (l *line) encode(s shape) *encodedLine {
	if e := l.encoded.Load(); e != nil {
		return e
	}
	e := &encodedLine{text: make([]byte, 0, 3072), ends: make([]int, 0, len(s.names))}
	row := reflect.ValueOf(l.row)
	for i, name := range s.names {
		value, err := json.Marshal(row.Field(s.index[i]).Interface())
		if err != nil { // a number that JSON has no word for
			value = []byte("null")
		}
		e.text = fmt.Appendf(e.text, "%q:%s", name, value)
		e.ends = append(e.ends, len(e.text))
	}
	e.text = slices.Clip(e.text)
	l.encoded.Store(e)
	return e
}

// appendJSON appends the chosen fields of the row, with its age at now, and with its queries where they are known.
func (l *line) appendJSON(b []byte, s shape, fields []int, now time.Time, q *queriesRow) []byte {
	e := l.encode(s)
	b = append(b, '{')
	for n, i := range fields {
		if n > 0 {
			b = append(b, ',')
		}
		age, known := l.age(now)
		switch {
		case i == s.age && known:
			b = append(b, `"age_seconds":`...)
			b = strconv.AppendFloat(b, age, 'f', -1, 64)
		case i == s.queries && q != nil:
			b = append(b, `"queries":`...)
			b = append(b, q.encode()...)
		default:
			b = append(b, e.field(i)...)
		}
	}
	return append(b, '}')
}

// checksum changes when the row does, but for its age, the time of that and the skew that this tells.
func (l *line) checksum(s shape) uint64 {
	e, sum := l.encode(s), fnv.New64a()
	for i, name := range s.names {
		switch name {
		case "age_seconds", "last_updated", "clock_skew_seconds":
		default:
			sum.Write(e.field(i)) // documented never to fail
		}
	}
	return sum.Sum64()
}
