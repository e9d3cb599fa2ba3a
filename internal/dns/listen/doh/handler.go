// Package doh serves DNS over HTTPS (RFC 8484), with HTTP/1.1 and HTTP/2. What a message means is not known here.
package doh

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"dnsfleet/internal/dns/listen/gate"
)

const (
	// Path is where queries are sent.
	Path = "/dns-query"

	mediaType = "application/dns-message"
	maxGet    = 4 << 10 // bytes of a query in a URL
	maxPost   = 1<<16 - 1
)

// Ask answers a query that came by c. Without an answer it returns nil; the client is told to come again.
type Ask func(ctx context.Context, c *gate.Conn, query []byte) (reply []byte)

// refusal is why a request is not taken to be a query.
type refusal struct {
	status int
	reason string
}

// handler serves Path, and refuses the rest.
type handler struct{ ask Ask }

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := connOf(r.Context())
	if !ok {
		refuse(w, &refusal{http.StatusInternalServerError, "the connection is not known"})
		return
	}
	c.Begin()
	defer c.End()
	if r.URL.Path != Path {
		refuse(w, &refusal{http.StatusNotFound, "queries are sent to " + Path})
		return
	}
	query, no := read(w, r)
	if no != nil {
		refuse(w, no)
		return
	}
	reply := h.ask(r.Context(), c, query)
	if len(reply) == 0 {
		refuse(w, &refusal{http.StatusServiceUnavailable, "the query was not answered"})
		return
	}
	header := w.Header()
	header.Set("Content-Type", mediaType)
	header.Set("Content-Length", strconv.Itoa(len(reply)))
	header.Set("Cache-Control", fmt.Sprintf("max-age=%d", int(Freshness(reply).Seconds())))
	_, _ = w.Write(reply)
}

// read checks all that is known without the body before it reads that.
func read(w http.ResponseWriter, r *http.Request) (query []byte, no *refusal) {
	switch r.Method {
	case http.MethodGet:
		query, no = readURL(r)
	case http.MethodPost:
		query, no = readBody(w, r)
	default:
		w.Header().Set("Allow", "GET, POST")
		return nil, &refusal{http.StatusMethodNotAllowed, "queries are sent by GET or POST"}
	}
	switch {
	case no != nil:
		return nil, no
	case len(query) < headerSize:
		return nil, &refusal{http.StatusBadRequest, "a DNS message has at least 12 bytes"}
	case query[2]&0x80 != 0:
		return nil, &refusal{http.StatusBadRequest, "the message is a response"}
	}
	return query, nil
}

func readURL(r *http.Request) ([]byte, *refusal) {
	encoded := ""
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") { // base64url needs no unescaping
		if value, ok := strings.CutPrefix(pair, "dns="); ok {
			encoded = value
			break
		}
	}
	switch {
	case encoded == "":
		return nil, &refusal{http.StatusBadRequest, "the parameter dns is missing"}
	case base64.RawURLEncoding.DecodedLen(len(encoded)) > maxGet:
		return nil, &refusal{http.StatusRequestURITooLong, "a query in a URL has at most 4096 bytes"}
	}
	query, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "the parameter dns is not base64url without padding"}
	}
	return query, nil
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	tooLong := &refusal{http.StatusRequestEntityTooLarge, "a DNS message has at most 65535 bytes"}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err != nil || kind != mediaType:
		return nil, &refusal{http.StatusUnsupportedMediaType, "the content type is not " + mediaType}
	case r.Header.Get("Content-Encoding") != "":
		return nil, &refusal{http.StatusUnsupportedMediaType, "a content encoding is not supported"}
	case r.ContentLength > maxPost:
		return nil, tooLong
	}
	query, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPost))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLong
	}
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "the body cannot be read"}
	}
	return query, nil
}

// refuse tells a reason that needs no escaping.
func refuse(w http.ResponseWriter, no *refusal) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(no.status)
	_, _ = io.WriteString(w, `{"error":"`+no.reason+"\"}\n") //nolint:gosec // reasons are constants
}
