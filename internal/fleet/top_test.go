package fleet_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
)

func item(name string, count, errorBound uint64) fleet.TopItem {
	return fleet.TopItem{Name: name, Count: count, ErrorBound: errorBound}
}

func TestMergeTops(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit, full int
		lists       [][]fleet.TopItem
		want        []fleet.TopItem
	}{
		"nothing":     {3, 3, nil, nil},
		"empty lists": {3, 3, [][]fleet.TopItem{nil, {}}, nil},
		"short lists are whole: the sums are exact": {
			9, 3,
			[][]fleet.TopItem{{item("a", 5, 0), item("b", 2, 0)}, {item("b", 4, 0)}},
			[]fleet.TopItem{item("b", 6, 0), item("a", 5, 0)},
		},
		"a full list may lack a name as often as its last": {
			9, 2,
			[][]fleet.TopItem{{item("a", 5, 0), item("b", 3, 1)}, {item("c", 4, 0)}},
			[]fleet.TopItem{item("c", 7, 3), item("a", 5, 0), item("b", 3, 1)},
		},
		"a name in no list but one takes the bounds of all others": {
			9, 1,
			[][]fleet.TopItem{{item("a", 5, 0)}, {item("b", 3, 0)}, {item("c", 2, 0)}},
			[]fleet.TopItem{item("a", 10, 5), item("b", 10, 7), item("c", 10, 8)},
		},
		"a short list that is not exact may lack a name too": {
			9, 9,
			[][]fleet.TopItem{{item("a", 5, 2)}, {item("b", 3, 0)}},
			[]fleet.TopItem{item("b", 8, 5), item("a", 5, 2)},
		},
		"equal counts go by name, and the rest is cut off": {
			2, 9,
			[][]fleet.TopItem{{item("c", 1, 0)}, {item("b", 1, 0)}, {item("a", 1, 0)}},
			[]fleet.TopItem{item("a", 1, 0), item("b", 1, 0)},
		},
		"a limit of 0 keeps all": {
			0, 9,
			[][]fleet.TopItem{{item("c", 1, 0)}, {item("b", 1, 0)}},
			[]fleet.TopItem{item("b", 1, 0), item("c", 1, 0)},
		},
		"a name twice in a list becomes one": {
			9, 2,
			[][]fleet.TopItem{{item("a", 5, 1), item("a", 3, 1)}, {item("b", 1, 0)}},
			[]fleet.TopItem{item("a", 8, 2), item("b", 4, 3)},
		},
		"sums stay within bounds": {
			9, 1,
			[][]fleet.TopItem{{item("a", fleet.MaxCount, 0)}, {item("b", math.MaxUint64, math.MaxUint64)}},
			[]fleet.TopItem{item("a", fleet.MaxCount, fleet.MaxCount), item("b", fleet.MaxCount, fleet.MaxCount)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fleet.MergeTops(c.limit, c.full, c.lists...); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// topOf is the top list of counts with limit names, exact.
func topOf(counts map[string]uint64, limit int) []fleet.TopItem {
	var list []fleet.TopItem
	for name, n := range counts {
		list = append(list, item(name, n, 0))
	}
	slices.SortFunc(list, func(a, b fleet.TopItem) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return list[:min(limit, len(list))]
}

// checkTop holds a list to what TopItem and Sketches promise of the true counts.
func checkTop(t *testing.T, what string, list []fleet.TopItem, full int, truth map[string]uint64) {
	t.Helper()
	listed := map[string]bool{}
	for i, e := range list {
		listed[e.Name] = true
		if n := truth[e.Name]; n > e.Count || n < e.Count-e.ErrorBound || e.ErrorBound > e.Count {
			t.Fatalf("%s: %q: got %d with an error of %d, want %d in between", what, e.Name, e.Count, e.ErrorBound, n)
		}
		if i > 0 && list[i-1].ByCount(e) >= 0 {
			t.Fatalf("%s: got %v before %v, want them by count, then name", what, list[i-1], e)
		}
	}
	var absent uint64
	if n := len(list); n > 0 && (n >= full || list[n-1].ErrorBound > 0) {
		absent = list[n-1].Count
	}
	for name, n := range truth {
		if !listed[name] && n > absent {
			t.Fatalf("%s: %q is missing with %d, want at most %d", what, name, n, absent)
		}
	}
}

// Whatever was counted where, and in whatever order the lists are merged, true counts lie where the items say, and a name that
// is missing was counted no oftener than the list admits.
func TestMergedTopsHoldTheirPromise(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		full := 1 + random.IntN(12)
		names := 1 + random.IntN(40)
		truth := map[string]uint64{}
		var lists [][]fleet.TopItem
		for range 1 + random.IntN(9) {
			counts := map[string]uint64{}
			for range random.IntN(200) {
				counts[fmt.Sprint("n", min(random.IntN(names), random.IntN(names)))]++
			}
			for name, n := range counts {
				truth[name] += n
			}
			lists = append(lists, topOf(counts, full))
		}
		at := fmt.Sprintf("seed %d, ", seed)
		checkTop(t, at+"at once", fleet.MergeTops(full, full, lists...), full, truth)
		checkTop(t, at+"all names", fleet.MergeTops(0, full, lists...), full, truth)
		smaller := 1 + random.IntN(full)
		checkTop(t, at+"cut", fleet.MergeTops(smaller, full, lists...), smaller, truth)
		for len(lists) > 1 { // two by two, in any order
			i := random.IntN(len(lists) - 1)
			lists[i] = fleet.MergeTops(full, full, lists[i], lists[i+1])
			lists = slices.Delete(lists, i+1, i+2)
		}
		checkTop(t, at+"two by two", lists[0], full, truth)
	}
}

func TestMergingTopsChangesNoList(t *testing.T) {
	t.Parallel()
	one, two := []fleet.TopItem{item("a", 5, 0), item("b", 1, 0)}, []fleet.TopItem{item("b", 9, 1)}
	fleet.MergeTops(1, 1, one, two, one)
	if !slices.Equal(one, []fleet.TopItem{item("a", 5, 0), item("b", 1, 0)}) || !slices.Equal(two, []fleet.TopItem{item("b", 9, 1)}) {
		t.Errorf("got %v and %v, want them as they were", one, two)
	}
}

func sketched(from, to int, list ...fleet.TopItem) fleet.Sketches {
	return fleet.Sketches{Clients: uniques(from, to), TopDomains: list, TopBlocked: list[:1], TopClients: list[1:]}
}

func TestMergedSlicesHaveMergedSketches(t *testing.T) {
	t.Parallel()
	a := fleet.Slice{Size: fleet.Hour, Sketches: sketched(0, 10, item("x", 5, 1), item("y", 4, 0))}
	b := fleet.Slice{Size: fleet.Hour, Sketches: sketched(5, 20, item("y", 9, 0), item("z", 1, 0))}
	sum := fleet.MergeSlices(a, b, fleet.Slice{Size: fleet.Minute})
	want := fleet.Sketches{
		Clients: uniques(0, 20), TopDomains: []fleet.TopItem{item("y", 13, 0), item("x", 5, 1), item("z", 1, 0)},
		// The list of a is short and not exact: it may have y once too.
		TopBlocked: []fleet.TopItem{item("y", 14, 5), item("x", 5, 1)}, TopClients: []fleet.TopItem{item("y", 4, 0), item("z", 1, 0)},
	}
	if !sum.Clients.Equal(want.Clients) || !slices.Equal(sum.TopDomains, want.TopDomains) ||
		!slices.Equal(sum.TopBlocked, want.TopBlocked) || !slices.Equal(sum.TopClients, want.TopClients) {
		t.Errorf("got %+v, want %+v", sum.Sketches, want)
	}
	if a.Clients.Count() != 10 || b.Clients.Count() != 15 || a.TopDomains[0].Count != 5 {
		t.Error("merging changed what it merged")
	}
	if got := fleet.MergeSlices(fleet.Slice{}).Sketches; !reflect.DeepEqual(got, fleet.Sketches{}) {
		t.Errorf("no sketches: got %+v, want none", got)
	}
}

func TestSketchesFromElsewhereAreMadeAlike(t *testing.T) {
	t.Parallel()
	foreign := fleet.Sketches{
		Clients: uniques(0, 3), TopDomains: []fleet.TopItem{item("a", 1, 0), item("b", 2, 0), item("a", 4, 1)}, TopBlocked: []fleet.TopItem{},
		TopClients: []fleet.TopItem{item("b", 1, 0), item("a", 1, 0)},
	}
	for size, want := range map[fleet.Size]fleet.Sketches{
		fleet.Minute: {}, fleet.TenMinutes: {Clients: foreign.Clients},
		fleet.Hour: {
			Clients: foreign.Clients, TopDomains: []fleet.TopItem{item("a", 5, 1), item("b", 2, 0)},
			TopClients: []fleet.TopItem{item("a", 1, 0), item("b", 1, 0)},
		},
	} {
		s := fleet.Slice{Size: size, Sketches: foreign}
		s.Normalize()
		if !reflect.DeepEqual(s.Sketches, want) {
			t.Errorf("%s: got %+v, want %+v", size, s.Sketches, want)
		}
	}
}

func TestTopListsAreCheckedBeforeTheyAreBelieved(t *testing.T) {
	t.Parallel()
	many := make([]fleet.TopItem, fleet.TopOfHour+1)
	for i := range many {
		many[i] = item(fmt.Sprint(i), 1, 0)
	}
	for name, c := range map[string]struct {
		list []fleet.TopItem
		want string
	}{
		"a hundred names":             {many[:fleet.TopOfHour], ""},
		"the longest name":            {[]fleet.TopItem{item(strings.Repeat("x", 512), fleet.MaxCount, fleet.MaxCount)}, ""},
		"out of order":                {[]fleet.TopItem{item("a", 1, 0), item("b", 2, 0)}, ""},
		"a hundred and one":           {many, "at most 100"},
		"no name":                     {[]fleet.TopItem{item("", 1, 0)}, "name"},
		"a long name":                 {[]fleet.TopItem{item(strings.Repeat("x", 513), 1, 0)}, "name"},
		"a name that is not UTF-8":    {[]fleet.TopItem{item("\xff", 1, 0)}, "name"},
		"an absurd count":             {[]fleet.TopItem{item("a", fleet.MaxCount+1, 0)}, "count"},
		"an error above the count":    {[]fleet.TopItem{item("a", 1, 2)}, "error_bound"},
		"an error with the last name": {[]fleet.TopItem{item("a", 5, 2), item("b", 1, 2)}, "error_bound"},
	} {
		for where, put := range map[string]func(*fleet.Report, fleet.Sketches){
			"a slice":       func(r *fleet.Report, s fleet.Sketches) { r.Slices[0].Sketches = s },
			"the last hour": func(r *fleet.Report, s fleet.Sketches) { r.LastHour = &fleet.LastHour{From: now, Sketches: s} },
		} {
			for _, s := range []fleet.Sketches{{TopDomains: c.list}, {TopBlocked: c.list}, {TopClients: c.list}} {
				r := goodReport()
				put(&r, s)
				err := r.Validate()
				if c.want == "" && err != nil {
					t.Errorf("%s in %s: got %v, want it taken", name, where, err)
				}
				if c.want != "" && (!errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%s in %s: got %v, want ErrInvalid that names %q", name, where, err, c.want)
				}
			}
		}
	}
}

func hour(from time.Time, s fleet.Sketches) *fleet.LastHour {
	return &fleet.LastHour{From: from, Sketches: s}
}

func TestLastHoursAreMergedFromWholeLists(t *testing.T) {
	t.Parallel()
	var list []fleet.TopItem
	for i := range fleet.TopOfNow {
		list = append(list, item(fmt.Sprintf("n%02d", i), uint64(100-i), 0))
	}
	rows := []fleet.Row{}
	for i, id := range []string{"a", "b", "quiet", "revoked"} {
		in := seen(id, time.Second, fleet.Outcomes{})
		if id != "quiet" {
			in.Report.LastHour = hour(now.Add(time.Duration(-i)*time.Minute), fleet.Sketches{
				Clients: uniques(i*5, i*5+10), TopDomains: list, TopBlocked: list[i+6 : i+8],
			})
		}
		rows = append(rows, fleet.NewRow(in, fleet.SourcePush, id == "revoked", "h", now))
	}
	one := rows[0].LastHour
	if len(one.TopDomains) != fleet.TopOfRow || one.TopDomains[0] != list[0] || one.UniqueClients != 10 || one.TopClients == nil || len(one.TopClients) != 0 {
		t.Errorf("row: got %+v, want 10 clients, the first 5 names and no nil", one)
	}
	if rows[2].LastHour != nil {
		t.Errorf("an instance that was never asked: got %+v, want nil", rows[2].LastHour)
	}
	totals := fleet.Sum(rows)
	got := totals.LastHour
	if *totals.UniqueClients != 15 || got.UniqueClients != 15 || !got.From.Equal(now.Add(-time.Minute)) {
		t.Errorf("totals: got %d clients since %s, want the union of 15 since the earlier of two", got.UniqueClients, got.From)
	}
	if len(got.TopDomains) != fleet.TopOfFleet || got.TopDomains[0] != item("n00", 200, 0) {
		t.Errorf("totals: got %v, want the first 10 names of both", got.TopDomains)
	}
	if want := []fleet.TopItem{item("n07", 93+93, 0), item("n06", 94, 0), item("n08", 92, 0)}; !slices.Equal(got.TopBlocked, want) {
		t.Errorf("totals, blocked: got %v, want %v, though no row shows them", got.TopBlocked, want)
	}
	if got := fleet.Sum(rows[2:]); got.UniqueClients != nil || got.LastHour != nil {
		t.Errorf("nobody was asked: got %v and %v, want nil", got.UniqueClients, got.LastHour)
	}
}

func TestQueryLogIsPrintable(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"": true, "off": true, "clickhouse:db:9000/dns": true, strings.Repeat("x", 128): true,
		strings.Repeat("x", 129): false, "a\nb": false, "\xff": false, "a\u202eb": false,
	} {
		r := goodReport()
		r.QueryLog = text
		if err := r.Validate(); (err == nil) != ok {
			t.Errorf("%q: got %v, want it taken: %v", text, err, ok)
		}
		in := seen("a", time.Second, fleet.Outcomes{})
		in.Report.QueryLog = text
		if got := rowOf(in).QueryLog; (got == nil) != (text == "") || got != nil && *got != text {
			t.Errorf("row: got %v, want %q", got, text)
		}
	}
}

func BenchmarkSumOfLastHours(b *testing.B) {
	for _, size := range []struct{ instances, clients int }{{10, 50}, {1000, 50}, {1000, 20_000}} {
		var rows []fleet.Row
		for i := range size.instances {
			in := seen(fmt.Sprint(i), time.Second, fleet.Outcomes{})
			counts := map[string]uint64{}
			for j := range fleet.TopOfNow {
				counts[fmt.Sprintf("name%d.example", j*j+i%50)] = uint64(1000 / (j + 1))
			}
			list := topOf(counts, fleet.TopOfNow)
			in.Report.LastHour = hour(now, fleet.Sketches{Clients: uniques(i*7, i*7+size.clients), TopDomains: list, TopBlocked: list, TopClients: list})
			rows = append(rows, rowOf(in))
		}
		b.Run(fmt.Sprintf("%d instances with %d clients", size.instances, size.clients), func(b *testing.B) {
			for b.Loop() {
				fleet.Sum(rows)
			}
		})
	}
}
