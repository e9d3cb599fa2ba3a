package view

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
)

// page is the part of a snapshot that a query asks for.
type page struct {
	*snapshot

	shape               shape
	fields              []int
	primaries, replicas []*line
	next                *string
	now                 time.Time
}

// Stats is the view that q asks for. Its fields are all filled in, whatever q.Fields says. Errors are fleet.ErrInvalid.
func (v *View) Stats(q fleet.ViewQuery) (fleet.View, error) {
	p, err := v.page(q)
	if err != nil {
		return fleet.View{}, err
	}
	out := fleet.View{
		GeneratedAt: p.now, Coverage: p.coverageAt(p.now), Totals: p.totals,
		Primaries: p.rows(p.primaries), Replicas: p.rows(p.replicas), Next: p.next, Errors: slices.Clone(p.errs),
	}
	if p.local != nil {
		out.Primary = new(p.local.at(p.now))
	}
	return out, nil
}

// StatsJSON is Stats as JSON, only with the fields that q chooses, and far cheaper: what did not change since the last
// call is not encoded again. etag changes with all but generated_at and ages; it is a weak one, because
// those change without it. Errors are fleet.ErrInvalid.
func (v *View) StatsJSON(q fleet.ViewQuery) (etag string, body io.WriterTo, err error) {
	p, err := v.page(q)
	if err != nil {
		return "", nil, err
	}
	what := fmt.Sprintf("%s %d %d %q %q %d %q", v.salt, p.edition, p.localSum, q.Status, q.Fields, q.Limit, q.Cursor)
	sum := sha256.Sum256([]byte(what))
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, p, nil
}

// Instance is the row and the last report (without slices, nil where none counts) of one instance. The error is
// fleet.ErrNotFound, or fleet.ErrUnavailable while the store has not been read yet.
func (v *View) Instance(id string) (fleet.Row, *fleet.Report, error) {
	s := v.snapshot()
	now := v.Now()
	for _, lines := range [][]*line{s.primaries, s.replicas} {
		for _, l := range lines {
			if l.row.InstanceID != nil && *l.row.InstanceID == id {
				return l.at(now), l.report, nil
			}
		}
	}
	if !s.loaded {
		return fleet.Row{}, nil, fmt.Errorf("view of instance %s: %w", id, fleet.ErrUnavailable)
	}
	return fleet.Row{}, nil, fmt.Errorf("instance %s: %w", id, fleet.ErrNotFound)
}

// Statuses counts the rows by status.
func (v *View) Statuses() map[fleet.Status]int { return v.snapshot().statuses }

func (v *View) page(q fleet.ViewQuery) (page, error) {
	limit := q.Limit
	if limit == 0 {
		limit = fleet.DefaultViewLimit
	}
	if limit < 1 || limit > fleet.MaxViewLimit {
		return page{}, fmt.Errorf("%w: limit must be a whole number from 1 to %d", fleet.ErrInvalid, fleet.MaxViewLimit)
	}
	fields, err := v.shape.choose(q.Fields)
	if err != nil {
		return page{}, err
	}
	name, key, err := readCursor(q.Cursor)
	if err != nil {
		return page{}, err
	}
	p := page{snapshot: v.snapshot(), shape: v.shape, fields: fields, now: v.Now()}
	shown := func(l *line) bool { return len(q.Status) == 0 || slices.Contains(q.Status, l.row.Status) }
	for _, l := range p.snapshot.primaries {
		if shown(l) {
			p.primaries = append(p.primaries, l)
		}
	}
	rest := p.snapshot.replicas
	if q.Cursor != "" {
		after, found := slices.BinarySearchFunc(rest, &line{row: fleet.Row{Name: name}, key: key}, compareLines)
		if found {
			after++
		}
		rest = rest[after:]
	}
	for _, l := range rest {
		if !shown(l) {
			continue
		}
		if len(p.replicas) == limit {
			last := p.replicas[limit-1]
			p.next = new(cursor(last.row.Name, last.key))
			break
		}
		p.replicas = append(p.replicas, l)
	}
	return p, nil
}

// cursor names the last row of a page. It stays good when rows come and go: the next page is what sorts after it.
func cursor(name, key string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(name + "\x00" + key))
}

func readCursor(text string) (name, key string, err error) {
	if text == "" {
		return "", "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	name, key, found := strings.Cut(string(raw), "\x00")
	if err != nil || !found {
		return "", "", fmt.Errorf("%w: cursor is none that this API has given", fleet.ErrInvalid)
	}
	return name, key, nil
}

func (p page) rows(lines []*line) []fleet.Row {
	rows := make([]fleet.Row, len(lines))
	for i, l := range lines {
		rows[i] = l.at(p.now)
	}
	return rows
}

// coverageAt is the coverage with the ages of now.
func (s *snapshot) coverageAt(now time.Time) fleet.Coverage {
	c := s.coverage
	if c.OldestAgeSeconds != nil {
		c.OldestAgeSeconds = new(milli(max(0, *c.OldestAgeSeconds+now.Sub(s.at).Seconds())))
	}
	return c
}

// encodedParts are the parts of the answer that only a new snapshot changes.
type encodedParts struct {
	coverageTail []byte // from "missing" on
	totals, errs []byte
}

func (s *snapshot) encode() *encodedParts {
	if e := s.encoded.Load(); e != nil {
		return e
	}
	mustJSON := func(v any) []byte {
		text, err := json.Marshal(v)
		if err != nil {
			return []byte("null") // a number that JSON has no word for
		}
		return text
	}
	e := &encodedParts{mustJSON(s.coverage.Missing), mustJSON(s.totals), mustJSON(s.errs)}
	s.encoded.Store(e)
	return e
}

// WriteTo writes the page as JSON. Everything was encoded before, so that only w can fail.
func (p page) WriteTo(w io.Writer) (int64, error) {
	out := pageWriter{w: w, text: make([]byte, 0, 2*writeSize)}
	c, e := p.coverageAt(p.now), p.encode()
	head, err := json.Marshal(struct {
		Reporting int      `json:"reporting"`
		Total     int      `json:"total"`
		Oldest    *float64 `json:"oldest_age_seconds"`
	}{c.Reporting, c.Total, c.OldestAgeSeconds})
	if err != nil {
		return 0, err
	}
	out.text = fmt.Appendf(out.text, `{"generated_at":%q,"coverage":%s,"missing":%s},"totals":%s,"primary":`,
		p.now.UTC().Format(time.RFC3339Nano), head[:len(head)-1], e.coverageTail, e.totals)
	if p.local == nil {
		out.text = append(out.text, "null"...)
	} else {
		out.row(p, p.local)
	}
	out.rows(p, `,"primaries":[`, p.primaries)
	out.rows(p, `],"replicas":[`, p.replicas)
	next := []byte("null")
	if p.next != nil {
		next = fmt.Appendf(nil, "%q", *p.next)
	}
	out.text = fmt.Appendf(out.text, `],"next":%s,"errors":%s}`+"\n", next, e.errs)
	out.flush()
	return out.n, out.err
}

const writeSize = 32 << 10

// pageWriter hands on what is written in large pieces, and stops at the first error.
type pageWriter struct {
	w    io.Writer
	text []byte
	n    int64
	err  error
}

func (o *pageWriter) rows(p page, before string, lines []*line) {
	o.text = append(o.text, before...)
	for i, l := range lines {
		if i > 0 {
			o.text = append(o.text, ',')
		}
		o.row(p, l)
	}
}

func (o *pageWriter) row(p page, l *line) {
	if o.err != nil {
		return
	}
	o.text = l.appendJSON(o.text, p.shape, p.fields, p.now)
	if len(o.text) >= writeSize {
		o.flush()
	}
}

func (o *pageWriter) flush() {
	if o.err != nil {
		return
	}
	n, err := o.w.Write(o.text)
	o.n, o.err, o.text = o.n+int64(n), err, o.text[:0]
}
