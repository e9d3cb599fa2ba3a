package lists_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/dns/lists"
	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// source is a list server whose answer the test sets.
type source struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
	asked   atomic.Int64
}

func newSource(t testing.TB) *source {
	t.Helper()
	s := &source{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.handler.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *source) answer(h http.HandlerFunc) { s.handler.Store(&h) }

// newTLSSource is a list server over https.
func newTLSSource(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s
}

func waitFor(t testing.TB, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatal("did not happen within 10 s")
		case <-tick.C:
		}
	}
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
}

func pack(body string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	fmt.Fprint(w, body)
	w.Close()
	return b.Bytes()
}

func packed(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(pack(body)) }
}

func blocks(m *lists.Manager, name string) bool {
	var b rules.Builder
	for _, l := range m.Lists() {
		b.Add(l)
	}
	return b.Build().Match(name, 1).Blocked
}

func listOf(url string) []fleet.PolicyList { return []fleet.PolicyList{{Name: "web", URL: url}} }

func TestABodyThatIsNoListIsRefusedAndTheLastGoodCopyStays(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"an HTML page", text("<!DOCTYPE html>\n<html>sign in\nads.example\n</html>"), "HTML"},
		{"an HTML page behind white space and a byte order mark", text("\ufeff\n  <HTML>ads.example"), "HTML"},
		{"a JSON error", text(`{"message":"ads.example moved"}`), "JSON"},
		{"a JSON list", text(" [\n  \"ads.example\"\n]"), "JSON"},
		{"a packed HTML page", packed("<html>\nads.example\n"), "HTML"},
		{"a packed body that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Write(pack("other.example\n")[:20])
		}, "EOF"},
		{"a packed body that is damaged", func(w http.ResponseWriter, _ *http.Request) {
			b := pack("other.example\n")
			b[len(b)-6]++ // the sum
			w.Write(b)
		}, "checksum"},
		{"a redirect to a file", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/hosts")
			w.WriteHeader(http.StatusFound)
		}, "file://"},
		{"a redirect without end", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, "ten times"},
		{"an empty body", text(""), "empty"},
		{"white space", text("\n \r\n\n"), "empty"},
		{"comments alone", text("# nothing\n! here\n"), "no rule"},
		{"prose", text("Too many requests, try again later\n"), "no rule"},
		{"an error status", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
			fmt.Fprint(w, "other.example\n")
		}, "429"},
		{"a body that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "other.example\n")
		}, "EOF"},
		{"a not-modified that nobody asked for differs in nothing", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotModified)
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSource(t)
			s.answer(text("ads.example\n"))
			dir := t.TempDir()
			m := lists.New(lists.Options{Dir: dir})
			m.Apply(listOf(s.URL))
			if err := m.Reload(t.Context()); err != nil {
				t.Fatalf("first fetch: %v", err)
			}
			s.answer(c.handler)
			err := m.Reload(t.Context())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("reload: got %v, want %q", err, c.want)
			}
			if !blocks(m, "ads.example") || blocks(m, "other.example") {
				t.Error("the last good copy is not in force")
			}
			if got := m.Stats()[0]; (got.Error == "") != (c.want == "") || got.Entries != 1 {
				t.Errorf("stats: got %+v, want the error and one entry", got)
			}
			again := lists.New(lists.Options{Dir: dir})
			again.Apply(listOf(s.URL))
			if !blocks(again, "ads.example") || blocks(again, "other.example") {
				t.Error("the last good copy is not on disk")
			}
			leftovers, _ := filepath.Glob(filepath.Join(dir, "*.tmp"))
			if len(leftovers) > 0 {
				t.Errorf("left behind: %v", leftovers)
			}
		})
	}
}

func TestAnUnchangedListIsNotSentAgain(t *testing.T) {
	s := newSource(t)
	var conditional atomic.Int64
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		if r.Header.Get("If-None-Match") == `"one"` && r.Header.Get("If-Modified-Since") != "" {
			conditional.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintln(w, "ads.example")
	})
	dir := t.TempDir()
	var changed atomic.Int64
	now := time.Now()
	options := lists.Options{Dir: dir, Changed: func() { changed.Add(1) }, Now: func() time.Time { return now }}
	m := lists.New(options)
	m.Apply(listOf(s.URL))
	for range 2 {
		if err := m.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
	}
	again := lists.New(options)
	again.Apply(listOf(s.URL))
	if err := again.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if conditional.Load() != 2 || changed.Load() != 1 {
		t.Errorf("got %d not modified, %d changes; want 2 and 1", conditional.Load(), changed.Load())
	}
	if got := again.Stats()[0]; !got.CheckedAt.After(got.UpdatedAt) || !blocks(again, "ads.example") {
		t.Errorf("stats: got %+v, want checked after updated", got)
	}
}

func TestOneListThatFailsOrHangsDoesNotHoldUpAnother(t *testing.T) {
	s := newSource(t)
	release := make(chan struct{})
	s.answer(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	path := filepath.Join(t.TempDir(), "mine.txt")
	if err := os.WriteFile(path, []byte("ads.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded := make(chan struct{}, 8)
	m := lists.New(lists.Options{Changed: func() { loaded <- struct{}{} }})
	m.Apply([]fleet.PolicyList{
		{Name: "hangs", URL: s.URL}, {Name: "missing", URL: "file:///nonexistent"}, {Name: "closed", URL: "http://127.0.0.1:1/"}, {Name: "mine", URL: "file://" + path},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	<-loaded
	stats := m.Stats() // while a download hangs: no lock is held
	if !blocks(m, "ads.example") || stats[3].Entries != 1 {
		t.Errorf("got %+v, want the good list in force", stats)
	}
	if pending := m.Pending(); len(pending) == 0 || pending[0] != "hangs" {
		t.Errorf("pending: got %v, want the hanging list", pending)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: got %v, want nil", err)
	}
	close(release)
}

func TestAFailedListIsTriedAgainWithinASecond(t *testing.T) {
	s := newSource(t)
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		if s.asked.Load() == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		text("ads.example\n")(w, r)
	})
	loaded := make(chan struct{}, 8)
	m := lists.New(lists.Options{Changed: func() { loaded <- struct{}{} }})
	m.Apply(listOf(s.URL))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	select {
	case <-loaded:
	case <-time.After(8 * time.Second):
		t.Error("the list was not tried again")
	}
	cancel()
	<-done
	if got := m.Stats()[0]; got.Error != "" || got.Entries != 1 {
		t.Errorf("stats: got %+v, want no error any more", got)
	}
}

func TestAnEndOfOurOwnIsNoFaultOfTheSource(t *testing.T) {
	s := newSource(t)
	asked := make(chan struct{})
	s.answer(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	m := lists.New(lists.Options{})
	m.Apply(listOf(s.URL))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Reload(ctx) }()
	<-asked
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("reload: got %v, want context.Canceled", err)
	}
	if got, pending := m.Stats()[0], m.Pending(); got.Error != "" || len(pending) != 1 {
		t.Errorf("got %+v, pending %v; want no error, and the list still pending", got, pending)
	}
}

func TestALocalFileMayBeEmptiedOnPurpose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.txt")
	m := lists.New(lists.Options{Dir: t.TempDir()})
	m.Apply(listOf("file://" + path))
	for _, step := range []struct {
		content string
		good    bool
		blocked bool
	}{{"ads.example\n", true, true}, {"", false, true}, {"not a list at all\n", false, true}, {"# nothing blocked for now\n", true, false}} {
		if err := os.WriteFile(path, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.Reload(t.Context()); (err == nil) != step.good {
			t.Errorf("%q: got %v, want good %v", step.content, err, step.good)
		}
		if got := blocks(m, "ads.example"); got != step.blocked {
			t.Errorf("%q: blocked: got %v, want %v", step.content, got, step.blocked)
		}
	}
}

func TestWhatCannotBeAListFileIsRefused(t *testing.T) {
	for name, path := range map[string]string{"a directory": t.TempDir(), "a device": "/dev/zero", "nothing": "/nonexistent/x"} {
		m := lists.New(lists.Options{})
		m.Apply(listOf("file://" + path))
		if err := m.Reload(t.Context()); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

func TestAnEndlessBodyIsCutOffAtTheBound(t *testing.T) {
	s := newSource(t)
	s.answer(func(w http.ResponseWriter, _ *http.Request) {
		line := []byte(strings.Repeat("# filler filler filler filler filler filler filler\n", 20_000))
		for {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	m := lists.New(lists.Options{MaxSize: 3 << 19})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "larger than 1.5 MiB") {
		t.Errorf("got %v, want an error that names the bound", err)
	}
}

func TestADiskThatCannotKeepACopyCostsOnlyTheCopy(t *testing.T) {
	s := newSource(t)
	s.answer(text("ads.example\n"))
	notADir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notADir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := lists.New(lists.Options{Dir: filepath.Join(notADir, "lists")})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err != nil {
		t.Fatalf("reload: got %v, want nil", err)
	}
	if got := m.Stats()[0]; !blocks(m, "ads.example") || got.Error == "" {
		t.Errorf("got %+v, want the list in force and the disk's error", got)
	}
}

func TestCopiesOfListsThatAreGoneAreRemoved(t *testing.T) {
	s := newSource(t)
	s.answer(text("ads.example\n"))
	dir := t.TempDir()
	m := lists.New(lists.Options{Dir: dir})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Apply(nil)
	if left, _ := os.ReadDir(dir); len(left) != 0 || len(m.Lists()) != 0 || len(m.Stats()) != 0 {
		t.Errorf("got %v on disk and %v, want nothing", left, m.Stats())
	}
}

func TestADamagedCopyIsNoReasonToFail(t *testing.T) {
	s := newSource(t)
	s.answer(text("ads.example\n"))
	dir := t.TempDir()
	m := lists.New(lists.Options{Dir: dir})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for ext, keeps := range map[string]bool{"json": true, "list": false} {
		files, _ := filepath.Glob(filepath.Join(dir, "*."+ext))
		for _, f := range files {
			if err := os.WriteFile(f, []byte("\x00\xff{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again := lists.New(lists.Options{Dir: dir})
		again.Apply(listOf(s.URL))
		if ext == "json" && blocks(again, "ads.example") != keeps {
			t.Errorf("damaged %s: got blocked %v, want %v", ext, !keeps, keeps)
		}
		if err := again.Reload(t.Context()); err != nil || !blocks(again, "ads.example") {
			t.Errorf("damaged %s: got %v, want the list fetched anew", ext, err)
		}
	}
}

func TestACopyThatIsNotWhatWasFetchedIsFetchedAnew(t *testing.T) {
	s := newSource(t)
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("If-None-Match") == `"one"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintln(w, "ads.example")
	})
	dir := t.TempDir()
	m := lists.New(lists.Options{Dir: dir})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.list"))
	if err := os.WriteFile(files[0], []byte("other.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := lists.New(lists.Options{Dir: dir})
	again.Apply(listOf(s.URL))
	if !blocks(again, "other.example") {
		t.Error("from disk: want what is there in force")
	}
	if err := again.Reload(t.Context()); err != nil || !blocks(again, "ads.example") || blocks(again, "other.example") {
		t.Errorf("got %v, want what the source holds in force", err)
	}
}

func TestALongErrorIsCutForTheReport(t *testing.T) {
	m := lists.New(lists.Options{})
	m.Apply(listOf("file:///" + strings.Repeat("ä", 400)))
	_ = m.Reload(t.Context())
	b, err := json.Marshal(m.Stats()[0])
	if got := m.Stats()[0].Error; err != nil || len(got) == 0 || len(got) > 210 || strings.Contains(string(b), `\ufffd`) {
		t.Errorf("got %d bytes %q, want at most 210 of whole characters", len(got), got)
	}
}
