package sqlite_test

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/store/storetest"
)

const unavailableWithin = 4 * time.Second

func options() store.Options { return store.Options{StatsTTL: time.Minute, History: 24 * time.Hour} }

func newReport(id, boot string, seq, blocked uint64, sent time.Time) fleet.Report {
	r := fleet.Report{InstanceID: id, Name: id, BootID: boot, Seq: seq, SentAt: sent, StartedAt: sent, IntervalSeconds: 10}
	r.ResponseDistribution.Outcomes[fleet.Blocked] = blocked
	return r
}

func save(t *testing.T, s *sqlite.Store, r fleet.Report) fleet.Saved {
	t.Helper()
	saved, err := s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1")
	if err != nil {
		t.Fatalf("SaveReport: %v", err)
	}
	return saved
}

// saveAtLast tries again while the file is busy, as an instance does: SQLite's lock is not fair, and a machine may be
// slow.
func saveAtLast(t *testing.T, s *sqlite.Store, r fleet.Report) {
	t.Helper()
	var err error
	for range 20 {
		if _, err = s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1"); !errors.Is(err, fleet.ErrUnavailable) {
			break
		}
	}
	if err != nil {
		t.Fatalf("SaveReport: %v", err)
	}
}

func TestAFileThatCannotBeUsedIsNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	corrupt := write("corrupt.db", []byte(strings.Repeat("this is no database. ", 500)))
	file := write("file", nil)
	for name, path := range map[string]string{
		"a file that is no database":   corrupt,
		"a folder":                     dir,
		"a path below a file":          filepath.Join(file, "store.db"),
		"a folder that cannot be made": "/proc/dnsfleet/store.db",
		"a damaged database":           damaged(t, filepath.Join(dir, "damaged.db")),
	} {
		s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
		if err == nil {
			t.Errorf("%s: opened", name)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if !strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), filepath.Dir(path)) {
			t.Errorf("%s: the error does not name %s: %v", name, path, err)
		}
	}
}

// damaged is a store whose first page is overwritten after its header.
func damaged(t *testing.T, path string) string {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("x", 3000)), 100); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOnlyTheOwnerMayReadTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "store.db")
	s := open(t, path, options())
	save(t, s, newReport("r1", "boot1", 1, 1, time.Now()))
	names, err := filepath.Glob(path + "*")
	if err != nil || len(names) < 2 {
		t.Fatalf("files: got %v, %v, want the database and its log", names, err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s: got mode %o, want 600", name, got)
		}
	}
}

func TestManyMayOpenAnEmptyFileAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	group.Wait()
	s := open(t, path, options())
	save(t, s, newReport("r1", "boot1", 1, 1, time.Now()))
}

func TestALockedFileIsUnavailableForWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, options())
	save(t, s, newReport("r1", "boot1", 1, 1, time.Now()))
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	storetest.Unavailable(t, s, unavailableWithin,
		"Now", "Instances", "Instances(id)", "Seen", "Slices", "Tokens", "Authorize", "Policy", "Session")
	if found, err := s.Instances(t.Context()); err != nil || len(found) != 1 {
		t.Errorf("reads while the file is locked: got %v, %v, want r1", found, err)
	}
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	save(t, s, newReport("r1", "boot1", 2, 2, time.Now()))
}

func TestAFullDiskIsUnavailable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, options())
	save(t, s, newReport("r1", "boot1", 1, 1, time.Now()))
	if err := s.LimitPages(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var err error
	r, stored := newReport("r1", "boot1", 1, 2, time.Now()), uint64(1)
	for i := range 500 { // until the pages that the file has are full
		slice := fleet.Slice{Size: fleet.Minute, Start: time.Now().UTC().Add(-time.Hour).Truncate(time.Minute), BootID: fmt.Sprintf("b%d", i)}
		for u := range 60 {
			slice.Upstreams = append(slice.Upstreams, fleet.UpstreamSlice{Address: fmt.Sprintf("udp://%s-%d:53", fleet.RandomID(), u)})
		}
		r.Slices = []fleet.Slice{slice}
		r.Seq++
		if _, err = s.SaveReport(t.Context(), r, fleet.RoleReplica, "t1"); err != nil {
			break
		}
		stored = r.Seq
	}
	if !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("got error %v, want %v", err, fleet.ErrUnavailable)
	}
	found, err := s.Instances(t.Context(), "r1")
	if err != nil || len(found) != 1 || found[0].Seq != stored {
		t.Errorf("after the refused push: got %+v, %v, want seq %d", found, err, stored)
	}
}

func TestAClosedStoreIsUnavailable(t *testing.T) {
	t.Parallel()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Unavailable(t, s, unavailableWithin, "Now")
}

func TestTheClockIsInjected(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 2, 3, 4, 30, 0, time.UTC)
	var shift atomic.Int64
	s, err := sqlite.Open(t.Context(), sqlite.Options{
		Path: filepath.Join(t.TempDir(), "store.db"), StatsTTL: time.Minute, History: 24 * time.Hour,
		Now: func() time.Time { return start.Add(time.Duration(shift.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := newReport("r1", "boot1", 1, 10, start)
	for back := range 4 {
		at := start.Add(-time.Duration(back*35) * time.Minute).Truncate(time.Minute)
		r.Slices = append(r.Slices, fleet.Slice{Size: fleet.Minute, Start: at, BootID: "boot1"})
	}
	if saved := save(t, s, r); !saved.Time.Equal(start) {
		t.Errorf("time: got %s, want %s", saved.Time, start)
	}
	for _, c := range []struct {
		after   time.Duration
		status  fleet.Status
		minutes int // minute slices left after a report that adds none
	}{{0, fleet.StatusOK, 4}, {30 * time.Second, fleet.StatusStale, 4}, {time.Minute, fleet.StatusOffline, 4}, {90 * time.Minute, fleet.StatusOffline, 1}, {4 * time.Hour, fleet.StatusOffline, 0}} {
		shift.Store(int64(c.after))
		now, err := s.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found, err := s.Instances(t.Context(), "r1")
		if err != nil || len(found) != 1 {
			t.Fatalf("instances: got %v, %v", found, err)
		}
		if got := found[0].StatusAt(now); got != c.status {
			t.Errorf("after %s: got %s, want %s", c.after, got, c.status)
		}
		save(t, s, newReport("r1", "boot1", 1, 10, start)) // a duplicate: it changes nothing, but lets the store trim
		list, err := s.Slices(t.Context(), "r1", fleet.Minute, time.Time{}, start.Add(time.Hour))
		if err != nil || len(list) != c.minutes {
			t.Errorf("after %s: got %d slices, %v, want %d", c.after, len(list), err, c.minutes)
		}
	}
}

func TestFormerBootsAreRememberedWithinBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		count int
		ended time.Duration
		want  int
	}{
		{"few old ones are all kept", 1000, 200 * 24 * time.Hour, 1001},
		{"of many old ones 1024 are kept", 2000, 200 * 24 * time.Hour, 1024},
		{"many recent ones are kept", 2000, 24 * time.Hour, 2001},
		{"but not without bound", 5000, 24 * time.Hour, 4096},
	} {
		path := filepath.Join(t.TempDir(), "store.db")
		s := open(t, path, options())
		save(t, s, newReport("r1", "first", 1, 1, time.Now()))
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		ended := time.Now().Add(-c.ended).UnixMilli()
		if _, err := db.ExecContext(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)
			INSERT INTO boots (instance_id, boot_id, forgotten, ended_at) SELECT 'r1', 'old' || i, 0, ? + i FROM n`, c.count, ended); err != nil {
			t.Fatal(err)
		}
		save(t, s, newReport("r1", "second", 1, 1, time.Now()))
		var got int
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM boots`).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s: got %d, %v, want %d", c.name, got, err, c.want)
		}
		if saved := save(t, s, newReport("r1", "first", 2, 1, time.Now())); saved.Result != fleet.EndedBoot {
			t.Errorf("%s: the newest: got %s, want ended", c.name, saved.Result)
		}
	}
}

// TestAnotherProcess has a second process write to the file, as the token command does, and kills it in the middle of
// its writes: what it was told is stored must be there.
func TestAnotherProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, options())
	child := exec.Command(os.Args[0], "-test.run=^TestChild$")
	child.Env = append(os.Environ(), childFile+"="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var acknowledged, own uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "stored %d", &acknowledged); err != nil {
			continue
		}
		own++
		saveAtLast(t, s, newReport("own", "boot1", own, own, time.Now())) // both write at the same time
		if acknowledged == 100 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || acknowledged < 100 {
		t.Fatalf("the other process ended with %v after %d reports, want it killed after 100", err, acknowledged)
	}
	found, err := s.Instances(t.Context(), "other", "own")
	if err != nil || len(found) != 2 {
		t.Fatalf("got %v, %v, want both instances", found, err)
	}
	for _, in := range found {
		want := acknowledged
		if in.ID == "own" {
			want = own
		}
		if in.Seq < want || in.Current[fleet.Blocked] != in.Seq {
			t.Errorf("%s: got seq %d with %d, acknowledged was %d", in.ID, in.Seq, in.Current[fleet.Blocked], want)
		}
	}
}

const childFile = "DNSFLEET_TEST_SQLITE_FILE"

// TestChild is the other process of TestAnotherProcess; by itself it does nothing.
func TestChild(t *testing.T) {
	path := os.Getenv(childFile)
	if path == "" {
		return
	}
	s := open(t, path, options())
	for seq := range uint64(100_000) {
		saveAtLast(t, s, newReport("other", "boot1", seq+1, seq+1, time.Now()))
		fmt.Println("stored", seq+1)
	}
}
