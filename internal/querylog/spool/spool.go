// Package spool keeps batches of query events on disk, in order, while the sink that they are for is away.
//
// Records lie in segments, files that are only appended to, each record with its length and checksums. Append returns
// when a record is synced, so whatever was appended survives a crash and a power cut; only that a record is done is not
// synced, so after one some records may come again, the same byte for byte. A last record that a crash cut short is
// tolerated. Damage in the middle costs the records that it hit: reading goes on with the next sound one.
//
// The spool is bounded by bytes and by age. What is over the bounds is dropped, the oldest first, and counted.
package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Errors that callers branch on.
var (
	// ErrInUse says that another process, or another Spool of this one, has the directory.
	ErrInUse = errors.New("spool is in use")
	// ErrEmpty says that there is no record.
	ErrEmpty = errors.New("spool is empty")
	// ErrClosed says that the spool was closed.
	ErrClosed = errors.New("spool is closed")
)

// Options say where a spool is and how much it may hold. What is 0 or nil gets its default.
type Options struct {
	Dir          string
	MaxBytes     int64            // of all segments; 256 MiB
	MaxAge       time.Duration    // of a record; 7 days
	SegmentBytes int64            // a segment is full at this size; a 32nd of MaxBytes, 8 MiB at most
	Now          func() time.Time // time.Now
	Log          *slog.Logger     // slog.DiscardHandler
}

// Spool is a queue of records on disk. It may be used concurrently, though records are taken by one caller: Oldest, then
// Done or Drop.
type Spool struct {
	o    Options
	lock *os.File

	records atomic.Int64 // pending

	mu       sync.Mutex // guards all below
	closed   bool
	segments []*segment // oldest first, each with at least one pending record
	head     *os.File   // of segments[0], nil until it is read
	tail     *os.File   // of the last segment while it is appended to, else nil
	lastID   uint64
	bytes    int64
	buffer   []byte

	taken   *Record // what Oldest gave out last and is not settled
	orphan  bool    // its segment is gone
	events  uint64  // pending
	dropped uint64
	damaged uint64
}

// Record is a payload that was appended before.
type Record struct {
	Payload []byte
	Events  int

	segment uint64
	offset  int64
}

// Stats tell how a spool is. Dropped and Damaged count since Open.
type Stats struct {
	Records uint64
	Events  uint64
	Bytes   int64         // of the segments
	Oldest  time.Duration // age of the oldest record, 0 when there is none
	Dropped uint64        // events that were over the bounds, unreadable, or given up by Drop
	Damaged uint64        // places where something unreadable was skipped; events in a damaged header are in no other figure
}

// Open opens the spool of a directory, which it makes if need be, with what an earlier process left there. ErrInUse says
// that another has it. The spool is to be closed.
func Open(o Options) (*Spool, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = 256 << 20
	}
	if o.MaxAge == 0 {
		o.MaxAge = 7 * 24 * time.Hour
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = min(max(o.MaxBytes/32, 64<<10), 8<<20)
	}
	o.SegmentBytes = min(o.SegmentBytes, max(o.MaxBytes/4, 1))
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Spool{o: o}
	if err := s.open(); err != nil {
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("open spool %s: %w", o.Dir, err)
	}
	return s, nil
}

func (s *Spool) open() error {
	if err := os.MkdirAll(s.o.Dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(s.o.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	s.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrInUse
		}
		return err
	}
	return s.load()
}

// Close ends the use of the directory. What is in it stays for the next Open.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.closeHead()
	return errors.Join(s.closeTail(), s.lock.Close())
}

// Empty reports whether there is no record. It does not wait.
func (s *Spool) Empty() bool { return s.records.Load() == 0 }

// Stats tell how the spool is. They wait while a record is written.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Records: uint64(s.records.Load()), Events: s.events, Bytes: s.bytes, Dropped: s.dropped, Damaged: s.damaged}
	if len(s.segments) > 0 {
		st.Oldest = max(s.o.Now().Sub(s.segments[0].oldest), 0)
	}
	return st
}
