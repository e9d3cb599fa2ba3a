package querylogtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// maxPage is a page that every reader must give at once.
const maxPage = 5000

// testPaging reads the log page by page; new rows come while the last of these tests reads.
func testPaging(t *testing.T, l *log, sink querylog.Sink, reader querylog.Reader) {
	window := fleet.QueryFilter{From: l.start.Add(day + 11*time.Hour), To: l.start.Add(day + 13*time.Hour)}
	domain := fleet.QueryFilter{Domain: "cdn.example.com"}
	for name, f := range map[string]fleet.QueryFilter{
		"pages of a window":               window,
		"pages of one instance":           {From: window.From, To: window.To, Instances: []string{"box2"}},
		"pages of a domain":               domain,
		"pages of an outcome":             {From: window.From, To: window.To, Outcomes: []fleet.Outcome{fleet.Blocked}},
		"pages of nothing":                {From: l.start.Add(-day), To: l.start},
		"pages of a domain nobody wanted": {Domain: "nobody.wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			want := matching(l.events, f)
			compareRows(t, "Rows", pages(t, reader, f, min(max(len(want)/5, 3), maxPage), nil), want)
		})
	}
	t.Run("pages of a size that divides the rows", func(t *testing.T) {
		at := l.events[0].ts()
		f := fleet.QueryFilter{From: at, To: l.events[7].ts().Add(time.Millisecond)}
		want := matching(l.events, f)
		compareRows(t, "Rows", pages(t, reader, f, len(want), nil), want)
	})
	t.Run("an export ends with the error of the one who reads", func(t *testing.T) {
		enough := errors.New("enough")
		rows := 0
		err := reader.Export(limited(t), window, func(fleet.QueryRow) error {
			if rows++; rows == 3 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || rows != 3 {
			t.Errorf("got %d rows and %v, want 3 and the error", rows, err)
		}
	})
	t.Run("pages stay whole while new rows arrive", func(t *testing.T) {
		want := matching(l.events, fleet.QueryFilter{})
		want = want[len(want)-min(len(want), 3000):]
		f := fleet.QueryFilter{From: want[0].ts()}
		want = matching(l.events, f)
		added := uint64(0)
		compareRows(t, "Rows", pages(t, reader, f, 500, func() {
			added++
			e := fleet.QueryEvent{Time: l.start.Add(days*day + time.Hour), QName: "new.example.", QType: 1, QClass: 1, Protocol: "udp"}
			b := querylog.Batch{InstanceID: "box1", BootID: "boot-new", Seq: added, Events: slices.Repeat([]fleet.QueryEvent{e}, 50)}
			if err := sink.Write(t.Context(), b); err != nil {
				t.Errorf("Write: %v", err)
			}
		}), want)
	})
}

// pages reads all pages and checks what holds for each; between two it calls meanwhile, if there is one.
func pages(t *testing.T, reader querylog.Reader, f fleet.QueryFilter, limit int, meanwhile func()) []fleet.QueryRow {
	t.Helper()
	var all []fleet.QueryRow
	cursor := ""
	for {
		page, err := reader.Rows(limited(t), f, limit, cursor)
		if err != nil {
			t.Fatalf("Rows: %v", err)
		}
		if page.Rows == nil || len(page.Rows) > limit || (page.Next != nil && len(page.Rows) < limit) {
			t.Fatalf("Rows: got %d rows (nil: %t), more to come: %t, with a limit of %d", len(page.Rows), page.Rows == nil, page.Next != nil, limit)
		}
		all = append(all, page.Rows...)
		if !slices.IsSortedFunc(all, func(a, b fleet.QueryRow) int { return b.TS.Compare(a.TS) }) {
			t.Fatal("Rows: the newest do not come first")
		}
		if page.Next == nil {
			return all
		}
		cursor = *page.Next
		if meanwhile != nil {
			meanwhile()
		}
	}
}
