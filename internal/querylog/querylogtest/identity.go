package querylogtest

import (
	"sync"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

// testIdentity sends batches more than once, in each way in which that happens.
func testIdentity(t *testing.T, newLog func(t *testing.T) Opener) {
	const batchCount, total = 10, 10 * 40
	newBatches := func() []querylog.Batch {
		list := make([]querylog.Batch, batchCount)
		for i := range list {
			list[i] = smallBatch("box1", "boot1", uint64(i+1), 40)
		}
		return list
	}
	writeAll := func(t *testing.T, sink querylog.Sink, list []querylog.Batch) {
		t.Helper()
		for _, b := range list {
			if err := sink.Write(limited(t), b); err != nil {
				t.Fatalf("Write %d: %v", b.Seq, err)
			}
		}
	}
	t.Run("the same batch twice counts once", func(t *testing.T) {
		sink, reader := newLog(t)(t)
		for range 2 {
			writeAll(t, sink, newBatches())
		}
		wantTotal(t, reader, total)
	})
	t.Run("batches of other boots, numbers and instances count for themselves", func(t *testing.T) {
		sink, reader := newLog(t)(t)
		writeAll(t, sink, []querylog.Batch{
			smallBatch("box1", "boot1", 1, 40), smallBatch("box1", "boot1", 2, 40), smallBatch("box1", "boot2", 1, 40),
			smallBatch("box2", "boot1", 1, 40), smallBatch("box1b", "oot1", 1, 40),
		})
		wantTotal(t, reader, 5*40)
	})
	t.Run("the same batch at the same time counts once", func(t *testing.T) {
		open := newLog(t)
		one, reader := open(t)
		two, _ := open(t)
		var wg sync.WaitGroup
		for _, sink := range []querylog.Sink{one, two, one, two} {
			wg.Go(func() {
				for _, b := range newBatches() {
					if err := sink.Write(limited(t), b); err != nil {
						t.Errorf("Write %d: %v", b.Seq, err)
					}
				}
			})
		}
		wg.Wait()
		wantTotal(t, reader, total)
	})
	t.Run("the same batch after opening again counts once", func(t *testing.T) {
		open := newLog(t)
		t.Run("first", func(t *testing.T) {
			sink, _ := open(t)
			writeAll(t, sink, newBatches())
		})
		sink, reader := open(t)
		writeAll(t, sink, newBatches())
		wantTotal(t, reader, total)
	})
	t.Run("two writers count what both wrote", func(t *testing.T) {
		open := newLog(t)
		one, reader := open(t)
		two, other := open(t)
		const each = 60
		var wg sync.WaitGroup
		for name, sink := range map[string]querylog.Sink{"box1": one, "box2": two} {
			wg.Go(func() {
				for seq := range uint64(each) {
					if err := sink.Write(limited(t), smallBatch(name, "boot1", seq+1, 25)); err != nil {
						t.Errorf("Write: %v", err)
					}
				}
			})
		}
		wg.Wait()
		wantTotal(t, reader, 2*each*25)
		wantTotal(t, other, 2*each*25)
	})
}

// smallBatch is n events of yesterday, all of one millisecond.
func smallBatch(instance, boot string, seq uint64, n int) querylog.Batch {
	b := querylog.Batch{InstanceID: instance, BootID: boot, Seq: seq}
	for range n {
		b.Events = append(b.Events, fleet.QueryEvent{
			Time: time.Now().UTC().Truncate(day).Add(-time.Hour), Protocol: "udp", QName: "one.example.", QType: 1, QClass: 1,
			Outcome: fleet.Cached, Duration: time.Millisecond,
		})
	}
	return b
}

// wantTotal holds rollup and raw rows to the same number.
func wantTotal(t *testing.T, reader querylog.Reader, want uint64) {
	t.Helper()
	for name, f := range map[string]fleet.QueryFilter{"unfiltered": {}, "filtered": {Domain: "example"}} {
		got, err := reader.Summary(limited(t), f, false)
		if err != nil {
			t.Fatalf("Summary, %s: %v", name, err)
		}
		if got.Total != want {
			t.Errorf("Summary, %s: got %d, want %d", name, got.Total, want)
		}
	}
}
