package apitest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/webapi/apitest"
)

// recorder is a test that only notes what it is told.
type recorder struct {
	testing.TB

	said []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

// answering is an API that always answers this.
func answering(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

const session = `{"authenticated":true,"open":true}`

func TestWhatIsNotAsDescribedFails(t *testing.T) {
	login := func() *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/api/auth/login", strings.NewReader(`{"pass":"x"}`))
		r.Header.Set("Content-Type", "application/json")
		return r
	}
	get := func(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }
	for name, c := range map[string]struct {
		request *http.Request
		answer  http.HandlerFunc
		fails   bool
	}{
		"an answer as described":             {get("/api/auth/session"), answering(200, "application/json", session), false},
		"an error as described":              {get("/api/auth/session"), answering(503, "application/json", `{"error":"x"}`), false},
		"an answer without a body to HEAD":   {httptest.NewRequest(http.MethodHead, "/api/auth/session", nil), answering(200, "application/json", ""), false},
		"a field that is missing":            {get("/api/auth/session"), answering(200, "application/json", `{"open":true}`), true},
		"a field that is not described":      {get("/api/auth/session"), answering(200, "application/json", `{"authenticated":true,"open":true,"more":1}`), true},
		"a value of another type":            {get("/api/auth/session"), answering(200, "application/json", `{"authenticated":1,"open":true}`), true},
		"another content type":               {get("/api/auth/session"), answering(200, "text/html", session), true},
		"an error of another shape":          {get("/api/auth/session"), answering(500, "application/json", `{"message":"x"}`), true},
		"a path that is not described":       {get("/api/nothing"), answering(200, "application/json", `{}`), true},
		"a method that is not described":     {httptest.NewRequest(http.MethodDelete, "/api/auth/session", nil), answering(204, "", ""), true},
		"a request that is not as described": {login(), answering(200, "application/json", session), true},
		"the same on purpose":                {apitest.MarkBad(login()), answering(400, "application/json", `{"error":"x"}`), false},
		"a bad answer to that":               {apitest.MarkBad(login()), answering(400, "application/json", `{}`), true},
		"a page of the dashboard":            {get("/instances/x"), answering(200, "text/html", "<p>"), false},
	} {
		t.Run(name, func(t *testing.T) {
			said := &recorder{TB: t}
			apitest.Validator(said, c.answer).ServeHTTP(httptest.NewRecorder(), c.request)
			if failed := len(said.said) > 0; failed != c.fails {
				t.Errorf("failed: got %v, want %v: %q", failed, c.fails, said.said)
			}
		})
	}
}

func TestTheClientsSideChecksTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		fails bool
	}{"as described": {session, false}, "not as described": {`{}`, true}} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answering(200, "application/json", c.body))
			defer server.Close()
			said := &recorder{TB: t}
			client := &http.Client{Transport: apitest.RoundTripper(said, http.DefaultTransport)}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/auth/session", nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if body, err := io.ReadAll(answer.Body); err != nil || string(body) != c.body {
				t.Errorf("got body %q, %v; want it untouched", body, err)
			}
			if failed := len(said.said) > 0; failed != c.fails {
				t.Errorf("failed: got %v, want %v: %q", failed, c.fails, said.said)
			}
		})
	}
}

func TestCompressedBodiesAreCheckedToo(t *testing.T) {
	golden, err := os.ReadFile("../../syncapi/testdata/push-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Replace(golden, []byte(`"seq"`), []byte(`"sequence"`), 1)
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	zip.Write(broken)
	zip.Close()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		coding string
		body   []byte
		fails  bool
	}{
		"the golden push":          {"", golden, false},
		"the golden push, zstd":    {"zstd", z.EncodeAll(golden, nil), false},
		"one without seq":          {"", broken, true},
		"one without seq, gzip":    {"gzip", zipped.Bytes(), true},
		"one without seq, by zstd": {"zstd", z.EncodeAll(broken, nil), true},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/sync/stats", bytes.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Dnsfleet-Instance", "cabin")
			if c.coding != "" {
				r.Header.Set("Content-Encoding", c.coding)
			}
			said := &recorder{TB: t}
			reply := `{"ok":true,"server_time":"2026-01-02T03:04:05Z","next_push_seconds":10,"slices_stored":[],"commands":[]}`
			apitest.Validator(said, answering(200, "application/json", reply)).ServeHTTP(httptest.NewRecorder(), r)
			if failed := len(said.said) > 0; failed != c.fails {
				t.Errorf("failed: got %v, want %v: %.500q", failed, c.fails, said.said)
			}
		})
	}
}
