package syncapi_test

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
)

// pushed is the report that the primary stored of a push.
func pushed(t *testing.T, body []byte) fleet.Report {
	t.Helper()
	p := newPrimary(t)
	if res := p.do(t, p.request(t, "POST", "/sync/stats", body)); res.status != http.StatusOK {
		t.Fatalf("status is %d with %s", res.status, res.body)
	}
	return p.store.reports()[0]
}

func TestAPushOfAReleaseWithoutSketchesIsTaken(t *testing.T) {
	body, err := os.ReadFile("testdata/push-v1-before-sketches.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(pushed(t, body))
	if err != nil {
		t.Fatal(err)
	}
	var sent, stored any
	for from, tree := range map[string]*any{string(body): &sent, string(text): &stored} {
		if err := json.Unmarshal([]byte(from), tree); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(sent, stored); diff != "" {
		t.Errorf("stored is not what was sent (-sent +stored):\n%s", diff)
	}
}

func TestSketchesAreStoredInOneForm(t *testing.T) {
	item := func(name string, count int) map[string]any { return map[string]any{"name": name, "count": count} }
	unsorted := []any{item("b", 1), item("c", 9), item("a", 1), item("c", 1)}
	sorted := []fleet.TopItem{{Name: "c", Count: 10}, {Name: "a", Count: 1}, {Name: "b", Count: 1}}
	r := pushed(t, edited(t, func(push map[string]any) {
		push["last_hour"].(map[string]any)["top_clients"] = unsorted
		push["last_hour"].(map[string]any)["top_blocked"] = []any{}
		push["last_hour"].(map[string]any)["from"] = "2026-03-14T10:30:00+02:00"
		for _, s := range push["slices"].([]any) {
			s.(map[string]any)["top_domains"] = unsorted
			s.(map[string]any)["clients"] = push["last_hour"].(map[string]any)["clients"]
		}
	}))
	if h := r.LastHour; !slices.Equal(h.TopClients, sorted) || h.TopBlocked != nil || h.From.Format("15:04Z07:00") != "08:30Z" {
		t.Errorf("last hour: got %+v, want sorted lists, no empty one, and UTC", h)
	}
	for _, s := range r.Slices {
		switch s.Size {
		case fleet.Minute:
			if !s.Clients.IsZero() || s.TopDomains != nil {
				t.Errorf("a minute has %+v, want no sketches", s.Sketches)
			}
		case fleet.TenMinutes:
			if s.Clients.Count() != 14 || s.TopDomains != nil {
				t.Errorf("ten minutes have %+v, want 14 clients alone", s.Sketches)
			}
		case fleet.Hour:
			if s.Clients.Count() != 14 || !slices.Equal(s.TopDomains, sorted) {
				t.Errorf("an hour has %+v, want 14 clients and sorted lists", s.Sketches)
			}
		}
	}
}

func TestBadSketchesAreRefused(t *testing.T) {
	many := make([]any, fleet.TopOfHour+1)
	for i := range many {
		many[i] = map[string]any{"name": "x", "count": 1}
	}
	one := func(name any, count, errorBound any) []any {
		return []any{map[string]any{"name": name, "count": count, "error_bound": errorBound}}
	}
	for name, c := range map[string]struct {
		field string
		value any
		says  string
	}{
		"clients that are no base64":    {"clients", "§", "base64"},
		"clients that are no sketch":    {"clients", "AAAAAAAAAAAAAAAA", "HyperLogLog"},
		"a sketch of another precision": {"clients", "AhAAAQAAAAAAAAAAAAAAAAAAAAAAAAAA", "precision 14"},
		"a sketch that is cut off":      {"clients", "Ag4AAQAAAAAAAAAJAtZ64AAAACGq5IAB", "sketch"},
		"a very long sketch":            {"clients", strings.Repeat("A", 30_000), "bytes"},
		"too many names":                {"top_domains", many, "top_domains"},
		"an empty name":                 {"top_blocked", one("", 1, 0), "top_blocked"},
		"a long name":                   {"top_clients", one(strings.Repeat("x", 513), 1, 0), "top_clients"},
		"a negative count":              {"top_clients", one("x", -1, 0), ""},
		"an absurd count":               {"top_clients", one("x", 1<<51, 0), "count"},
		"an error above the count":      {"top_clients", one("x", 1, 2), "error_bound"},
		"a list that is none":           {"top_clients", "x", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for where, body := range map[string][]byte{
				"the last hour": with(t, c.value, "last_hour", c.field), "a slice": with(t, c.value, "slices", 0, c.field),
			} {
				p := newPrimary(t)
				res := p.do(t, p.request(t, "POST", "/sync/stats", body))
				if res.status != http.StatusBadRequest || !strings.Contains(res.body, c.says) {
					t.Errorf("in %s: got %d %s, want 400 that says %q", where, res.status, res.body, c.says)
				}
				if n := len(p.store.reports()); n != 0 {
					t.Errorf("in %s: stored %d reports, want none", where, n)
				}
			}
		})
	}
	for _, text := range []any{strings.Repeat("x", 129), "a\nb", 7} {
		p := newPrimary(t)
		if res := p.do(t, p.request(t, "POST", "/sync/stats", with(t, text, "query_log"))); res.status != http.StatusBadRequest {
			t.Errorf("query_log %v: got %d %s, want 400", text, res.status, res.body)
		}
	}
}
