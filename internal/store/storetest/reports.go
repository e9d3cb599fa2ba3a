package storetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

func firstReport(t *testing.T, b Backend) {
	s := b.open(t)
	r := report(t, s, "r1", "boot1", 7, 12)
	r.DNS = new(false)
	before := now(t, s)
	saved := push(t, s, r)
	if saved.Result != fleet.Stored || saved.Time.Before(before.Truncate(time.Millisecond)) || saved.Time.After(now(t, s)) {
		t.Errorf("got %+v, want stored now", saved)
	}
	in := instance(t, s, "r1")
	stored := r
	stored.Slices = nil
	want := fleet.Instance{
		ID: "r1", Name: r.Name, Role: fleet.RoleReplica, DNS: false, TokenID: "t1",
		FirstSeen: saved.Time, LastSeen: saved.Time, ExpiresAt: saved.Time.Add(time.Minute), BootID: "boot1", Seq: 7,
		Current: r.ResponseDistribution.Outcomes, Report: &stored, Minutes: in.Minutes,
	}
	compare(t, "instance", in, want)
	if len(in.Minutes) != 0 {
		t.Errorf("minutes: got %v, want none", in.Minutes)
	}
	for name, at := range map[string]time.Time{"FirstSeen": in.FirstSeen, "LastSeen": in.LastSeen, "Time": saved.Time} {
		if at.Location() != time.UTC {
			t.Errorf("%s: got location %s, want UTC", name, at.Location())
		}
	}
}

func everyField(t *testing.T, b Backend) {
	s := b.open(t)
	var r fleet.Report
	fill(t, reflect.ValueOf(&r).Elem(), "Report")
	r.InstanceID, r.BootID, r.Slices = "r1", "boot1", nil
	push(t, s, r)
	compare(t, "report", *instance(t, s, "r1").Report, r)

	empty := fleet.Report{InstanceID: "r2", BootID: "boot1", Seq: 1, SentAt: now(t, s), PolicyUnapplied: []string{}, Upstreams: []fleet.UpstreamStats{}}
	push(t, s, empty)
	compare(t, "report that leaves out all it may", *instance(t, s, "r2").Report, empty)

	full := r
	full.InstanceID = "r2"
	full.BootID = "boot2"
	push(t, s, full)
	empty.BootID = "boot3"
	push(t, s, empty)
	compare(t, "report after a fuller one", *instance(t, s, "r2").Report, empty)
}

// fill gives every field of v a value that is not its zero.
func fill(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Date(2024, 5, 6, 7, 8, 9, 123_456_789, time.UTC)
		return
	case *[]fleet.Slice: // has a place of its own
		return
	case *fleet.Uniques:
		for i := range 40 {
			x.Add(fmt.Append(nil, path, i))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("ü " + path)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(len(path)) + 1<<40)
	case reflect.Uint64:
		v.SetUint(uint64(len(path)) + 1<<49)
	case reflect.Float64:
		v.SetFloat(0.1 + float64(len(path)))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), fmt.Sprintf("%s%*d", path, i, i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	default:
		t.Fatalf("%s: the test cannot fill a %s", path, v.Kind())
	}
}

type sent struct {
	boot    string
	seq     uint64
	blocked uint64
	want    fleet.SaveResult
}

func results(t *testing.T, b Backend) {
	s := b.open(t)
	for i, c := range []struct {
		name           string
		sent           []sent
		current, ended uint64
	}{
		{"a higher seq replaces the report", []sent{{"a", 1, 10, fleet.Stored}, {"a", 2, 15, fleet.Stored}}, 15, 0},
		{"a gap in seq is no matter", []sent{{"a", 1, 10, fleet.Stored}, {"a", 900, 15, fleet.Stored}}, 15, 0},
		{"the same seq again changes nothing", []sent{{"a", 1, 10, fleet.Stored}, {"a", 1, 99, fleet.Duplicate}}, 10, 0},
		{"a lower seq changes nothing", []sent{{"a", 5, 10, fleet.Stored}, {"a", 3, 99, fleet.Older}}, 10, 0},
		{"a new boot ends the one before", []sent{{"a", 5, 10, fleet.Stored}, {"b", 1, 4, fleet.Stored}}, 4, 10},
		{"an ended boot changes nothing", []sent{{"a", 5, 10, fleet.Stored}, {"b", 1, 4, fleet.Stored}, {"a", 6, 99, fleet.EndedBoot}}, 4, 10},
		{
			"an ended boot stays ended",
			[]sent{{"a", 1, 1, fleet.Stored}, {"b", 1, 2, fleet.Stored}, {"a", 2, 9, fleet.EndedBoot}, {"b", 2, 3, fleet.Stored}, {"a", 3, 9, fleet.EndedBoot}},
			3, 1,
		},
		{"the first report of a new boot twice ends the old one once", []sent{{"a", 5, 10, fleet.Stored}, {"b", 1, 4, fleet.Stored}, {"b", 1, 4, fleet.Duplicate}}, 4, 10},
		{"every ended boot counts", []sent{{"a", 1, 1, fleet.Stored}, {"b", 1, 20, fleet.Stored}, {"c", 1, 300, fleet.Stored}, {"d", 1, 0, fleet.Stored}}, 0, 321},
		{"a boot that counts backwards does not take lifetime along", []sent{{"a", 1, 10, fleet.Stored}, {"a", 2, 3, fleet.Stored}}, 10, 0},
		{
			"large counts stay exact",
			[]sent{{"a", 1, fleet.MaxCount, fleet.Stored}, {"b", 1, fleet.MaxCount - 1, fleet.Stored}, {"c", 1, 1, fleet.Stored}},
			1, 2*fleet.MaxCount - 1,
		},
		{
			"sums stop where every store still counts exactly",
			[]sent{
				{"a", 1, fleet.MaxCount, fleet.Stored},
				{"b", 1, fleet.MaxCount, fleet.Stored},
				{"c", 1, fleet.MaxCount, fleet.Stored},
				{"d", 1, fleet.MaxCount, fleet.Stored},
				{"e", 1, fleet.MaxCount, fleet.Stored},
				{"f", 1, fleet.MaxCount, fleet.Stored},
				{"g", 1, fleet.MaxCount, fleet.Stored},
				{"h", 1, fleet.MaxCount, fleet.Stored},
				{"i", 1, fleet.MaxCount, fleet.Stored},
				{"j", 1, 5, fleet.Stored},
			},
			5, store.MaxExact,
		},
		{"a seq beyond 32 bits is compared as a number", []sent{{"a", 1 << 50, 1, fleet.Stored}, {"a", 1<<50 - 1, 2, fleet.Older}, {"a", 9, 3, fleet.Older}}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprintf("r%d", i)
			for n, p := range c.sent {
				var before fleet.Instance
				if p.want != fleet.Stored {
					before = instance(t, s, id)
				}
				r := report(t, s, id, p.boot, p.seq, p.blocked)
				r.Name = fmt.Sprint("push ", n)
				if got := push(t, s, r).Result; got != p.want {
					t.Fatalf("push %d: got %s, want %s", n, got, p.want)
				}
				if p.want != fleet.Stored {
					compare(t, fmt.Sprintf("instance after push %d", n), instance(t, s, id), before)
				}
			}
			in := instance(t, s, id)
			if got := in.Current[fleet.Blocked]; got != c.current {
				t.Errorf("current: got %d, want %d", got, c.current)
			}
			if got := in.Ended[fleet.Blocked]; got != c.ended {
				t.Errorf("ended: got %d, want %d", got, c.ended)
			}
		})
	}
}

func roles(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	for _, c := range []struct {
		id         string
		has, wants fleet.Role
	}{
		{"p1", fleet.RolePrimary, fleet.RoleReplica},
		{"r1", fleet.RoleReplica, fleet.RolePrimary},
	} {
		if _, err := s.SaveReport(t.Context(), report(t, s, c.id, "boot1", 1, 5), c.has, ""); err != nil {
			t.Fatal(err)
		}
		before := instance(t, s, c.id)
		_, err := s.SaveReport(t.Context(), report(t, s, c.id, "boot2", 1, 6, minute(at, -1, "boot2", 1)), c.wants, "t9")
		wantErr(t, fmt.Sprintf("a %s with a %s's id", c.wants, c.has), err, fleet.ErrNotYours)
		compare(t, "instance", instance(t, s, c.id), before)
	}
}

func future(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	r := report(t, s, "r1", "boot1", 1, 5, minute(at, -1, "boot1", 1))
	r.SentAt = now(t, s).Add(fleet.MaxFuture + time.Minute)
	_, err := s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1")
	wantErr(t, "six minutes ahead", err, fleet.ErrFutureReport)
	if found, err := s.Instances(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("instances: got %v, %v, want none", found, err)
	}
	if list := storedSlices(t, s, "r1", fleet.Minute); len(list) != 0 {
		t.Errorf("slices: got %v, want none", list)
	}
	for what, at := range map[string]time.Duration{"four minutes ahead": fleet.MaxFuture - time.Minute, "ten years behind": -10 * 365 * day} {
		r := report(t, s, "ok", fleet.RandomID(), 1, 5)
		r.SentAt = r.SentAt.Add(at)
		if got := push(t, s, r).Result; got != fleet.Stored {
			t.Errorf("%s: got %s, want stored", what, got)
		}
	}
}

func badIDs(t *testing.T, b Backend) {
	s := b.open(t)
	at := now(t, s)
	for what, spoil := range map[string]func(*fleet.Report){
		"instance id with a brace": func(r *fleet.Report) { r.InstanceID = "a}{b" },
		"empty instance id":        func(r *fleet.Report) { r.InstanceID = "" },
		"boot id with a colon":     func(r *fleet.Report) { r.BootID = "a:b" },
		"slice's boot id":          func(r *fleet.Report) { r.Slices[0].BootID = "a b" },
		"slice's size":             func(r *fleet.Report) { r.Slices[0].Size = fleet.Size(time.Second) },
	} {
		r := report(t, s, "r1", "boot1", 1, 5, minute(at, -1, "boot1", 1))
		spoil(&r)
		_, err := s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1")
		wantErr(t, what, err, fleet.ErrInvalid)
	}
	if found, err := s.Instances(t.Context(), "", "a}{b", "r1"); err != nil || len(found) != 0 {
		t.Errorf("instances: got %v, %v, want none", found, err)
	}
	wantErr(t, "forget", s.Forget(t.Context(), "a}{b"), fleet.ErrNotFound)
}

func expiry(t *testing.T, b Backend) {
	s := b.Open(t, store.Options{StatsTTL: 2 * time.Second, History: day})
	at := now(t, s)
	push(t, s, report(t, s, "r1", "boot1", 1, 10, minute(at, -2, "boot1", 1)))
	if in := instance(t, s, "r1"); in.Report == nil {
		t.Fatal("report: got nil right after the push")
	}
	eventually(t, "report expires", 10*time.Second, func() bool { return instance(t, s, "r1").Report == nil })
	in := instance(t, s, "r1")
	if at := now(t, s); in.StatusAt(at) != fleet.StatusOffline || in.Name != "name of r1" || in.Lifetime()[fleet.Blocked] != 10 {
		t.Errorf("got %s, %q, lifetime %v; want an offline instance with all that was known", in.StatusAt(at), in.Name, in.Lifetime())
	}
	if list := storedSlices(t, s, "r1", fleet.Minute); len(list) != 1 {
		t.Errorf("slices: got %d, want 1", len(list))
	}
	if got := push(t, s, report(t, s, "r1", "boot1", 1, 10, minute(at, -1, "boot1", 1))).Result; got != fleet.Duplicate {
		t.Errorf("the same report again: got %s, want duplicate", got)
	}
	if in := instance(t, s, "r1"); in.Report != nil {
		t.Error("a duplicate brought an expired report back")
	}
	push(t, s, report(t, s, "r1", "boot2", 1, 3)) // away longer than the TTL, and rebooted
	in = instance(t, s, "r1")
	if got := in.Lifetime()[fleet.Blocked]; got != 13 || in.Report == nil {
		t.Errorf("lifetime after a reboot: got %d, want 13; report %v", got, in.Report)
	}
}

func twoHandles(t *testing.T, b Backend) {
	one, two := b.open(t), b.open(t)
	push(t, one, report(t, one, "r1", "boot1", 2, 10))
	compare(t, "instance through the other handle", instance(t, two, "r1"), instance(t, one, "r1"))
	for _, c := range []sent{{"boot1", 2, 10, fleet.Duplicate}, {"boot1", 1, 9, fleet.Older}, {"boot2", 1, 5, fleet.Stored}} {
		if got := push(t, two, report(t, two, "r1", c.boot, c.seq, c.blocked)).Result; got != c.want {
			t.Errorf("boot %s, seq %d through the other handle: got %s, want %s", c.boot, c.seq, got, c.want)
		}
	}
	if got := push(t, one, report(t, one, "r1", "boot1", 3, 11)).Result; got != fleet.EndedBoot {
		t.Errorf("boot that ended through the other handle: got %s, want ended", got)
	}
	if got := instance(t, one, "r1").Lifetime()[fleet.Blocked]; got != 15 {
		t.Errorf("lifetime: got %d, want 15", got)
	}
}

func findInstances(t *testing.T, b Backend) {
	s := b.open(t)
	if found, err := s.Instances(t.Context()); err != nil || len(found) != 0 {
		t.Fatalf("empty store: got %v, %v", found, err)
	}
	var all []string
	for i := range 30 {
		id := fmt.Sprintf("r%02d", i)
		all = append(all, id)
		push(t, s, report(t, s, id, "boot1", 1, uint64(i)))
	}
	for _, c := range []struct {
		name      string
		ids, want []string
	}{
		{"all", nil, all},
		{"two", []string{"r03", "r29"}, []string{"r03", "r29"}},
		{"one named twice", []string{"r03", "r03"}, []string{"r03"}},
		{"one known, one not", []string{"nobody", "r00"}, []string{"r00"}},
		{"only an unknown one", []string{"nobody"}, nil},
	} {
		found, err := s.Instances(t.Context(), c.ids...)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var got []string
		for _, in := range found {
			got = append(got, in.ID)
		}
		slices.Sort(got)
		compare(t, c.name, got, c.want)
	}
}

func seen(t *testing.T, b Backend) {
	s := b.Open(t, store.Options{StatsTTL: 200 * time.Millisecond, History: day})
	first := push(t, s, report(t, s, "early", "boot1", 1, 1))
	eventually(t, "clock moves on", time.Second, func() bool { return now(t, s).After(first.Time.Add(5 * time.Millisecond)) })
	second := push(t, s, report(t, s, "late", "boot1", 1, 1))
	for _, c := range []struct {
		name  string
		since time.Time
		want  []string
	}{
		{"since ever", time.Time{}, []string{"early", "late"}},
		{"since the first, which counts", first.Time, []string{"early", "late"}},
		{"since a moment after the first", first.Time.Add(time.Millisecond), []string{"late"}},
		{"since a moment after the second", second.Time.Add(time.Millisecond), nil},
	} {
		got, at, err := s.Seen(t.Context(), c.since)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		compare(t, c.name, slices.Sorted(maps.Keys(got)), c.want)
		if at.Before(second.Time) {
			t.Errorf("%s: now is %s, before the last push at %s", c.name, at, second.Time)
		}
	}
	eventually(t, "reports expire", 10*time.Second, func() bool { return instance(t, s, "late").Report == nil })
	got, _, err := s.Seen(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "offline instances stay", got, map[string]time.Time{"early": first.Time, "late": second.Time})
}

func forget(t *testing.T, b Backend) {
	s, other := b.open(t), b.open(t)
	at := now(t, s)
	wantErr(t, "forget an unknown instance", s.Forget(t.Context(), "r1"), fleet.ErrNotFound)
	push(t, s, report(t, s, "r1", "boot0", 1, 100))
	push(t, s, report(t, s, "r1", "boot1", 1, 10, minute(at, -3, "boot1", 1), minute(at, -2, "crashed", 1)))
	push(t, s, report(t, s, "r2", "boot1", 1, 10))
	if err := s.Forget(t.Context(), "r1"); err != nil {
		t.Fatalf("forget: %v", err)
	}
	gone := func(what string) {
		t.Helper()
		if found, err := other.Instances(t.Context()); err != nil || len(found) != 1 || found[0].ID != "r2" {
			t.Errorf("%s: instances: got %v, %v, want r2 alone", what, found, err)
		}
		if found, err := other.Instances(t.Context(), "r1"); err != nil || len(found) != 0 {
			t.Errorf("%s: Instances(r1): got %v, %v, want none", what, found, err)
		}
		if got, _, err := other.Seen(t.Context(), time.Time{}); err != nil || len(got) != 1 {
			t.Errorf("%s: seen: got %v, %v, want r2 alone", what, got, err)
		}
		if list := storedSlices(t, other, "r1", fleet.Minute); len(list) != 0 {
			t.Errorf("%s: slices: got %v, want none", what, list)
		}
	}
	gone("after forget")
	wantErr(t, "forget again", s.Forget(t.Context(), "r1"), fleet.ErrNotFound)
	late := func(what, boot string) {
		t.Helper()
		_, err := other.SaveReport(t.Context(), report(t, s, "r1", boot, 9, 99, minute(at, -1, boot, 1)), fleet.RoleReplica, "t1")
		wantErr(t, what, err, fleet.ErrForgotten)
	}
	late("late push of the last boot", "boot1")
	late("late push of the boot before", "boot0")
	late("push of a boot of which only slices were known", "crashed")
	gone("after late pushes")

	saved, err := other.SaveReport(t.Context(), report(t, s, "r1", "boot2", 1, 4, minute(at, -3, "boot1", 1), minute(at, -1, "boot2", 1)), fleet.RolePrimary, "")
	if err != nil {
		t.Fatalf("push of a new boot: %v", err)
	}
	in := instance(t, s, "r1")
	if in.Lifetime()[fleet.Blocked] != 4 || !in.FirstSeen.Equal(saved.Time) || in.Role != fleet.RolePrimary {
		t.Errorf("new boot: got lifetime %d, first seen %s, %s; want 4, %s, primary", in.Lifetime()[fleet.Blocked], in.FirstSeen, in.Role, saved.Time)
	}
	if list := storedSlices(t, s, "r1", fleet.Minute); len(list) != 1 || list[0].BootID != "boot2" {
		t.Errorf("slices: got %v, want only those of the new boot", list)
	}
	compare(t, "slices of a forgotten boot need not be sent again", saved.SlicesUntil, []fleet.SlicesUntil{
		{BootID: "boot1", Size: fleet.Minute, Until: minute(at, -2, "", 0).Start},
		{BootID: "boot2", Size: fleet.Minute, Until: minute(at, 0, "", 0).Start},
	})
	late("late push after the new boot", "boot1")
}

func concurrentPushes(t *testing.T, b Backend) {
	const instances, seqs, workers = 20, 15, 50
	handles := []store.Store{b.open(t), b.open(t)}
	at := now(t, handles[0])
	for boot := range 2 {
		type job struct{ instance, seq int }
		var jobs []job
		for i := range instances {
			for seq := range seqs {
				jobs = append(jobs, job{i, seq + 1}, job{i, seq + 1}) // each twice, as a client that retries
			}
		}
		rand.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
		queue := make(chan job, len(jobs))
		for _, j := range jobs {
			queue <- j
		}
		close(queue)
		var group sync.WaitGroup
		for w := range workers {
			group.Go(func() {
				for j := range queue {
					bootID := fmt.Sprint("boot", boot)
					r := fleet.Report{InstanceID: fmt.Sprintf("r%d", j.instance), Name: "n", BootID: bootID, Seq: uint64(j.seq), SentAt: at, IntervalSeconds: 1}
					r.ResponseDistribution.Outcomes[fleet.Cached] = uint64(j.seq * 1000)
					r.Slices = []fleet.Slice{sliceAt(fleet.Minute, at.Add(-time.Duration(seqs-j.seq)*time.Minute), bootID, 1)}
					if _, err := save(t.Context(), handles[w%2], r); err != nil {
						t.Errorf("SaveReport: %v", err)
					}
				}
			})
		}
		group.Wait()
	}
	found, err := handles[0].Instances(t.Context())
	if err != nil || len(found) != instances {
		t.Fatalf("instances: got %d, %v, want %d", len(found), err, instances)
	}
	for _, in := range found {
		if in.Ended[fleet.Cached] != seqs*1000 || in.Current[fleet.Cached] != seqs*1000 || in.Seq != seqs {
			t.Errorf("%s: got ended %d, current %d, seq %d; want %d, %d, %d", in.ID, in.Ended[fleet.Cached], in.Current[fleet.Cached], in.Seq, seqs*1000, seqs*1000, seqs)
		}
		list := storedSlices(t, handles[1], in.ID, fleet.Minute)
		if sum := fleet.MergeSlices(list...); len(list) != 2*seqs || sum.Outcomes.Total() != 2*seqs {
			t.Errorf("%s: got %d slices with %d queries, want %d with as many", in.ID, len(list), sum.Outcomes.Total(), 2*seqs)
		}
	}
}
