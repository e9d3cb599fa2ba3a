package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

const (
	// idBits number the events of one millisecond.
	idBits      = 21
	idsPerMS    = 1 << idBits
	maxMS       = 1<<42 - 1 // of what fits above idBits: the year 2109
	dayMS       = 24 * 60 * 60 * 1000
	maxAhead    = 24 * time.Hour
	insertEvent = "INSERT INTO events (id, kind, qtype, client, name, us) VALUES "
	columns     = 6
	rowsAtOnce  = 100
	maxUS       = 1 << 40
)

// writer is the one connection that writes.
type writer struct {
	*conn
	words *words
	ids   []eventIDs // room for the numbers of one batch
	args  []any
	next  int64 // tells apart the events of one millisecond
}

// eventIDs are the numbers of an event's words.
type eventIDs struct{ kind, client, name int64 }

func (l *Log) newWriter() (*writer, error) {
	c, err := openConn(l.path, "cache_size(-16000)")
	if err != nil {
		return nil, err
	}
	return &writer{conn: c, words: newWords(c), next: anyNumber()}, nil
}

// Write stores a batch; see querylog.Sink. Events that are older than the retention are not stored, which is no error.
// Events of more than a day ahead are refused: nothing would delete them.
func (l *Log) Write(ctx context.Context, b querylog.Batch) error {
	operation := fmt.Sprintf("write batch %d of %s", b.Seq, b.InstanceID)
	if err := l.check(b); err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	sums := sum(b.Events)
	return l.fail(operation, l.write(ctx, func(w *writer) error {
		return w.transact(ctx, func(ctx context.Context) error { return w.store(ctx, b, sums) })
	}))
}

// write runs do when nobody else of this process writes.
func (l *Log) write(ctx context.Context, do func(w *writer) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case w := <-l.writer:
		defer func() { l.writer <- w }()
		return do(w)
	case <-l.closed:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Log) check(b querylog.Batch) error {
	switch {
	case b.InstanceID == "" || b.BootID == "" || b.Seq == 0 || b.Seq > fleet.MaxCount:
		return fmt.Errorf("%w: a batch needs an instance, a boot and a number", fleet.ErrInvalid)
	case len(b.Events) == 0:
		return fmt.Errorf("%w: a batch has at least one event", fleet.ErrInvalid)
	}
	day := dayOf(b.Events[0].Time.UnixMilli())
	for i := range b.Events {
		e := &b.Events[i]
		switch ms := e.Time.UnixMilli(); {
		case ms < 0 || ms >= maxMS:
			return fmt.Errorf("%w: event of %s: the time is out of range", fleet.ErrInvalid, e.Time.UTC().Format(time.RFC3339))
		case dayOf(ms) != day:
			return fmt.Errorf("%w: all events of a batch are of one day", fleet.ErrInvalid)
		case int(e.Outcome) >= fleet.NumOutcomes:
			return fmt.Errorf("%w: %s is no outcome", fleet.ErrInvalid, e.Outcome)
		}
	}
	if day*dayMS > l.now().Add(maxAhead).UnixMilli() {
		return fmt.Errorf("%w: the events are of the future", fleet.ErrInvalid)
	}
	return nil
}

// dayOf counts days since the epoch.
func dayOf(ms int64) int64 { return ms / dayMS }

// transact runs do in a transaction that nobody else's write can come between. Once it has begun it is not interrupted:
// a batch is small, and a transaction that was half done would only be done again.
func (w *writer) transact(ctx context.Context, do func(ctx context.Context) error) error {
	if _, err := w.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	err := do(ctx)
	if err == nil {
		if _, err = w.exec(ctx, "COMMIT"); err == nil {
			return nil
		}
	}
	w.words.forget() // some may be of rows that are taken back
	// SQLite itself has ended the transaction after some errors; then there is nothing to roll back.
	if _, rollbackErr := w.exec(ctx, "ROLLBACK"); rollbackErr != nil && !strings.Contains(rollbackErr.Error(), "no transaction") {
		err = errors.Join(err, rollbackErr)
	}
	return err
}

func (w *writer) store(ctx context.Context, b querylog.Batch, sums *batchSums) error {
	day := dayOf(b.Events[0].Time.UnixMilli())
	horizon, _, err := w.number(ctx, "SELECT day FROM horizon")
	if err != nil || day < horizon {
		return err
	}
	fresh, err := w.markStored(ctx, b, day)
	if err != nil || !fresh {
		return err
	}
	if err := w.insertWords(ctx, b, day); err != nil {
		return err
	}
	if err := w.insertEvents(ctx, b.Events); err != nil {
		return err
	}
	return w.addSums(ctx, b.InstanceID, sums)
}

// run is numbers of batches from first to last, of which the latest is of the day.
type run struct{ first, last, day int64 }

const (
	runBefore = "SELECT first, last, day FROM batches WHERE instance = ? AND boot = ? AND first <= ? ORDER BY first DESC LIMIT 1"
	runAt     = "SELECT first, last, day FROM batches WHERE instance = ? AND boot = ? AND first = ?"
	dropRun   = "DELETE FROM batches WHERE instance = ? AND boot = ? AND first = ?"
	putRun    = "INSERT OR REPLACE INTO batches (instance, boot, first, last, day) VALUES (?, ?, ?, ?, ?)"
)

// markStored notes the batch's number in the runs of its boot, false if it was there before.
func (w *writer) markStored(ctx context.Context, b querylog.Batch, day int64) (fresh bool, err error) {
	instance, boot, seq := blob(b.InstanceID), blob(b.BootID), int64(b.Seq)
	find := func(text string, first int64) (r run, found bool, err error) {
		err = w.query(ctx, text, []any{instance, boot, first}, func(row []driver.Value) error {
			r, found = run{integer(row[0]), integer(row[1]), integer(row[2])}, true
			return nil
		})
		return r, found, err
	}
	r := run{seq, seq, day}
	before, found, err := find(runBefore, seq)
	switch {
	case err != nil || (found && before.last >= seq):
		return false, err
	case found && before.last == seq-1:
		r.first, r.day = before.first, max(day, before.day)
	}
	after, found, err := find(runAt, seq+1)
	if err != nil {
		return false, err
	}
	if found {
		r.last, r.day = after.last, max(r.day, after.day)
		if _, err := w.exec(ctx, dropRun, instance, boot, after.first); err != nil {
			return false, err
		}
	}
	_, err = w.exec(ctx, putRun, instance, boot, r.first, r.last, r.day)
	return err == nil, err
}

func (w *writer) insertWords(ctx context.Context, b querylog.Batch, day int64) error {
	w.ids = w.ids[:0]
	today := w.words.of(day)
	for i := range b.Events {
		e := &b.Events[i]
		var ids eventIDs
		var err error
		if ids.kind, err = today.kind(ctx, kindKey{b.InstanceID, e.Protocol, e.Upstream, e.List, e.RCode, e.Outcome}); err != nil {
			return err
		}
		if ids.client, err = today.client(ctx, clientKey{e.Client, e.ClientName}); err != nil {
			return err
		}
		if ids.name, err = today.name(ctx, e.QName); err != nil {
			return err
		}
		w.ids = append(w.ids, ids)
	}
	return nil
}

// The statements of a full chunk and of one event.
var (
	insertMany = insertEvent + strings.Repeat("(?,?,?,?,?,?),", rowsAtOnce-1) + "(?,?,?,?,?,?)"
	insertOne  = insertEvent + "(?,?,?,?,?,?)"
)

func (w *writer) insertEvents(ctx context.Context, events []fleet.QueryEvent) error {
	for at := 0; at < len(events); {
		n, text := rowsAtOnce, insertMany
		if len(events)-at < rowsAtOnce {
			n, text = 1, insertOne
		}
		w.args = w.args[:0]
		for i := at; i < at+n; i++ {
			w.args = w.appendEvent(w.args, &events[i], w.ids[i])
		}
		_, err := w.exec(ctx, text, w.args...)
		if taken(err) {
			err = w.insertSingly(ctx, w.args)
		}
		if err != nil {
			return err
		}
		at += n
	}
	return nil
}

func (w *writer) appendEvent(args []any, e *fleet.QueryEvent, ids eventIDs) []any {
	return append(args, w.id(e.Time.UnixMilli()), ids.kind, typeNumber(e), ids.client, ids.name, micros(e.Duration))
}

// anyNumber is where numbering begins: elsewhere than that of another process, most likely.
func anyNumber() int64 { return rand.Int64N(idsPerMS) } //nolint:gosec // avoids collisions, keeps no secret

// id is a number for an event of that millisecond. It is most likely free.
func (w *writer) id(ms int64) int64 {
	w.next = (w.next + 1) % idsPerMS
	return ms<<idBits | w.next
}

func typeNumber(e *fleet.QueryEvent) int64 {
	const in = 1
	if e.QClass == in {
		return int64(e.QType)
	}
	return int64(e.QClass)<<16 | int64(e.QType)
}

func micros(d time.Duration) int64 { return min(max(d.Microseconds(), 0), maxUS) }

// taken reports whether an event's number is that of another one.
func taken(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
}

// insertSingly inserts events of which some have a number that is taken, which is rare: those get another one.
func (w *writer) insertSingly(ctx context.Context, args []any) error {
	const tries = 200
	for ; len(args) > 0; args = args[columns:] {
		var err error
		for range tries {
			if _, err = w.exec(ctx, insertOne, args[:columns]...); !taken(err) {
				break
			}
			w.next = anyNumber()
			id, _ := args[0].(int64)
			args[0] = w.id(id >> idBits)
		}
		if taken(err) {
			return fmt.Errorf("%w: there are too many events of one millisecond", fleet.ErrInvalid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
