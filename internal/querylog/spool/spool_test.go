package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dnsfleet/internal/querylog/spool"
)

// headerSize is what a record takes beside its payload.
const headerSize = 32

func open(t testing.TB, o spool.Options) *spool.Spool {
	t.Helper()
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func reopen(t testing.TB, s *spool.Spool, o spool.Options) *spool.Spool {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, o)
}

// fill appends records "from" to "to"-1, which hold 10 events each and a payload of 100 bytes.
func fill(t testing.TB, s *spool.Spool, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Append(10, payload(i)); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

func payload(i int) []byte { return fmt.Appendf(nil, "%03d%s", i, strings.Repeat("x", 97)) }

// take takes up to n records out of the spool and tells which they are.
func take(t testing.TB, s *spool.Spool, n int) []int {
	t.Helper()
	got := []int{}
	for range n {
		r, err := s.Oldest()
		if errors.Is(err, spool.ErrEmpty) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i, err := strconv.Atoi(string(r.Payload[:3]))
		if err != nil || !bytes.Equal(r.Payload, payload(i)) {
			t.Fatalf("record %d: got payload %q", i, r.Payload)
		}
		got = append(got, i)
		s.Done(r)
	}
	return got
}

func numbers(from, to int) []int {
	all := []int{}
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func expect(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// Four records of 132 bytes to a segment.
func small(t testing.TB) spool.Options {
	t.Helper()
	return spool.Options{Dir: filepath.Join(t.TempDir(), "spool"), SegmentBytes: 4 * 132, MaxBytes: 1 << 20}
}

func TestRecordsComeOutInOrderAndSurviveRestarts(t *testing.T) {
	o := small(t)
	s := open(t, o)
	expect(t, "empty", s.Empty(), true)
	fill(t, s, 0, 10)
	expect(t, "empty", s.Empty(), false)
	expect(t, "first three", take(t, s, 3), numbers(0, 3))
	s = reopen(t, s, o)
	expect(t, "records", s.Stats().Records, 7)
	expect(t, "events", s.Stats().Events, 70)
	fill(t, s, 10, 13)
	expect(t, "three more", take(t, s, 3), numbers(3, 6))
	s = reopen(t, s, o)
	fill(t, s, 13, 14)
	expect(t, "the rest", take(t, s, 100), numbers(6, 14))
	expect(t, "empty", s.Empty(), true)
	expect(t, "segments left", len(segments(t, o.Dir)), 0)
	fill(t, s, 14, 16)
	expect(t, "after it was empty", take(t, s, 100), numbers(14, 16))
	expect(t, "stats", s.Stats(), spool.Stats{})
}

func TestARecordThatIsNotSettledComesAgain(t *testing.T) {
	o := small(t)
	s := open(t, o)
	fill(t, s, 0, 2)
	for range 3 {
		r, err := s.Oldest()
		if err != nil || !bytes.Equal(r.Payload, payload(0)) {
			t.Fatalf("got %q, %v, want record 0", r.Payload, err)
		}
	}
	s = reopen(t, s, o)
	r, err := s.Oldest()
	if err != nil {
		t.Fatal(err)
	}
	s.Drop(r)
	s.Drop(r) // settled before: changes nothing
	expect(t, "dropped events", s.Stats().Dropped, 10)
	expect(t, "the rest", take(t, s, 9), numbers(1, 2))
}

func TestASecondUserIsRefused(t *testing.T) {
	o := small(t)
	s := open(t, o)
	if _, err := spool.Open(o); !errors.Is(err, spool.ErrInUse) {
		t.Errorf("got %v, want %v", err, spool.ErrInUse)
	}
	reopen(t, s, o)
}

func TestAClosedSpoolTakesAndGivesNothing(t *testing.T) {
	s := open(t, small(t))
	fill(t, s, 0, 1)
	r, err := s.Oldest()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s.Done(r)
	if err := s.Append(1, payload(1)); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("append: got %v, want %v", err, spool.ErrClosed)
	}
	if _, err := s.Oldest(); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("oldest: got %v, want %v", err, spool.ErrClosed)
	}
}

func TestTheOldestGiveWayWhenThereAreTooManyBytes(t *testing.T) {
	o := small(t)
	o.MaxBytes = 4 * 4 * 132
	s := open(t, o)
	fill(t, s, 0, 18) // 16 have room
	expect(t, "dropped events", s.Stats().Dropped, 40)
	if got := s.Stats().Bytes; got > o.MaxBytes {
		t.Errorf("got %d bytes, want at most %d", got, o.MaxBytes)
	}
	if err := s.Append(1, make([]byte, o.MaxBytes)); err == nil {
		t.Error("a record larger than the spool: got no error")
	}
	expect(t, "the rest", take(t, s, 100), numbers(4, 18))

	fill(t, s, 0, 16)
	o.MaxBytes /= 2
	s = reopen(t, s, o)
	expect(t, "dropped events when there is less room", s.Stats().Dropped, 80)
	expect(t, "the rest", take(t, s, 100), numbers(8, 16))
}

func TestARecordUnderWayIsCountedOnceWhenItsSegmentGivesWay(t *testing.T) {
	for name, settle := range map[string]struct {
		how  func(*spool.Spool, spool.Record)
		want int
	}{
		"and it was delivered":     {(*spool.Spool).Done, 30},
		"and it can never be":      {(*spool.Spool).Drop, 40},
		"and it was not delivered": {func(s *spool.Spool, _ spool.Record) { _, _ = s.Oldest() }, 40},
	} {
		t.Run(name, func(t *testing.T) {
			o := small(t)
			o.MaxBytes = 4 * 4 * 132
			s := open(t, o)
			fill(t, s, 0, 16)
			r, err := s.Oldest()
			if err != nil {
				t.Fatal(err)
			}
			fill(t, s, 16, 17)
			settle.how(s, r)
			expect(t, "dropped events", s.Stats().Dropped, settle.want)
			expect(t, "the rest", take(t, s, 100), numbers(4, 17))
		})
	}
}

func TestRecordsThatAreTooOldAreDropped(t *testing.T) {
	o := small(t)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	o.Now = func() time.Time { return now }
	o.MaxAge = time.Hour
	s := open(t, o)
	for i := range 10 {
		fill(t, s, i, i+1)
		now = now.Add(10 * time.Minute)
	}
	// Appending drops too: a spool that nobody reads does not grow old.
	expect(t, "dropped events", s.Stats().Dropped, 30)
	expect(t, "age of the oldest", s.Stats().Oldest, 70*time.Minute)
	s = reopen(t, s, o)
	expect(t, "the rest", take(t, s, 100), numbers(4, 10))
	expect(t, "dropped events", s.Stats().Dropped, 10)

	now = now.Add(-24 * time.Hour) // somebody sets the clock back
	fill(t, s, 20, 22)
	expect(t, "after the clock was set back", take(t, s, 100), numbers(20, 22))
}

func TestAWriteThatWasCutShortIsTolerated(t *testing.T) {
	for cut := 1; cut < 132; cut += 13 {
		o := small(t)
		s := open(t, o)
		fill(t, s, 0, 3)
		s.Close()
		last := segments(t, o.Dir)[0]
		if err := os.Truncate(last, int64(3*132-cut)); err != nil {
			t.Fatal(err)
		}
		s = open(t, o)
		fill(t, s, 3, 4)
		expect(t, fmt.Sprintf("records with the last cut by %d bytes", cut), take(t, s, 9), []int{0, 1, 3})
		expect(t, "damaged places", s.Stats().Damaged, 0)
	}
}

func TestAWriteWhoseBytesDidNotFollowIsTolerated(t *testing.T) {
	o := small(t)
	s := open(t, o)
	fill(t, s, 0, 3)
	s.Close()
	last := segments(t, o.Dir)[0]
	for _, size := range []int64{2*132 + headerSize + 10, 4096} { // a power cut leaves zeros for what was not written
		if err := os.Truncate(last, size); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, o)
	fill(t, s, 3, 4)
	expect(t, "records", take(t, s, 9), []int{0, 1, 3})
	expect(t, "damaged places and dropped events", s.Stats().Damaged+s.Stats().Dropped, 0)
}

func TestDamageCostsOnlyWhatItHits(t *testing.T) {
	damage := func(at int) func(*testing.T, []string) {
		return func(t *testing.T, segments []string) {
			t.Helper()
			b, err := os.ReadFile(segments[1])
			if err != nil {
				t.Fatal(err)
			}
			b[at] ^= 0xff
			if err := os.WriteFile(segments[1], b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		harm    func(*testing.T, []string)
		lost    []int
		dropped int // events whose number is known
	}{
		"of a magic":               {damage(132), []int{5}, 0},
		"of a length":              {damage(132 + 9), []int{5}, 0},
		"of a header's sum":        {damage(132 + 28), []int{5}, 0},
		"of a payload":             {damage(132 + headerSize + 50), []int{5}, 10},
		"of a segment's beginning": {damage(0), []int{4}, 0},
		"of a segment's last byte": {damage(4*132 - 1), []int{7}, 10},
		"of a segment's last head": {damage(3*132 + 2), []int{7}, 0},
		"of a segment cut short": {func(t *testing.T, segments []string) {
			if err := os.Truncate(segments[1], 2*132+20); err != nil {
				t.Fatal(err)
			}
		}, []int{6, 7}, 0},
		"of a segment overwritten": {func(t *testing.T, segments []string) {
			if err := os.WriteFile(segments[1], bytes.Repeat([]byte("DQS1"), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []int{4, 5, 6, 7}, 0},
	} {
		for when, run := range map[string]func(t *testing.T, s *spool.Spool, o spool.Options) *spool.Spool{
			"before a start": func(t *testing.T, s *spool.Spool, o spool.Options) *spool.Spool {
				s.Close()
				test.harm(t, segments(t, o.Dir))
				return open(t, o)
			},
			"while it is open": func(t *testing.T, s *spool.Spool, o spool.Options) *spool.Spool {
				test.harm(t, segments(t, o.Dir))
				return s
			},
		} {
			t.Run(name+" "+when, func(t *testing.T) {
				o := small(t)
				s := open(t, o)
				fill(t, s, 0, 12)
				s = run(t, s, o)
				want := slices.DeleteFunc(numbers(0, 12), func(i int) bool { return slices.Contains(test.lost, i) })
				expect(t, "records", take(t, s, 100), want)
				expect(t, "damaged places", s.Stats().Damaged, 1)
				if when == "before a start" { // otherwise the spool remembers how many it had
					expect(t, "dropped events", s.Stats().Dropped, test.dropped)
				} else {
					expect(t, "dropped events", s.Stats().Dropped, 10*len(test.lost))
				}
				expect(t, "what is left", s.Stats().Records+s.Stats().Events+uint64(s.Stats().Bytes), 0)
				fill(t, s, 12, 14)
				expect(t, "records after it", take(t, s, 100), numbers(12, 14))
			})
		}
	}
}

func TestASoundRecordIsFoundBehindAnyAmountOfDamage(t *testing.T) {
	for _, noise := range []int{1, 31, 64<<10 - 35, 64<<10 - 3, 64<<10 - 2, 64<<10 - 1, 64 << 10, 200_001} {
		o := small(t)
		s := open(t, o)
		fill(t, s, 0, 5)
		s.Close()
		first := segments(t, o.Dir)[0]
		content, err := os.ReadFile(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(first, append(bytes.Repeat([]byte("D"), noise), content...), 0o600); err != nil {
			t.Fatal(err)
		}
		s = open(t, o)
		expect(t, fmt.Sprintf("records behind %d bytes", noise), take(t, s, 9), numbers(0, 5))
		expect(t, "damaged places", s.Stats().Damaged, 1)
	}
}

func TestASegmentThatIsGoneIsCounted(t *testing.T) {
	o := small(t)
	s := open(t, o)
	fill(t, s, 0, 12)
	if err := os.Remove(segments(t, o.Dir)[1]); err != nil {
		t.Fatal(err)
	}
	expect(t, "records", take(t, s, 100), append(numbers(0, 4), numbers(8, 12)...))
	expect(t, "dropped events", s.Stats().Dropped, 40)
}

// A limit on the size of files stands for a full disk: a write stops in the middle of a record.
func TestAFullDiskIsAnErrorAndHarmsNothing(t *testing.T) {
	o := small(t)
	o.SegmentBytes = 1 << 16
	s := open(t, o)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(bytes uint64) {
		t.Helper()
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
	}
	defer limit(before.Cur)
	limit(3*132 + 50)
	fill(t, s, 0, 3)
	for range 5 {
		if err := s.Append(10, payload(99)); !errors.Is(err, unix.EFBIG) {
			t.Fatalf("got %v, want %v", err, unix.EFBIG)
		}
	}
	expect(t, "records while it is full", take(t, s, 1), numbers(0, 1))
	limit(before.Cur)
	fill(t, s, 3, 5)
	s = reopen(t, s, o)
	expect(t, "records", take(t, s, 100), numbers(1, 5))
	expect(t, "damaged places", s.Stats().Damaged, 0)

	limit(0)
	if err := s.Append(10, payload(99)); err == nil {
		t.Error("a first record on a full disk: got no error")
	}
	limit(before.Cur)
	expect(t, "files of a record that had no room", len(segments(t, o.Dir)), 0)
	fill(t, s, 5, 6)
	expect(t, "records", take(t, s, 100), numbers(5, 6))
}

func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	s, err := spool.Open(spool.Options{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	fill(f, s, 0, 3)
	s.Close()
	good, err := os.ReadFile(segments(f, dir)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:300])
	f.Add(append(append([]byte("noise"), good...), good[132:]...))
	f.Add(bytes.Repeat([]byte("DQS1"), 20_000))
	// Whatever stands in a segment, the spool opens, comes to its end, and the sound segment behind comes out whole.
	f.Fuzz(func(t *testing.T, segment []byte) {
		dir := t.TempDir()
		if err := errors.Join(
			os.WriteFile(filepath.Join(dir, "0000000000000001.segment"), segment, 0o600),
			os.WriteFile(filepath.Join(dir, "0000000000000002.segment"), good, 0o600),
		); err != nil {
			t.Fatal(err)
		}
		s := open(t, spool.Options{Dir: dir, MaxAge: 200 * 365 * 24 * time.Hour})
		defer s.Close()
		var got []string
		for {
			r, err := s.Oldest()
			if errors.Is(err, spool.ErrEmpty) {
				break
			}
			if err != nil || len(got) > len(segment)/headerSize+3 {
				t.Fatalf("after %d records: %v", len(got), err)
			}
			got = append(got, string(r.Payload[:min(3, len(r.Payload))]))
			s.Done(r)
		}
		if n := len(got); n < 3 || !slices.Equal(got[n-3:], []string{"000", "001", "002"}) {
			t.Errorf("got %q, want the sound segment at the end", got)
		}
		if st := s.Stats(); st.Records != 0 || st.Events != 0 || st.Bytes != 0 || len(segments(t, dir)) != 0 {
			t.Errorf("got %+v and %d segments, want nothing left", st, len(segments(t, dir)))
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, spool.Options{Dir: b.TempDir()})
	record := make([]byte, 100<<10) // a batch of 10,000 events
	b.SetBytes(int64(len(record)))
	for b.Loop() {
		if err := s.Append(10_000, record); err != nil {
			b.Fatal(err)
		}
	}
}
