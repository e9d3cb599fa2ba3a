package history_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/stats/history"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// slice is one of so many queries, as many minutes after noon as at says.
func slice(boot string, size fleet.Size, at int, queries uint64) fleet.Slice {
	s := fleet.Slice{
		Size: size, Start: noon.Add(time.Duration(at) * time.Minute), BootID: boot,
		Latency: fleet.NewLatency(time.Millisecond), Upstreams: []fleet.UpstreamSlice{},
	}
	s.Outcomes[fleet.Upstream] = queries
	return s
}

func minute(boot string, at int) fleet.Slice { return slice(boot, fleet.Minute, at, uint64(at)+1) }

// names are slices as a test writes them: "a 1m 12:03".
func names(list []fleet.Slice) []string {
	out := []string{}
	for _, s := range list {
		out = append(out, fmt.Sprintf("%s %s %s", s.BootID, s.Size, s.Start.Format("15:04")))
	}
	return out
}

func want(t *testing.T, what string, got []fleet.Slice, want ...string) {
	t.Helper()
	if !slices.Equal(names(got), append([]string{}, want...)) {
		t.Errorf("%s: got %q, want %q", what, names(got), want)
	}
}

// all are the slices that wait, without witnesses: for those it is too late.
func all(b *history.Book) []fleet.Slice {
	return b.Pending(noon.Add(200*24*time.Hour), "now", false, 1<<20)
}

func open(t *testing.T, dir string) *history.Book {
	t.Helper()
	b, err := history.Open(history.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func reopen(t *testing.T, b *history.Book, dir string) *history.Book {
	t.Helper()
	ok(t, b.Close())
	return open(t, dir)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(boot string, size fleet.Size, at int) fleet.SlicesUntil {
	return fleet.SlicesUntil{BootID: boot, Size: size, Until: noon.Add(time.Duration(at) * time.Minute)}
}

func TestPendingIsOldestFirstAcrossBootsAndSizes(t *testing.T) {
	b := open(t, t.TempDir())
	ok(t, b.Add(slice("b", fleet.Hour, 0, 1), minute("b", 59), slice("b", fleet.TenMinutes, 50, 1), minute("b", 60), minute("a", 3)))
	want(t, "pending", all(b), "a 1m 12:03", "b 1m 12:59", "b 10m 12:50", "b 1h 12:00", "b 1m 13:00")
	want(t, "pending without b", b.Pending(noon, "b", true, 1<<20), "a 1m 12:03")
}

func TestPendingStaysWithinBytes(t *testing.T) {
	b := open(t, "")
	for i := range 50 {
		ok(t, b.Add(minute("a", i)))
	}
	for _, limit := range []int{0, 1, 500, 1000, 5000} {
		got := b.Pending(noon, "now", false, limit)
		text, err := fleetJSON(got)
		ok(t, err)
		if len(got) > 0 && len(text) > limit {
			t.Errorf("pending within %d bytes: got %d", limit, len(text))
		}
		if limit >= 500 && len(got) == 0 {
			t.Errorf("pending within %d bytes: got nothing, want what fits", limit)
		}
	}
	if n := len(all(b)); n != 50 {
		t.Errorf("pending: got %d, want all 50", n)
	}
}

func TestOneSliceThatNeverFitsKeepsNoOtherBack(t *testing.T) {
	b := open(t, "")
	big := minute("a", 0)
	for i := range 60 {
		big.Upstreams = append(big.Upstreams, fleet.UpstreamSlice{Address: fmt.Sprintf("%02d%s", i, strings.Repeat("x", 400)), Count: 1})
	}
	ok(t, b.Add(big, minute("a", 1)))
	want(t, "pending", b.Pending(noon, "now", false, 10_000), "a 1m 12:01")
}

func TestSentSlicesStayTwoHours(t *testing.T) {
	b := open(t, "")
	ok(t, b.Add(minute("a", 0), slice("a", fleet.Hour, 0, 1)))
	ok(t, b.Sent(noon, "a", all(b), []fleet.SlicesUntil{until("a", fleet.Minute, 1), until("a", fleet.Hour, 60)}))
	want(t, "pending after sent", all(b))
	b.Expire(noon.Add(2*time.Hour-time.Second), "a", true)
	if n := b.Stats().Kept; n != 2 {
		t.Errorf("kept after almost two hours: got %d, want 2", n)
	}
	b.Expire(noon.Add(2*time.Hour), "a", true)
	if s := b.Stats(); s.Kept != 0 || s.Dropped != 0 || s.Bytes != 0 {
		t.Errorf("after two hours: got %+v, want nothing kept and nothing dropped", s)
	}
}

func TestUnsentSlicesWait(t *testing.T) {
	b := open(t, "")
	ok(t, b.Add(minute("a", 0), slice("a", fleet.TenMinutes, 0, 1), slice("a", fleet.Hour, 0, 1)))
	for _, step := range []struct {
		after   time.Duration
		trusted bool
		want    []string
	}{
		{23 * time.Hour, true, []string{"a 1m 12:00", "a 10m 12:00", "a 1h 12:00"}},
		{100 * 365 * 24 * time.Hour, false, []string{"a 1m 12:00", "a 10m 12:00", "a 1h 12:00"}},
		{25 * time.Hour, true, []string{"a 1h 12:00"}},
		{90 * 24 * time.Hour, true, []string{"a 1h 12:00"}},
		{91 * 24 * time.Hour, true, nil},
	} {
		b.Expire(noon.Add(step.after), "a", step.trusted)
		want(t, fmt.Sprintf("pending after %v, trusted %v", step.after, step.trusted), all(b), step.want...)
	}
	if n := b.Stats().Dropped; n != 3 {
		t.Errorf("dropped: got %d, want 3", n)
	}
}

func TestRoomIsBounded(t *testing.T) {
	b, err := history.Open(history.Options{Dir: t.TempDir(), Limit: 20_000})
	ok(t, err)
	defer b.Close()
	for i := range 1000 {
		ok(t, b.Add(minute("a", i)))
		if i == 10 {
			ok(t, b.Sent(noon, "a", all(b), nil))
		}
		if n := b.Stats().Bytes; n > 20_000 {
			t.Fatalf("bytes: got %d, want at most 20000", n)
		}
	}
	pending := all(b)
	if last := pending[len(pending)-1]; !last.Start.Equal(minute("a", 999).Start) {
		t.Errorf("newest: got %v, want the last added", last.Start)
	}
	for i := 1; i < len(pending); i++ {
		if pending[i].Start.Sub(pending[i-1].Start) != time.Minute {
			t.Errorf("got a gap before %v, want only the oldest dropped", pending[i].Start)
		}
	}
	// The first eleven were sent: losing them is no loss.
	if got, want := b.Stats().Dropped, uint64(1000-11-len(pending)); got != want {
		t.Errorf("dropped: got %d, want %d", got, want)
	}
}

func TestWhatIsSentAgain(t *testing.T) {
	// Every case begins with minutes 0 to 3 of boot b and minute 0 of boot a stored, and tells what waits after the
	// answer to one more push.
	for name, c := range map[string]struct {
		push  []fleet.Slice
		until []fleet.SlicesUntil
		want  []string
	}{
		"until stands": {nil, []fleet.SlicesUntil{until("b", fleet.Minute, 4)}, nil},
		"until moves on": {
			[]fleet.Slice{minute("b", 4)}, []fleet.SlicesUntil{until("b", fleet.Minute, 5)}, nil,
		},
		"until went back": {
			nil,
			[]fleet.SlicesUntil{until("b", fleet.Minute, 3)},
			[]string{"a 1m 12:00", "b 1m 12:00", "b 1m 12:01", "b 1m 12:02", "b 1m 12:03"},
		},
		"until went back although a minute was pushed": {
			[]fleet.Slice{minute("b", 4)},
			[]fleet.SlicesUntil{until("b", fleet.Minute, 3)},
			[]string{"a 1m 12:00", "b 1m 12:00", "b 1m 12:01", "b 1m 12:02", "b 1m 12:03", "b 1m 12:04"},
		},
		"the store knows nothing of this boot any more": {
			nil, nil,
			[]string{"a 1m 12:00", "b 1m 12:00", "b 1m 12:01", "b 1m 12:02", "b 1m 12:03"},
		},
		"the store knows nothing of a boot that was pushed": {
			[]fleet.Slice{minute("a", 1)},
			[]fleet.SlicesUntil{until("b", fleet.Minute, 4)},
			[]string{"a 1m 12:00", "b 1m 12:00", "a 1m 12:01", "b 1m 12:01", "b 1m 12:02", "b 1m 12:03"},
		},
		"a hole that nobody can fill holds until": {
			[]fleet.Slice{minute("b", 9)}, []fleet.SlicesUntil{until("b", fleet.Minute, 4)}, nil,
		},
		"a size that the store does not keep": {
			[]fleet.Slice{slice("b", fleet.Hour, 0, 1)},
			[]fleet.SlicesUntil{until("b", fleet.Minute, 4), until("b", fleet.Hour, 60)},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := open(t, dir)
			first := []fleet.Slice{minute("a", 0), minute("b", 0), minute("b", 1), minute("b", 2), minute("b", 3)}
			ok(t, b.Add(first...))
			ok(t, b.Sent(noon, "b", first, []fleet.SlicesUntil{until("a", fleet.Minute, 1), until("b", fleet.Minute, 4)}))
			ok(t, b.Sent(noon, "b", nil, []fleet.SlicesUntil{until("b", fleet.Minute, 4)}))
			ok(t, b.Add(c.push...))
			ok(t, b.Sent(noon, "b", c.push, c.until))
			want(t, "pending", all(b), c.want...)
			want(t, "pending after a restart", all(reopen(t, b, dir)), c.want...)
		})
	}
}

func TestASizeThatIsNotKeptIsNotSentForEver(t *testing.T) {
	b := open(t, "")
	ok(t, b.Add(slice("b", fleet.Hour, 0, 1)))
	ok(t, b.Sent(noon, "b", all(b), []fleet.SlicesUntil{until("b", fleet.Hour, 60)}))
	ok(t, b.Sent(noon, "b", nil, nil)) // named no more: not kept
	want(t, "pending", all(b))
}

func TestSlicesAndStateSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	s := minute("a", 0)
	s.Seconds = 12.5
	s.Upstreams = append(s.Upstreams, fleet.UpstreamSlice{Address: "udp://192.0.2.1:53", Count: 3, Errors: 1, Latency: fleet.NewLatency(time.Second, 2*time.Second)})
	ok(t, b.Add(s, minute("a", 1), minute("a", 2)))
	ok(t, b.Sent(noon, "a", []fleet.Slice{minute("a", 1)}, []fleet.SlicesUntil{until("a", fleet.Minute, 2)}))
	before, err := fleetJSON(all(b))
	ok(t, err)
	b = reopen(t, b, dir)
	after, err := fleetJSON(all(b))
	ok(t, err)
	if !bytes.Equal(before, after) {
		t.Errorf("pending after a restart: got %s, want %s", after, before)
	}
	ok(t, b.Sent(noon, "b", []fleet.Slice{minute("a", 2)}, []fleet.SlicesUntil{until("a", fleet.Minute, 1)}))
	want(t, "pending after until went back over a restart", all(b), "a 1m 12:00", "a 1m 12:01", "a 1m 12:02")
}

func TestDamageCostsOnlyTheDamagedLine(t *testing.T) {
	whole := func(t *testing.T, dir string) []byte {
		t.Helper()
		b := open(t, dir)
		ok(t, b.Add(minute("a", 0)))
		ok(t, b.Add(minute("a", 1)))
		ok(t, b.Add(minute("a", 2)))
		ok(t, b.Close())
		text, err := os.ReadFile(filepath.Join(dir, "journal"))
		ok(t, err)
		return text
	}
	for name, c := range map[string]struct {
		damage  func(text []byte) []byte
		want    []string
		damaged int
	}{
		"nothing":               {func(b []byte) []byte { return b }, []string{"a 1m 12:00", "a 1m 12:01", "a 1m 12:02"}, 0},
		"a torn tail":           {func(b []byte) []byte { return b[:len(b)-20] }, []string{"a 1m 12:00", "a 1m 12:01"}, 0},
		"a flipped bit":         {func(b []byte) []byte { b[40] ^= 1; return b }, []string{"a 1m 12:01", "a 1m 12:02"}, 1},
		"zeros at the end":      {func(b []byte) []byte { return append(b, make([]byte, 5000)...) }, []string{"a 1m 12:00", "a 1m 12:01", "a 1m 12:02"}, 0},
		"a foreign line":        {func(b []byte) []byte { return append([]byte("hello\n"), b...) }, []string{"a 1m 12:00", "a 1m 12:01", "a 1m 12:02"}, 1},
		"a line without an end": {func(b []byte) []byte { return append(bytes.Repeat([]byte("x"), 9<<20), append([]byte("\n"), b...)...) }, []string{"a 1m 12:00", "a 1m 12:01", "a 1m 12:02"}, 1},
		"an empty file":         {func([]byte) []byte { return nil }, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			text := whole(t, dir)
			ok(t, os.WriteFile(filepath.Join(dir, "journal"), c.damage(text), 0o600))
			b := open(t, dir)
			want(t, "pending", all(b), c.want...)
			if n := b.Stats().Damaged; n != c.damaged {
				t.Errorf("damaged lines: got %d, want %d", n, c.damaged)
			}
			ok(t, b.Add(minute("a", 3)))
			want(t, "pending after a restart", all(reopen(t, b, dir)), append(c.want, "a 1m 12:03")...)
		})
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	ok(t, b.Add(minute("a", 0)))
	_, err := history.Open(history.Options{Dir: dir})
	if !errors.Is(err, history.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second open: got %v, want ErrInUse and the directory", err)
	}
	want(t, "pending", all(reopen(t, b, dir)), "a 1m 12:00")
}

func TestAFullDiskCostsNothingThatMemoryHolds(t *testing.T) {
	dir := t.TempDir()
	blockers := []string{filepath.Join(dir, "journal.new"), filepath.Join(dir, "running.new")}
	for _, path := range blockers {
		ok(t, os.MkdirAll(filepath.Join(path, "x"), 0o700)) // a directory stands where the file should be written
	}
	b := open(t, dir)
	if err := b.Add(minute("a", 0)); err == nil {
		t.Error("add: got nil, want the disk's error")
	}
	if err := b.Checkpoint(minute("a", 1)); err == nil {
		t.Error("checkpoint: got nil, want the disk's error")
	}
	want(t, "pending", all(b), "a 1m 12:00")
	for _, path := range blockers {
		ok(t, os.RemoveAll(path))
	}
	ok(t, b.Add(minute("a", 1)))
	if n := b.Stats().Failures; n < 2 {
		t.Errorf("failures: got %d, want each counted", n)
	}
	want(t, "pending after a restart", all(reopen(t, b, dir)), "a 1m 12:00", "a 1m 12:01")
}

func TestAnAppendThatFailsIsMadeUpFor(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	ok(t, err)
	b.WriteTo(full)
	if err := b.Add(minute("a", 0)); err == nil {
		t.Error("add: got nil, want the disk's error")
	}
	ok(t, b.Add(minute("a", 1)))
	want(t, "pending after a restart", all(reopen(t, b, dir)), "a 1m 12:00", "a 1m 12:01")
}

func TestTheJournalDoesNotGrowWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	for hour := range 300 {
		var hours []fleet.Slice
		for i := range 60 {
			hours = append(hours, minute("a", 60*hour+i))
		}
		end := hours[59].End()
		ok(t, b.Add(hours...))
		ok(t, b.Sent(end, "a", hours, []fleet.SlicesUntil{{BootID: "a", Size: fleet.Minute, Until: end}}))
		b.Expire(end, "a", true)
	}
	info, err := os.Stat(filepath.Join(dir, "journal"))
	ok(t, err)
	if info.Size() > 2<<20 {
		t.Errorf("journal after 18,000 slices: got %d bytes, want it written anew now and then", info.Size())
	}
	if n := b.Stats().Kept; n > 121 {
		t.Errorf("kept: got %d, want two hours of minutes", n)
	}
}

func TestAnInvalidSliceIsRefused(t *testing.T) {
	b := open(t, t.TempDir())
	s := minute("a", 0)
	s.Start = s.Start.Add(time.Second)
	if err := b.Add(s); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("add: got %v, want ErrInvalid: it would make every report be refused", err)
	}
}
