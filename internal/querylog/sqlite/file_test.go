package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/sqlite"
)

const day = 24 * time.Hour

// noon is a fixed instant in the middle of a day.
var noon = time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)

func batch(seq uint64, at time.Time, n int) querylog.Batch {
	b := querylog.Batch{InstanceID: "box1", BootID: "boot1", Seq: seq}
	for i := range n {
		b.Events = append(b.Events, fleet.QueryEvent{
			Time: at, Client: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Protocol: "udp", QName: fmt.Sprintf("h%d-%d.example.", seq, i),
			QType: 1, QClass: 1, Outcome: fleet.Upstream, Upstream: "udp://192.0.2.1:53", Duration: time.Millisecond,
		})
	}
	return b
}

func write(t *testing.T, l *sqlite.Log, b querylog.Batch) {
	t.Helper()
	if err := l.Write(t.Context(), b); err != nil {
		t.Fatalf("Write %d: %v", b.Seq, err)
	}
}

func wantTotal(t *testing.T, l *sqlite.Log, f fleet.QueryFilter, want uint64) {
	t.Helper()
	got, err := l.Summary(t.Context(), f, false)
	if err != nil {
		t.Fatalf("Summary: %v", err)
	}
	if got.Total != want {
		t.Errorf("Summary: got %d, want %d", got.Total, want)
	}
}

func TestTheFileIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "log.db")
	l := open(t, sqlite.Options{Path: path})
	write(t, l, batch(1, noon, 10))
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("got files %v, %v, want the log and its side files", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, %v, want 0600", file, info.Mode(), err)
		}
	}
}

func TestAFileThatCannotBeUsedIsNamed(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, path string){
		"no SQLite file": func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database. "), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a folder": func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"a damaged file": func(t *testing.T, path string) {
			l, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i := 100; i < len(content); i++ {
				content[i] = 0x5a
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log.db")
			make(t, path)
			l, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line that names the file", err)
			}
		})
	}
}

func TestALockedFileIsUnavailableAndLosesNothing(t *testing.T) {
	t.Parallel() // it waits for the busy time-out
	path := filepath.Join(t.TempDir(), "log.db")
	l := open(t, sqlite.Options{Path: path})
	write(t, l, batch(1, noon, 10))
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
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := l.Write(ctx, batch(2, noon, 10)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Write with a short deadline: got %v, want %v", err, fleet.ErrUnavailable)
	}
	if err := l.Write(t.Context(), batch(2, noon, 10)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Write: got %v, want %v", err, fleet.ErrUnavailable)
	}
	wantTotal(t, l, fleet.QueryFilter{}, 10) // reading goes on
	if _, err := conn.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	write(t, l, batch(2, noon, 10))
	wantTotal(t, l, fleet.QueryFilter{}, 20)
}

func TestAFullDiskIsUnavailableAndStoresAllOrNothing(t *testing.T) {
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db")})
	write(t, l, batch(1, noon, 10))
	if err := l.LimitPages(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	full := batch(2, noon, 1000)
	if err := l.Write(t.Context(), full); !errors.Is(err, fleet.ErrUnavailable) {
		t.Fatalf("Write on a full disk: got %v, want %v", err, fleet.ErrUnavailable)
	}
	wantTotal(t, l, fleet.QueryFilter{}, 10)
	wantTotal(t, l, fleet.QueryFilter{Domain: "example"}, 10)
	if err := l.LimitPages(t.Context(), 1_000_000); err != nil {
		t.Fatal(err)
	}
	write(t, l, full)
	wantTotal(t, l, fleet.QueryFilter{}, 1010)
	top, err := l.TopDomains(t.Context(), fleet.QueryFilter{}, 2000, false)
	if err != nil || len(top.Items) != 1010 || top.Items[0].Count != 1 { // no event has a word of the attempt that failed
		t.Errorf("TopDomains: got %d, the first %+v, %v, want 1010 of one query each", len(top.Items), top.Items[:1], err)
	}
}

func TestWhatIsOlderThanTheRetentionIsNeitherToldNorKept(t *testing.T) {
	var now atomic.Pointer[time.Time]
	set := func(at time.Time) { now.Store(&at) }
	set(noon)
	path := filepath.Join(t.TempDir(), "log.db")
	l := open(t, sqlite.Options{Path: path, Retention: 3 * day, Now: func() time.Time { return *now.Load() }})
	const n, many = 300, 2_200 // more than is deleted at once
	for i, events := range []int{n, n, n, many} {
		write(t, l, batch(uint64(i+1), noon.Add(-time.Duration(i)*day), events))
	}
	wantTotal(t, l, fleet.QueryFilter{}, 3*n+many) // the event of three days ago is just within
	set(noon.Add(time.Millisecond))
	wantTotal(t, l, fleet.QueryFilter{}, 3*n)
	wantTotal(t, l, fleet.QueryFilter{Domain: "example"}, 3*n)
	set(noon.Add(day + 12*time.Hour))
	if err := l.Tidy(t.Context()); err != nil {
		t.Fatalf("Tidy: %v", err)
	}
	wantTotal(t, l, fleet.QueryFilter{}, 2*n)
	write(t, l, batch(9, noon.Add(-3*day), 10)) // too late
	write(t, l, batch(1, noon, n))              // stored before
	wantTotal(t, l, fleet.QueryFilter{}, 2*n)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for table, want := range map[string]int{"events": 2 * n, "names": 2 * n, "clients": 2 * n, "kinds": 2, "rollups": 4, "batches": 1, "pragma_freelist_count WHERE freelist_count > 1000": 0} {
		var got int
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %d rows, %v, want %d", table, got, err, want)
		}
	}
}

func TestAWindowMayBeginAndEndBetweenMilliseconds(t *testing.T) {
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db")})
	write(t, l, batch(1, noon, 10))
	between := noon.Add(time.Microsecond)
	wantTotal(t, l, fleet.QueryFilter{From: between}, 0)
	wantTotal(t, l, fleet.QueryFilter{To: between}, 10)
}

func TestEventsOfTheFutureAreInvalid(t *testing.T) {
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db"), Now: func() time.Time { return noon }})
	write(t, l, batch(1, noon.Add(13*time.Hour), 1))
	if err := l.Write(t.Context(), batch(2, noon.Add(2*day), 1)); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("got %v, want %v", err, fleet.ErrInvalid)
	}
}

func TestADotInsideOfALabelDividesNothing(t *testing.T) {
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db")})
	names := []string{`a\.example.com.`, `a/example.com.`, `a-example.com.`, `a\\.example.com.`, `a.example.com.`}
	b := batch(1, noon, len(names))
	for i := range b.Events {
		b.Events[i].QName = names[i]
	}
	write(t, l, b)
	wantTotal(t, l, fleet.QueryFilter{Domain: "example.com"}, 2)
	wantTotal(t, l, fleet.QueryFilter{Domain: "com"}, 5)
}

func TestBatchesInAnyOrderAreEachStoredOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	l := open(t, sqlite.Options{Path: path})
	for _, seq := range []uint64{5, 3, 4, 9, 1, 2, 3, 5, 1, 8, 6, 7, 9, 4} {
		write(t, l, batch(seq, noon, 10))
	}
	wantTotal(t, l, fleet.QueryFilter{}, 90)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var first, last int
	if err := db.QueryRowContext(t.Context(), "SELECT first, last FROM batches").Scan(&first, &last); err != nil || first != 1 || last != 9 {
		t.Errorf("runs: got %d to %d, %v, want one from 1 to 9", first, last, err)
	}
}

func TestManyEventsOfOneMillisecondAreAllStored(t *testing.T) {
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db")})
	const batches, n = 3, 3000
	for seq := range uint64(batches) {
		b := batch(seq+1, noon, n)
		for i := range b.Events {
			b.Events[i].QName = "one.example."
		}
		write(t, l, b)
	}
	wantTotal(t, l, fleet.QueryFilter{Domain: "example"}, batches*n)
}

func TestWritersThatNumberAlikeLoseNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	const writers, n = 4, 250
	var last *sqlite.Log
	for i := range writers { // all of one millisecond
		last = open(t, sqlite.Options{Path: path})
		if err := last.NumberFrom(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		write(t, last, batch(uint64(i+1), noon, n))
	}
	wantTotal(t, last, fleet.QueryFilter{Domain: "example"}, writers*n)
	top, err := last.TopDomains(t.Context(), fleet.QueryFilter{}, 5000, false)
	if err != nil || len(top.Items) != writers*n || top.Items[0].Count != 1 {
		t.Errorf("TopDomains: got %d, %v, want %d of one query each", len(top.Items), err, writers*n)
	}
}

func TestAClosedLogIsUnavailable(t *testing.T) {
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db")})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(t.Context(), batch(1, noon, 1)); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Write: got %v, want %v", err, fleet.ErrUnavailable)
	}
	if _, err := l.Summary(t.Context(), fleet.QueryFilter{}, false); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("Summary: got %v, want %v", err, fleet.ErrUnavailable)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db"), Retention: day})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Run goes on")
	}
}

// FuzzRollup: what reads without an error is read again the same after it was written.
func FuzzRollup(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("\x01a\x05\x01\x07\x00"), []byte{1, 2, 3})
	f.Add([]byte("\x01a\x05\x01\x07\x02\x05\x04"), []byte{0x80, 1})
	f.Fuzz(func(t *testing.T, upstreams, outcomes []byte) {
		u, o, err := sqlite.RecodeRollup(upstreams, outcomes)
		if err != nil {
			return
		}
		u2, o2, err := sqlite.RecodeRollup(u, o)
		if err != nil || !bytes.Equal(u, u2) || !bytes.Equal(o, o2) {
			t.Errorf("got %x and %x, %v, want %x and %x", u2, o2, err, u, o)
		}
	})
}
