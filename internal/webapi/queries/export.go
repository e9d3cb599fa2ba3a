package queries

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

const (
	exportBuffer = 32 << 10
	flushEvery   = time.Second
	// sendTimeout is how long the client may take to make room for more.
	sendTimeout = 30 * time.Second
	// maxGaps is how many gaps the headers of an export name.
	maxGaps = 16
)

// export is GET /api/queries/export. An export that breaks off aborts the connection: a shorter file must not look whole.
func (a *API) export(w http.ResponseWriter, r *http.Request) {
	q, err := a.read(r, parameters{names: []string{"format"}})
	if err != nil {
		a.Fail(w, r, err)
		return
	}
	select {
	case a.exports <- struct{}{}:
		defer func() { <-a.exports }()
	default:
		w.Header().Set("Retry-After", strconv.Itoa(10))
		httpjson.Error(w, http.StatusTooManyRequests, fmt.Sprintf("%d exports run already, try again when one is done", exports))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stall := time.AfterFunc(a.Stall, cancel)
	defer stall.Stop()

	about, rows := a.Log.Export(ctx, q.filter)
	out := newExportWriter(w, q, about)
	if r.Method == http.MethodHead {
		out.header()
		return
	}
	for row, rowErr := range rows {
		if err = rowErr; err != nil {
			break
		}
		stall.Reset(a.Stall)
		if err = out.row(row); err != nil {
			break
		}
	}
	if err == nil {
		err = out.end()
	}
	switch {
	case err == nil:
	case !out.begun:
		a.refuse(w, r, about, err)
	default:
		if r.Context().Err() == nil {
			a.Logger.WarnContext(ctx, "export broke off", "err", err)
		}
		panic(http.ErrAbortHandler)
	}
}

// exportWriter writes rows as they come. Nothing is sent before the first, so that what fails until then has a status.
type exportWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	name    string
	about   fleet.QueryAnswer
	format  string

	begun   bool
	buf     *bufio.Writer
	write   func(fleet.QueryRow) error
	flushed time.Time
}

func newExportWriter(w http.ResponseWriter, q request, about fleet.QueryAnswer) *exportWriter {
	const stamp = "20060102T150405Z"
	return &exportWriter{
		w: w, control: http.NewResponseController(w), about: about, format: q.format,
		name: fmt.Sprintf("dnsfleet-queries-%s-%s.%s", q.filter.From.UTC().Format(stamp), q.filter.To.UTC().Format(stamp), q.format),
	}
}

func (o *exportWriter) header() {
	h := o.w.Header()
	h.Set("Content-Type", map[string]string{"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}[o.format])
	h.Set("Content-Disposition", `attachment; filename="`+o.name+`"`)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Dnsfleet-Enabled", strconv.FormatBool(o.about.Enabled))
	h.Set("X-Dnsfleet-Source", o.about.Source)
	h.Set("X-Dnsfleet-From", o.about.From.UTC().Format(time.RFC3339))
	h.Set("X-Dnsfleet-To", o.about.To.UTC().Format(time.RFC3339))
	h.Set("X-Dnsfleet-Missing", gapsHeader(o.about.Missing))
}

func (o *exportWriter) begin() error {
	o.begun = true
	o.header()
	o.buf = bufio.NewWriterSize(deadlineWriter{o.w, o.control}, exportBuffer)
	o.flushed = time.Now()
	if o.format == "csv" {
		table := newTable(o.buf)
		o.write = table.row
		return table.head()
	}
	enc := json.NewEncoder(o.buf)
	enc.SetEscapeHTML(false)
	o.write = func(row fleet.QueryRow) error { return enc.Encode(row) }
	return nil
}

func (o *exportWriter) row(row fleet.QueryRow) error {
	if !o.begun {
		if err := o.begin(); err != nil {
			return err
		}
	}
	if err := o.write(row); err != nil {
		return err
	}
	if time.Since(o.flushed) < flushEvery {
		return nil
	}
	o.flushed = time.Now()
	return o.flush()
}

func (o *exportWriter) flush() error {
	if err := o.buf.Flush(); err != nil {
		return err
	}
	return o.control.Flush()
}

func (o *exportWriter) end() error {
	if !o.begun {
		if err := o.begin(); err != nil {
			return err
		}
	}
	return o.buf.Flush()
}

// deadlineWriter gives each write its time: the server's own is for answers that end soon.
type deadlineWriter struct {
	http.ResponseWriter

	control *http.ResponseController
}

// Write writes.
func (d deadlineWriter) Write(p []byte) (int, error) {
	d.control.SetWriteDeadline(time.Now().Add(sendTimeout)) //nolint:errcheck // not every writer has one
	return d.ResponseWriter.Write(p)
}

// gapsHeader are the first gaps as JSON in ASCII.
func gapsHeader(gaps []fleet.QueryGap) string {
	if more := len(gaps) - maxGaps; more > 0 {
		gaps = append(gaps[:maxGaps:maxGaps], fleet.QueryGap{Reason: fmt.Sprintf("and %d more", more)})
	}
	text, err := json.Marshal(gaps)
	if err != nil {
		return "[]"
	}
	var b strings.Builder
	for _, c := range string(text) {
		switch {
		case c < 0x7f:
			b.WriteRune(c)
		case c > 0xffff:
			high, low := utf16.EncodeRune(c)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	return b.String()
}
