package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"dnsfleet/internal/querylog/clickhouse"
)

// migrateLogTimeout bounds what a ClickHouse with much data may take.
const migrateLogTimeout = 5 * time.Minute

// runMigrate brings the schemas of a primary's store and query log up to date, as every start does unless
// DNSFLEET_MIGRATE=off, and says so.
func runMigrate(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := parseFlags("migrate", args, stderr, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	cfg, err := loadPrimary()
	if err != nil {
		return err
	}
	cfg.Migrate = "auto"
	log := newLogger(cfg.instanceConfig, stderr)
	storeSays, err := migrateStore(ctx, cfg, log)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, storeSays); err != nil {
		return err
	}
	logSays, err := migrateLog(ctx, cfg, log)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, logSays)
	return err
}

func migrateStore(ctx context.Context, cfg primaryConfig, log *slog.Logger) (says string, err error) {
	if url := string(cfg.StoreURL); url != "" && !strings.HasPrefix(url, "sqlite://") {
		return "the store is Redis, which has no schema: nothing to do", nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	opened, err := openStore(ctx, cfg, nil, log)
	if err != nil {
		return "", err
	}
	if err := opened.Close(); err != nil {
		return "", fmt.Errorf("close store: %w", err)
	}
	return "the store's schema is up to date", nil
}

func migrateLog(ctx context.Context, cfg primaryConfig, log *slog.Logger) (says string, err error) {
	ctx, cancel := context.WithTimeout(ctx, migrateLogTimeout)
	defer cancel()
	target, err := openTarget(ctx, cfg.instanceConfig, defaultLog(cfg.instanceConfig), nil, log)
	if err != nil {
		return "", err
	}
	if target.sink == nil {
		return "the query log is off: nothing to do", nil
	}
	if log, remote := target.sink.(*clickhouse.Log); remote {
		err = log.Migrate(ctx)
	}
	if err := errors.Join(err, target.close()); err != nil {
		return "", fmt.Errorf("migrate query log: %w", err)
	}
	return "the query log's schema is up to date (" + target.kind + ")", nil
}

// defaultLog is the query log of a primary that names none.
func defaultLog(cfg instanceConfig) string {
	return "sqlite://" + filepath.Join(cfg.DataDir, "queries.db")
}
