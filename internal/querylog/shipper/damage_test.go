package shipper_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/shipper"
	"dnsfleet/internal/querylog/spool"
)

// While the sink is away a disk spoils places in the middle of the spool. Batches that were not hit arrive, each once and
// in order, and what was hit is counted.
func TestWhatDamageInTheSpoolDoesNotHitArrivesOnce(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const batches, places = 150, 6
				options := spool.Options{Dir: filepath.Join(t.TempDir(), "spool"), SegmentBytes: 4 << 10}
				out := newSink(always(down))
				sp := open(t, options)
				sh := shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
				sent := map[uint64]fleet.QueryEvent{}
				for seq := 1; seq <= batches; seq++ {
					b := one(seq)
					sent[b.Seq] = b.Events[0]
					if err := sh.Write(t.Context(), b); err != nil {
						t.Fatal(err)
					}
				}
				sp.Close()
				rng := rand.New(rand.NewPCG(seed, 1))
				for range places {
					spoil(t, rng, segments(t, options.Dir))
				}

				sp = open(t, options)
				sh = shipper.New(shipper.Options{Sink: out, Codec: codec(t), Spool: sp})
				out.set(nil)
				stop := run(sh.Run)
				for !sp.Empty() {
					time.Sleep(time.Second)
				}
				stop()
				st := sh.Stats()
				arrived := int(st.Delivered)
				out.once(t, arrived)
				out.inOrder(t)
				for _, b := range out.order {
					if b.Events[0] != sent[b.Seq] {
						t.Errorf("batch %d: got %+v, want %+v", b.Seq, b.Events[0], sent[b.Seq])
					}
				}
				if lost := batches - arrived; lost < 1 || lost > 2*places || st.Spool.Damaged == 0 || st.Spool.Dropped > uint64(lost) {
					t.Errorf("got %d batches lost, %+v, want at most two for each of %d places, and counts of them", lost, st.Spool, places)
				}
				t.Logf("%d of %d batches arrived once after damage in %d places, %d lost: %d places and %d events counted", arrived, batches, places, batches-arrived, st.Spool.Damaged, st.Spool.Dropped)
			})
		})
	}
}

// spoil writes a few random bytes somewhere into a file, not into its last record, which a crash may have cut short.
func spoil(t *testing.T, rng *rand.Rand, files []string) {
	t.Helper()
	path := files[rng.IntN(len(files)-1)]
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := rng.IntN(len(content) - 40)
	for i := range 1 + rng.IntN(40) {
		content[at+i] = byte(rng.Uint32())
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
