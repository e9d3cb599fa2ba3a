package history_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats/history"
)

func writeFile(t *testing.T, dir, name string, text []byte) {
	t.Helper()
	ok(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
}

func fleetJSON(list []fleet.Slice) ([]byte, error) { return json.Marshal(list) }

type key struct {
	boot  string
	size  fleet.Size
	start int64
}

type series struct {
	boot string
	size fleet.Size
}

// store remembers slices and untils as a real one does: an until begins with the first slice of its boot and size that
// arrives, moves over slices that are there, and never moves back unless the store forgets.
type store struct {
	slices map[key]uint64
	until  map[series]int64
	keeps  map[fleet.Size]bool
}

func newStore(sizes ...fleet.Size) *store {
	s := &store{map[key]uint64{}, map[series]int64{}, map[fleet.Size]bool{}}
	for _, size := range sizes {
		s.keeps[size] = true
	}
	return s
}

func (s *store) copy() *store {
	return &store{maps.Clone(s.slices), maps.Clone(s.until), s.keeps}
}

func (s *store) save(own string, pushed []fleet.Slice) []fleet.SlicesUntil {
	pushed = slices.SortedFunc(slices.Values(pushed), func(a, b fleet.Slice) int { return a.Start.Compare(b.Start) })
	answer := map[series]int64{}
	for _, p := range pushed {
		n := series{p.BootID, p.Size}
		if !s.keeps[p.Size] {
			if at, named := answer[n]; !named || at == p.Start.Unix() {
				answer[n] = p.End().Unix()
			}
			continue
		}
		s.slices[key{p.BootID, p.Size, p.Start.Unix()}] = p.Outcomes.Total()
		if _, had := s.until[n]; !had {
			s.until[n] = p.Start.Unix()
		}
		answer[n] = 0
	}
	for _, size := range fleet.Sizes() {
		if _, had := s.until[series{own, size}]; had {
			answer[series{own, size}] = 0
		}
	}
	var out []fleet.SlicesUntil
	for n, at := range answer {
		if s.keeps[n.size] {
			step := int64(n.size.Duration() / time.Second)
			for at = s.until[n]; s.slices[key{n.boot, n.size, at}] > 0; at += step {
				s.until[n] = at + step
			}
		}
		out = append(out, fleet.SlicesUntil{BootID: n.boot, Size: n.size, Until: time.Unix(at, 0).UTC()})
	}
	return out
}

// An instance pushes every ten seconds through a network that loses requests and answers, to a store that now and then
// forgets its last seconds or everything; the instance itself is killed and starts again. Once all of that ends, the store
// holds everything that is still on the instance's disk, and nothing waits or goes twice any more.
func TestEverySliceArrivesWhateverGetsLost(t *testing.T) {
	for seed := range uint64(60) {
		dir := "" // in memory, where nothing can start again
		if seed%15 == 0 {
			dir = t.TempDir()
		}
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { deliver(t, dir, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func deliver(t *testing.T, dir string, random *rand.Rand) {
	t.Helper()
	book := open(t, dir)
	kept := newStore(fleet.Sizes()...)
	snapshots := []*store{kept.copy()}
	built := map[key]uint64{}
	boot, now := "boot0", noon
	build := func(at time.Time) {
		var add []fleet.Slice
		for _, size := range fleet.Sizes() {
			if end := at.Truncate(size.Duration()); end.Equal(at) {
				s := fleet.Slice{Size: size, Start: at.Add(-size.Duration()), BootID: boot}
				s.Outcomes[fleet.Cached] = random.Uint64N(1000) + 1
				built[key{boot, size, s.Start.Unix()}] = s.Outcomes.Total()
				add = append(add, s)
			}
		}
		ok(t, book.Add(add...))
	}
	push := func(lossy bool) {
		pending := book.Pending(now, boot, false, 2000+random.IntN(3000))
		if lossy && random.IntN(6) == 0 {
			return // the request was lost
		}
		until := kept.save(boot, pending)
		snapshots = append(snapshots, kept.copy())
		if lossy && random.IntN(6) == 0 {
			return // the answer was lost
		}
		ok(t, book.Sent(now, boot, pending, until))
	}
	for step, calm := 0, 0; step < 600; step++ {
		now = now.Add(10 * time.Second)
		if now.Equal(now.Truncate(time.Minute)) {
			build(now)
			book.Expire(now, boot, true)
		}
		push(true)
		if calm--; calm > 0 {
			continue
		}
		calm = 15 // no store forgets twice within two minutes
		switch random.IntN(60) {
		case 0:
			kept = snapshots[max(0, len(snapshots)-2)].copy() // forgot its last push
		case 1:
			kept = newStore(fleet.Sizes()...) // forgot everything
		case 2:
			if dir != "" {
				book = reopen(t, book, dir)
				boot = fmt.Sprintf("boot%d", step)
			}
		default:
			calm = 0
		}
	}
	for quiet, rounds := 0, 0; quiet < 20; rounds++ {
		now = now.Add(10 * time.Second)
		push(false)
		quiet++
		if book.Stats().Pending > 0 {
			quiet = 0
		}
		if rounds == 2000 {
			t.Fatal("slices are sent for ever")
		}
	}
	for _, b := range bootsOf(built) {
		for _, s := range book.Slices(b) {
			k := key{s.BootID, s.Size, s.Start.Unix()}
			if kept.slices[k] != built[k] {
				t.Errorf("%v: store has %d queries, want %d", names([]fleet.Slice{s}), kept.slices[k], built[k])
			}
		}
	}
	if n := book.Stats().Dropped; n > 0 {
		t.Errorf("dropped: got %d, want none", n)
	}
}

func bootsOf(built map[key]uint64) (boots []string) {
	seen := map[string]bool{}
	for k := range built {
		if !seen[k.boot] {
			seen[k.boot] = true
			boots = append(boots, k.boot)
		}
	}
	return boots
}

func TestAfterHoursWithoutAPrimaryEverySizeArrives(t *testing.T) {
	book, kept := open(t, t.TempDir()), newStore(fleet.Sizes()...)
	for at := noon.Add(time.Minute); !at.After(noon.Add(5 * time.Hour)); at = at.Add(time.Minute) {
		for _, size := range fleet.Sizes() {
			if at.Truncate(size.Duration()).Equal(at) {
				ok(t, book.Add(slice("a", size, int(at.Add(-size.Duration()).Sub(noon)/time.Minute), 1)))
			}
		}
		book.Expire(at, "a", true)
	}
	pushes := 0
	now := noon.Add(5 * time.Hour)
	for pending := book.Pending(now, "a", false, 16<<10); len(pending) > 0; pending = book.Pending(now, "a", false, 16<<10) {
		ok(t, book.Sent(now, "a", pending, kept.save("a", pending)))
		pushes++
	}
	if want := 300 + 30 + 5; len(kept.slices) != want {
		t.Errorf("store: got %d slices, want %d", len(kept.slices), want)
	}
	if pushes < 2 || pushes > 20 {
		t.Errorf("pushes: got %d, want a few", pushes)
	}
}

func TestAStoreThatKeepsOnlyMinutesIsNotAskedForEver(t *testing.T) {
	book, kept := open(t, t.TempDir()), newStore(fleet.Minute)
	sent := map[fleet.Size]int{}
	for at := 1; at <= 180; at++ {
		now := noon.Add(time.Duration(at) * time.Minute)
		for _, size := range fleet.Sizes() {
			if now.Truncate(size.Duration()).Equal(now) {
				ok(t, book.Add(slice("a", size, at-int(size.Duration()/time.Minute), 1)))
			}
		}
		for range 6 {
			pending := book.Pending(now, "a", false, 1<<20)
			for _, s := range pending {
				sent[s.Size]++
			}
			ok(t, book.Sent(now, "a", pending, kept.save("a", pending)))
			now = now.Add(10 * time.Second)
		}
		book.Expire(now, "a", true)
	}
	// Each new minute takes a witness along; for the first there is none.
	if want := (map[fleet.Size]int{fleet.Minute: 180 + 179, fleet.TenMinutes: 18, fleet.Hour: 3}); !maps.Equal(sent, want) {
		t.Errorf("sent: got %v, want %v", sent, want)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("hello\n"))
	f.Add([]byte(`11111111 {"slice":{}}` + "\n"))
	f.Add([]byte(`{"slice":{"size":"1m","start":"2026-03-01T12:00:00Z","boot_id":"a","outcomes":{"cached":3},"latency":"","upstreams":[]}}`))
	f.Add([]byte(`{"sent":[{"boot_id":"a","size":"1h","start":0}],"until":[{"boot_id":"a","size":"1m","until":"2026-03-01T12:00:00Z"}],"ended":"a"}`))
	// Whatever else a journal and a checkpoint hold, also with the right checksum, opening works, every slice is valid,
	// and a second opening finds the same.
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		writeFile(t, dir, "journal", append(append([]byte{}, text...), "\n"+history.Line(text)...))
		writeFile(t, dir, "running", []byte(history.Line(text)))
		b := open(t, dir)
		first := all(b)
		for _, s := range first {
			ok(t, s.Validate())
		}
		if s, found := b.Running(); found {
			ok(t, s.Validate())
		}
		want(t, "pending after a restart", all(reopen(t, b, dir)), names(first)...)
	})
}

// scene is one instance with its store, whose clock moves ten seconds with each push.
type scene struct {
	t     *testing.T
	book  *history.Book
	dir   string
	store *store
	boot  string
	now   time.Time
}

func newScene(t *testing.T) *scene {
	t.Helper()
	dir := t.TempDir()
	return &scene{t, open(t, dir), dir, newStore(fleet.Sizes()...), "a", noon}
}

func (s *scene) push() {
	s.t.Helper()
	s.now = s.now.Add(10 * time.Second)
	pending := s.book.Pending(s.now, s.boot, false, 1<<20)
	ok(s.t, s.book.Sent(s.now, s.boot, pending, s.store.save(s.boot, pending)))
}

// minutes builds n minutes and pushes six times in each.
func (s *scene) minutes(n int) {
	s.t.Helper()
	for range n {
		for range 5 {
			s.push()
		}
		s.now = s.now.Truncate(time.Minute).Add(time.Minute - 10*time.Second)
		ok(s.t, s.book.Add(minute(s.boot, int(s.now.Sub(noon)/time.Minute))))
		s.push()
	}
}

func (s *scene) wipe() { s.store = newStore(fleet.Sizes()...) }

func (s *scene) reboot(boot string) {
	s.t.Helper()
	s.book, s.boot = reopen(s.t, s.book, s.dir), boot
}

func TestALossIsNoticed(t *testing.T) {
	for name, play := range map[string]func(s *scene){
		"between two minutes": func(s *scene) {
			s.minutes(5)
			s.wipe()
			s.push()
		},
		"just before a new minute": func(s *scene) {
			s.minutes(5)
			for range 5 {
				s.push()
			}
			s.wipe()
			ok(s.t, s.book.Add(minute("a", 5)))
			s.push()
		},
		"while the instance started anew": func(s *scene) {
			s.minutes(5)
			s.wipe()
			s.reboot("b")
			s.push()
		},
		"in the first minute after a start": func(s *scene) {
			s.minutes(5)
			s.reboot("b")
			s.push()
			s.wipe()
			s.push()
			s.push()
		},
		"just before the first minute after a start": func(s *scene) {
			s.minutes(5)
			s.reboot("b")
			for range 5 {
				s.push()
			}
			s.wipe()
			ok(s.t, s.book.Add(minute("b", 5)))
			s.push()
		},
		"of the one push that brought the last of a boot before": func(s *scene) {
			s.minutes(5)
			s.reboot("b")
			s.minutes(3)
			ok(s.t, s.book.Add(minute("a", 5)))
			before := s.store.copy()
			s.push()
			s.store = before
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			play(s)
			for range 5 {
				s.push()
			}
			for _, boot := range []string{"a", "b"} {
				for _, kept := range s.book.Slices(boot) {
					if s.store.slices[key{boot, kept.Size, kept.Start.Unix()}] == 0 {
						t.Errorf("store: got no %v", names([]fleet.Slice{kept}))
					}
				}
			}
		})
	}
}
