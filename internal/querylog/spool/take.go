package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Oldest is the oldest record that is sound, ErrEmpty when there is none. It stays the oldest until Done or Drop is told
// of it, or until it is over the bounds. The payload is the caller's.
func (s *Spool) Oldest() (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Record{}, ErrClosed
	}
	s.forget()
	s.expire(s.o.Now())
	for {
		seg, h, err := s.peek()
		if err != nil {
			if errors.Is(err, ErrEmpty) {
				return Record{}, err
			}
			return Record{}, fmt.Errorf("read spool %s: %w", s.o.Dir, err)
		}
		if payload := readPayload(s.head, seg.next, h); payload != nil {
			r := Record{Payload: payload, Events: int(h.events), segment: seg.id, offset: seg.next}
			s.taken = &r
			return r, nil
		}
		s.damaged++
		s.o.Log.Warn("damaged record of the spool skipped", "dir", s.o.Dir, "segment", seg.id, "events", h.events)
		s.giveUp()
	}
}

// Done says that a record is where it should be: it does not come again.
func (s *Spool) Done(r Record) { s.settle(r, false) }

// Drop says that a record can never get where it should be: it does not come again and its events count as dropped.
func (s *Spool) Drop(r Record) { s.settle(r, true) }

func (s *Spool) settle(r Record, drop bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil || s.taken.segment != r.segment || s.taken.offset != r.offset {
		return
	}
	orphan := s.orphan
	s.taken, s.orphan = nil, false
	if drop {
		s.dropped += uint64(r.Events)
	}
	if orphan || s.closed {
		return
	}
	s.advance(header{length: int64(len(r.Payload)), events: uint32(r.Events)})
}

// forget ends the claim of whoever took a record and did not settle it.
func (s *Spool) forget() {
	if s.orphan {
		s.dropped += uint64(s.taken.Events)
	}
	s.taken, s.orphan = nil, false
}

// peek opens the oldest segment and finds its oldest pending record, at its next.
func (s *Spool) peek() (*segment, header, error) {
	for len(s.segments) > 0 {
		seg := s.segments[0]
		if s.head == nil {
			f, err := os.OpenFile(s.path(seg.id), os.O_RDWR, 0)
			if errors.Is(err, fs.ErrNotExist) {
				s.damaged++
				s.dropHead()
				continue
			}
			if err != nil {
				return nil, header{}, err
			}
			s.head = f
		}
		at, h, found := find(s.head, seg.next, seg.size)
		for found && h.done {
			at, h, found = find(s.head, at+h.size(), seg.size)
		}
		if !found { // damaged since it was loaded
			s.damaged++
			s.dropHead()
			continue
		}
		seg.next, seg.oldest = at, h.at
		return seg, h, nil
	}
	return nil, header{}, ErrEmpty
}

// giveUp drops the record that peek found.
func (s *Spool) giveUp() {
	seg, h, err := s.peek()
	if err != nil {
		return
	}
	if s.taken != nil && s.taken.segment == seg.id && s.taken.offset == seg.next {
		s.orphan = true
	} else {
		s.dropped += uint64(h.events)
	}
	s.advance(h)
}

// advance settles the oldest record, whose header is h.
func (s *Spool) advance(h header) {
	seg := s.segments[0]
	if _, err := s.head.WriteAt([]byte{done}, seg.next+stateAt); err != nil {
		s.o.Log.Debug("record not marked as done", "dir", s.o.Dir, "err", err)
	}
	seg.next += h.size()
	seg.records--
	seg.events -= min(uint64(h.events), seg.events)
	s.records.Add(-1)
	s.events -= min(uint64(h.events), s.events)
	if seg.records <= 0 {
		s.removeHead()
		return
	}
	if at, h, found := find(s.head, seg.next, seg.size); found && !h.done {
		seg.next, seg.oldest = at, h.at
	}
}
