// Command dns measures what an answer costs, beside other resolvers and beside a bare echo, in one run on one machine: see
// docs/benchmarks.md, and start it by `make bench-dns`. It starts servers of its own on free ports of loopback, in a
// directory of its own, and ends them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// setting is what a run is made of.
type setting struct {
	rounds int
	turn   time.Duration
	only   string
	names  int // on the list
	dir    string
	binary string // dnsfleet
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "echo" {
		if err := echo(os.Args[2]); err != nil {
			fail(err)
		}
		return
	}
	var s setting
	flag.IntVar(&s.rounds, "rounds", 3, "turns of each server; their median counts")
	flag.DurationVar(&s.turn, "turn", 4*time.Second, "length of a turn")
	flag.StringVar(&s.only, "only", "", "measure only what begins so: cached, blocked, zipf, new, latency, log, memory, start, dot, doh, reload")
	flag.IntVar(&s.names, "names", 200_000, "names on the list")
	flag.StringVar(&s.binary, "dnsfleet", "", "the binary to measure (required)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench-dns:", err)
	os.Exit(1)
}

func run(ctx context.Context, s setting) (err error) {
	if s.binary == "" {
		return errors.New("-dnsfleet is required")
	}
	if s.binary, err = filepath.Abs(s.binary); err != nil { // servers run in a directory of their own
		return err
	}
	if s.dir, err = os.MkdirTemp("", "dnsfleet-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir) //nolint:errcheck // nothing in it is of use any more
	if err := writeWorkloads(s); err != nil {
		return err
	}
	b := &bench{setting: s}
	defer b.stopAll()
	fmt.Printf("%s, %d rounds of %v, a list of %d names\n\n", machine(), s.rounds, s.turn, s.names)
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{
		{"cached", func(ctx context.Context) error {
			return b.cost(ctx, "cached", "echo", "dnsfleet", "dnsdist", "unbound", "dnsmasq")
		}},
		{"blocked", func(ctx context.Context) error {
			return b.cost(ctx, "blocked", "dnsfleet", "dnsdist", "unbound", "dnsmasq")
		}},
		{"zipf", func(ctx context.Context) error { return b.cost(ctx, "zipf", "dnsfleet", "dnsdist", "unbound") }},
		{"new", func(ctx context.Context) error { return b.cost(ctx, "new", "dnsfleet", "dnsdist", "unbound") }},
		{"log", b.log},
		{"latency", b.latency},
		{"dot", func(ctx context.Context) error { return b.cost(ctx, "dot", "dnsfleet", "unbound") }},
		{"doh", func(ctx context.Context) error { return b.cost(ctx, "doh", "dnsfleet", "unbound") }},
		{"reload", b.reload},
		{"start", b.start},
		{"memory", b.memory},
	} {
		if !strings.HasPrefix(part.name, s.only) {
			continue
		}
		if err := part.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
