package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"dnsfleet/internal/fleet"
)

// CreateToken is part of store.Store. A token that exists already is fleet.ErrConflict.
func (s *Store) CreateToken(ctx context.Context, t fleet.Token) error {
	return s.write(ctx, fmt.Sprintf("create token %q", t.ID), durable, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := readToken(ctx, tx, t.ID); !errors.Is(err, sql.ErrNoRows) {
			return cmpErr(err, fleet.ErrConflict)
		}
		return writeToken(ctx, tx, t)
	})
}

// cmpErr is err, or instead where there is none.
func cmpErr(err, instead error) error {
	if err != nil {
		return err
	}
	return instead
}

const tokenColumns = `id, name, secret_hash, any_instance, created_at, rotated_at, revoked_at, first_used_at`

func scanToken(scan func(...any) error) (t fleet.Token, err error) {
	var created, rotated, revoked, used int64
	err = scan(&t.ID, &t.Name, &t.SecretHash, &t.Any, &created, &rotated, &revoked, &used)
	t.CreatedAt, t.RotatedAt, t.RevokedAt, t.FirstUsedAt = fromMS(created), fromMS(rotated), fromMS(revoked), fromMS(used)
	t.Instances = []string{}
	return t, err
}

// database is what reads of tokens need; a transaction or the readers.
type database interface {
	querier
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readToken(ctx context.Context, db database, id string) (fleet.Token, error) {
	t, err := scanToken(db.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE id = ?`, id).Scan)
	if err != nil {
		return t, err
	}
	t.Instances, err = queryTexts(ctx, db, `SELECT instance_id FROM token_instances WHERE token_id = ? ORDER BY instance_id`, id)
	return t, err
}

func queryTexts(ctx context.Context, db querier, query string, args ...any) ([]string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err tells all
	texts := []string{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, rows.Err()
}

func writeToken(ctx context.Context, tx *sql.Tx, t fleet.Token) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO tokens (`+tokenColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, secret_hash = excluded.secret_hash, any_instance = excluded.any_instance,
		rotated_at = excluded.rotated_at, revoked_at = excluded.revoked_at, first_used_at = excluded.first_used_at`,
		t.ID, t.Name, t.SecretHash, t.Any, toMS(t.CreatedAt), toMS(t.RotatedAt), toMS(t.RevokedAt), toMS(t.FirstUsedAt))
	if err != nil {
		return err
	}
	for _, instance := range t.Instances {
		if _, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO token_instances (instance_id, token_id) VALUES (?, ?)`, instance, t.ID); err != nil {
			return err
		}
	}
	return changed(ctx, tx, changedTokens, "")
}

// Tokens is part of store.Store.
func (s *Store) Tokens(ctx context.Context) ([]fleet.Token, error) {
	tokens, err := s.allTokens(ctx)
	return tokens, translate(err, "list tokens")
}

func (s *Store) allTokens(ctx context.Context) ([]fleet.Token, error) {
	tx, err := s.reader.BeginTx(ctx, nil) // so that ids and tokens are of one moment
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // it only read
	ids, err := queryTexts(ctx, tx, `SELECT id FROM tokens ORDER BY name, id`)
	if err != nil {
		return nil, err
	}
	tokens := make([]fleet.Token, 0, len(ids))
	for _, id := range ids {
		t, err := readToken(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
	}
	return tokens, nil
}

// Authorize is part of store.Store. A token that is bound to the instance costs a read and no write.
func (s *Store) Authorize(ctx context.Context, secret, instanceID string) (fleet.Token, error) {
	id := fleet.TokenID(secret)
	operation := fmt.Sprintf("authorize %q with token %q", instanceID, id)
	if id == "" || !fleet.ValidID(instanceID) {
		return fleet.Token{}, fmt.Errorf("authorize: %w", fleet.ErrUnknownToken)
	}
	t, toWrite, err := s.checkToken(ctx, s.reader, id, secret, instanceID)
	if err != nil || !toWrite {
		return t, translate(err, operation)
	}
	err = s.write(ctx, operation, durable, func(ctx context.Context, tx *sql.Tx) (err error) {
		// Once more under the write lock: another instance may have been faster.
		if t, toWrite, err = s.checkToken(ctx, tx, id, secret, instanceID); err != nil || !toWrite {
			return err
		}
		if !t.Any && !t.Binds(instanceID) {
			t.Instances = []string{instanceID}
		}
		if t.FirstUsedAt.IsZero() {
			t.FirstUsedAt = fromMS(toMS(s.now()))
		}
		return writeToken(ctx, tx, t)
	})
	return t, err
}

// checkToken says whether secret may speak for the instance, and whether that is to be written down.
func (s *Store) checkToken(ctx context.Context, db database, id, secret, instanceID string) (t fleet.Token, toWrite bool, err error) {
	t, err = readToken(ctx, db, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return t, false, fleet.ErrUnknownToken
	case err != nil:
		return t, false, err
	case !t.Matches(secret):
		return t, false, fleet.ErrUnknownToken
	case t.Revoked():
		return t, false, fleet.ErrRevokedToken
	case t.Binds(instanceID):
		return t, t.FirstUsedAt.IsZero(), nil
	case len(t.Instances) > 0 && !t.Any:
		return t, false, fleet.ErrNotYours
	}
	holders, err := queryTexts(ctx, db, `SELECT token_id FROM token_instances JOIN tokens ON tokens.id = token_id
		WHERE instance_id = ? AND revoked_at = 0`, instanceID)
	if err != nil {
		return t, false, err
	}
	if slices.ContainsFunc(holders, func(holder string) bool { return holder != id }) {
		return t, false, fleet.ErrNotYours
	}
	return t, !t.Any || t.FirstUsedAt.IsZero(), nil
}

// RotateToken is part of store.Store. An unknown id is fleet.ErrNotFound, a revoked token fleet.ErrRevokedToken.
func (s *Store) RotateToken(ctx context.Context, id string) (secret string, err error) {
	err = s.write(ctx, "rotate token "+id, durable, func(ctx context.Context, tx *sql.Tx) error {
		t, err := readToken(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case t.Revoked():
			return fleet.ErrRevokedToken
		}
		secret, t.RotatedAt = t.NewSecret(), s.now()
		return writeToken(ctx, tx, t)
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// RevokeToken is part of store.Store. An unknown id is fleet.ErrNotFound.
func (s *Store) RevokeToken(ctx context.Context, id string) error {
	return s.write(ctx, "revoke token "+id, durable, func(ctx context.Context, tx *sql.Tx) error {
		t, err := readToken(ctx, tx, id)
		if err != nil || t.Revoked() {
			return err
		}
		t.RevokedAt = s.now()
		return writeToken(ctx, tx, t)
	})
}
