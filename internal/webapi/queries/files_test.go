package queries_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
	"dnsfleet/internal/webapi/queries"
	"dnsfleet/internal/webapi/transfer"
)

// fake answers exports, and waits for ever with all else.
type fake struct {
	export  func(ctx context.Context, yield func(fleet.QueryRow, error) bool)
	missing []fleet.QueryGap
}

var about = fleet.QueryAnswer{Enabled: true, Source: "sqlite", Missing: []fleet.QueryGap{}}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", fleet.ErrUnavailable, ctx.Err())
}

func (f fake) Summary(ctx context.Context, _ fleet.QueryFilter, _ bool) (fleet.QuerySummary, fleet.QueryAnswer, error) {
	return fleet.QuerySummary{}, about, hang(ctx)
}

func (f fake) Latency(ctx context.Context, _ fleet.QueryFilter, _ bool) (fleet.QueryLatency, fleet.QueryAnswer, error) {
	return fleet.QueryLatency{}, about, hang(ctx)
}

func (f fake) Series(ctx context.Context, _ fleet.QueryFilter, _ time.Duration, _ bool) (fleet.QuerySeries, fleet.QueryAnswer, error) {
	return fleet.QuerySeries{}, about, hang(ctx)
}

func (f fake) Upstreams(ctx context.Context, _ fleet.QueryFilter, _ bool) (fleet.QueryUpstreams, fleet.QueryAnswer, error) {
	return fleet.QueryUpstreams{}, about, hang(ctx)
}

func (f fake) TopDomains(ctx context.Context, _ fleet.QueryFilter, _ int, _ bool) (fleet.QueryTop, fleet.QueryAnswer, error) {
	return fleet.QueryTop{}, about, hang(ctx)
}

func (f fake) TopClients(ctx context.Context, _ fleet.QueryFilter, _ int, _ bool) (fleet.QueryTop, fleet.QueryAnswer, error) {
	return fleet.QueryTop{}, about, hang(ctx)
}

func (f fake) Rows(ctx context.Context, _ fleet.QueryFilter, _ int, _ string) (fleet.QueryPage, fleet.QueryAnswer, error) {
	return fleet.QueryPage{}, about, hang(ctx)
}

func (f fake) Export(ctx context.Context, _ fleet.QueryFilter) (fleet.QueryAnswer, iter.Seq2[fleet.QueryRow, error]) {
	about := about
	about.Missing = f.missing
	return about, func(yield func(fleet.QueryRow, error) bool) { f.export(ctx, yield) }
}

// handler serves a log as the web API does, behind its compression.
func handler(log queries.Log) http.Handler {
	a := queries.New(queries.Options{Log: log, Now: time.Now, Fail: func(w http.ResponseWriter, _ *http.Request, err error) { httpjson.Fail(w, err) }})
	mux := http.NewServeMux()
	for path, handle := range a.Handlers() {
		mux.Handle(path, new(transfer.Gzip).Handler(handle))
	}
	return mux
}

func serve(t *testing.T, log queries.Log, change func(*http.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler(log))
	if change != nil {
		change(s.Config)
	}
	s.Config.ErrorLog = nil
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// reply is an answer whose body is closed when the test ends.
type reply struct {
	status int
	header http.Header
	body   io.Reader
}

func get(t *testing.T, s *httptest.Server, path string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "identity")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return reply{answer.StatusCode, answer.Header, answer.Body}
}

func row(i int) fleet.QueryRow {
	return fleet.QueryRow{TS: time.Unix(int64(i), 0).UTC(), InstanceID: "cabin", QName: fmt.Sprintf("n%d.example", i), Outcome: "cached"}
}

func rows(n int, yield func(fleet.QueryRow, error) bool) bool {
	for i := range n {
		if !yield(row(i), nil) {
			return false
		}
	}
	return true
}

func TestAnExportIsSentWhileItIsRead(t *testing.T) {
	const first, rest = 20_000, 10
	for _, coding := range []string{"identity", "gzip"} {
		t.Run(coding, func(t *testing.T) {
			more := make(chan struct{})
			s := serve(t, fake{export: func(_ context.Context, yield func(fleet.QueryRow, error) bool) {
				if rows(first, yield) {
					<-more
					rows(rest, yield)
				}
			}}, nil)
			answer := get(t, s, "/api/queries/export", "Accept-Encoding", coding)
			if got := answer.header.Get("Content-Encoding"); coding == "gzip" && got != coding {
				t.Fatalf("got content coding %q", got)
			}
			body := answer.body
			if coding == "gzip" {
				zip, err := gzip.NewReader(body)
				if err != nil {
					t.Fatal(err)
				}
				body = zip
			}
			lines := bufio.NewScanner(body)
			n := 0
			for n < first/2 && lines.Scan() {
				n++
			}
			if n != first/2 {
				t.Fatalf("got %d rows before the last was read: %v", n, lines.Err())
			}
			close(more)
			for lines.Scan() {
				n++
			}
			if n != first+rest || lines.Err() != nil {
				t.Errorf("got %d rows, %v, want %d", n, lines.Err(), first+rest)
			}
		})
	}
}

func TestAnExportThatBreaksOffDoesNotLookWhole(t *testing.T) {
	broken := fmt.Errorf("%w: connection reset", fleet.ErrUnavailable)
	for name, c := range map[string]struct {
		rows   int
		coding string
	}{
		"after a few rows": {3, "identity"}, "after many": {20_000, "identity"}, "after a few, compressed": {3, "gzip"}, "after many, compressed": {20_000, "gzip"},
	} {
		for _, format := range []string{"csv", "ndjson"} {
			t.Run(name+", as "+format, func(t *testing.T) {
				s := serve(t, fake{export: func(_ context.Context, yield func(fleet.QueryRow, error) bool) {
					if rows(c.rows, yield) {
						yield(fleet.QueryRow{}, broken)
					}
				}}, nil)
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/queries/export?format="+format, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Accept-Encoding", c.coding)
				answer, err := s.Client().Do(r)
				if err != nil {
					return // nothing had been sent yet
				}
				defer answer.Body.Close()
				if _, err := io.ReadAll(answer.Body); err == nil {
					t.Errorf("got %d and a body that ends as if it were whole", answer.StatusCode)
				}
			})
		}
	}
}

func TestAnExportThatCannotBeginHasAStatus(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
	}{
		"a log that is away":       {fmt.Errorf("%w: refused", fleet.ErrUnavailable), http.StatusServiceUnavailable},
		"a question that is wrong": {fmt.Errorf("export: %w: more than 200 million rows", fleet.ErrInvalid), http.StatusBadRequest},
		"what nobody has heard of": {errors.New("exception 4711"), http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, fake{export: func(_ context.Context, yield func(fleet.QueryRow, error) bool) { yield(fleet.QueryRow{}, c.err) }}, nil)
			answer := get(t, s, "/api/queries/export")
			var body struct{ Error string }
			if err := json.NewDecoder(answer.body).Decode(&body); err != nil || body.Error == "" || answer.status != c.status {
				t.Errorf("got %d %q, %v; want %d", answer.status, body.Error, err, c.status)
			}
		})
	}
}

func TestOnlySomeExportsRunAtOnce(t *testing.T) {
	end := make(chan struct{})
	began := make(chan struct{})
	s := serve(t, fake{export: func(ctx context.Context, _ func(fleet.QueryRow, error) bool) {
		began <- struct{}{}
		select {
		case <-end:
		case <-ctx.Done():
		}
	}}, nil)
	done := make(chan int)
	for range 4 {
		go func() {
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/queries/export", nil)
			answer, err := s.Client().Do(r)
			if err != nil {
				done <- 0
				return
			}
			answer.Body.Close()
			done <- answer.StatusCode
		}()
		<-began
	}
	if answer := get(t, s, "/api/queries/export"); answer.status != http.StatusTooManyRequests || answer.header.Get("Retry-After") == "" {
		t.Errorf("one too many: got %d, Retry-After %q", answer.status, answer.header.Get("Retry-After"))
	}
	close(end)
	for range 4 {
		if status := <-done; status != http.StatusOK {
			t.Errorf("got %d", status)
		}
	}
	go func() { <-began }()
	if answer := get(t, s, "/api/queries/export"); answer.status != http.StatusOK {
		t.Errorf("when they are done: got %d", answer.status)
	}
}

func TestAnExportOutlivesTheServersTimeOuts(t *testing.T) {
	s := serve(t, fake{export: func(ctx context.Context, yield func(fleet.QueryRow, error) bool) {
		for i := range 8 {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				yield(fleet.QueryRow{}, ctx.Err())
				return
			}
			if !yield(row(i), nil) {
				return
			}
		}
	}}, func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = 250*time.Millisecond, 250*time.Millisecond })
	answer := get(t, s, "/api/queries/export")
	body, err := io.ReadAll(answer.body)
	if err != nil || strings.Count(string(body), "\n") != 8 {
		t.Errorf("got %d rows, %v, want all 8", strings.Count(string(body), "\n"), err)
	}
}

func TestAnExportThatStandsStillEnds(t *testing.T) {
	for name, before := range map[string]int{"before the first row": 0, "in the middle": 5} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := handler(fake{export: func(ctx context.Context, yield func(fleet.QueryRow, error) bool) {
					for i := range before {
						time.Sleep(50 * time.Second) // slow, but it moves
						yield(row(i), nil)
					}
					yield(fleet.QueryRow{}, hang(ctx))
				}})
				began, w := time.Now(), httptest.NewRecorder()
				aborted := func() (aborted bool) {
					defer func() { aborted = recover() == http.ErrAbortHandler }() //nolint:errorlint // a panic's value
					h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/queries/export", nil))
					return false
				}()
				if took, want := time.Since(began), time.Minute+time.Duration(before)*50*time.Second; took != want {
					t.Errorf("took %s, want %s", took, want)
				}
				if aborted != (before > 0) || (before == 0 && w.Code != http.StatusServiceUnavailable) {
					t.Errorf("got aborted %t, status %d", aborted, w.Code)
				}
			})
		})
	}
}

func TestAnAnswerTakesTenSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, path := range []string{"summary", "latency", "time-series", "upstream-stats", "top-domains", "top-clients", "recent"} {
			began, w := time.Now(), httptest.NewRecorder()
			handler(fake{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/queries/"+path, nil))
			if took := time.Since(began); took != 10*time.Second || w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: got %d after %s, want 503 after 10s", path, w.Code, took)
			}
			if want := `{"error":"query log unavailable"}` + "\n"; w.Body.String() != want {
				t.Errorf("%s: got %s", path, w.Body)
			}
		}
	})
}

func TestAnExportsHeadersSayWhatItDoesNotCover(t *testing.T) {
	var missing []fleet.QueryGap
	for i := range 1000 {
		missing = append(missing, fleet.QueryGap{InstanceID: fmt.Sprint(i), Reason: "logs to sqlite:Küche\u2028𝄞\x7f"})
	}
	s := serve(t, fake{missing: missing, export: func(context.Context, func(fleet.QueryRow, error) bool) {}}, nil)
	header := get(t, s, "/api/queries/export").header.Get("X-Dnsfleet-Missing")
	for _, c := range header {
		if c < ' ' || c >= 0x7f {
			t.Fatalf("got %q, want ASCII", header)
		}
	}
	var got []fleet.QueryGap
	if err := json.Unmarshal([]byte(header), &got); err != nil || len(got) != 17 || got[0] != missing[0] || got[16].Reason != "and 984 more" {
		t.Errorf("got %d gaps, %v, from %q", len(got), err, header)
	}
}

func TestASpreadsheetSeesNoFormula(t *testing.T) {
	for _, text := range []string{`=1+1`, `+1`, `-1`, `@SUM(1)`, "\t=1", "\r=1"} {
		var b bytes.Buffer
		r := row(1)
		r.ClientIP, r.ClientName, r.Protocol, r.QName, r.QType, r.Outcome, r.RCode, r.UpstreamAddress, r.List = text, text, text, text, text, text, text, text, text
		if err := queries.WriteTable(&b, r); err != nil {
			t.Fatal(err)
		}
		table, err := csv.NewReader(&b).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for i, cell := range table[1] {
			if strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("%s: got cell %q", table[0][i], cell)
			}
		}
	}
}

// FuzzTable: a table reads back as what was written, but for the apostrophe before what would be a formula, and no cell begins one.
func FuzzTable(f *testing.F) {
	for _, text := range []string{"", "a", `=cmd|' /C calc'!A0`, "a,b", `say "hi"`, "two\nlines", "\r\n", "'", "-", "\xff", ";"} {
		f.Add(text, "x")
	}
	f.Fuzz(func(t *testing.T, name, list string) {
		var b bytes.Buffer
		r := row(1)
		r.QName, r.List = name, list
		if err := queries.WriteTable(&b, r); err != nil {
			t.Fatal(err)
		}
		table, err := csv.NewReader(&b).ReadAll()
		if err != nil || len(table) != 2 || len(table[1]) != 12 {
			t.Fatalf("got %q, %v", table, err)
		}
		for at, want := range map[int]string{5: name, 11: list} {
			got := table[1][at]
			want = strings.ReplaceAll(want, "\r\n", "\n") // as the reader has it
			if got != want && got != "'"+want {
				t.Errorf("got %q, want %q", got, want)
			}
			if got != "" && strings.ContainsAny(got[:1], "=+-@\t\r") {
				t.Errorf("got %q, which begins a formula", got)
			}
		}
	})
}
