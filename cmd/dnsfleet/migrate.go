package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// runMigrate brings the schema of the embedded store up to date, as every start does, and says so. Redis has none.
func runMigrate(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := parseFlags("migrate", args, stderr, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	cfg, err := loadPrimary()
	if err != nil {
		return err
	}
	if url := string(cfg.StoreURL); url != "" && !strings.HasPrefix(url, "sqlite://") {
		_, err := fmt.Fprintln(stdout, "the store is Redis, which has no schema: nothing to do")
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	opened, err := openStore(ctx, cfg, nil, newLogger(cfg.instanceConfig, stderr))
	if err != nil {
		return err
	}
	if err := opened.Close(); err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	_, err = fmt.Fprintln(stdout, "the store's schema is up to date")
	return err
}
