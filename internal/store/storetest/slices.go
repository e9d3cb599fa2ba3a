package storetest

import (
	"fmt"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// sliceAt is the slice of a size in which at lies, with blocked queries.
func sliceAt(size fleet.Size, at time.Time, boot string, blocked uint64) fleet.Slice {
	s := fleet.Slice{Size: size, Start: at.UTC().Truncate(size.Duration()), BootID: boot, Upstreams: []fleet.UpstreamSlice{}}
	s.Outcomes[fleet.Blocked] = blocked
	return s
}

// minute is the minute slice that lies offset minutes from that of at.
func minute(at time.Time, offset int, boot string, blocked uint64) fleet.Slice {
	return sliceAt(fleet.Minute, at.Add(time.Duration(offset)*time.Minute), boot, blocked)
}

func storedSlices(t *testing.T, s store.Store, id string, size fleet.Size) []fleet.Slice {
	t.Helper()
	list, err := s.Slices(t.Context(), id, size, time.Time{}, now(t, s).Add(2*day))
	if err != nil {
		t.Fatalf("Slices(%s, %s): %v", id, size, err)
	}
	return list
}

func until(saved fleet.Saved, boot string, size fleet.Size) (time.Time, bool) {
	for _, u := range saved.SlicesUntil {
		if u.BootID == boot && u.Size == size {
			return u.Until, true
		}
	}
	return time.Time{}, false
}

func untilRules(t *testing.T, b Backend) {
	s := b.open(t)
	const none = -999
	base := now(t, s).Truncate(time.Minute).Add(-time.Hour)
	for i, c := range []struct {
		name   string
		pushes [][]int // minutes after base, for each push
		want   int     // until, in minutes after base
		stored int
	}{
		{"nothing sent, nothing said", [][]int{{}}, none, 0},
		{"a run moves until to its end", [][]int{{0, 1, 2}}, 3, 3},
		{"an unsorted run too", [][]int{{2, 0, 1}}, 3, 3},
		{"runs of several pushes join", [][]int{{0, 1}, {2}, {3, 4}}, 5, 5},
		{"a push without slices tells where until stands", [][]int{{0, 1}, {}}, 2, 2},
		{"until stops at a hole, and what lies beyond is stored", [][]int{{0, 1}, {3, 4}}, 2, 4},
		{"until stops at a hole within one push", [][]int{{0, 1, 3}}, 2, 3},
		{"a filled hole moves until over all that is there", [][]int{{0, 1}, {3, 4}, {2}}, 5, 5},
		{"of two holes the first is filled", [][]int{{0}, {2}, {4}, {1}}, 3, 4},
		{"the same slices again move nothing", [][]int{{0, 1}, {0, 1}}, 2, 2},
		{"older slices do not take until back", [][]int{{5}, {3}}, 6, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, saved := fmt.Sprintf("r%d", i), fleet.Saved{}
			for seq, offsets := range c.pushes {
				var list []fleet.Slice
				for _, o := range offsets {
					list = append(list, sliceAt(fleet.Minute, base.Add(time.Duration(o)*time.Minute), "boot1", 1))
				}
				saved = push(t, s, report(t, s, id, "boot1", uint64(seq)+1, 1, list...))
			}
			got, has := until(saved, "boot1", fleet.Minute)
			if want := base.Add(time.Duration(c.want) * time.Minute); has != (c.want != none) || (has && !got.Equal(want)) {
				t.Errorf("until: got %s (there: %v), want %s", got, has, want)
			}
			if got := len(storedSlices(t, s, id, fleet.Minute)); got != c.stored {
				t.Errorf("stored: got %d slices, want %d", got, c.stored)
			}
		})
	}
}

func untilByBootAndSize(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	ten, hour := sliceAt(fleet.TenMinutes, at.Add(-time.Hour), "boot2", 1), sliceAt(fleet.Hour, at.Add(-5*time.Hour), "boot1", 1)
	early, late := sliceAt(fleet.Minute, at.Add(-90*time.Minute), "boot1", 1), sliceAt(fleet.Minute, at.Add(-30*time.Minute), "boot2", 1)
	saved := push(t, s, report(t, s, "r1", "boot2", 1, 1, late, hour, ten, early))
	compare(t, "until", saved.SlicesUntil, []fleet.SlicesUntil{
		{BootID: "boot1", Size: fleet.Minute, Until: early.End()},
		{BootID: "boot1", Size: fleet.Hour, Until: hour.End()},
		{BootID: "boot2", Size: fleet.Minute, Until: late.End()},
		{BootID: "boot2", Size: fleet.TenMinutes, Until: ten.End()},
	})
	saved = push(t, s, report(t, s, "r1", "boot2", 2, 1))
	compare(t, "until of the report's own boot", saved.SlicesUntil, []fleet.SlicesUntil{
		{BootID: "boot2", Size: fleet.Minute, Until: late.End()},
		{BootID: "boot2", Size: fleet.TenMinutes, Until: ten.End()},
	})
}

func sliceContent(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	want := minute(at, -5, "boot1", 3)
	want.Seconds = 12.5
	want.Latency = fleet.NewLatency(time.Millisecond, 30*time.Millisecond, time.Second)
	want.Upstreams = []fleet.UpstreamSlice{{Address: "udp://192.0.2.1:53", Count: 9, Errors: 2, Latency: fleet.NewLatency(7 * time.Millisecond)}}
	push(t, s, report(t, s, "r1", "boot1", 1, 1, want))
	compare(t, "slices", storedSlices(t, s, "r1", fleet.Minute), []fleet.Slice{want})

	ten, hour := sliceAt(fleet.TenMinutes, at.Add(-time.Hour), "boot1", 4), sliceAt(fleet.Hour, at.Add(-2*time.Hour), "boot1", 5)
	ten.Clients, hour.Sketches = clients(300), someSketches()
	push(t, s, report(t, s, "r1", "boot1", 1, 1, ten, hour))
	compare(t, "ten minutes with clients", storedSlices(t, s, "r1", fleet.TenMinutes), []fleet.Slice{ten})
	compare(t, "an hour with clients and tops", storedSlices(t, s, "r1", fleet.Hour), []fleet.Slice{hour})

	again := want
	again.Outcomes[fleet.Cached] = 8
	push(t, s, report(t, s, "r1", "boot1", 2, 1, again))
	compare(t, "a slice sent again replaces itself", storedSlices(t, s, "r1", fleet.Minute), []fleet.Slice{again})
}

func clients(n int) (u fleet.Uniques) {
	for i := range n {
		u.Add(fmt.Append(nil, "192.0.2.", i))
	}
	return u
}

func someSketches() fleet.Sketches {
	list := []fleet.TopItem{{Name: "ads.example", Count: fleet.MaxCount, ErrorBound: 7}, {Name: "ü.example", Count: 3}}
	return fleet.Sketches{Clients: clients(20_000), TopDomains: list, TopBlocked: list[:1], TopClients: list[1:]}
}

func sliceOrder(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	var list []fleet.Slice
	for _, o := range []int{-3, -5, -4} {
		list = append(list, minute(at, o, "boot2", 1), minute(at, o, "boot1", 1))
	}
	push(t, s, report(t, s, "r1", "boot2", 1, 1, list...))
	from := minute(at, -5, "", 0).Start
	for _, c := range []struct {
		name     string
		from, to time.Time
		want     []string
	}{
		{"all", from, from.Add(time.Hour), []string{"0 boot1", "0 boot2", "1 boot1", "1 boot2", "2 boot1", "2 boot2"}},
		{"from counts, to does not", from.Add(time.Minute), from.Add(2 * time.Minute), []string{"1 boot1", "1 boot2"}},
		{"from within a slice leaves it out", from.Add(time.Minute + time.Millisecond), from.Add(time.Hour), []string{"2 boot1", "2 boot2"}},
		{"to within a slice takes it in", from, from.Add(time.Millisecond), []string{"0 boot1", "0 boot2"}},
		{"none", from.Add(-time.Hour), from, nil},
	} {
		found, err := s.Slices(t.Context(), "r1", fleet.Minute, c.from, c.to)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var got []string
		for _, slice := range found {
			got = append(got, fmt.Sprintf("%d %s", int(slice.Start.Sub(from)/time.Minute), slice.BootID))
		}
		compare(t, c.name, got, c.want)
	}
	if found, err := s.Slices(t.Context(), "nobody", fleet.Minute, time.Time{}, from.Add(day)); err != nil || len(found) != 0 {
		t.Errorf("slices of nobody: got %v, %v, want none", found, err)
	}
}

func lateSlices(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	push(t, s, report(t, s, "r1", "boot1", 5, 10))
	for i, c := range []struct {
		boot string
		seq  uint64
		want fleet.SaveResult
	}{{"boot1", 5, fleet.Duplicate}, {"boot1", 3, fleet.Older}, {"boot2", 1, fleet.Stored}, {"boot1", 6, fleet.EndedBoot}} {
		slice := minute(at, -20+i, c.boot, uint64(i)+1)
		saved := push(t, s, report(t, s, "r1", c.boot, c.seq, 99, slice))
		if saved.Result != c.want {
			t.Errorf("boot %s, seq %d: got %s, want %s", c.boot, c.seq, saved.Result, c.want)
		}
		if got := storedSlices(t, s, "r1", fleet.Minute); len(got) != i+1 {
			t.Errorf("%s report: %d slices are stored, want %d", c.want, len(got), i+1)
		}
		if _, has := until(saved, c.boot, fleet.Minute); !has {
			t.Errorf("%s report: no until for %s in %v", c.want, c.boot, saved.SlicesUntil)
		}
	}
}

func unwantedSlices(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	for what, slice := range map[string]fleet.Slice{
		"a minute of three hours ago":   sliceAt(fleet.Minute, at.Add(-3*time.Hour), "boot1", 1),
		"ten minutes of two days ago":   sliceAt(fleet.TenMinutes, at.Add(-2*day), "boot1", 1),
		"an hour of a year ago":         sliceAt(fleet.Hour, at.Add(-365*day), "boot1", 1),
		"an hour of two days ahead":     sliceAt(fleet.Hour, at.Add(2*day), "boot1", 1),
		"a minute of ten years ahead":   sliceAt(fleet.Minute, at.Add(3650*day), "boot1", 1),
		"a minute of the first of 1970": sliceAt(fleet.Minute, time.Unix(60, 0), "boot1", 1),
	} {
		id := fmt.Sprintf("r%d", slice.Start.Unix())
		saved := push(t, s, report(t, s, id, "boot1", 1, 1, slice))
		if got, has := until(saved, "boot1", slice.Size); !has || !got.Equal(slice.End()) {
			t.Errorf("%s: until: got %s (there: %v), want %s", what, got, has, slice.End())
		}
		if found, err := s.Slices(t.Context(), id, slice.Size, time.Time{}, at.Add(4000*day)); err != nil || len(found) != 0 {
			t.Errorf("%s: stored: got %v, %v, want none", what, found, err)
		}
	}
}

func oldHole(t *testing.T, b Backend) {
	long, short := b.open(t), b.Open(t, store.Options{StatsTTL: time.Minute, History: time.Hour})
	at := now(t, long)
	ten := func(back time.Duration) fleet.Slice { return sliceAt(fleet.TenMinutes, at.Add(-back), "boot1", 1) }
	first, beyond := ten(20*time.Hour), ten(19*time.Hour)
	saved := push(t, long, report(t, long, "r1", "boot1", 1, 1, first, beyond))
	if got, _ := until(saved, "boot1", fleet.TenMinutes); !got.Equal(first.End()) {
		t.Fatalf("until: got %s, want %s", got, first.End())
	}
	recent := ten(20 * time.Minute)
	saved = push(t, short, report(t, short, "r1", "boot1", 2, 1, recent))
	got, _ := until(saved, "boot1", fleet.TenMinutes)
	if oldest := at.Add(-time.Hour); got.Before(oldest) || got.After(recent.Start) {
		t.Errorf("until: got %s, want the oldest slice that is kept, after %s", got, oldest)
	}
	var fillers []fleet.Slice
	for start := got; start.Before(recent.Start); start = start.Add(10 * time.Minute) {
		fillers = append(fillers, sliceAt(fleet.TenMinutes, start, "boot1", 1))
	}
	saved = push(t, short, report(t, short, "r1", "boot1", 3, 1, fillers...))
	if got, _ := until(saved, "boot1", fleet.TenMinutes); !got.Equal(recent.End()) {
		t.Errorf("until with the hole filled: got %s, want %s", got, recent.End())
	}
}

func trimming(t *testing.T, b Backend) {
	for i, c := range []struct {
		history time.Duration
		hours   int // how many of those below are left
	}{{90 * day, 4}, {24 * time.Hour, 2}, {4 * time.Hour, 1}, {0, 0}} {
		s := b.Open(t, store.Options{StatsTTL: time.Minute, History: c.history})
		if i == 0 {
			at := now(t, s)
			var list []fleet.Slice
			for _, back := range []time.Duration{80 * day, 2 * day, 20 * time.Hour, 2 * time.Hour} {
				list = append(list, sliceAt(fleet.Hour, at.Add(-back), "boot1", 1))
			}
			push(t, s, report(t, s, "r1", "boot1", 1, 1, list...))
		} else {
			push(t, s, report(t, s, "r1", "boot1", uint64(i)+1, 1))
		}
		if got := len(storedSlices(t, s, "r1", fleet.Hour)); got != c.hours {
			t.Errorf("history of %s: %d hours are left, want %d", c.history, got, c.hours)
		}
	}
}

func noHistory(t *testing.T, b Backend) {
	s := b.Open(t, store.Options{StatsTTL: time.Minute})
	at := now(t, s)
	list := []fleet.Slice{
		minute(at, -3, "boot1", 1), minute(at, -30, "boot1", 1),
		sliceAt(fleet.TenMinutes, at.Add(-20*time.Minute), "boot1", 1), sliceAt(fleet.Hour, at.Add(-2*time.Hour), "boot1", 1),
	}
	saved := push(t, s, report(t, s, "r1", "boot1", 1, 1, list...))
	for _, c := range []struct {
		size fleet.Size
		want int
	}{{fleet.Minute, 1}, {fleet.TenMinutes, 0}, {fleet.Hour, 0}} {
		if got := len(storedSlices(t, s, "r1", c.size)); got != c.want {
			t.Errorf("%s: got %d slices, want %d", c.size, got, c.want)
		}
		if _, has := until(saved, "boot1", c.size); !has {
			t.Errorf("%s: no until, so the slice would be sent again for ever", c.size)
		}
	}
	if got := len(instance(t, s, "r1").Minutes); got != 1 {
		t.Errorf("minutes: got %d, want 1", got)
	}
}

func minutes(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	push(t, s, report(t, s, "r1", "boot1", 1, 1, minute(at, -4, "boot1", 1), minute(at, -60, "boot1", 1)))
	push(t, s, report(t, s, "r1", "boot2", 1, 1, minute(at, -2, "boot2", 2), minute(at, -3, "crashed", 3)))
	push(t, s, report(t, s, "r1", "boot2", 1, 1, minute(at, -5, "boot1", 4), minute(at, -8, "boot1", 9))) // a duplicate, with late slices
	want := []fleet.Slice{minute(at, -5, "boot1", 4), minute(at, -4, "boot1", 1), minute(at, -3, "crashed", 3), minute(at, -2, "boot2", 2)}
	compare(t, "minutes", instance(t, s, "r1").Minutes, want)
	push(t, s, report(t, s, "r1", "boot2", 2, 1))
	compare(t, "minutes after a report without slices", instance(t, s, "r1").Minutes, want)
	want[1] = minute(at, -4, "boot1", 77)
	push(t, s, report(t, s, "r1", "boot2", 3, 1, want[1]))
	compare(t, "minutes after one was sent again with other counts", instance(t, s, "r1").Minutes, want)
}

func manySlices(t *testing.T, b Backend) {
	s := b.Open(t, store.Options{StatsTTL: time.Minute, History: 90 * day})
	at := now(t, s)
	var list []fleet.Slice
	for i := range fleet.MaxSlices {
		list = append(list, sliceAt(fleet.Hour, at.Add(-time.Duration(i+1)*time.Hour), "boot1", 1))
	}
	saved := push(t, s, report(t, s, "r1", "boot1", 1, 1, list...))
	if got, _ := until(saved, "boot1", fleet.Hour); !got.Equal(list[0].End()) {
		t.Errorf("until: got %s, want %s", got, list[0].End())
	}
	if got := len(storedSlices(t, s, "r1", fleet.Hour)); got != fleet.MaxSlices {
		t.Errorf("stored: got %d, want %d", got, fleet.MaxSlices)
	}
}
