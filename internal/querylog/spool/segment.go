package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const suffix = ".segment"

// segment is a file of records, of which those before next are settled.
type segment struct {
	id      uint64
	size    int64 // of the sound part
	next    int64 // where the oldest pending record is sought
	oldest  time.Time
	records int64 // pending
	events  uint64
}

func (s *Spool) path(id uint64) string {
	return filepath.Join(s.o.Dir, fmt.Sprintf("%016x%s", id, suffix))
}

// load takes stock of the segments that are there. It reads headers only: a payload is checked when it is taken.
func (s *Spool) load() error {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return err
	}
	var ids []uint64
	for _, entry := range entries {
		name, isSegment := strings.CutSuffix(entry.Name(), suffix)
		if id, err := strconv.ParseUint(name, 16, 64); isSegment && err == nil && entry.Name() == filepath.Base(s.path(id)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for i, id := range ids {
		s.lastID = id
		if err := s.loadSegment(id, i == len(ids)-1); err != nil {
			return err
		}
	}
	for s.bytes > s.o.MaxBytes { // there may have been more room before
		s.dropHead()
	}
	if s.damaged > 0 {
		s.o.Log.Warn("spool is damaged, what cannot be read is skipped", "dir", s.o.Dir, "places", s.damaged)
	}
	return nil
}

func (s *Spool) loadSegment(id uint64, last bool) error {
	f, err := os.Open(s.path(id))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	seg := &segment{id: id, next: -1}
	for offset := int64(0); offset < info.Size(); {
		at, h, found := find(f, offset, info.Size())
		// In the last segment nothing sound at the end is a write that a crash cut short, and that nobody was told of.
		if at > offset && (found || !last) {
			s.damaged++
		}
		if !found {
			break
		}
		if last && !h.done {
			// The same goes for a last record for which the file has grown, but whose bytes did not follow.
			if _, _, more := find(f, at+h.size(), info.Size()); !more && readPayload(f, at, h) == nil {
				break
			}
		}
		if !h.done {
			if seg.next < 0 {
				seg.next, seg.oldest = at, h.at
			}
			seg.records++
			seg.events += uint64(h.events)
		}
		offset = at + h.size()
		seg.size = offset
	}
	if seg.records == 0 {
		return os.Remove(s.path(id))
	}
	if info.Size() > seg.size {
		if err := os.Truncate(s.path(id), seg.size); err != nil {
			return err
		}
	}
	s.segments = append(s.segments, seg)
	s.bytes += seg.size
	s.records.Add(seg.records)
	s.events += seg.events
	return nil
}

// removeHead removes the oldest segment, with what it holds. What is pending in it must have been counted.
func (s *Spool) removeHead() {
	seg := s.segments[0]
	s.closeHead()
	if len(s.segments) == 1 {
		if err := s.closeTail(); err != nil {
			s.o.Log.Debug("segment not closed", "err", err)
		}
	}
	if err := os.Remove(s.path(seg.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.o.Log.Warn("spool segment not removed, its records may come again after a restart", "dir", s.o.Dir, "err", err)
	}
	s.segments = slices.Delete(s.segments, 0, 1)
	s.bytes -= seg.size
	s.records.Add(-seg.records)
	s.events -= seg.events
	seg.records, seg.events = 0, 0
}

// dropHead removes the oldest segment and counts its events as dropped, but for those of a record that somebody has
// taken and may still deliver.
func (s *Spool) dropHead() {
	seg := s.segments[0]
	s.dropped += seg.events
	if s.taken != nil && s.taken.segment == seg.id {
		s.dropped -= uint64(s.taken.Events)
		s.orphan = true
	}
	s.removeHead()
}

func (s *Spool) closeHead() {
	if s.head != nil {
		s.head.Close() // what was written by it need not last
		s.head = nil
	}
}

func (s *Spool) closeTail() (err error) {
	if s.tail != nil {
		err = s.tail.Close()
		s.tail = nil
	}
	return err
}

// syncDir makes the names in the directory last.
func (s *Spool) syncDir() error {
	d, err := os.Open(s.o.Dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
