package httpguard_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"dnsfleet/internal/httpguard"
)

type request struct {
	method string
	host   string
	header map[string]string
}

func (q request) through(t *testing.T, guard func(http.Handler) http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), q.method, "/", nil)
	r.Host = q.host
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })).ServeHTTP(w, r)
	return w
}

func TestLoopback(t *testing.T) {
	const pass, refuse = http.StatusTeapot, http.StatusForbidden
	for name, c := range map[string]struct {
		request
		want int
	}{
		"a command-line client on 127.0.0.1":               {request{"GET", "127.0.0.1:8081", nil}, pass},
		"a name for loopback":                              {request{"GET", "localhost:8081", nil}, pass},
		"a name for loopback in capitals and with a dot":   {request{"GET", "LocalHost.:8081", nil}, pass},
		"the default port":                                 {request{"GET", "localhost", nil}, pass},
		"IPv6 loopback":                                    {request{"GET", "[::1]:8081", nil}, pass},
		"IPv6 loopback on the default port":                {request{"GET", "[::1]", nil}, pass},
		"another address of 127/8":                         {request{"GET", "127.9.8.7:80", nil}, pass},
		"IPv4 loopback mapped into IPv6":                   {request{"GET", "[::ffff:127.0.0.1]:80", nil}, pass},
		"its own page":                                     {request{"POST", "127.0.0.1:8053", map[string]string{"Origin": "http://127.0.0.1:8053", "Sec-Fetch-Site": "same-origin"}}, pass},
		"a bookmark":                                       {request{"GET", "127.0.0.1:8053", map[string]string{"Sec-Fetch-Site": "none"}}, pass},
		"a link on another page":                           {request{"GET", "127.0.0.1:8053", map[string]string{"Sec-Fetch-Site": "cross-site"}}, pass},
		"a rebound name":                                   {request{"GET", "evil.example:8081", nil}, refuse},
		"a name that only starts like loopback":            {request{"GET", "127.0.0.1.evil.example:8081", nil}, refuse},
		"a name that only ends like loopback":              {request{"GET", "evil.localhost:8081", nil}, refuse},
		"another address of the machine":                   {request{"GET", "192.168.1.2:8081", nil}, refuse},
		"no Host":                                          {request{"GET", "", nil}, refuse},
		"loopback with a zone":                             {request{"GET", "[::1%25eth0]:80", nil}, refuse},
		"a page of another site":                           {request{"POST", "127.0.0.1:8081", map[string]string{"Origin": "https://evil.example"}}, refuse},
		"reading by a page of another site":                {request{"GET", "127.0.0.1:8081", map[string]string{"Origin": "https://evil.example"}}, refuse},
		"a page of another port of this machine":           {request{"POST", "127.0.0.1:8081", map[string]string{"Origin": "http://127.0.0.1:3000"}}, refuse},
		"a sandboxed page":                                 {request{"POST", "127.0.0.1:8081", map[string]string{"Origin": "null"}}, refuse},
		"a form of another site, sent without Origin":      {request{"POST", "127.0.0.1:8081", map[string]string{"Sec-Fetch-Site": "cross-site"}}, refuse},
		"a proxy that keeps Host and says X-Forwarded-*":   {request{"GET", "127.0.0.1:8081", map[string]string{"X-Forwarded-For": "203.0.113.9"}}, refuse},
		"a proxy that says X-Forwarded-Proto only":         {request{"GET", "127.0.0.1:8081", map[string]string{"X-Forwarded-Proto": "https"}}, refuse},
		"a proxy that says Forwarded":                      {request{"GET", "127.0.0.1:8081", map[string]string{"Forwarded": "for=203.0.113.9"}}, refuse},
		"a proxy that says Via":                            {request{"GET", "127.0.0.1:8081", map[string]string{"Via": "1.1 proxy"}}, refuse},
		"a proxy that says X-Real-IP":                      {request{"GET", "127.0.0.1:8081", map[string]string{"X-Real-IP": "203.0.113.9"}}, refuse},
		"a proxy header of any spelling and empty content": {request{"GET", "127.0.0.1:8081", map[string]string{"x-forwarded-host": ""}}, refuse},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.through(t, httpguard.Loopback)
			if w.Code != c.want {
				t.Errorf("status: got %d, want %d", w.Code, c.want)
			}
			if w.Code == refuse {
				wantSentence(t, w)
			}
		})
	}
}

func TestSameOrigin(t *testing.T) {
	const pass, refuse = http.StatusTeapot, http.StatusForbidden
	for name, c := range map[string]struct {
		request
		want int
	}{
		"a client that is no browser":              {request{"POST", "dns.example", nil}, pass},
		"its own page":                             {request{"POST", "dns.example", map[string]string{"Origin": "https://dns.example", "Sec-Fetch-Site": "same-origin"}}, pass},
		"its own page behind a proxy that renames": {request{"POST", "backend:8053", map[string]string{"Origin": "https://dns.example", "Sec-Fetch-Site": "same-origin"}}, pass},
		"its own page in an old browser":           {request{"POST", "dns.example", map[string]string{"Origin": "https://dns.example"}}, pass},
		"a link on another page":                   {request{"GET", "dns.example", map[string]string{"Sec-Fetch-Site": "cross-site"}}, pass},
		"a form of another site":                   {request{"POST", "dns.example", map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}}, refuse},
		"a form of a sister site":                  {request{"DELETE", "dns.example", map[string]string{"Sec-Fetch-Site": "same-site"}}, refuse},
		"a form of another site, old browser":      {request{"POST", "dns.example", map[string]string{"Origin": "https://evil.example"}}, refuse},
	} {
		t.Run(name, func(t *testing.T) {
			w := c.through(t, httpguard.SameOrigin)
			if w.Code != c.want {
				t.Errorf("status: got %d, want %d", w.Code, c.want)
			}
			if w.Code == refuse {
				wantSentence(t, w)
			}
		})
	}
}

func wantSentence(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var body struct{ Error string }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error == "" {
		t.Errorf("refusal: got %q, want a JSON error", w.Body)
	}
}
