package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// SaveReport is part of store.Store. It is one transaction.
func (s *Store) SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error) {
	operation := "save report of " + strconv.Quote(r.InstanceID)
	if err := store.CheckIDs(r); err != nil {
		return fleet.Saved{}, fmt.Errorf("%s: %w", operation, err)
	}
	p := push{store: s, report: r, role: role, tokenID: tokenID, slices: store.SortSlices(r.Slices)}
	if err := p.encode(); err != nil {
		return fleet.Saved{}, fmt.Errorf("%s: %w", operation, err)
	}
	if err := s.write(ctx, operation, relaxed, p.save); err != nil {
		return fleet.Saved{}, err
	}
	return p.saved, nil
}

// push is one report on its way into the file.
type push struct {
	store   *Store
	report  fleet.Report
	role    fleet.Role
	tokenID string
	slices  []fleet.Slice // by size, boot and start
	bodies  [][]byte      // of slices
	body    []byte        // of the report without slices
	now     time.Time
	saved   fleet.Saved
}

func (p *push) encode() (err error) {
	r := p.report
	r.Slices = nil
	if p.body, err = json.Marshal(r); err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	p.bodies = make([][]byte, len(p.slices))
	for i, slice := range p.slices {
		if p.bodies[i], err = p.store.codec.Encode(slice); err != nil {
			return err
		}
	}
	return nil
}

func (p *push) save(ctx context.Context, tx *sql.Tx) error {
	p.now = p.store.now().UTC().Truncate(time.Millisecond)
	if p.report.SentAt.After(p.now.Add(fleet.MaxFuture)) {
		return fleet.ErrFutureReport
	}
	row, known, err := readRow(ctx, tx, p.report.InstanceID)
	if err != nil {
		return err
	}
	state, err := bootState(ctx, tx, p.report.InstanceID, p.report.BootID)
	switch {
	case err != nil:
		return err
	case state == bootForgotten:
		return fleet.ErrForgotten
	case known && row.Role != p.role:
		return fleet.ErrNotYours
	}
	p.saved = fleet.Saved{Result: fleet.Stored, Time: p.now, SlicesUntil: []fleet.SlicesUntil{}}
	switch {
	case state == bootEnded:
		p.saved.Result = fleet.EndedBoot
	case row.BootID == p.report.BootID && row.Seq == p.report.Seq:
		p.saved.Result = fleet.Duplicate
	case row.BootID == p.report.BootID && row.Seq > p.report.Seq:
		p.saved.Result = fleet.Older
	}
	if p.saved.Result == fleet.Stored {
		if err := p.replace(ctx, tx, row, known); err != nil {
			return err
		}
	}
	if err := p.saveSlices(ctx, tx); err != nil {
		return err
	}
	if p.saved.Result == fleet.Stored || len(p.slices) > 0 {
		return changed(ctx, tx, changedInstance, p.report.InstanceID)
	}
	return nil
}

// replace makes the report the instance's last one.
func (p *push) replace(ctx context.Context, tx *sql.Tx, row instanceRow, known bool) error {
	current := clamp(p.report.ResponseDistribution.Outcomes)
	switch {
	case !known:
		row.FirstSeen = p.now
	case row.BootID == p.report.BootID:
		for i, had := range row.Current { // lifetime must not go back, so a boot that counts backwards does not take it along
			current[i] = max(current[i], had)
		}
	default:
		row.Ended = clamp(row.Ended.Plus(row.Current))
		if err := endBoot(ctx, tx, p.report.InstanceID, row.BootID, p.now); err != nil {
			return err
		}
	}
	now, ended := toMS(p.now), row.Ended
	currentText, err := json.Marshal(current)
	if err != nil {
		return err
	}
	endedText, err := json.Marshal(ended)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO instances
		(id, name, role, dns, token_id, first_seen, last_seen, expires_at, boot_id, seq, current, ended, report)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		p.report.InstanceID, p.report.Name, string(p.role), p.report.AnswersDNS(), p.tokenID, toMS(row.FirstSeen), now,
		now+p.store.opt.StatsTTL.Milliseconds(), p.report.BootID, int64(p.report.Seq), string(currentText), string(endedText), string(p.body))
	return err
}

// clamp keeps sums where every store counts exactly.
func clamp(o fleet.Outcomes) fleet.Outcomes {
	for i := range o {
		o[i] = min(o[i], store.MaxExact)
	}
	return o
}

type bootKind int

const (
	bootUnknown bootKind = iota
	bootEnded
	bootForgotten
)

func bootState(ctx context.Context, tx *sql.Tx, instanceID, bootID string) (bootKind, error) {
	var forgotten bool
	err := tx.QueryRowContext(ctx, `SELECT forgotten FROM boots WHERE instance_id = ? AND boot_id = ?`, instanceID, bootID).Scan(&forgotten)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return bootUnknown, nil
	case err != nil:
		return bootUnknown, err
	case forgotten:
		return bootForgotten, nil
	}
	return bootEnded, nil
}

// endBoot remembers a boot as ended. Former boots are kept so that a late report of one changes nothing, but not
// without bound.
func endBoot(ctx context.Context, tx *sql.Tx, instanceID, bootID string, now time.Time) error {
	if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO boots (instance_id, boot_id, forgotten, ended_at) VALUES (?, ?, 0, ?)`,
		instanceID, bootID, toMS(now)); err != nil {
		return err
	}
	var count int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM boots WHERE instance_id = ?`, instanceID).Scan(&count); err != nil {
		return err
	}
	if count <= store.BootsKept {
		return nil
	}
	const drop = `DELETE FROM boots WHERE instance_id = ? AND ended_at < ? AND boot_id IN
		(SELECT boot_id FROM boots WHERE instance_id = ? ORDER BY ended_at DESC LIMIT -1 OFFSET ?)`
	if _, err := tx.ExecContext(ctx, drop, instanceID, toMS(now.Add(-fleet.Hour.Keep())), instanceID, store.BootsKept); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, drop, instanceID, toMS(now)+1, instanceID, store.BootsMax)
	return err
}

// Slices keep no more rows than this for one instance and size: several times what honest boots fill.
const (
	maxShortSlices = 4096
	maxHourSlices  = 8192
)

func (p *push) saveSlices(ctx context.Context, tx *sql.Tx) error {
	for _, size := range fleet.Sizes() {
		if err := p.trim(ctx, tx, size); err != nil {
			return err
		}
	}
	named := map[fleet.SlicesUntil]bool{}
	for first := 0; first < len(p.slices); {
		last := first
		key := fleet.SlicesUntil{BootID: p.slices[first].BootID, Size: p.slices[first].Size}
		for last < len(p.slices) && p.slices[last].BootID == key.BootID && p.slices[last].Size == key.Size {
			last++
		}
		if err := p.saveGroup(ctx, tx, key, first, last); err != nil {
			return err
		}
		named[key] = true
		first = last
	}
	for _, size := range fleet.Sizes() {
		key := fleet.SlicesUntil{BootID: p.report.BootID, Size: size}
		if named[key] {
			continue
		}
		until, had, err := readUntil(ctx, tx, p.report.InstanceID, key)
		if err != nil {
			return err
		}
		if had {
			p.answer(key, until)
		}
	}
	slices.SortFunc(p.saved.SlicesUntil, func(a, b fleet.SlicesUntil) int {
		return cmp.Or(cmp.Compare(a.BootID, b.BootID), cmp.Compare(a.Size, b.Size))
	})
	return nil
}

func (p *push) answer(key fleet.SlicesUntil, until int64) {
	key.Until = time.Unix(until, 0).UTC()
	p.saved.SlicesUntil = append(p.saved.SlicesUntil, key)
}

// saveGroup stores slices[first:last], which are of one boot and size, and moves until over them.
func (p *push) saveGroup(ctx context.Context, tx *sql.Tx, key fleet.SlicesUntil, first, last int) error {
	id, keep := p.report.InstanceID, p.store.opt.Keep(key.Size)
	state, err := bootState(ctx, tx, id, key.BootID)
	if err != nil {
		return err
	}
	room, err := roomFor(ctx, tx, id, key.Size)
	if err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO slices (instance_id, size, start, boot_id, body) VALUES (?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer insert.Close() //nolint:errcheck // it ends with the transaction
	present, kept := map[int64]bool{}, false
	for i := first; i < last; i++ {
		slice := p.slices[i]
		start := slice.Start.Unix()
		if state == bootForgotten || keep == 0 || slice.Start.Before(p.now.Add(-keep)) || slice.Start.After(p.now.Add(store.SliceAhead)) {
			present[start] = true // not wanted, so it must not be sent again
			continue
		}
		if room <= 0 {
			continue
		}
		room--
		if _, err := insert.ExecContext(ctx, id, seconds(key.Size), start, key.BootID, p.bodies[i]); err != nil {
			return err
		}
		present[start], kept = true, true
	}
	return p.advance(ctx, tx, key, p.slices[first].Start.Unix(), present, kept, state == bootForgotten)
}

// advance moves until over the slices that are there. present counts beside what is stored.
func (p *push) advance(ctx context.Context, tx *sql.Tx, key fleet.SlicesUntil, first int64, present map[int64]bool, kept, forgotten bool) error {
	id, step, keep := p.report.InstanceID, seconds(key.Size), p.store.opt.Keep(key.Size)
	until, had, err := readUntil(ctx, tx, id, key)
	if err != nil {
		return err
	}
	had = had && !forgotten
	if !had {
		until = first
	}
	before := until
	// A hole that is older than what is kept can never be filled.
	oldest := first
	if keep > 0 {
		oldest = (p.now.Add(-keep).Unix() + step - 1) / step * step
	}
	until = max(until, min(oldest, first))
	for {
		there := present[until]
		if !there && !forgotten {
			if there, err = hasSlice(ctx, tx, id, key, until); err != nil {
				return err
			}
		}
		if !there {
			break
		}
		until += step
	}
	p.answer(key, until)
	if (had && until == before) || (!had && !kept) {
		return nil
	}
	_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO slices_until (instance_id, size, boot_id, until) VALUES (?, ?, ?, ?)`, id, step, key.BootID, until)
	return err
}

func hasSlice(ctx context.Context, tx *sql.Tx, id string, key fleet.SlicesUntil, start int64) (has bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM slices WHERE instance_id = ? AND size = ? AND start = ? AND boot_id = ?)`,
		id, seconds(key.Size), start, key.BootID).Scan(&has)
	return has, err
}

func readUntil(ctx context.Context, tx *sql.Tx, id string, key fleet.SlicesUntil) (until int64, had bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT until FROM slices_until WHERE instance_id = ? AND size = ? AND boot_id = ?`,
		id, seconds(key.Size), key.BootID).Scan(&until)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return until, err == nil, err
}

func roomFor(ctx context.Context, tx *sql.Tx, id string, size fleet.Size) (int, error) {
	limit := maxShortSlices
	if size == fleet.Hour {
		limit = maxHourSlices
	}
	var count int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM slices WHERE instance_id = ? AND size = ?`, id, seconds(size)).Scan(&count)
	return limit - count, err
}

// trim removes slices that are too old, and what is known of boots that have no others.
func (p *push) trim(ctx context.Context, tx *sql.Tx, size fleet.Size) error {
	id, keep := p.report.InstanceID, p.store.opt.Keep(size)
	cutoff := p.now.Add(-keep).Unix()
	if keep == 0 {
		cutoff = p.now.Add(store.SliceAhead + time.Hour).Unix() // all
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM slices WHERE instance_id = ? AND size = ? AND start < ?`, id, seconds(size), cutoff); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM slices_until WHERE instance_id = ? AND size = ? AND until < ?
		AND boot_id <> (SELECT boot_id FROM instances WHERE id = slices_until.instance_id)`, id, seconds(size), cutoff)
	return err
}

func seconds(size fleet.Size) int64 { return int64(size.Duration() / time.Second) }
