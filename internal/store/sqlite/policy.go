package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"dnsfleet/internal/fleet"
)

// Policy is part of store.Store.
func (s *Store) Policy(ctx context.Context) (fleet.PolicyDoc, error) {
	doc, err := readPolicy(ctx, s.reader)
	return doc, translate(err, "read policy")
}

func readPolicy(ctx context.Context, db database) (doc fleet.PolicyDoc, err error) {
	var updated int64
	var body string
	err = db.QueryRowContext(ctx, `SELECT revision, hash, updated_at, body FROM policy`).Scan(&doc.Revision, &doc.Hash, &updated, &body)
	if err != nil {
		return fleet.PolicyDoc{}, err
	}
	doc.UpdatedAt = fromMS(updated)
	return doc, json.Unmarshal([]byte(body), &doc.Policy)
}

// PutPolicy is part of store.Store.
func (s *Store) PutPolicy(ctx context.Context, p fleet.Policy, ifHash string) (doc fleet.PolicyDoc, err error) {
	body, err := json.Marshal(p)
	if err != nil {
		return fleet.PolicyDoc{}, fmt.Errorf("write policy: %w", err)
	}
	err = s.write(ctx, "write policy", durable, func(ctx context.Context, tx *sql.Tx) error {
		current, err := readPolicy(ctx, tx)
		switch {
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return err
		case current.Hash == p.Hash():
			doc = current
			return nil
		case current.Hash != ifHash:
			return fleet.ErrConflict
		}
		doc = fleet.NewPolicyDoc(p, current.Revision+1, fromMS(toMS(s.now())))
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO policy (id, revision, hash, updated_at, body) VALUES (1, ?, ?, ?, ?)`,
			doc.Revision, doc.Hash, toMS(doc.UpdatedAt), string(body)); err != nil {
			return err
		}
		return changed(ctx, tx, changedPolicy, "")
	})
	if err != nil {
		return fleet.PolicyDoc{}, err
	}
	return doc, nil
}

// SetDefault is part of store.Store.
func (s *Store) SetDefault(ctx context.Context, name, value string) (now string, err error) {
	err = s.write(ctx, fmt.Sprintf("set default of %q", name), durable, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO settings (name, value) VALUES (?, ?)`, name, value); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = ?`, name).Scan(&now)
	})
	return now, err
}

// SaveSession is part of store.Store. It also removes those that have expired.
func (s *Store) SaveSession(ctx context.Context, id string, data []byte, ttl time.Duration) error {
	return s.write(ctx, "save session", relaxed, func(ctx context.Context, tx *sql.Tx) error {
		now := s.now()
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO sessions (id, data, expires_at) VALUES (?, ?, ?)`,
			id, append([]byte{}, data...), toMS(now.Add(ttl))); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires_at <= ?`, toMS(now))
		return err
	})
}

// Session is part of store.Store.
func (s *Store) Session(ctx context.Context, id string) (data []byte, err error) {
	err = s.reader.QueryRowContext(ctx, `SELECT data FROM sessions WHERE id = ? AND expires_at > ?`, id, toMS(s.now())).Scan(&data)
	return data, translate(err, "read session")
}

// DeleteSession is part of store.Store.
func (s *Store) DeleteSession(ctx context.Context, id string) error {
	return s.write(ctx, "delete session", durable, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE id = ?`, id)
		return err
	})
}
