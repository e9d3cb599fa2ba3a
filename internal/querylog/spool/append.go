package spool

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"
)

// maxBuffer is what is kept from one record to the next for putting it together.
const maxBuffer = 1 << 20

// Append adds a record, which holds that many events, and returns when it is synced. Older records give way when there
// are too many bytes. After an error the record is not in the spool; one whose sync failed may yet come after a restart.
func (s *Spool) Append(events int, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.append(events, payload); err != nil {
		return fmt.Errorf("append to spool %s: %w", s.o.Dir, err)
	}
	return nil
}

func (s *Spool) append(events int, payload []byte) error {
	size := int64(headerSize + len(payload))
	if size > min(s.o.MaxBytes, math.MaxInt32) || events < 0 {
		return fmt.Errorf("a record of %d bytes does not fit", size)
	}
	now := s.o.Now()
	s.expire(now)
	for s.bytes+size > s.o.MaxBytes {
		s.dropHead()
	}
	seg, fresh, err := s.writable(size)
	if err != nil {
		return err
	}
	s.buffer = appendRecord(s.buffer[:0], now, uint32(events), payload)
	defer func() {
		if cap(s.buffer) > maxBuffer {
			s.buffer = nil
		}
	}()
	if err := s.write(seg, fresh); err != nil {
		return errors.Join(err, s.undo(seg, fresh))
	}
	if fresh {
		s.segments = append(s.segments, seg)
	}
	if seg.records == 0 {
		seg.next, seg.oldest = seg.size, now
	}
	seg.size += size
	seg.records++
	seg.events += uint64(events)
	s.bytes += size
	s.records.Add(1)
	s.events += uint64(events)
	return nil
}

// writable is the segment for a record of that size, and whether it is a new one, which is not in segments yet.
func (s *Spool) writable(size int64) (seg *segment, fresh bool, err error) {
	if s.tail != nil {
		seg = s.segments[len(s.segments)-1]
		if seg.size+size <= s.o.SegmentBytes {
			return seg, false, nil
		}
		if err := s.closeTail(); err != nil {
			return nil, false, err
		}
	}
	s.lastID++
	f, err := os.OpenFile(s.path(s.lastID), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, false, err
	}
	s.tail = f
	return &segment{id: s.lastID}, true, nil
}

func (s *Spool) write(seg *segment, fresh bool) error {
	if _, err := s.tail.WriteAt(s.buffer, seg.size); err != nil {
		return err
	}
	if err := s.tail.Sync(); err != nil {
		return err
	}
	if fresh {
		return s.syncDir()
	}
	return nil
}

// undo takes back what a failed write may have left. Where that fails too, the segment gets no more records.
func (s *Spool) undo(seg *segment, fresh bool) error {
	if fresh {
		return errors.Join(s.closeTail(), os.Remove(s.path(seg.id)))
	}
	if err := s.tail.Truncate(seg.size); err != nil {
		return errors.Join(err, s.closeTail())
	}
	return nil
}

// expire drops records that are too old, one by one, as all are in order of time.
func (s *Spool) expire(now time.Time) {
	for len(s.segments) > 0 && now.Sub(s.segments[0].oldest) > s.o.MaxAge {
		if _, _, err := s.peek(); err != nil {
			return
		}
		if len(s.segments) == 0 || now.Sub(s.segments[0].oldest) <= s.o.MaxAge {
			return
		}
		s.giveUp()
	}
}
