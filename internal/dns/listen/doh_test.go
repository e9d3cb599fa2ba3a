package listen_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/listen"
)

// web is a DoH server and a client of it.
type web struct {
	*served
	client *http.Client
	url    string
}

// onBothVersions runs a test with HTTP/1.1 and HTTP/2.
func onBothVersions(t *testing.T, h func() listen.Handler, test func(t *testing.T, w *web)) {
	t.Helper()
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP/%d", major), func(t *testing.T) {
			leavesNothing(t)
			a := newAuthority(t)
			s := serve(t, listen.Options{DoH: []string{"127.0.0.1:0"}, Certificate: a.certificate}, h())
			protocols := new(http.Protocols)
			protocols.SetHTTP1(major == 1)
			protocols.SetHTTP2(major == 2)
			tr := &http.Transport{TLSClientConfig: a.client(), Protocols: protocols}
			t.Cleanup(tr.CloseIdleConnections)
			test(t, &web{s, &http.Client{Transport: tr, Timeout: 4 * soon}, "https://" + s.DoHAddrs()[0] + "/dns-query"})
		})
	}
}

// response is one, read and closed.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (w *web) do(t testing.TB, method, url, contentType string, body io.Reader) response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, got}
}

func (w *web) get(t testing.TB, raw []byte) response {
	t.Helper()
	return w.do(t, http.MethodGet, w.url+"?dns="+base64.RawURLEncoding.EncodeToString(raw), "", nil)
}

func (w *web) post(t testing.TB, raw []byte) response {
	t.Helper()
	return w.do(t, http.MethodPost, w.url, "application/dns-message", bytes.NewReader(raw))
}

func TestQueriesComeByHTTPS(t *testing.T) {
	h := func() listen.Handler {
		return handle(func(m *listen.Message, out []byte) []byte {
			if m.Protocol != listen.DoH || m.Protocol.String() != "doh" || !m.Client.IsLoopback() || m.Lane != 0 {
				return nil
			}
			if idOf(m.Raw) == 1 {
				return echo(m, out)
			}
			r, reply := m.Later(), echo(m, nil)
			go r.Send(reply)
			return nil
		})
	}
	onBothVersions(t, h, func(t *testing.T, w *web) {
		for id := range uint16(2) {
			for name, ask := range map[string]func(testing.TB, []byte) response{"GET": w.get, "POST": w.post} {
				for _, n := range []int{0, 30, 4096 - 12} {
					raw := query(id, n)
					raw[11] = 0xFB // base64url differs from base64
					resp := ask(t, raw)
					if resp.status != http.StatusOK || !bytes.Equal(resp.body, answer(nil, raw)) {
						t.Errorf("%s of %d bytes: got %d and %d bytes, want the answer", name, len(raw), resp.status, len(resp.body))
					}
					if got := resp.header.Get("Content-Type"); got != "application/dns-message" {
						t.Errorf("%s: content type: got %q", name, got)
					}
				}
			}
		}
		if resp := w.post(t, query(1, 65535-12)); resp.status != http.StatusOK || len(resp.body) != 65535 {
			t.Errorf("POST of 65535 bytes: got %d and %d bytes", resp.status, len(resp.body))
		}
	})
}

func TestAnAnswerByHTTPSTellsHowLongItKeeps(t *testing.T) {
	h := func() listen.Handler {
		return handle(func(m *listen.Message, _ []byte) []byte {
			q := new(dns.Msg)
			if q.Unpack(m.Raw) != nil {
				return nil
			}
			reply := new(dns.Msg).SetReply(q)
			switch q.Question[0].Name {
			case "servfail.":
				reply.Rcode = dns.RcodeServerFailure
			default:
				for _, ttl := range []uint32{300, 60, 3600} {
					reply.Answer = append(reply.Answer, &dns.TXT{
						Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: ttl}, Txt: []string{"x"},
					})
				}
			}
			wire, _ := reply.Pack()
			return wire
		})
	}
	onBothVersions(t, h, func(t *testing.T, w *web) {
		for name, want := range map[string]string{"www.example.": "max-age=60", "servfail.": "max-age=0"} {
			raw, _ := new(dns.Msg).SetQuestion(name, dns.TypeTXT).Pack()
			if got := w.get(t, raw).header.Get("Cache-Control"); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	})
}

func TestRequestsThatAreNoQueriesAreRefused(t *testing.T) {
	h := &counted{handle: func(*listen.Message, []byte) []byte { return nil }}
	onBothVersions(t, func() listen.Handler { return h }, func(t *testing.T, w *web) {
		h.asked.Store(0)
		valid := base64.RawURLEncoding.EncodeToString(query(1, 1))
		const message = "application/dns-message"
		unread := func() io.Reader { return iotestReader{} }
		for _, c := range []struct {
			name, method, path, contentType string
			body                            io.Reader
			want                            int
		}{
			{"another path", "GET", "/", "", nil, 404},
			{"a path below", "GET", "/dns-query/more?dns=" + valid, "", nil, 404},
			{"a GET without a query", "GET", "/dns-query", "", nil, 400},
			{"a GET with an empty query", "GET", "/dns-query?dns=", "", nil, 400},
			{"a GET with another parameter", "GET", "/dns-query?name=example.com", "", nil, 400},
			{"base64 with padding", "GET", "/dns-query?dns=" + base64.URLEncoding.EncodeToString(query(1, 2)), "", nil, 400},
			{"base64 of the other alphabet", "GET", "/dns-query?dns=" + valid + "%2B%2F", "", nil, 400},
			{"a GET shorter than a header", "GET", "/dns-query?dns=" + valid[:14], "", nil, 400},
			{"a GET of a response", "GET", "/dns-query?dns=" + base64.RawURLEncoding.EncodeToString(answer(nil, query(1, 0))), "", nil, 400},
			{"a GET too long", "GET", "/dns-query?dns=" + base64.RawURLEncoding.EncodeToString(query(1, 4085)), "", nil, 414},
			{"a POST shorter than a header", "POST", "/dns-query", message, strings.NewReader("short"), 400},
			{"a POST of a response", "POST", "/dns-query", message, bytes.NewReader(answer(nil, query(1, 0))), 400},
			{"a POST too long", "POST", "/dns-query", message, bytes.NewReader(query(1, 65536-12)), 413},
			{"a POST too long that does not say so", "POST", "/dns-query", message, io.MultiReader(bytes.NewReader(query(1, 70000))), 413},
			{"a POST of something else", "POST", "/dns-query", "application/json", bytes.NewReader(query(1, 0)), 415},
			{"a POST of something else without an end", "POST", "/dns-query", "application/json", unread(), 415},
			{"a POST of no type", "POST", "/dns-query", "", bytes.NewReader(query(1, 0)), 415},
			{"a method that is none", "PUT", "/dns-query", message, bytes.NewReader(query(1, 0)), 405},
			{"a DELETE", "DELETE", "/dns-query?dns=" + valid, "", nil, 405},
			{"a query that is not answered", "GET", "/dns-query?dns=" + valid, "", nil, 503},
		} {
			resp := w.do(t, c.method, strings.TrimSuffix(w.url, "/dns-query")+c.path, c.contentType, c.body)
			if resp.status != c.want || !strings.HasPrefix(string(resp.body), `{"error":"`) {
				t.Errorf("%s: got %d %q, want %d and an error", c.name, resp.status, resp.body, c.want)
			}
			if resp.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: got %v, want it not to be stored", c.name, resp.header)
			}
		}
		if got := h.asked.Load(); got != 1 {
			t.Errorf("got %d messages, want only the last one", got)
		}
	})
}

// iotestReader never ends.
type iotestReader struct{}

func (iotestReader) Read(b []byte) (int, error) { return len(b), nil }

func TestAPanicCostsOneRequest(t *testing.T) {
	h := func() listen.Handler {
		return handle(func(m *listen.Message, out []byte) []byte {
			if idOf(m.Raw) == 0 {
				panic("on purpose")
			}
			return echo(m, out)
		})
	}
	onBothVersions(t, h, func(t *testing.T, w *web) {
		if resp := w.get(t, query(0, 0)); resp.status != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", resp.status)
		}
		if resp := w.get(t, query(1, 0)); resp.status != http.StatusOK {
			t.Errorf("the next one: got %d, want 200", resp.status)
		}
		if got := w.Stats().Panics; got != 1 {
			t.Errorf("panics: got %d, want 1", got)
		}
	})
}

func TestRequestsUnderWayAreAnsweredDuringShutdown(t *testing.T) {
	responders := make(chan *listen.Responder, 10)
	h := func() listen.Handler {
		return handle(func(m *listen.Message, _ []byte) []byte {
			responders <- m.Later()
			return nil
		})
	}
	onBothVersions(t, h, func(t *testing.T, w *web) {
		var answered atomic.Int64
		for range 5 {
			go func() {
				if resp := w.post(t, query(1, 0)); resp.status == http.StatusOK && len(resp.body) == 12 {
					answered.Add(1)
				}
			}()
		}
		eventually(t, "all are under way", func() bool { return len(responders) == 5 })
		ended := make(chan error, 1)
		go func() { ended <- w.stop() }()
		eventually(t, "nothing is accepted", func() bool {
			conn, err := tls.Dial("tcp", w.DoHAddrs()[0], &tls.Config{InsecureSkipVerify: true})
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		for range 5 {
			(<-responders).Send(answer(nil, query(1, 0)))
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		eventually(t, "all are answered", func() bool { return answered.Load() == 5 })
	})
}

func TestAClientOfHTTPSThatGivesUpHoldsNothing(t *testing.T) {
	responders := make(chan *listen.Responder, 1)
	h := func() listen.Handler {
		return handle(func(m *listen.Message, _ []byte) []byte {
			responders <- m.Later()
			return nil
		})
	}
	onBothVersions(t, h, func(t *testing.T, w *web) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"?dns="+base64.RawURLEncoding.EncodeToString(query(0, 0)), nil)
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			resp, err := w.client.Do(r)
			if err == nil {
				resp.Body.Close()
			}
			failed <- err
		}()
		responder := <-responders
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		start := time.Now()
		responder.Send(query(0, 0))
		if took := time.Since(start); took > soon {
			t.Errorf("Send took %v", took)
		}
	})
}
