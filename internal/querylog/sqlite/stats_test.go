package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"dnsfleet/internal/querylog/sqlite"
)

func TestStatsTellRowsBytesAndTheOldestEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.db")
	now := noon
	l := open(t, sqlite.Options{Path: path, Retention: day, Now: func() time.Time { return now }})
	expect := func(when string, rows uint64, oldest time.Time) {
		t.Helper()
		got, err := l.Stats(t.Context())
		if err != nil || got.Rows != rows || !got.Oldest.Equal(oldest) || got.Bytes != onDisk(t, path) {
			t.Errorf("%s: got %+v, %v, want %d rows, the oldest of %s, and %d bytes", when, got, err, rows, oldest, onDisk(t, path))
		}
	}
	expect("an empty log", 0, time.Time{})
	write(t, l, batch(1, noon.Add(-23*time.Hour), 7)) // of other minutes and hours than the next ones
	write(t, l, batch(2, noon.Add(-22*time.Hour-time.Second), 20))
	write(t, l, batch(3, noon, 100))
	expect("three batches", 127, noon.Add(-23*time.Hour))
	now = noon.Add(2*time.Hour - time.Second)
	if err := l.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("after the first one is too old", 120, noon.Add(-22*time.Hour-time.Second))
}

// onDisk is how many bytes a log takes, side files included.
func onDisk(t *testing.T, path string) (n int64) {
	t.Helper()
	for _, size := range sizes(t, path) {
		n += size
	}
	return n
}

// sizes are those of a log's files, by name.
func sizes(t *testing.T, path string) map[string]int64 {
	t.Helper()
	found, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int64{}
	for _, file := range found {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		n[filepath.Base(file)] = info.Size()
	}
	return n
}
