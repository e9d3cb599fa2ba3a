package cache_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/dns/cache/snapshot"
	"dnsfleet/internal/fleet"
)

// stocked is a cache with a few answers of each kind.
func stocked(t testing.TB) *cache.Cache {
	t.Helper()
	c := cache.New(nil)
	insert(t, c, begin, address(t, "fresh.x.", 3600))
	insert(t, c, begin, address(t, "stale.x.", 60))
	insert(t, c, begin, message(t, "none.x.", dns.TypeA, dns.RcodeNameError, nil, []string{"x. 600 IN SOA ns.x. h.x. 1 1 1 1 600"}))
	insert(t, c, begin, message(t, "fails.x.", dns.TypeA, dns.RcodeServerFailure, nil, nil))
	q := question(t, "fresh.x.", dns.TypeA)
	q.DO = true
	if _, ok := c.Insert(q, wire(t, address(t, "fresh.x.", 1800)), begin); !ok {
		t.Fatal("insert: got false")
	}
	return c
}

func saved(t testing.TB, c *cache.Cache, mark string, at time.Duration) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := c.Save(&b, mark, begin.Add(at)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestASnapshotBringsAnswersBack(t *testing.T) {
	t.Parallel()
	file := saved(t, stocked(t), "ups", time.Second)
	with := question(t, "fresh.x.", dns.TypeA)
	with.DO = true
	type state = cache.State
	for _, c := range []struct {
		name                     string
		at                       time.Duration
		loaded                   int
		fresh, stale, none, fail state
		ttl                      uint32
	}{
		{"at once", 2 * time.Second, 4, cache.Fresh, cache.Fresh, cache.Fresh, cache.Miss, 3598},
		{"two minutes later", 2 * time.Minute, 4, cache.Fresh, cache.Stale, cache.Fresh, cache.Miss, 3480},
		{"two hours later", 2 * time.Hour, 4, cache.Stale, cache.Stale, cache.Stale, cache.Miss, 30},
		{"a day later", 24*time.Hour + 2*time.Minute, 3, cache.Stale, cache.Miss, cache.Stale, cache.Miss, 30},
		{"two days later", 48 * time.Hour, 0, cache.Miss, cache.Miss, cache.Miss, cache.Miss, 0},
		{"before it was saved", -time.Hour, 0, cache.Miss, cache.Miss, cache.Miss, cache.Miss, 0},
		{"a century later", 100 * 365 * 24 * time.Hour, 0, cache.Miss, cache.Miss, cache.Miss, cache.Miss, 0},
	} {
		other := cache.New(nil)
		now := begin.Add(c.at)
		if n, err := other.Load(bytes.NewReader(file), "ups", now); n != c.loaded || err != nil {
			t.Errorf("%s: loaded %d, %v, want %d", c.name, n, err, c.loaded)
		}
		for name, want := range map[string]state{"fresh.x.": c.fresh, "stale.x.": c.stale, "none.x.": c.none, "fails.x.": c.fail} {
			if _, got := other.Find(question(t, name, dns.TypeA), now); got != want {
				t.Errorf("%s: %s: got state %d, want %d", c.name, name, got, want)
			}
		}
		if e, _ := other.Find(question(t, "fresh.x.", dns.TypeA), now); e != nil {
			if got := ttls(unpack(t, e.AppendAnswer(nil, now))); got[0] != c.ttl {
				t.Errorf("%s: got TTL %d, want %d", c.name, got[0], c.ttl)
			}
		}
		if e, got := other.Find(with, now); got != c.fresh || e != nil && e.TTL(now) != 1800*time.Second-c.at {
			t.Errorf("%s: the answer with DO: got state %d, want %d and its own TTL", c.name, got, c.fresh)
		}
	}
}

func TestASnapshotOfOthersLoadsNothing(t *testing.T) {
	t.Parallel()
	other := cache.New(nil)
	if n, err := other.Load(bytes.NewReader(saved(t, stocked(t), "ups", 0)), "downs", begin); n != 0 || err != nil || other.Bytes() != 0 {
		t.Errorf("got %d, %v, want nothing and no error", n, err)
	}
	if err := other.Save(new(bytes.Buffer), strings.Repeat("x", 2000), begin); err == nil {
		t.Error("a mark of 2,000 bytes: got no error")
	}
}

func TestALoadReplacesNothing(t *testing.T) {
	t.Parallel()
	file := saved(t, stocked(t), "", 0)
	other := cache.New(nil)
	newer := insert(t, other, begin, address(t, "fresh.x.", 5))
	if n, err := other.Load(bytes.NewReader(file), "", begin); n != 3 || err != nil {
		t.Errorf("got %d, %v, want 3", n, err)
	}
	if e, _ := other.Find(question(t, "fresh.x.", dns.TypeA), begin); e != newer {
		t.Error("the answer that was there was replaced")
	}
}

func TestALoadHoldsToTheLimits(t *testing.T) {
	t.Parallel()
	c := cache.New(nil)
	m := newNumbered(t, address(t, "000000.x.", 3600))
	for i := range 3000 {
		m.set(i)
		c.Insert(m.question, m.response, begin)
		if i < 100 { // these are popular
			for tick := range 10 {
				c.Find(m.question, begin.Add(time.Duration(tick)*20*time.Second))
			}
		}
	}
	file := saved(t, c, "", 4*time.Minute)
	other := cache.New(nil)
	other.SetLimits(limits(func(l *fleet.CachePolicy) { l.MaxBytes, l.MaxTTL = 200<<10, fleet.Duration(10*time.Minute) }))
	n, err := other.Load(bytes.NewReader(file), "", begin.Add(5*time.Minute))
	if n < 500 || n > 1500 || err != nil || other.Bytes() > 200<<10 {
		t.Errorf("got %d, %v, %d bytes, want as many as fit into 200 KiB", n, err, other.Bytes())
	}
	for i := range 100 {
		m.set(i)
		e, state := other.Find(m.question, begin.Add(5*time.Minute))
		if state != cache.Fresh || e.TTL(begin) != 10*time.Minute {
			t.Fatalf("a popular answer: got state %d, want it loaded with the TTL of the limits", state)
		}
	}
	if got := other.Popular(begin.Add(9*time.Minute+30*time.Second), 0, 1000); len(got) != 100 {
		t.Errorf("got %d popular after a restart, want 100", len(got))
	}
}

// A snapshot that was changed anywhere, or cut anywhere, loads what comes before and says so.
func TestADamagedSnapshot(t *testing.T) {
	t.Parallel()
	file := saved(t, stocked(t), "ups", 0)
	for at := range file {
		bad := bytes.Clone(file)
		bad[at] ^= 0x10
		other := cache.New(nil)
		n, err := other.Load(bytes.NewReader(bad), "ups", begin)
		want := 0
		if at >= len(file)-8 { // only the end is in doubt
			want = 4
		}
		if n != want || !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("byte %d changed: got %d, %v, want %d and %v", at, n, err, want, snapshot.ErrDamaged)
		}
	}
	big := cache.New(nil)
	m := newNumbered(t, address(t, "000000.x.", 3600))
	for i := range 5000 {
		m.set(i)
		big.Insert(m.question, m.response, begin)
	}
	file = saved(t, big, "ups", 0)
	for _, size := range []int{0, 1, 30, len(file) / 3, len(file) / 2, len(file) - 1} {
		other := cache.New(nil)
		n, err := other.Load(bytes.NewReader(file[:size]), "ups", begin)
		if !errors.Is(err, snapshot.ErrDamaged) || n != other.Stats().LRU.Entries || (n > 0) != (size > 70_000) {
			t.Errorf("cut to %d of %d bytes: got %d, %v, want what is whole and %v", size, len(file), n, err, snapshot.ErrDamaged)
		}
	}
}

// Records that a checksum covers are checked all the same.
func TestASnapshotWithWrongAnswers(t *testing.T) {
	t.Parallel()
	good := wire(t, address(t, "a.x.", 100))
	for name, bad := range map[string][]byte{
		"nothing":           {},
		"a query":           func() []byte { b := bytes.Clone(good); b[2] &= 0x7F; return b }(),
		"a cut message":     good[:len(good)-1],
		"half a name":       good[:14],
		"a truncated one":   func() []byte { b := bytes.Clone(good); b[2] |= 2; return b }(),
		"a TTL of 0":        wire(t, address(t, "a.x.", 0)),
		"noise":             []byte(strings.Repeat("\xff", 100)),
		"a name too long":   append(bytes.Clone(good[:12]), bytes.Repeat([]byte("\x3f"+strings.Repeat("a", 63)), 5)...),
		"an empty question": make([]byte, 17),
	} {
		var b bytes.Buffer
		w, err := snapshot.NewWriter(&b, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, wire := range [][]byte{bad, good} {
			if err := w.Append(snapshot.Record{Stored: begin, Wire: wire}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := cache.New(nil).Load(&b, "", begin); n != 1 || err != nil {
			t.Errorf("%s: got %d, %v, want only the good answer", name, n, err)
		}
	}
}

func TestSnapshotFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "answers.cache")
	c := stocked(t)
	if n, err := cache.New(nil).LoadFile(dir, "ups", begin); n != 0 || err != nil {
		t.Errorf("no file: got %d, %v, want nothing and no error", n, err)
	}
	for range 2 { // the second takes the place of the first
		if err := c.SaveFile(dir, "ups", begin); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".tmp", []byte("of a crash"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if n, err := cache.New(nil).LoadFile(dir, "ups", begin); n != 4 || err != nil {
		t.Errorf("got %d, %v, want 4", n, err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SaveFile(dir, strings.Repeat("x", 2000), begin); err == nil {
		t.Error("a mark that is too long: got no error")
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Error("a save that did not work changed the file")
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*.tmp")); len(names) != 0 || err != nil {
		t.Errorf("got %v left over, want nothing", names)
	}
	if err := os.WriteFile(path, before[:len(before)-9], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.New(nil).LoadFile(dir, "ups", begin); !errors.Is(err, snapshot.ErrDamaged) {
		t.Errorf("a cut file: got %v, want %v", err, snapshot.ErrDamaged)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.SaveFile(filepath.Join(dir, "file"), "", begin); err == nil {
		t.Error("a directory that is a file: got no error")
	}
}

// FuzzLoad: nothing makes it panic; what is loaded is counted, within its bytes, and can be served.
func FuzzLoad(f *testing.F) {
	file := saved(f, stocked(f), "ups", 0)
	f.Add(file, uint16(0), byte(0))
	f.Add(file, uint16(len(file)-20), byte(1))
	f.Add(file[:40], uint16(39), byte(9))
	f.Fuzz(func(t *testing.T, file []byte, at uint16, change byte) {
		if int(at) < len(file) {
			file[at] ^= change
		}
		c := cache.New(nil)
		n, err := c.Load(bytes.NewReader(file), "ups", begin)
		if entries := c.Stats().LRU.Entries; n != entries {
			t.Errorf("got %d loaded, %v, and %d entries", n, err, entries)
		}
		var again bytes.Buffer
		if err := c.Save(&again, "ups", begin); err != nil {
			t.Fatal(err)
		}
		if m, err := cache.New(nil).Load(&again, "ups", begin); m != n || err != nil {
			t.Errorf("what was loaded, saved and loaded: got %d, %v, want %d", m, err, n)
		}
	})
}

// FuzzRecord is FuzzLoad behind the checksums.
func FuzzRecord(f *testing.F) {
	f.Add(wire(f, address(f, "a.x.", 100)), int64(0), uint64(3))
	f.Add(wire(f, message(f, "a.x.", dns.TypeA, dns.RcodeNameError, nil, []string{"x. 100 IN SOA ns.x. h.x. 1 1 1 1 100"})), int64(-5000), uint64(1<<63))
	f.Fuzz(func(t *testing.T, response []byte, age int64, history uint64) {
		if len(response) > 1<<16-1 {
			return
		}
		var b bytes.Buffer
		w, err := snapshot.NewWriter(&b, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Append(snapshot.Record{Stored: begin.Add(time.Duration(age) * time.Millisecond), History: history, Wire: response}), w.Close()); err != nil {
			t.Fatal(err)
		}
		c := cache.New(nil)
		n, err := c.Load(&b, "", begin)
		if err != nil || n > 1 {
			t.Fatalf("got %d, %v", n, err)
		}
		if n == 0 {
			return
		}
		end := bytes.IndexByte(response[12:], 0) + 12
		q := cache.Question{Name: response[12 : end+1], Type: binary.BigEndian.Uint16(response[end+1:])}
		if e, state := c.Find(q, begin); state != cache.Miss && len(e.AppendAnswer(nil, begin)) != e.Size() {
			t.Errorf("got an entry that is not as long as it says")
		}
		c.Popular(begin, time.Hour, 1)
		c.Sweep(begin)
	})
}
