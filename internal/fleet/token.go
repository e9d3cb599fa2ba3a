package fleet

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Token is what a replica authenticates with. Its id is public, its secret is shown once; only the hash is kept.
type Token struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	SecretHash  string    `json:"secret_hash"` // hex SHA-256 of the whole secret
	Instances   []string  `json:"instances"`   // whom it may speak for; empty and not Any: binds to the first that uses it
	Any         bool      `json:"any"`         // speaks for every instance id that no other token has taken
	CreatedAt   time.Time `json:"created_at"`
	RotatedAt   time.Time `json:"rotated_at,omitzero"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	FirstUsedAt time.Time `json:"first_used_at,omitzero"`
}

// Revoked reports whether the token was revoked.
func (t Token) Revoked() bool { return !t.RevokedAt.IsZero() }

// Binds reports whether the token is already bound to that instance.
func (t Token) Binds(instanceID string) bool { return slices.Contains(t.Instances, instanceID) }

// NewToken makes a token with a random id and secret. The secret is returned once and is not kept; it holds the
// token's id in front of a dot, so that it can be looked up without a search.
func NewToken(name string, instances []string, anyInstance bool, now time.Time) (t Token, secret string) {
	t = Token{ID: "t" + randomText(9), Name: name, Instances: append([]string{}, instances...), Any: anyInstance, CreatedAt: now.UTC()}
	secret = t.NewSecret()
	return t, secret
}

// NewSecret replaces the token's secret by a new one, which it returns.
func (t *Token) NewSecret() (secret string) {
	secret = t.ID + "." + randomText(32)
	t.SecretHash = hashSecret(secret)
	return secret
}

// Matches reports whether secret is the token's, in constant time.
func (t Token) Matches(secret string) bool {
	return subtle.ConstantTimeCompare([]byte(hashSecret(secret)), []byte(t.SecretHash)) == 1
}

// TokenID is the id inside a secret, "" where there is none.
func TokenID(secret string) string {
	id, _, found := strings.Cut(secret, ".")
	if !found || !ValidID(id) {
		return ""
	}
	return id
}

// RandomID is a new random id for a boot or an instance: 16 characters, 96 random bits.
func RandomID() string { return randomText(12) }

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func randomText(n int) string {
	b := make([]byte, n)
	rand.Read(b) // documented never to fail
	return base64.RawURLEncoding.EncodeToString(b)
}
