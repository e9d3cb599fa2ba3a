package sqlite_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/sqlite"
)

// writerVariable makes this binary a process that writes to a log.
const writerVariable = "QUERYLOG_TEST_WRITER"

func TestMain(m *testing.M) {
	if job := os.Getenv(writerVariable); job != "" {
		if err := writeAll(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// job is what a process writes: batches of each boot, in turns.
type job struct {
	Path            string
	Boots           []string
	Batches, Events int
}

// named is a batch whose events all have one name, which no other batch has.
func named(boot string, seq uint64, n int) querylog.Batch {
	b := batch(seq, noon.Add(time.Duration(seq)*time.Minute), n)
	b.BootID = boot
	for i := range b.Events {
		b.Events[i].QName = name(boot, seq) + "."
	}
	return b
}

func name(boot string, seq uint64) string { return fmt.Sprintf("b%d.%s.example", seq, boot) }

// writeAll says on standard output when it begins to write a batch and when it has been told that it is stored.
func writeAll(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	l, err := sqlite.Open(context.Background(), sqlite.Options{Path: j.Path})
	if err != nil {
		return err
	}
	for seq := range uint64(j.Batches) {
		for _, boot := range j.Boots {
			b := named(boot, seq+1, j.Events)
			fmt.Println("write", b.Seq)
			err := l.Write(context.Background(), b)
			for errors.Is(err, fleet.ErrUnavailable) { // the other process had the file for too long
				fmt.Println("again", b.Seq)
				err = l.Write(context.Background(), b)
			}
			if err != nil {
				return err
			}
			fmt.Println("stored", b.Seq)
		}
	}
	return l.Close()
}

// writer is a process that writes; lines are what it says.
type writer struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startWriter(t *testing.T, j job) *writer {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{cmd: exec.CommandContext(t.Context(), self)}
	w.cmd.Env = append(os.Environ(), writerVariable+"="+string(text))
	w.cmd.Stderr = os.Stderr
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.lines = bufio.NewScanner(out)
	return w
}

// counts is how many events of each name are in the log, and holds the sums to the same number.
func counts(t *testing.T, l *sqlite.Log) (of map[string]uint64, total uint64) {
	t.Helper()
	top, err := l.TopDomains(t.Context(), fleet.QueryFilter{}, 1_000_000, false)
	if err != nil {
		t.Fatalf("TopDomains: %v", err)
	}
	of = map[string]uint64{}
	for _, item := range top.Items {
		of[item.Name] = item.Count
		total += item.Count
	}
	wantTotal(t, l, fleet.QueryFilter{}, total)
	wantTotal(t, l, fleet.QueryFilter{Domain: "example"}, total)
	return of, total
}

// A process is killed while it writes, time after time, beside one that has the same log open all the while.
func TestAProcessThatIsKilledLosesAndDoublesNothing(t *testing.T) {
	const kills, events, most = 3, 400, 20
	path := filepath.Join(t.TempDir(), "log.db")
	beside := open(t, sqlite.Options{Path: path})
	stored, unanswered, torn, lost, wrong := 0, 0, 0, 0, 0
	for i := range kills {
		boot := fmt.Sprint("boot", i)
		w := startWriter(t, job{Path: path, Boots: []string{boot}, Batches: most, Events: events})
		answered := uint64(0)
		killAt := fmt.Sprint("write ", 3+2*i) // it has begun; the kill comes while SQLite is at work
		for w.lines.Scan() && w.lines.Text() != killAt {
			if _, err := fmt.Sscanf(w.lines.Text(), "stored %d", &answered); err != nil && strings.HasPrefix(w.lines.Text(), "stored") {
				t.Fatal(err)
			}
		}
		if err := w.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for w.lines.Scan() { // what it has said meanwhile
			fmt.Sscanf(w.lines.Text(), "stored %d", &answered) //nolint:errcheck // other lines are of no interest
		}
		w.cmd.Wait() //nolint:errcheck // it was killed

		write(t, beside, named("beside", uint64(i+1), events))
		reopened := open(t, sqlite.Options{Path: path})
		for _, l := range []*sqlite.Log{beside, reopened} {
			found, _ := counts(t, l)
			for seq := range uint64(most) {
				switch n := found[name(boot, seq+1)]; {
				case n == 0 && seq < answered:
					lost++
				case n != 0 && n != events:
					torn++
				case n == events && seq >= answered && l == reopened:
					unanswered++
				}
			}
		}
		// The process starts again and sends what it does not know to be stored, and for good measure all of the rest.
		for seq := range answered + 3 {
			write(t, reopened, named(boot, seq+1, events))
		}
		found, _ := counts(t, reopened)
		for seq := range uint64(most) {
			want := uint64(0)
			if seq < answered+3 {
				want = events
				stored++
			}
			if found[name(boot, seq+1)] != want {
				wrong++
			}
		}
	}
	_, total := counts(t, beside)
	if want := uint64((stored + kills) * events); lost+torn+wrong > 0 || total != want {
		t.Errorf("got %d batches lost, %d torn, %d wrong after the retry, and %d events, want 0, 0, 0 and %d", lost, torn, wrong, total, want)
	}
	t.Logf("%d kills in the middle of writing, %d batches of %d events: %d lost, %d torn, %d doubled by the retry; %d were stored though nobody was told",
		kills, stored, events, lost, torn, wrong, unanswered)
}

// Two processes write to one file: what is their own, and what both were given.
func TestTwoProcessesStoreTheirOwnAndWhatBothHaveOnce(t *testing.T) {
	const batches, events = 8, 100
	path := filepath.Join(t.TempDir(), "log.db")
	one := startWriter(t, job{Path: path, Boots: []string{"one", "both"}, Batches: batches, Events: events})
	two := startWriter(t, job{Path: path, Boots: []string{"both", "two"}, Batches: batches, Events: events})
	again := 0
	for _, w := range []*writer{one, two} {
		for w.lines.Scan() {
			if strings.HasPrefix(w.lines.Text(), "again") {
				again++
			}
		}
		if err := w.cmd.Wait(); err != nil {
			t.Fatalf("writer: %v", err)
		}
	}
	found, total := counts(t, open(t, sqlite.Options{Path: path}))
	for _, boot := range []string{"one", "two", "both"} {
		for seq := range uint64(batches) {
			if n := found[name(boot, seq+1)]; n != events {
				t.Errorf("batch %d of %s: got %d events, want %d", seq+1, boot, n, events)
			}
		}
	}
	if total != 3*batches*events {
		t.Errorf("got %d events, want %d", total, 3*batches*events)
	}
	t.Logf("%d writes by two processes, %d of them of the same batches: %d events, 0 lost, 0 doubled; %d writes waited too long and were tried again",
		4*batches, batches, total, again)
}
