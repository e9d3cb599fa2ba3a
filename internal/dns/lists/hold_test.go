package lists_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/dns/lists"
	"dnsfleet/internal/fleet"
)

// names is a list of n names that begin with prefix.
func names(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s%d.example\n", prefix, i)
	}
	return b.String()
}

func TestAListThatShrinksByMoreThanHalfIsHeldBackForADay(t *testing.T) {
	s := newSource(t)
	dir := t.TempDir()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	options := lists.Options{Dir: dir, Now: func() time.Time { return now }}
	start := func() *lists.Manager {
		m := lists.New(options)
		m.Apply([]fleet.PolicyList{{Name: "web", URL: s.URL, Refresh: fleet.Duration(10 * time.Hour)}})
		return m
	}
	m := start()
	for _, step := range []struct {
		name    string
		after   time.Duration
		content string
		restart bool
		entries int
		held    string // in the error; "" = none
	}{
		{"the first copy counts, whatever its size", 0, names("a", 10), false, 10, ""},
		{"half of it is a change like others", time.Hour, names("a", 5), false, 5, ""},
		{"growing is, too", time.Hour, names("a", 100), false, 100, ""},
		{"less than half is held back", time.Hour, names("b", 49), false, 100, "holds 49 rules where the copy in use holds 100"},
		{"and stays so", 23 * time.Hour, names("b", 48), false, 100, "holds 48 rules"},
		{"a restart forgets nothing", 0, names("b", 47), true, 100, "after 2026-11-26T15:00:00Z"},
		{"once it is what it was, it is not held any more", 0, names("a", 100), false, 100, ""},
		{"so the day begins anew", time.Hour, names("b", 49), false, 100, "after 2026-11-27T15:00:00Z"},
		{"up to its end", 24*time.Hour - time.Second, names("b", 49), true, 100, "holds 49 rules"},
		{"what is as small after a day is meant", time.Second, names("b", 3), false, 3, ""},
	} {
		now = now.Add(step.after)
		if step.restart {
			m = start()
			if got := m.Stats()[0]; got.Entries != step.entries || !strings.Contains(got.Error, "held back") {
				t.Errorf("%s: right after the start: got %+v, want the copy in use and why", step.name, got)
			}
		}
		s.answer(text(step.content))
		err := m.Reload(t.Context())
		if (err == nil) != (step.held == "") || err != nil && !strings.Contains(err.Error(), step.held) {
			t.Errorf("%s: got %v, want %q", step.name, err, step.held)
		}
		got := m.Stats()[0]
		if got.Entries != step.entries || !strings.Contains(got.Error, step.held) || (got.Error == "") != (step.held == "") {
			t.Errorf("%s: stats: got %+v, want %d entries, error %q", step.name, got, step.entries, step.held)
		}
		if !got.CheckedAt.Equal(now) {
			t.Errorf("%s: checked: got %v, want %v", step.name, got.CheckedAt, now)
		}
	}
	if !blocks(m, "b2.example") || blocks(m, "a2.example") {
		t.Error("in the end: want the small list in force")
	}
}

// answerOf is a list server that needs no socket, so that its clock can be the bubble's.
type answerOf func() string

func (a answerOf) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(a())), Request: r}, nil
}

func TestAListIsLookedAtAgainAsSoonAsItMayBeTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var asked []time.Duration
		var content atomic.Value
		content.Store(names("a", 10))
		m := lists.New(lists.Options{Client: &http.Client{Transport: answerOf(func() string {
			asked = append(asked, time.Since(start))
			return content.Load().(string)
		})}})
		m.Apply([]fleet.PolicyList{{Name: "web", URL: "http://lists.example/", Refresh: fleet.Duration(20 * time.Hour)}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		content.Store(names("b", 2))
		time.Sleep(100 * time.Hour)
		cancel()
		<-done
		if len(asked) < 4 || asked[0] != 0 || asked[1] < 18*time.Hour || asked[2] < asked[1]+18*time.Hour || asked[3] != asked[1]+24*time.Hour {
			t.Errorf("asked after %v, want at once, twice after 18 to 20 hours, then 24 hours after the second", asked)
		}
		if got := m.Stats()[0]; got.Entries != 2 || got.Error != "" {
			t.Errorf("got %+v, want the small list taken", got)
		}
	})
}

func TestAListThatIsHeldBackKeepsTheETagOfTheCopyInUse(t *testing.T) {
	s := newSource(t)
	tag, body := `"large"`, names("a", 10)
	var asked []string
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("If-None-Match"))
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, body)
	})
	m := lists.New(lists.Options{Dir: t.TempDir()})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	tag, body = `"small"`, names("b", 2)
	for range 2 {
		if err := m.Reload(t.Context()); err == nil {
			t.Error("small: got nil, want it held back")
		}
	}
	tag = `"large"`
	if err := m.Reload(t.Context()); err != nil || m.Stats()[0].Error != "" {
		t.Errorf("large again: got %v and %+v, want no error", err, m.Stats()[0])
	}
	if want := []string{"", `"large"`, `"large"`, `"large"`}; strings.Join(asked, " ") != strings.Join(want, " ") {
		t.Errorf("asked with %q, want %q", asked, want)
	}
}

func TestAnotherAddressForAListIsTakenWhateverItsSize(t *testing.T) {
	s := newSource(t)
	s.answer(text(names("a", 10)))
	m := lists.New(lists.Options{Dir: t.TempDir()})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.answer(text(names("b", 2)))
	m.Apply(listOf(s.URL + "#smaller"))
	if err := m.Reload(t.Context()); err != nil || m.Stats()[0].Entries != 2 {
		t.Errorf("got %v and %+v, want the two names", err, m.Stats())
	}
}

func TestAPackedListIsReadByItsContent(t *testing.T) {
	s := newSource(t)
	s.answer(packed("ads.example\n"))
	dir := t.TempDir()
	for range 2 { // the second time from disk
		m := lists.New(lists.Options{Dir: dir})
		m.Apply(listOf(s.URL + "/list.txt.gz"))
		if len(m.Pending()) > 0 {
			if err := m.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !blocks(m, "ads.example") {
			t.Error("got passed, want blocked")
		}
	}
	if got := s.asked.Load(); got != 1 {
		t.Errorf("asked %d times, want once", got)
	}
}

func TestAPackedBodyWithoutEndIsCutOffAtTheBound(t *testing.T) {
	s := newSource(t)
	bomb := pack(strings.Repeat("# filler filler filler filler filler filler filler\n", 64<<10))
	s.answer(func(w http.ResponseWriter, _ *http.Request) { w.Write(bomb) })
	m := lists.New(lists.Options{MaxSize: 1 << 20})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("got %v, want an error that names the bound", err)
	}
}

func TestARedirectIsFollowedButNotToWhereAnybodyWrites(t *testing.T) {
	target := newSource(t)
	target.answer(text("ads.example\n"))
	for _, c := range []struct {
		name   string
		source func(http.Handler) (url string, client *http.Client)
		want   string
	}{
		{"from http to http", func(h http.Handler) (string, *http.Client) {
			s := newSource(t)
			s.answer(h.ServeHTTP)
			return s.URL, nil
		}, ""},
		{"from https to http", func(h http.Handler) (string, *http.Client) {
			s := newTLSSource(t, h)
			return s.URL, s.Client()
		}, "redirects from https to http"},
	} {
		url, client := c.source(http.RedirectHandler(target.URL, http.StatusMovedPermanently))
		m := lists.New(lists.Options{Client: client})
		m.Apply(listOf(url))
		err := m.Reload(t.Context())
		if c.want == "" && (err != nil || !blocks(m, "ads.example")) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestListsThatArriveTogetherAreTakenTogether(t *testing.T) {
	s := newSource(t)
	s.answer(text("ads.example\n"))
	var calls, running atomic.Int64
	first, proceed := make(chan struct{}), make(chan struct{})
	m := lists.New(lists.Options{Changed: func() {
		if running.Add(1) != 1 {
			t.Error("called while it runs")
		}
		if calls.Add(1) == 1 {
			close(first)
			<-proceed
		}
		running.Add(-1)
	}})
	var sources []fleet.PolicyList
	for i := range 4 {
		sources = append(sources, fleet.PolicyList{Name: fmt.Sprint(i), URL: fmt.Sprintf("%s/%d", s.URL, i)})
	}
	m.Apply(sources)
	done := make(chan error, 1)
	go func() { done <- m.Reload(t.Context()) }()
	<-first
	waitFor(t, func() bool {
		for _, l := range m.Stats() {
			if l.Entries == 0 {
				return false
			}
		}
		return true
	})
	close(proceed)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := calls.Load(); got != 2 {
		t.Errorf("called %d times, want 2: for the first, and for the three that came meanwhile", got)
	}
}

func TestAnotherRefreshKeepsWhatWasLoaded(t *testing.T) {
	s := newSource(t)
	s.answer(text("ads.example\n"))
	m := lists.New(lists.Options{})
	m.Apply(listOf(s.URL))
	if err := m.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed := listOf(s.URL)
	changed[0].Refresh = fleet.Duration(time.Hour)
	m.Apply(changed)
	if !blocks(m, "ads.example") || len(m.Pending()) > 0 {
		t.Errorf("got pending %v, want the list still in force", m.Pending())
	}
}

func BenchmarkStartFromDisk(b *testing.B) {
	s := newSource(b)
	s.answer(text(names("ads-of-a-tracker-", 200_000)))
	dir := b.TempDir()
	m := lists.New(lists.Options{Dir: dir})
	m.Apply(listOf(s.URL))
	if err := m.Reload(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		again := lists.New(lists.Options{Dir: dir})
		again.Apply(listOf(s.URL))
		if !blocks(again, "ads-of-a-tracker-7.example") {
			b.Fatal("not blocked")
		}
	}
}
