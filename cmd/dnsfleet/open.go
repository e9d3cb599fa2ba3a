package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"dnsfleet/internal/store"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/store/sqlite"
)

// dialFunc connects without the help of the instance's own resolver; nil means the system's way.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// newLogger is the logger that a configuration asks for.
func newLogger(cfg instanceConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		level = slog.LevelInfo // not reached: load has checked it
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// openStore opens the store of a configuration. A Redis that cannot be reached is no error: the store then says so for
// as long as it lasts.
func openStore(ctx context.Context, cfg primaryConfig, dial dialFunc, log *slog.Logger) (store.Store, error) {
	url := string(cfg.StoreURL)
	if url == "" {
		url = "sqlite://" + filepath.Join(cfg.DataDir, "dnsfleet.db")
	}
	if path, embedded := strings.CutPrefix(url, "sqlite://"); embedded {
		if path == "" {
			return nil, fmt.Errorf("%w: DNSFLEET_STORE_URL=%q: must name a file, as in sqlite:///var/lib/dnsfleet/dnsfleet.db", errConfig, url)
		}
		opened, err := sqlite.Open(ctx, sqlite.Options{Path: path, StatsTTL: cfg.StatsTTL, History: cfg.history(), NoMigrate: cfg.Migrate == "off", Log: log})
		if err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
		return opened, nil
	}
	opened, err := redis.Open(ctx, redis.Options{
		URL: url, Prefix: cfg.StorePrefix, StatsTTL: cfg.StatsTTL, History: cfg.history(), Dialer: dial, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: DNSFLEET_STORE_URL=%s: %w", errConfig, redacted, err)
	}
	return opened, nil
}

// history is how far back the store keeps slices.
func (c primaryConfig) history() time.Duration {
	switch c.History {
	case "24h":
		return 24 * time.Hour
	case "90d":
		return 90 * 24 * time.Hour
	}
	return 0
}
