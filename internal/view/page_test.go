package view_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/view"
)

func isNotFound(err error) bool { return errors.Is(err, fleet.ErrNotFound) }

// loaded is a view on m as it is now, without a Run.
func loaded(t testing.TB, m *memory, local view.LocalSource) *view.View {
	t.Helper()
	v := view.New(view.Options{Store: m, Local: local})
	if err := v.Reload(t.Context(), fleet.Hint{}); err != nil {
		t.Fatal(err)
	}
	return v
}

func statsJSON(t testing.TB, v *view.View, q fleet.ViewQuery) (etag string, body []byte) {
	t.Helper()
	etag, out, err := v.StatsJSON(q)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := out.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return etag, b.Bytes()
}

func TestPagesMeetEachRowOnceWhateverChangesBetweenThem(t *testing.T) {
	m := newMemory()
	for i := range 10 {
		m.push(instance(fmt.Sprintf("i%d", i), fleet.Outcomes{}))
	}
	v := loaded(t, m, nil)
	reload := func() {
		if err := v.Reload(t.Context(), fleet.Hint{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	q := fleet.ViewQuery{Limit: 3}
	for page := 0; ; page++ {
		out := stats(t, v, q)
		for _, r := range out.Replicas {
			got = append(got, r.Key())
		}
		if page == 0 {
			delete(m.instances, "i2") // the row that the cursor names
			delete(m.instances, "i7")
			m.push(instance("i0-new", fleet.Outcomes{})) // sorts into a page that was read
			m.push(instance("i5-new", fleet.Outcomes{})) // sorts into one that was not
			reload()
		}
		if out.Next == nil {
			break
		}
		if len(out.Replicas) != 3 {
			t.Fatalf("page %d: got %d rows and a next page, want 3", page, len(out.Replicas))
		}
		q.Cursor = *out.Next
	}
	want := []string{"i0", "i1", "i2", "i3", "i4", "i5", "i5-new", "i6", "i8", "i9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows over all pages (-want +got):\n%s", diff)
	}
}

func TestTheLastPageHasNoNext(t *testing.T) {
	m := newMemory()
	for i := range 4 {
		in := instance(fmt.Sprintf("i%d", i), fleet.Outcomes{})
		if i%2 == 1 {
			in.Report.IntervalSeconds = 0.001
		}
		m.push(in)
	}
	v := loaded(t, m, nil)
	for name, c := range map[string]struct {
		q    fleet.ViewQuery
		rows int
		next bool
	}{
		"fewer rows than the limit":      {fleet.ViewQuery{Limit: 5}, 4, false},
		"as many rows as the limit":      {fleet.ViewQuery{Limit: 4}, 4, false},
		"more rows than the limit":       {fleet.ViewQuery{Limit: 3}, 3, true},
		"no rows of that status":         {fleet.ViewQuery{Limit: 3, Status: []fleet.Status{fleet.StatusNever}}, 0, false},
		"all rows, by two statuses":      {fleet.ViewQuery{Status: []fleet.Status{fleet.StatusStale, fleet.StatusOK}}, 4, false},
		"the limit that is not said":     {fleet.ViewQuery{}, 4, false},
		"a cursor behind everything":     {fleet.ViewQuery{Cursor: "fwA"}, 0, false},
		"a cursor in front of all of it": {fleet.ViewQuery{Cursor: "AA"}, 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			out := stats(t, v, c.q)
			if len(out.Replicas) != c.rows || (out.Next != nil) != c.next {
				t.Errorf("got %d rows, next %v; want %d, %v", len(out.Replicas), out.Next, c.rows, c.next)
			}
		})
	}
}

func TestQueriesThatMakeNoSenseAreRefused(t *testing.T) {
	v := loaded(t, newMemory(), nil)
	for name, q := range map[string]fleet.ViewQuery{
		"a negative limit":           {Limit: -1},
		"a limit past the largest":   {Limit: 10_001},
		"a cursor of another kind":   {Cursor: "%%%"},
		"a cursor that holds no id":  {Cursor: "YWJj"},
		"a field that no row has":    {Fields: []string{"name", "secret"}},
		"a field of a nested object": {Fields: []string{"recent.seconds"}},
		"a field by its Go name":     {Fields: []string{"InstanceID"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, statsErr := v.Stats(q)
			_, _, jsonErr := v.StatsJSON(q)
			if !errors.Is(statsErr, fleet.ErrInvalid) || !errors.Is(jsonErr, fleet.ErrInvalid) {
				t.Errorf("got %v and %v, want invalid", statsErr, jsonErr)
			}
		})
	}
}

// FuzzCursor: a cursor from anywhere is refused as invalid or gives a page; it never breaks the view.
func FuzzCursor(f *testing.F) {
	m := newMemory()
	m.push(instance("a", fleet.Outcomes{}))
	v := loaded(f, m, nil)
	for _, seed := range []string{"", "AA", "fwA", "bmFtZQBpZA", "\x00", strings.Repeat("A", 9999)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		out, err := v.Stats(fleet.ViewQuery{Cursor: cursor})
		if err != nil && !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("got %v", err)
		}
		if err == nil && len(out.Replicas) > 1 {
			t.Errorf("got %d rows of one", len(out.Replicas))
		}
	})
}

// TestJSONIsTheView holds the fast encoding to what encoding/json makes of the same value.
func TestJSONIsTheView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		for i := range 3 {
			in := instance(fmt.Sprintf("i%d", i), fleet.Outcomes{fleet.Blocked: 7, fleet.Upstream: uint64(i)})
			in.Name = `<script>alert("x")</script> & "quotes" ` + "\u2028 é 🦊"
			for k := range 4 {
				in.Minutes = append(in.Minutes, fleet.Slice{
					Size: fleet.Minute, Start: time.Now().Truncate(time.Minute).Add(time.Duration(-k-1) * time.Minute), BootID: "boot",
					Outcomes: fleet.Outcomes{fleet.Cached: 5}, Latency: fleet.NewLatency(time.Millisecond, 3*time.Millisecond),
				})
			}
			m.push(in)
		}
		gone := m.instances["i2"]
		gone.Report, gone.ExpiresAt = nil, time.Time{}
		m.instances["i2"] = gone
		m.tokens = []fleet.Token{{ID: "t9", Name: "new"}}
		for name, q := range map[string]fleet.ViewQuery{
			"everything":         {},
			"a page":             {Limit: 2},
			"no rows at all":     {Status: []fleet.Status{fleet.StatusRevoked}},
			"rows of one status": {Status: []fleet.Status{fleet.StatusOffline}},
		} {
			for _, local := range []view.LocalSource{nil, localPrimary("p", "boot", fleet.Outcomes{fleet.Cached: 2})} {
				v := loaded(t, m, local)
				time.Sleep(1234567 * time.Microsecond)
				_, body := statsJSON(t, v, q)
				want, err := json.Marshal(stats(t, v, q))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tree(t, want), tree(t, body)); diff != "" {
					t.Errorf("%s, local %v (-encoding/json +view):\n%s", name, local != nil, diff)
				}
				if bytes.Contains(body, []byte("<script")) {
					t.Error("a name went out as HTML")
				}
			}
		}
	})
}

func tree(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %.2000s", err, text)
	}
	return v
}

func TestFieldsChoose(t *testing.T) {
	m := newMemory()
	m.push(instance("a", fleet.Outcomes{}))
	v := loaded(t, m, localPrimary("p", "boot", fleet.Outcomes{}))
	_, body := statsJSON(t, v, fleet.ViewQuery{Fields: []string{"status", "age_seconds", "status"}})
	var got struct {
		Primary             map[string]any
		Primaries, Replicas []map[string]any
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatal(err)
	}
	for _, row := range append(append(got.Replicas, got.Primaries...), got.Primary) {
		keys := map[string]bool{}
		for k := range row {
			keys[k] = true
		}
		if want := map[string]bool{"instance_id": true, "name": true, "status": true, "age_seconds": true}; !reflect.DeepEqual(keys, want) {
			t.Errorf("got fields %v, want %v", keys, want)
		}
	}
}

func TestETagCoversAllButAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.push(instance("a", fleet.Outcomes{}))
		counts := fleet.Outcomes{}
		v := follow(t, m, func() fleet.Instance { return localPrimary("p", "boot", counts)() })
		q := fleet.ViewQuery{}
		tag := func() string {
			time.Sleep(1500 * time.Millisecond)
			etag, _ := statsJSON(t, v, q)
			return etag
		}
		last := tag()
		same := func(what string) {
			t.Helper()
			if now := tag(); now != last {
				t.Errorf("%s: got another ETag", what)
			}
		}
		other := func(what string) {
			t.Helper()
			now := tag()
			if now == last {
				t.Errorf("%s: got the same ETag", what)
			}
			last = now
		}
		same("time that passes")
		m.push(instance("a", fleet.Outcomes{}))
		other("a push")
		same("time that passes after a push")
		time.Sleep(30 * time.Second)
		other("a status by age")
		time.Sleep(2 * time.Minute)
		same("a full load of the same")
		counts[fleet.Cached]++
		other("the own counters")
		m.change(fleet.Hint{Policy: true}, func() { m.policy = fleet.PolicyDoc{Revision: 1, Hash: "h1"} })
		other("policy drift")
		m.change(fleet.Hint{Tokens: true}, func() { m.tokens = []fleet.Token{{ID: "t9", Name: "new"}} })
		other("a new token")
		m.fail(fleet.ErrUnavailable, "Seen")
		other("a part that broke")
		m.fail(nil, "Seen")
		time.Sleep(5 * time.Second)
		other("a part that came back")
		q.Limit = 1
		other("another page size")
		q.Fields = []string{"status"}
		other("other fields")
	})
}
