package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	batchcodec "dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
	"dnsfleet/internal/querylog/shipper"
	"dnsfleet/internal/querylog/spool"
	"dnsfleet/internal/querylog/sqlite"
)

// limitFiles lets no file of this process grow beyond some bytes: a disk that is full, where writes stop in the middle.
func limitFiles(t *testing.T, bytes uint64) (lift func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: before.Max}); err != nil {
			t.Error(err)
		}
	}
	set(bytes)
	lift = sync.OnceFunc(func() { set(before.Cur) })
	t.Cleanup(lift)
	return lift
}

func newShipper(t *testing.T, sink querylog.Sink) (*shipper.Shipper, *spool.Spool) {
	t.Helper()
	codec, err := batchcodec.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(t.TempDir(), "spool")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sp.Close() })
	return shipper.New(shipper.Options{Sink: sink, Codec: codec, Spool: sp}), sp
}

// integrity is what SQLite finds wrong with the file: "ok" or lines.
func integrity(t *testing.T, path string) string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var found string
	if err := db.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&found); err != nil {
		t.Fatal(err)
	}
	return found
}

// The log's disk fills up, then that of the spool; then there is room again.
func TestWhatAFullDiskDoesNotTakeIsStoredOnceThereIsRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	l := open(t, sqlite.Options{Path: path})
	sh, sp := newShipper(t, l)
	const events, most = 300, 10
	write(t, l, named("before", 1, events))
	largest := int64(0)
	for _, size := range sizes(t, path) {
		largest = max(largest, size)
	}
	lift := limitFiles(t, uint64(largest+150_000))
	straight, spooled, refused := 0, 0, 0
	var errs []string
	for seq := range uint64(most) {
		err := l.Write(t.Context(), named("direct", seq+1, events))
		switch {
		case err == nil:
			straight++
		case !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), path):
			t.Fatalf("Write: got %v, want %v and the file", err, fleet.ErrUnavailable)
		default:
			errs = append(errs, err.Error())
		}
	}
	for seq := range uint64(most) {
		switch err := sh.Write(t.Context(), named("shipped", seq+1, events)); {
		case err == nil:
			spooled++
		case errors.Is(err, fleet.ErrInvalid):
			t.Fatalf("Write to the shipper: got %v, which says that it can never be stored", err)
		default:
			refused++
		}
		if seq == most/2 { // room for the spool is gone too
			lift()
			lift = limitFiles(t, uint64(sp.Stats().Bytes))
		}
	}
	found, total := counts(t, l) // what is there is there as a whole, and can be read meanwhile
	for name, n := range found {
		if n != events {
			t.Errorf("%s: got %d of %d events", name, n, events)
		}
	}
	if straight == 0 || straight == most || spooled == 0 || refused == 0 || total != uint64((1+straight)*events) {
		t.Errorf("got %d batches stored, %d in the spool, %d refused, and %d events; want some of each, and as many events", straight, spooled, refused, total)
	}
	lift()

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sh.Run(ctx) }()
	for seq := range uint64(most) { // whoever was refused tries again; the others do too
		write(t, l, named("direct", seq+1, events))
		if err := sh.Write(t.Context(), named("shipped", seq+1, events)); err != nil {
			t.Errorf("Write to the shipper with room: %v", err)
		}
	}
	wait(t, "the spool is empty", sp.Empty)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	found, total = counts(t, l)
	if want := 2*most + 1; len(found) != want || total != uint64(want*events) {
		t.Errorf("got %d batches of %d events, want %d of %d", len(found), total, want, want*events)
	}
	if got := integrity(t, path); got != "ok" {
		t.Errorf("integrity: got %s", got)
	}
	t.Logf("full disk: %d batches stored before, %d refused as retryable, %d went to the spool, %d refused with the spool full too; with room again %d of %d batches, 0 lost, 0 doubled. It says: %s",
		straight, len(errs), spooled, refused, len(found), 2*most+1, errs[0])
}

// wait waits until something holds.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("it is not so that %s", what)
		}
	}
}

// unclear is a sink in front of another whose answers often say nothing of what became of the batch.
type unclear struct {
	querylog.Sink
	mu   sync.Mutex
	rng  *rand.Rand
	told int // how often it was wrong
}

func (u *unclear) Write(ctx context.Context, b querylog.Batch) error {
	u.mu.Lock()
	dice := u.rng.IntN(6)
	u.told += min(1, dice/2)
	u.mu.Unlock()
	switch dice {
	case 2:
		return errors.New("nobody is there")
	case 3: // the answer gets lost
		return errors.Join(u.Sink.Write(ctx, b), errors.New("connection reset"))
	case 4: // the answer comes too late
		err := u.Sink.Write(ctx, b)
		<-ctx.Done()
		return errors.Join(err, ctx.Err())
	case 5: // the deadline is over while it is written
		soon, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		return errors.Join(u.Sink.Write(soon, b), errors.New("too late"))
	}
	return u.Sink.Write(ctx, b)
}

func TestRetriesAfterUnclearFailuresDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, sqlite.Options{Path: filepath.Join(t.TempDir(), "log.db")})
		sink := &unclear{Sink: l, rng: rand.New(rand.NewPCG(1, 9))}
		sh, sp := newShipper(t, sink)
		rec := recorder.New(recorder.Options{InstanceID: "box1", BootID: "boot1", Sink: sh})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { sh.Run(ctx) })  //nolint:errcheck // always nil
		running.Go(func() { rec.Run(ctx) }) //nolint:errcheck // always nil
		const events = 1000
		for i := range events {
			e := queryEvent(i)
			rec.Record(0, &e)
			if i%20 == 0 {
				time.Sleep(100 * time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		for !sp.Empty() {
			time.Sleep(time.Second)
		}
		stop()
		running.Wait()
		found, total := counts(t, l)
		if len(found) != events || total != events {
			t.Errorf("got %d names of %d events, want %d, each once", len(found), total, events)
		}
		t.Logf("%d events, %d answers lost or wrong, %d tries failed, %d events by way of the spool: 0 lost, 0 doubled",
			events, sink.told, sh.Stats().Failures, sh.Stats().Spooled)
	})
}

// queryEvent is the i-th event of a test, with a name of its own.
func queryEvent(i int) fleet.QueryEvent {
	return fleet.QueryEvent{Time: time.Now(), Protocol: "udp", QName: fmt.Sprintf("n%d.example.", i), QType: 1, QClass: 1, Outcome: fleet.Cached}
}

// One page at a time is overwritten, every third. Whatever meets the damage says so and what to do; nothing panics, and what
// does not meet it goes on.
func TestDamageInTheFileIsToldByWhatMeetsIt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sound.db")
	l, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(6) {
		b := named("boot1", seq+1, 100)
		for i := range b.Events {
			b.Events[i].QName = fmt.Sprintf("n%d.b%d.example.", i, seq)
		}
		write(t, l, b)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	rng := rand.New(rand.NewPCG(5, 5))
	unharmed, told, words := 0, 0, map[string]int{}
	pages := 0
	for at := 0; at < len(sound); at += 3 * page {
		pages++
		spoilt := append([]byte(nil), sound...)
		for i := range page {
			if at > 0 || i >= 100 { // no SQLite file at all is another test
				spoilt[at+i] = byte(rng.Uint32())
			}
		}
		file := filepath.Join(dir, fmt.Sprint("spoilt", at, ".db"))
		if err := os.WriteFile(file, spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		failures := 0
		for name, err := range useAll(t, file) {
			if err == nil {
				continue
			}
			failures++
			words[name]++
			// What keeps the schema from being read has many names.
			if name != "open" && !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "\n") {
				t.Errorf("page %d, %s: got %q, want one line, %q, and the file", at/page, name, err, fleet.ErrUnavailable)
			}
		}
		if failures == 0 {
			unharmed++
		} else {
			told++
		}
	}
	if told == 0 {
		t.Error("no damage was told of")
	}
	t.Logf("%d pages damaged one by one: told of %d times, by %v; %d were not met", pages, told, words, unharmed)
}

// useAll is what each use of a file says.
func useAll(t *testing.T, file string) map[string]error {
	t.Helper()
	l, err := sqlite.Open(t.Context(), sqlite.Options{Path: file})
	if err != nil {
		return map[string]error{"open": err}
	}
	defer l.Close()
	said := map[string]error{}
	f := fleet.QueryFilter{Domain: "example"}
	_, said["summary"] = l.Summary(t.Context(), fleet.QueryFilter{}, true)
	_, said["latency"] = l.Latency(t.Context(), f, true)
	_, said["upstreams"] = l.Upstreams(t.Context(), fleet.QueryFilter{}, true)
	_, said["domains"] = l.TopDomains(t.Context(), f, 10, true)
	_, said["clients"] = l.TopClients(t.Context(), fleet.QueryFilter{}, 10, true)
	_, said["rows"] = l.Rows(t.Context(), f, 2000, "")
	said["export"] = l.Export(t.Context(), fleet.QueryFilter{}, func(fleet.QueryRow) error { return nil })
	said["write"] = l.Write(t.Context(), named("boot1", 11, 100))
	_, said["stats"] = l.Stats(t.Context())
	said["tidy"] = l.Tidy(t.Context())
	return said
}
