// Package history keeps the slices that an instance has built, on disk, until the fleet has them: what waits to be sent,
// what was sent, and what must go again because a store forgot it.
//
// A directory holds three files. "journal" has one line for each slice and each change of state, is appended to and
// synced to the disk whenever slices are added, and is rewritten whole (new file, sync, rename) when most of it is
// outdated. "running" is the minute that is being counted, replaced every few seconds and not synced: it outlives a
// crash of the process, and a power cut may cost it. That a slice was sent is not synced either; to send it again does
// no harm. "lock" is locked while a process uses the directory.
package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"dnsfleet/internal/fleet"
)

// maxBytes is how many bytes of slices are kept by default: ten days of minutes on an instance with a few upstreams.
const maxBytes = 16 << 20

// ErrInUse says that another process uses the directory.
var ErrInUse = errors.New("in use by another process")

// Options tell where a Book is kept.
type Options struct {
	Dir   string // made if it is missing; "" = in memory only
	Limit int    // bytes of slices kept at most, in memory and on disk; 0 = 16 MiB
	Log   *slog.Logger
}

// Book is the history that waits for the fleet. Its methods may be called concurrently.
type Book struct {
	dir string
	log *slog.Logger

	mu       sync.Mutex // guards what follows
	ledger   *ledger
	lock     *os.File // nil without a directory
	journal  *os.File // nil without a directory, and while it cannot be written
	written  int      // bytes in journal
	stale    bool     // the journal misses something and must be rewritten
	running  fleet.Slice
	damaged  int
	failures uint64
}

// Open reads the history in a directory and locks it. Damaged lines are skipped, counted and logged; what could be read
// is written anew. It answers ErrInUse (wrapped) while another process has the directory.
func Open(o Options) (*Book, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Limit <= 0 {
		o.Limit = maxBytes
	}
	b := &Book{dir: o.Dir, log: o.Log, ledger: newLedger(o.Limit)}
	if b.dir == "" {
		return b, nil
	}
	if err := b.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open history in %s: %w", b.dir, err), b.Close())
	}
	return b, nil
}

// Close writes what is left to be written and frees the directory.
func (b *Book) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	if b.stale && b.lock != nil {
		errs = append(errs, b.write(nil))
	}
	for _, f := range []*os.File{b.journal, b.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	b.journal, b.lock = nil, nil
	return errors.Join(errs...)
}

// Running is the minute that was being counted when the process before this one ended, false if there is none.
func (b *Book) Running() (fleet.Slice, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running, b.running.BootID != ""
}

// Checkpoint keeps the minute that is being counted, in place of the one before.
func (b *Book) Checkpoint(minute fleet.Slice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = minute
	if b.lock == nil {
		return nil
	}
	line, err := appendLine(nil, minute)
	if err == nil {
		err = replaceFile(filepath.Join(b.dir, "running"), line, false)
	}
	return b.outcome(err)
}

// Unended are the boots whose last slices were not closed yet.
func (b *Book) Unended() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	boots := map[string]bool{}
	if b.running.BootID != "" {
		boots[b.running.BootID] = true
	}
	for k := range b.ledger.entries {
		boots[k.boot] = true
	}
	var out []string
	for boot := range boots {
		if !b.ledger.ended[boot] {
			out = append(out, boot)
		}
	}
	slices.Sort(out)
	return out
}

// Slices are the slices of one boot that are kept, by start, then size.
func (b *Book) Slices(boot string) []fleet.Slice {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []fleet.Slice
	for _, e := range b.ledger.entries {
		if e.boot == boot {
			out = append(out, e.slice())
		}
	}
	slices.SortFunc(out, func(x, y fleet.Slice) int {
		if c := x.Start.Compare(y.Start); c != 0 {
			return c
		}
		return int(x.Size - y.Size)
	})
	return out
}

// slice decodes what put encoded, or what load has decoded before.
func (e *entry) slice() fleet.Slice {
	s, err := decode(e.encoded)
	if err != nil {
		panic(err)
	}
	return s
}

// Add keeps complete slices, which then wait to be sent; they are on disk when it returns nil. After an error they
// are kept in memory, and the next write tries again.
func (b *Book) Add(added ...fleet.Slice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var records []record
	for _, s := range added {
		encoded, err := b.put(s)
		if err != nil {
			return err
		}
		records = append(records, record{Slice: encoded})
	}
	b.ledger.trim()
	return b.write(records)
}

func (b *Book) put(s fleet.Slice) ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode slice: %w", err)
	}
	b.ledger.put(keyOf(s), encoded, time.Time{})
	return encoded, nil
}

// Replace makes these the slices of a boot, all of which wait to be sent.
func (b *Book) Replace(boot string, with ...fleet.Slice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.ledger.entries {
		if k.boot == boot {
			b.ledger.remove(k)
		}
	}
	for _, s := range with {
		if _, err := b.put(s); err != nil {
			return err
		}
	}
	b.ledger.trim()
	b.stale = true
	return b.write(nil)
}

// End notes that a boot's last slices were closed.
func (b *Book) End(boot string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger.ended[boot] = true
	if err := b.write([]record{{Ended: boot}}); err != nil || b.running.BootID != boot {
		return err
	}
	b.running = fleet.Slice{}
	if b.lock == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(b.dir, "running")); !errors.Is(err, os.ErrNotExist) {
		return b.outcome(err)
	}
	return nil
}

// Pending are the slices to send at now by the boot own, oldest first across boots and sizes; with them may go some that
// were sent before, to see whether the store remembers. Slices of own are left out if it is held. The JSON of the whole
// list has at most maxBytes bytes; it is at most fleet.MaxSlices long.
func (b *Book) Pending(now time.Time, own string, held bool, maxBytes int) []fleet.Slice {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []fleet.Slice{}
	size := len("[]")
	for _, e := range b.ledger.toSend(now, own, held) {
		if len(e.encoded)+len("[]") > maxBytes {
			continue // alone it is too long for ever; it must not keep back the others
		}
		size += len(e.encoded) + len(",")
		if size > maxBytes || len(out) == fleet.MaxSlices {
			break
		}
		out = append(out, e.slice())
	}
	return out
}

// Sent notes what the store answered to a push of the boot own that carried pushed. Slices that a store forgot wait
// again.
func (b *Book) Sent(now time.Time, own string, pushed []fleet.Slice, until []fleet.SlicesUntil) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := make([]key, len(pushed))
	for i, s := range pushed {
		keys[i] = keyOf(s)
	}
	changed := b.ledger.sent(now, own, keys, until)
	if changed.forgot {
		b.log.Warn("store forgot slices, all that are left are sent again", "slices", b.ledger.waiting())
		b.stale = true
		return b.write(nil)
	}
	var records []record
	if changed.done != nil {
		refs := make([]ref, len(changed.done))
		for i, k := range changed.done {
			refs[i] = ref{k.boot, k.size, k.start}
		}
		records = append(records, record{Sent: refs, SentAt: now})
	}
	if changed.moved != nil {
		rec := record{}
		for _, s := range changed.moved {
			rec.Until = append(rec.Until, b.ledger.told(s))
		}
		records = append(records, rec)
	}
	if records == nil {
		return nil
	}
	return b.write(records)
}

// Expire removes slices that have had their time at now: those sent two hours ago, and those that have waited for
// longer than a store would keep them and than a day. Unless trusted says that now is the fleet's time, none is taken for
// old. own is the boot that runs.
func (b *Book) Expire(now time.Time, own string, trusted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger.expire(now, own, trusted)
}

// Stats is the state of a Book.
type Stats struct {
	Kept     int    // slices in all
	Pending  int    // of which wait to be sent
	Bytes    int    // that all of them take
	Dropped  uint64 // removed before they were sent, for age or room
	Damaged  int    // lines that could not be read at the start
	Failures uint64 // writes to disk that failed
}

// Stats tells how the book is.
func (b *Book) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Stats{
		Kept: len(b.ledger.entries), Pending: b.ledger.waiting(), Bytes: b.ledger.bytes,
		Dropped: b.ledger.dropped, Damaged: b.damaged, Failures: b.failures,
	}
}
