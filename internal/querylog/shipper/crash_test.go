package shipper_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/recorder"
	"dnsfleet/internal/querylog/shipper"
	"dnsfleet/internal/querylog/spool"
)

// crash leaves a directory as a process that is killed, or a power cut, may leave it: what was synced is there; a write
// under way stands at the end in part; records and segments that were done since are perhaps there again.
func crash(t *testing.T, rng *rand.Rand, dir string, before map[string][]byte) {
	t.Helper()
	for path, content := range before {
		if _, err := os.Stat(path); err != nil && rng.IntN(2) == 0 {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	paths := segments(t, dir)
	for i, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(content); at += 32 + int(binary.LittleEndian.Uint32(content[at+8:])) {
			if rng.IntN(4) == 0 {
				content[at+4] = 0 // pending again
			}
		}
		if i == len(paths)-1 && rng.IntN(2) == 0 {
			content = append(content, content[:rng.IntN(min(len(content), 100))]...)
			if rng.IntN(2) == 0 {
				content = append(content, make([]byte, rng.IntN(5000))...)
			}
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func segments(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	return paths
}

func snapshot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	synctest.Wait() // no write is under way
	files := map[string][]byte{}
	for _, path := range segments(t, dir) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = content
	}
	return files
}

// Boots that end in a crash or a clean stop, with a sink that misbehaves at random: what the recorder handed over before
// is stored in the end, each event once. Only what still waited in memory at a crash may be missing.
func TestCrashesLoseOnlyWhatWaitedInMemory(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				options := spool.Options{Dir: filepath.Join(t.TempDir(), "spool"), SegmentBytes: 1 << (9 + rng.IntN(8))}
				moods := []mood{well, well, well, down, lostAnswer, hanging, hangingAfter, slow}
				turns := rand.New(rand.NewPCG(seed, 2)) // of the sink alone: others use rng at the same time
				out := newSink(func(querylog.Batch) mood { return moods[turns.IntN(len(moods))] })
				sent, tail := 0, 0
				for boot := range 5 {
					sp := open(t, options)
					sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
					rec := recorder.New(recorder.Options{InstanceID: "kitchen", BootID: fmt.Sprint("boot", boot), Sink: sh})
					stopShipper, stopRecorder := run(sh.Run), run(rec.Run)
					before := snapshot(t, options.Dir)
					for range 10 + rng.IntN(120) {
						for range rng.IntN(30) {
							e := event(sent)
							rec.Record(0, &e)
							sent++
						}
						time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
						if rng.IntN(20) == 0 {
							before = snapshot(t, options.Dir)
						}
					}
					if rng.IntN(2) == 0 {
						stopRecorder()
						stopShipper()
						expect(t, "events in memory after a clean stop", rec.Stats().Waiting(), 0)
						sp.Close()
						continue
					}
					// The disk stops here; the sink may go on with what is on its way.
					stopShipper()
					tail += int(rec.Stats().Waiting())
					sp.Close()
					crash(t, rng, options.Dir, before)
					after := snapshot(t, options.Dir)
					options.Dir = filepath.Join(t.TempDir(), "spool")
					if err := os.MkdirAll(options.Dir, 0o700); err != nil {
						t.Fatal(err)
					}
					for path, content := range after {
						if err := os.WriteFile(filepath.Join(options.Dir, filepath.Base(path)), content, 0o600); err != nil {
							t.Fatal(err)
						}
					}
					stopRecorder()
				}
				out.set(nil)
				sp := open(t, options)
				sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
				stop := run(sh.Run)
				defer stop()
				for !sp.Empty() {
					time.Sleep(time.Second)
				}
				counts := out.counts()
				lost, doubled := sent-len(counts), 0
				for _, n := range counts {
					if n > 1 {
						doubled++
					}
				}
				if lost > tail || doubled > 0 {
					t.Errorf("got %d events lost and %d doubled of %d, want at most %d lost, which were in memory, and 0 doubled", lost, doubled, sent, tail)
				}
				st := sh.Stats()
				expect(t, "events dropped and places damaged", fmt.Sprint(st.Spool.Dropped, st.Spool.Damaged), "0 0")
				t.Logf("%d events, %d of them in memory at a crash: %d lost, %d doubled", sent, tail, lost, doubled)
			})
		})
	}
}
