package render

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
)

// page is the part of a snapshot that a query asks for.
type page struct {
	*snapshot

	queries             *queries
	shape               shape
	fields              []int
	primaries, replicas []*line
	next                *string
	now                 time.Time
}

// Stats is the view that q asks for. Its fields are all filled in, whatever q.Fields says. Errors are fleet.ErrInvalid.
func (r *Renderer) Stats(q fleet.ViewQuery) (fleet.View, error) {
	p, err := r.page(q)
	if err != nil {
		return fleet.View{}, err
	}
	out := fleet.View{
		GeneratedAt: p.now, Coverage: p.coverageAt(p.now), Totals: p.totals,
		Primaries: p.rows(p.primaries), Replicas: p.rows(p.replicas), Next: p.next, Errors: p.queries.errors(p.errs),
	}
	if p.local != nil {
		out.Primary = new(p.local.at(p.now, p.queries.of(p.local)))
	}
	return out, nil
}

// StatsJSON is Stats as JSON, only with the fields that q chooses, and far cheaper: what did not change since the last
// call is not encoded again. etag changes with all but generated_at and ages; it is a weak one, because
// those change without it. Errors are fleet.ErrInvalid.
func (r *Renderer) StatsJSON(q fleet.ViewQuery) (etag string, body io.WriterTo, err error) {
	p, err := r.page(q)
	if err != nil {
		return "", nil, err
	}
	what := fmt.Sprintf("%s %d %d %d %q %q %d %q", r.salt, p.edition, p.queries.edition, p.localSum, q.Status, q.Fields, q.Limit, q.Cursor)
	sum := sha256.Sum256([]byte(what))
	return `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, p, nil
}

// Instance is the row and the last report (without slices, nil where none counts) of one instance. The error is
// fleet.ErrNotFound, or fleet.ErrUnavailable while the store has not been read yet.
func (r *Renderer) Instance(id string) (fleet.Row, *fleet.Report, error) {
	s, q := r.newest()
	now := r.now()
	for _, lines := range [][]*line{s.primaries, s.replicas} {
		for _, l := range lines {
			if l.row.InstanceID != nil && *l.row.InstanceID == id {
				return l.at(now, q.of(l)), l.report, nil
			}
		}
	}
	if !s.loaded {
		return fleet.Row{}, nil, fmt.Errorf("view of instance %s: %w", id, fleet.ErrUnavailable)
	}
	return fleet.Row{}, nil, fmt.Errorf("instance %s: %w", id, fleet.ErrNotFound)
}

// Statuses counts the rows by status. The caller may change the result.
func (r *Renderer) Statuses() map[fleet.Status]int { return maps.Clone(r.snapshot().statuses) }

func (r *Renderer) page(q fleet.ViewQuery) (page, error) {
	limit := q.Limit
	if limit == 0 {
		limit = fleet.DefaultViewLimit
	}
	if limit < 1 || limit > fleet.MaxViewLimit {
		return page{}, fmt.Errorf("%w: limit must be a whole number from 1 to %d", fleet.ErrInvalid, fleet.MaxViewLimit)
	}
	fields, err := r.shape.choose(q.Fields)
	if err != nil {
		return page{}, err
	}
	name, key, err := readCursor(q.Cursor)
	if err != nil {
		return page{}, err
	}
	p := page{shape: r.shape, fields: fields}
	p.snapshot, p.queries = r.newest()
	p.now = r.now()
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
		rows[i] = l.at(p.now, p.queries.of(l))
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
