package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"golang.org/x/crypto/bcrypt"

	"dnsfleet/internal/fleet"
)

// HashPassword is the bcrypt hash under which a password is kept.
func HashPassword(password string) (string, error) {
	if password == "" {
		return "", fmt.Errorf("%w: a password must not be empty", fleet.ErrInvalid)
	}
	hash, err := bcrypt.GenerateFromPassword(bcryptInput(password), bcrypt.DefaultCost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return string(hash), nil
}

// Defaults is the part of the store that keeps one value for all primaries.
type Defaults interface {
	SetDefault(ctx context.Context, name, value string) (string, error)
}

// FirstPassword is the hash of the fleet's admin password. Where the store has none, it makes a random password and
// tells it to show, once: of several primaries that start together only the one whose password counts does so.
func FirstPassword(ctx context.Context, store Defaults, show func(password string)) (hash string, err error) {
	raw := rand.Text()
	password := raw[:5] + "-" + raw[5:10] + "-" + raw[10:15] + "-" + raw[15:20] // 100 random bits
	own, err := HashPassword(password)
	if err != nil {
		return "", err
	}
	if hash, err = store.SetDefault(ctx, "admin_password_hash", own); err != nil {
		return "", fmt.Errorf("admin password: %w", err)
	}
	if hash == own {
		show(password)
	}
	return hash, nil
}

// bcryptInput is what of a password is hashed: bcrypt takes 72 bytes.
func bcryptInput(password string) []byte {
	if len(password) <= 72 {
		return []byte(password)
	}
	sum := sha256.Sum256([]byte(password))
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

func matches(hash, password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(hash), bcryptInput(password)) == nil
}
