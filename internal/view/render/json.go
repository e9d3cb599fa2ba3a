package render

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// encodedParts are the parts of the answer that only a new snapshot changes.
type encodedParts struct {
	coverageTail []byte // from "missing" on
	totals       []byte
}

func (s *snapshot) encode() *encodedParts {
	if e := s.encoded.Load(); e != nil {
		return e
	}
	e := &encodedParts{mustJSON(s.coverage.Missing), mustJSON(s.totals)}
	s.encoded.Store(e)
	return e
}

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte("null") // a number that JSON has no word for
	}
	return text
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
	out.text = fmt.Appendf(out.text, `],"next":%s,"errors":%s}`+"\n", next, mustJSON(p.queries.errors(p.errs)))
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
	o.text = l.appendJSON(o.text, p.shape, p.fields, p.now, p.queries.of(l))
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
