package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// instanceRow is a row of the table instances without the report.
type instanceRow struct {
	fleet.Instance
}

const rowColumns = `id, name, role, dns, token_id, first_seen, last_seen, expires_at, boot_id, seq, current, ended`

// scanRow reads rowColumns, then what rest points to.
func scanRow(scan func(...any) error, rest ...any) (row instanceRow, err error) {
	var role, current, ended string
	var first, last, expires, seq int64
	err = scan(append([]any{
		&row.ID, &row.Name, &role, &row.DNS, &row.TokenID, &first, &last, &expires, &row.BootID, &seq, &current, &ended,
	}, rest...)...)
	if err != nil {
		return row, err
	}
	row.Role, row.Seq = fleet.Role(role), uint64(seq)
	row.FirstSeen, row.LastSeen, row.ExpiresAt = fromMS(first), fromMS(last), fromMS(expires)
	if row.Current, err = readOutcomes(current); err == nil {
		row.Ended, err = readOutcomes(ended)
	}
	return row, err
}

// readOutcomes reads counts by name. Unlike fleet.Outcomes it takes sums above fleet.MaxCount.
func readOutcomes(text string) (o fleet.Outcomes, err error) {
	var counts map[string]uint64
	if err := json.Unmarshal([]byte(text), &counts); err != nil {
		return o, fmt.Errorf("read counters: %w", err)
	}
	for name, n := range counts {
		if outcome, known := fleet.ParseOutcome(name); known {
			o[outcome] = n
		}
	}
	return o, nil
}

func readRow(ctx context.Context, tx *sql.Tx, id string) (row instanceRow, known bool, err error) {
	row, err = scanRow(tx.QueryRowContext(ctx, `SELECT `+rowColumns+` FROM instances WHERE id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return instanceRow{}, false, nil
	}
	return row, err == nil, err
}

// Instances is part of store.Store. An entry that cannot be read is logged and left out; it does not cost the others.
func (s *Store) Instances(ctx context.Context, ids ...string) ([]fleet.Instance, error) {
	const operation = "read instances"
	query, args := `SELECT `+rowColumns+`, report FROM instances`, []any(nil)
	if len(ids) > 0 {
		text, err := json.Marshal(ids)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", operation, err)
		}
		query, args = query+` WHERE id IN (SELECT value FROM json_each(?))`, []any{string(text)}
	}
	tx, err := s.reader.BeginTx(ctx, nil) // so that rows and minutes are of one moment
	if err != nil {
		return nil, translate(err, operation)
	}
	defer tx.Rollback() //nolint:errcheck // it only read
	found, err := s.readInstances(ctx, tx, query, args)
	if err != nil {
		return nil, translate(err, operation)
	}
	for _, id := range ids {
		if !slices.ContainsFunc(found, func(in fleet.Instance) bool { return in.ID == id }) {
			s.minutes.Drop(id)
		}
	}
	for i, in := range found {
		if in.Report == nil {
			s.minutes.Drop(in.ID)
			continue
		}
		bodies, err := queryBodies(ctx, tx, in.ID, fleet.Minute, in.LastSeen.Add(-store.MinutesBack), in.LastSeen.Add(store.MinutesAhead))
		if err != nil {
			return nil, translate(err, operation)
		}
		found[i].Minutes = s.minutes.Decode(in.ID, bodies, func(err error) { s.badSlice(ctx, in.ID, err) })
	}
	return found, nil
}

func (s *Store) readInstances(ctx context.Context, tx *sql.Tx, query string, args []any) ([]fleet.Instance, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells all
	now := s.now()
	found := []fleet.Instance{}
	for rows.Next() {
		var body string
		row, err := scanRow(rows.Scan, &body)
		if err != nil {
			s.log.WarnContext(ctx, "stored instance is unreadable", "instance", row.ID, "err", err)
			continue
		}
		in := row.Instance
		if now.Before(in.ExpiresAt) {
			in.Report = new(fleet.Report)
			if err := json.Unmarshal([]byte(body), in.Report); err != nil {
				s.log.WarnContext(ctx, "stored report is unreadable", "instance", in.ID, "err", err)
				in.Report = nil
			}
		}
		found = append(found, in)
	}
	return found, rows.Err()
}

// querier is a transaction or a database.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func queryBodies(ctx context.Context, q querier, id string, size fleet.Size, from, to time.Time) ([][]byte, error) {
	rows, err := q.QueryContext(ctx, `SELECT body FROM slices WHERE instance_id = ? AND size = ? AND start >= ? AND start < ? ORDER BY start, boot_id`,
		id, seconds(size), ceilSeconds(from), ceilSeconds(to))
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells all
	var bodies [][]byte
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	return bodies, rows.Err()
}

func (s *Store) badSlice(ctx context.Context, id string, err error) {
	s.log.WarnContext(ctx, "stored slice is unreadable", "instance", id, "err", err)
}

// ceilSeconds is the first whole second that is not before t.
func ceilSeconds(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}

// Slices is part of store.Store.
func (s *Store) Slices(ctx context.Context, instanceID string, size fleet.Size, from, to time.Time) ([]fleet.Slice, error) {
	bodies, err := queryBodies(ctx, s.reader, instanceID, size, from, to)
	if err != nil {
		return nil, translate(err, fmt.Sprintf("read %s slices of %q", size, instanceID))
	}
	list := make([]fleet.Slice, 0, len(bodies))
	for _, body := range bodies {
		slice, err := s.codec.Decode(body)
		if err != nil {
			s.badSlice(ctx, instanceID, err)
			continue
		}
		list = append(list, slice)
	}
	return list, nil
}

// Seen is part of store.Store.
func (s *Store) Seen(ctx context.Context, since time.Time) (map[string]time.Time, time.Time, error) {
	const operation = "list instances seen"
	now := s.now().UTC() // before the query: what is received meanwhile is then found by the next sweep at the latest
	rows, err := s.reader.QueryContext(ctx, `SELECT id, last_seen FROM instances WHERE last_seen >= ?`, since.UnixMilli())
	if err != nil {
		return nil, time.Time{}, translate(err, operation)
	}
	defer rows.Close() //nolint:errcheck // Err tells all
	seen := map[string]time.Time{}
	for rows.Next() {
		var id string
		var last int64
		if err := rows.Scan(&id, &last); err != nil {
			return nil, time.Time{}, translate(err, operation)
		}
		seen[id] = fromMS(last)
	}
	return seen, now, translate(rows.Err(), operation)
}

// Forget is part of store.Store.
func (s *Store) Forget(ctx context.Context, instanceID string) error {
	return s.write(ctx, fmt.Sprintf("forget %q", instanceID), durable, func(ctx context.Context, tx *sql.Tx) error {
		row, known, err := readRow(ctx, tx, instanceID)
		if err != nil {
			return err
		}
		if !known {
			return fleet.ErrNotFound
		}
		now := toMS(s.now())
		for _, step := range []struct {
			query string
			args  []any
		}{
			{`UPDATE boots SET forgotten = 1 WHERE instance_id = ?`, []any{instanceID}},
			{`INSERT OR IGNORE INTO boots (instance_id, boot_id, forgotten, ended_at) VALUES (?, ?, 1, ?)`, []any{instanceID, row.BootID, now}},
			{`INSERT OR IGNORE INTO boots (instance_id, boot_id, forgotten, ended_at)
				SELECT DISTINCT instance_id, boot_id, 1, ? FROM slices_until WHERE instance_id = ?`, []any{now, instanceID}},
			{`DELETE FROM slices WHERE instance_id = ?`, []any{instanceID}},
			{`DELETE FROM slices_until WHERE instance_id = ?`, []any{instanceID}},
			{`DELETE FROM instances WHERE id = ?`, []any{instanceID}},
		} {
			if _, err := tx.ExecContext(ctx, step.query, step.args...); err != nil {
				return err
			}
		}
		return changed(ctx, tx, changedInstance, instanceID)
	})
}
