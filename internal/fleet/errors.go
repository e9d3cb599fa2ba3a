package fleet

import "errors"

// Conditions that callers branch on. Adapters translate their own errors into these at the edge; the HTTP edge
// translates these into a status code.
var (
	// ErrNotFound says that the thing asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrInvalid says that what was sent breaks a rule; the text wrapped around it says which.
	ErrInvalid = errors.New("invalid")
	// ErrUnavailable says that the store cannot be reached or refuses writes now; the same call may succeed later.
	ErrUnavailable = errors.New("store unavailable")
	// ErrConflict says that the thing was changed by somebody else since the caller read it.
	ErrConflict = errors.New("changed meanwhile")

	// ErrUnknownToken says that no token has this id and secret.
	ErrUnknownToken = errors.New("unknown token")
	// ErrRevokedToken says that the token was revoked.
	ErrRevokedToken = errors.New("token is revoked")
	// ErrNotYours says that the token may not speak for the instance that the request names.
	ErrNotYours = errors.New("token may not speak for this instance")

	// ErrFutureReport says that a report claims to have been sent later than the store's clock allows.
	ErrFutureReport = errors.New("sent_at lies in the future")
	// ErrForgotten says that the instance was forgotten; only a new boot of it is taken again.
	ErrForgotten = errors.New("instance was forgotten")
)
