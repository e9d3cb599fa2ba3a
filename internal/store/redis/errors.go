package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"dnsfleet/internal/fleet"
)

// wrap names the operation and turns what go-redis says into the fleet's words: a missing key is fleet.ErrNotFound, a
// server that is away, overloaded, read-only or refuses us is fleet.ErrUnavailable. A caller's own cancellation stays
// what it is.
func wrap(err error, operation string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, redis.Nil):
		return fmt.Errorf("%s: %w", operation, fleet.ErrNotFound)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", operation, err)
	case wrongUse(err):
		return fmt.Errorf("%s: %w", operation, err)
	}
	return fmt.Errorf("%s: %w: %w", operation, fleet.ErrUnavailable, err)
}

// wrongUse tells errors that trying again will not cure: keys of another program or a broken script. All else, from a
// closed socket to OOM, LOADING or NOAUTH, is a server that cannot serve us now.
func wrongUse(err error) bool {
	var answered redis.Error
	if !errors.As(err, &answered) {
		return false
	}
	text := answered.Error()
	for _, sign := range []string{"OOM ", "READONLY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "BUSY ", "max number of clients"} {
		if strings.Contains(text, sign) {
			return false
		}
	}
	for _, sign := range []string{"WRONGTYPE", "CROSSSLOT", "ERR "} {
		if strings.HasPrefix(text, sign) {
			return true
		}
	}
	return false
}
