package redis_test

import (
	"log/slog"
	"os"
	"testing"

	"dnsfleet/internal/store/redis"
)

func TestMain(m *testing.M) {
	redis.LogClient(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}
