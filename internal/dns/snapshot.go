package dns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"time"

	"dnsfleet/internal/dns/cache"
	"dnsfleet/internal/fleet"
)

// snapshotEvery is how often the cache is kept on disk; after a crash no more than this is missing.
const snapshotEvery = 10 * time.Minute

func (e *Engine) snapshotDir() string { return filepath.Join(e.opts.DataDir, "cache") }

// quickSnapshot is how large a snapshot may be that is loaded before the first query: some 20 ms.
const quickSnapshot = 2 << 20

// warm takes answers of before the start into the cache, once the policy says by which upstreams they have to be. Of a large
// cache nobody has to wait for the end.
func (e *Engine) warm(p fleet.Policy) {
	if e.opts.DataDir == "" {
		return
	}
	if cache.SnapshotSize(e.snapshotDir()) <= quickSnapshot {
		e.loadSnapshot(p)
		return
	}
	e.loading.Go(func() {
		e.loadSnapshot(p)
		if markOf(e.state.Load().doc.Policy) != markOf(p) {
			e.cache.Clear() // other upstreams may know other answers
		}
	})
}

func (e *Engine) loadSnapshot(p fleet.Policy) {
	loaded, err := e.cache.LoadFile(e.snapshotDir(), markOf(p), e.opts.Now())
	if err != nil {
		e.opts.Log.Warn("cache of before the start not used", "err", err)
		return
	}
	e.opts.Log.Debug("cache of before the start loaded", "answers", loaded)
}

// keepSnapshots writes the cache to disk now and then, and when ctx ends.
func (e *Engine) keepSnapshots(ctx context.Context) error {
	if e.opts.DataDir == "" {
		return nil
	}
	tick := time.NewTicker(snapshotEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			e.loading.Wait() // or what is not loaded yet would be lost
			e.saveSnapshot()
			return nil
		case <-tick.C:
			e.saveSnapshot()
		}
	}
}

func (e *Engine) saveSnapshot() {
	st := e.state.Load()
	if st == nil {
		return
	}
	if err := e.cache.SaveFile(e.snapshotDir(), markOf(st.doc.Policy), e.opts.Now()); err != nil {
		e.opts.Log.Warn("cache not kept on disk", "err", err)
	}
}

// markOf tells apart policies whose upstreams may know different answers.
func markOf(p fleet.Policy) string {
	text, err := json.Marshal([]any{p.Upstreams, p.Conditional})
	if err != nil {
		return "" // cannot be: they hold only texts
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
