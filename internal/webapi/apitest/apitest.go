// Package apitest holds what passes over dnsfleet's HTTP APIs against their description, openapi.yaml. Only tests
// import it.
package apitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/webapi"
)

type badRequest struct{}

// BadRequest marks a request that breaks the description on purpose: only its answer is validated.
func BadRequest(ctx context.Context) context.Context {
	return context.WithValue(ctx, badRequest{}, true)
}

// badRequestHeader carries the mark to a Validator in another goroutine; it is taken off there.
const badRequestHeader = "X-Apitest-Bad-Request"

// MarkBad marks r as BadRequest does, also across a real connection to a Validator.
func MarkBad(r *http.Request) *http.Request {
	r = r.WithContext(BadRequest(r.Context()))
	r.Header.Set(badRequestHeader, "1")
	return r
}

// Validator passes everything to next and fails t where a request or an answer is not as openapi.yaml says, or where
// an API's path is not in it. Dashboard pages and /login are no API and pass unchecked.
func Validator(t testing.TB, next http.Handler) http.Handler {
	t.Helper()
	return newChecker(t).handler(next)
}

// Accepted is a Validator for tests that send much that is wrong: a request is held to the description only where it was
// accepted, every answer always.
func Accepted(t testing.TB, next http.Handler) http.Handler {
	t.Helper()
	c := newChecker(t)
	c.acceptedOnly = true
	return c.handler(next)
}

func (c *checker) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bad := r.Header.Get(badRequestHeader) != "" || marked(r)
		r.Header.Del(badRequestHeader)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			if !c.acceptedOnly {
				c.t.Errorf("%s %s: read request: %v", r.Method, r.URL, err)
			}
			next.ServeHTTP(w, r) // what cannot be read is the handler's trouble
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		answer := rec.Result()
		c.check(r, body, bad, answer.StatusCode, answer.Header, rec.Body.Bytes())
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.StatusCode)
		w.Write(rec.Body.Bytes())
	})
}

// RoundTripper does the same on the client's side.
func RoundTripper(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	return &roundTripper{newChecker(t), next}
}

type roundTripper struct {
	*checker

	next http.RoundTripper
}

// RoundTrip sends a copy of r and validates both ways.
func (rt *roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, fmt.Errorf("read request: %w", err)
		}
		r.Body.Close()
	}
	sent := r.Clone(r.Context())
	sent.Header.Del(badRequestHeader)
	sent.Body = io.NopCloser(bytes.NewReader(body))
	if body == nil {
		sent.Body = http.NoBody
	}
	answer, err := rt.next.RoundTrip(sent)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	rt.check(r, body, marked(r), answer.StatusCode, answer.Header, text)
	return answer, nil
}

func marked(r *http.Request) bool { return r.Context().Value(badRequest{}) != nil }

// checker holds exchanges against the description.
type checker struct {
	t            testing.TB
	router       routers.Router
	acceptedOnly bool // a refused request need not be as described
}

var load = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(webapi.OpenAPI())
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	doc.Servers = nil // any host
	return gorillamux.NewRouter(doc)
})

func newChecker(t testing.TB) *checker {
	t.Helper()
	router, err := load()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return &checker{t: t, router: router}
}

func (c *checker) check(r *http.Request, body []byte, bad bool, status int, header http.Header, answer []byte) {
	c.t.Helper()
	if !described(r.URL.Path) || r.Context().Err() != nil { // who hung up gets no answer
		return
	}
	bad = bad || (c.acceptedOnly && status >= http.StatusBadRequest)
	subject := fmt.Sprintf("%s %s", r.Method, r.URL)
	asked := r.Clone(context.WithoutCancel(r.Context()))
	asked.Header.Del(badRequestHeader)
	asked.URL = &url.URL{Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	asked.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) > 0 && c.acceptedOnly && asked.Header.Get("Content-Type") == "" {
		asked.Header.Set("Content-Type", "application/json") // these servers do not ask for it
	}
	if r.Method == http.MethodHead { // answers as GET does, without a body
		asked.Method = http.MethodGet
	}
	route, params, err := c.router.FindRoute(asked)
	if err != nil {
		if !bad || (!errors.Is(err, routers.ErrPathNotFound) && !errors.Is(err, routers.ErrMethodNotAllowed)) {
			c.t.Errorf("%s: openapi.yaml: %v", subject, err)
		}
		return
	}
	in := &openapi3filter.RequestValidationInput{
		Request: asked, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
			RejectWhenRequestBodyNotSpecified: true, SkipSettingDefaults: true, ExcludeResponseBody: r.Method == http.MethodHead,
		},
	}
	if !bad {
		if err := validateRequest(in, body); err != nil {
			c.t.Errorf("%s: request is not as openapi.yaml says: %v", subject, err)
		}
	}
	plain := unzipped(header, answer)
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: status, Header: header, Options: in.Options}
	if err := openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(plain)); err != nil {
		c.t.Errorf("%s: answer %d is not as openapi.yaml says: %v\n%.600s", subject, status, err, plain)
	}
}

func validateRequest(in *openapi3filter.RequestValidationInput, body []byte) error {
	in.Request.Body = io.NopCloser(bytes.NewReader(unzipped(in.Request.Header, body)))
	return openapi3filter.ValidateRequest(context.Background(), in)
}

// unzipped is a body as it was before compression, or as it is where that cannot be told.
func unzipped(h http.Header, body []byte) []byte {
	var plain []byte
	var err error
	switch strings.ToLower(h.Get("Content-Encoding")) {
	case "gzip":
		var zip *gzip.Reader
		if zip, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			plain, err = io.ReadAll(zip)
		}
	case "zstd":
		var zip *zstd.Decoder
		if zip, err = zstd.NewReader(nil); err == nil {
			defer zip.Close()
			plain, err = zip.DecodeAll(body, nil)
		}
	default:
		return body
	}
	if err != nil {
		return body
	}
	return plain
}

// described reports whether a path belongs to an API and not to the dashboard.
func described(path string) bool {
	for _, prefix := range []string{
		"/api/", "/sync/", "/healthz", "/readyz", "/metrics", // web and sync
		"/blocklists/", "/blocked/", "/cache/", "/querystore/", "/upstreams", "/health", // control
	} {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
