package cache

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dnsfleet/internal/dns/cache/snapshot"
)

const (
	// maxSnapshot bounds a snapshot, in bytes.
	maxSnapshot  = 64 << 20
	snapshotName = "answers.cache"
	// oldest is beyond any TTL (RFC 2181, section 8).
	oldest = (1 << 31) * time.Second
)

// Save writes the answers that may still be served, fresh or stale, to w: the most popular first, then the newest, some
// 64 MiB at most. Failures are left out. mark says whose answers they are, such as the fingerprint of the upstreams. It
// takes no lock.
func (c *Cache) Save(w io.Writer, mark string, now time.Time) error {
	buffer := bufio.NewWriterSize(w, 128<<10)
	s, err := snapshot.NewWriter(buffer, mark)
	if err != nil {
		return fmt.Errorf("save cache: %w", err)
	}
	at := since(now)
	tick := tickOf(at)
	var wire []byte
	for _, e := range c.ranked(at) {
		if s.Size()+int64(e.wire) > maxSnapshot {
			break
		}
		wire = append(wire[:0], e.message()...)
		err := s.Append(snapshot.Record{
			Stored: now.Add(time.Duration(e.stored - at)), History: e.use.history(tick),
			DO: e.flags&flagDO != 0, CD: e.flags&flagCD != 0, Wire: wire,
		})
		if err != nil {
			return fmt.Errorf("save cache: %w", err)
		}
	}
	if err := errors.Join(s.Close(), buffer.Flush()); err != nil {
		return fmt.Errorf("save cache: %w", err)
	}
	return nil
}

// ranked are the entries that are worth a place in a snapshot, in the order of their worth.
func (c *Cache) ranked(now int64) []*Entry {
	serveStale := int64(c.limits.Load().ServeStale)
	tick := tickOf(now)
	type worth struct {
		entry *Entry
		uses  int
	}
	var all []worth
	for i := range c.shards {
		c.shards[i].table.Load().each(func(e *Entry) {
			if !e.failed() && now < e.deadline(serveStale) {
				all = append(all, worth{e, bits.OnesCount64(e.use.history(tick))})
			}
		})
	}
	slices.SortFunc(all, func(a, b worth) int {
		return cmp.Or(cmp.Compare(b.uses, a.uses), cmp.Compare(b.entry.stored, a.entry.stored))
	})
	entries := make([]*Entry, len(all))
	for i, w := range all {
		entries[i] = w.entry
	}
	return entries
}

// Load takes answers from what Save has written and returns how many it took. Each is checked as one from an upstream
// is, and lives as long as it would have lived if it had stayed in the cache, by the wall clock and the limits of now. Those from the future
// or past their stale deadline are left out, and so are those that are in the cache already. Load stops when the cache is full. A snapshot with
// another mark loads nothing, which is no error. The error says that the snapshot is damaged or cut short: what comes before
// the damage is loaded.
func (c *Cache) Load(r io.Reader, mark string, now time.Time) (loaded int, err error) {
	s, err := snapshot.NewReader(r, mark)
	if errors.Is(err, snapshot.ErrMark) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("load cache: %w", err)
	}
	at := since(now)
	for c.bytes.Load() < int64(c.limits.Load().MaxBytes)*15/16 {
		record, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return loaded, fmt.Errorf("load cache: %w", err)
		}
		age := now.Round(0).Sub(record.Stored)
		q, ok := questionIn(record.Wire)
		if age < 0 || age > oldest || !ok {
			continue
		}
		q.DO, q.CD = record.DO, record.CD
		if _, ok := c.insert(q, record.Wire, at-int64(age), at, &record.History); ok {
			loaded++
		}
	}
	return loaded, nil
}

// questionIn is the question of a message; false when its name does not end.
func questionIn(msg []byte) (Question, bool) {
	end := headerSize
	for end < len(msg) && msg[end] != 0 {
		end += 1 + int(msg[end])
	}
	if end+3 > len(msg) {
		return Question{}, false
	}
	return Question{Name: msg[headerSize : end+1], Type: uint16(msg[end+1])<<8 | uint16(msg[end+2])}, true
}

// SaveFile is Save to a file in a directory, which it makes if need be. The file takes the place of the one before it
// whole or not at all, and only its owner may read it.
func (c *Cache) SaveFile(dir, mark string, now time.Time) (err error) {
	c.saving.Lock()
	defer c.saving.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("save cache to %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	path := filepath.Join(dir, snapshotName)
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = c.Save(f, mark, now)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(dir)
}

// syncDir makes a rename last. Not every file system can do that, and the file is whole either way.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}

// SnapshotSize is how many bytes the file has that SaveFile has written in the directory; 0 if there is none.
func SnapshotSize(dir string) int64 {
	info, err := os.Stat(filepath.Join(dir, snapshotName))
	if err != nil {
		return 0
	}
	return info.Size()
}

// LoadFile is Load from the file that SaveFile has written in the directory. No file loads nothing, which is no error.
func (c *Cache) LoadFile(dir, mark string, now time.Time) (loaded int, err error) {
	f, err := os.Open(filepath.Join(dir, snapshotName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("load cache: %w", err)
	}
	defer f.Close()
	return c.Load(f, mark, now)
}
