package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func (b *Book) open() error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(b.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	b.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrInUse
		}
		return err
	}
	if err := b.read("journal", func(f *os.File) (int, error) { return load(f, b.ledger) }); err != nil {
		return err
	}
	err = b.read("running", func(f *os.File) (int, error) {
		return readLines(f, func(text []byte) (err error) {
			b.running, err = decode(text)
			return err
		})
	})
	if err != nil {
		return err
	}
	if b.damaged > 0 {
		b.log.Warn("history has damaged lines, they are skipped", "dir", b.dir, "lines", b.damaged)
	}
	b.stale = true
	if err := b.write(nil); err != nil { // a full disk must not keep an instance from starting
		b.log.Error("history is kept in memory only", "err", err)
	}
	return nil
}

func (b *Book) read(name string, parse func(*os.File) (int, error)) error {
	f, err := os.Open(filepath.Join(b.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	damaged, err := parse(f)
	b.damaged += damaged
	return errors.Join(err, f.Close())
}

// write appends records, or writes the journal anew where that is due.
func (b *Book) write(records []record) error {
	if b.lock == nil {
		return nil
	}
	if b.journal == nil || b.stale || b.written > 2*b.ledger.bytes+(1<<20) {
		return b.outcome(b.rewrite())
	}
	var text []byte
	var err error
	durable := false
	for _, rec := range records {
		durable = durable || rec.Slice != nil
		if text, err = appendLine(text, rec); err != nil {
			return err
		}
	}
	_, err = b.journal.Write(text)
	if err == nil && durable {
		err = b.journal.Sync()
	}
	b.written += len(text)
	b.stale = err != nil // part of a line may stand there now
	return b.outcome(err)
}

func (b *Book) rewrite() error {
	text, err := dump(b.ledger)
	if err != nil {
		return err
	}
	path := filepath.Join(b.dir, "journal")
	if err := replaceFile(path, text, true); err != nil {
		b.stale = true
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.stale = true
		return err
	}
	if b.journal != nil {
		b.journal.Close() // the file that was replaced: nothing in it counts any more
	}
	b.journal, b.written, b.stale = f, len(text), false
	return nil
}

// outcome counts and names a failed write.
func (b *Book) outcome(err error) error {
	if err == nil {
		return nil
	}
	b.failures++
	return fmt.Errorf("write history in %s: %w", b.dir, err)
}
