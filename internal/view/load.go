package view

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/view/render"
)

const (
	sweepOverlap = 2 * time.Second
	readTimeout  = 5 * time.Second
	allTimeout   = 30 * time.Second
	batch        = 500 // instances in one read
)

// Reload reads what h names from the store now, so that a caller who has just changed it finds the view up to date.
// A zero h reads everything.
func (v *View) Reload(ctx context.Context, h fleet.Hint) error {
	var p pending
	p.add(h)
	w := p.take()
	left := v.catchUp(ctx, w)
	v.pending.put(left)
	v.Refresh()
	if left.any() {
		return fmt.Errorf("reload view: %w", fleet.ErrUnavailable)
	}
	return nil
}

// catchUp reads what w names and returns what is left to be read because the store failed.
func (v *View) catchUp(ctx context.Context, w work) (left work) {
	select {
	case v.loading <- struct{}{}:
		defer func() { <-v.loading }()
	case <-ctx.Done():
		return w
	}
	if err := v.readInstances(ctx, w); err != nil {
		if ctx.Err() != nil {
			return w
		}
		v.fault(partStore, err)
		return work{all: true, tokens: w.tokens, policy: w.policy}
	}
	if v.isLoaded() {
		v.fault(partStore, nil)
	}
	if w.tokens {
		err := v.readTokens(ctx)
		v.fault(partTokens, err)
		left.tokens = err != nil
	}
	if w.policy {
		err := v.readPolicy(ctx)
		v.fault(partPolicy, err)
		left.policy = err != nil
	}
	return left
}

func (v *View) isLoaded() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.loaded
}

func (v *View) readInstances(ctx context.Context, w work) error {
	ids := w.ids
	if w.sweep || w.all {
		swept, err := v.sweep(ctx)
		if err != nil {
			return err
		}
		for id := range ids {
			swept[id] = true
		}
		ids = swept
	}
	if w.all {
		return v.readAll(ctx)
	}
	return v.readSome(ctx, ids)
}

// sweep sets the clock and finds the instances whose last report is not the one in memory. It looks back over the sweep
// before, so that a report is found although the store's clock was set back between the two.
func (v *View) sweep(ctx context.Context) (ids map[string]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	v.mu.Lock()
	last := v.swept
	v.mu.Unlock()
	since := time.Unix(0, 0)
	if !last.IsZero() {
		since = last.Add(-sweepOverlap)
	}
	began := time.Now()
	seen, now, err := v.store.Seen(ctx, since)
	if err != nil {
		return nil, err
	}
	at := began.Add(time.Since(began) / 2)

	v.mu.Lock()
	defer v.mu.Unlock()
	v.anchor = anchor{store: now.UTC(), at: at}
	v.swept = now
	ids = map[string]bool{}
	for id, when := range seen {
		if e := v.entries[id]; e == nil || !e.Instance.LastSeen.Equal(when) {
			ids[id] = true
		}
	}
	return ids, nil
}

func (v *View) readAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, allTimeout)
	defer cancel()
	all, err := v.store.Instances(ctx)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.entries
	v.entries = make(map[string]*render.Entry, len(all))
	changed := !v.loaded || len(all) != len(before)
	for _, in := range all {
		if old := before[in.ID]; old != nil && same(old.Instance, in) {
			v.entries[in.ID] = old
			continue
		}
		v.entries[in.ID] = &render.Entry{Instance: in}
		changed = true
	}
	v.loaded = true
	if changed {
		v.touch()
	}
	return nil
}

func (v *View) readSome(ctx context.Context, ids map[string]bool) error {
	ctx, cancel := context.WithTimeout(ctx, allTimeout)
	defer cancel()
	some := make([]string, 0, min(batch, len(ids)))
	flush := func() error {
		found, err := v.store.Instances(ctx, some...)
		if err != nil {
			return err
		}
		v.merge(some, found)
		some = some[:0]
		return nil
	}
	for id := range ids {
		if some = append(some, id); len(some) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(some) == 0 { // no ids would mean all
		return nil
	}
	return flush()
}

// merge takes what the store found when asked for ids.
func (v *View) merge(ids []string, found []fleet.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	gone := make(map[string]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	changed := false
	for _, in := range found {
		delete(gone, in.ID)
		if old := v.entries[in.ID]; old == nil || !same(old.Instance, in) {
			v.entries[in.ID] = &render.Entry{Instance: in}
			changed = true
		}
	}
	for id := range gone {
		if v.entries[id] != nil {
			delete(v.entries, id)
			changed = true
		}
	}
	if changed {
		v.touch()
	}
}

// same reports whether both would make the same row. Every report moves LastSeen, and slices of a boot that has ended
// come late and move only Minutes.
func same(a, b fleet.Instance) bool {
	if len(a.Minutes) != len(b.Minutes) || (a.Report == nil) != (b.Report == nil) {
		return false
	}
	for i := range a.Minutes {
		if !a.Minutes[i].Start.Equal(b.Minutes[i].Start) || a.Minutes[i].BootID != b.Minutes[i].BootID {
			return false
		}
	}
	return a.LastSeen.Equal(b.LastSeen) && a.ExpiresAt.Equal(b.ExpiresAt) && a.BootID == b.BootID && a.Seq == b.Seq &&
		a.Current == b.Current && a.Ended == b.Ended && a.Name == b.Name && a.Role == b.Role && a.DNS == b.DNS && a.TokenID == b.TokenID
}

func (v *View) readTokens(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	tokens, err := v.store.Tokens(ctx)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !reflect.DeepEqual(tokens, v.tokens) {
		v.tokens = tokens
		v.touch()
	}
	return nil
}

func (v *View) readPolicy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	doc, err := v.store.Policy(ctx)
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.policy != doc.Hash || v.revision != doc.Revision {
		v.policy, v.revision = doc.Hash, doc.Revision
		v.touch()
	}
	return nil
}
