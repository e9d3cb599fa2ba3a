package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"dnsfleet/internal/demo"
	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/redis"
)

// demoOptions are the flags of `dnsfleet demo`.
type demoOptions struct {
	redis     string
	replicas  int
	killAfter time.Duration
	web       string
}

// The demo's timing is quicker than the defaults, so that a visitor sees what happens.
const (
	demoInterval = 2 * time.Second
	demoTTL      = 30 * time.Second
	maxReplicas  = 50
)

// runDemo is `dnsfleet demo`: a primary and replicas in one process, each a real instance, with an upstream and clients of
// its own, so that it needs neither the internet nor any set-up.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o demoOptions
	if err := parseFlags("demo", args, stderr, func(f *flag.FlagSet) {
		f.StringVar(&o.redis, "redis", "", "use this Redis (redis://…) instead of an embedded store")
		f.IntVar(&o.replicas, "replicas", 3, "how many replicas")
		f.DurationVar(&o.killAfter, "kill-one-after", 0, "let one replica die after this time, as in a power cut; 0 = never")
		f.StringVar(&o.web, "web", "127.0.0.1:8053", "where the dashboard listens; a free port is taken if it is in use")
	}); err != nil {
		return err
	}
	if o.replicas < 0 || o.replicas > maxReplicas {
		return fmt.Errorf("%w: --replicas must lie between 0 and %d", errUsage, maxReplicas)
	}
	if o.killAfter < 0 || (o.killAfter > 0 && o.replicas == 0) {
		return fmt.Errorf("%w: --kill-one-after must be positive and needs a replica", errUsage)
	}
	dir, err := os.MkdirTemp("", "dnsfleet-demo-")
	if err != nil {
		return fmt.Errorf("make demo directory: %w", err)
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	redis.LogClient(log)
	return errors.Join(runDemoIn(ctx, dir, o, log, stdout), os.RemoveAll(dir))
}

func runDemoIn(ctx context.Context, dir string, o demoOptions, log *slog.Logger, stdout io.Writer) error {
	upstream, err := demo.NewUpstream(ctx)
	if err != nil {
		return err
	}
	policyFile, err := writeDemoPolicy(dir, upstream.Addr())
	if err != nil {
		return err
	}
	p, err := newDemoPrimary(ctx, dir, policyFile, o, log)
	if err != nil {
		return err
	}
	tasks := []task{upstream.Run, p.run}
	targets := []demo.Target{{Addr: p.engine.Addrs()[0], PerSec: 12, AdShare: 0.18, Clients: 3}}
	var replicas []*following
	for i := range o.replicas {
		r, err := newDemoReplica(ctx, dir, i, p, log)
		if err != nil {
			return err
		}
		replicas = append(replicas, r)
		targets = append(targets, demo.Target{Addr: r.engine.Addrs()[0], PerSec: float64(20 + 9*i), AdShare: 0.1 + 0.05*float64(i%4), Clients: 2 + i%4})
	}
	for i, r := range replicas {
		if i == len(replicas)-1 && o.killAfter > 0 {
			tasks = append(tasks, func(ctx context.Context) error { return dieAfter(ctx, r, o.killAfter, stdout) })
			continue
		}
		tasks = append(tasks, r.run)
	}
	tasks = append(tasks, func(ctx context.Context) error {
		if awaitReady(ctx, append([]func() error{p.ready}, readiness(replicas)...)) {
			return demo.Traffic(ctx, targets)
		}
		return nil
	})
	if err := tellDemo(stdout, p, replicas, o); err != nil {
		return err
	}
	// Replicas end before the primary, so that their last push is received: clients, then replicas, then the rest.
	err = runStages(ctx, tasks[len(tasks)-1:], tasks[2:len(tasks)-1], tasks[1:2], tasks[:1])
	fmt.Fprintln(stdout, "\nThe demo has ended; it leaves nothing behind.")
	return err
}

func writeDemoPolicy(dir, upstream string) (string, error) {
	list := filepath.Join(dir, "blocklist.txt")
	f, err := os.Create(list)
	if err != nil {
		return "", fmt.Errorf("write demo block list: %w", err)
	}
	if err := errors.Join(demo.WriteBlockList(f), f.Close()); err != nil {
		return "", fmt.Errorf("write demo block list: %w", err)
	}
	policy := filepath.Join(dir, "policy.yaml")
	text := fmt.Sprintf(`upstreams: [{address: "udp://%s"}]
upstream_strategy: failover
lists: [{name: demo ads, url: "%s", refresh: 24h}]
deny: [blocked.example]
records: [{name: nas.home.arpa, type: A, value: 192.168.1.10}]
`, upstream, (&url.URL{Scheme: "file", Path: filepath.ToSlash(list)}).String())
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write demo policy: %w", err)
	}
	return policy, nil
}

// demoInstance is the configuration that all of the demo's instances share.
func demoInstance(dir, id, name string) instanceConfig {
	return instanceConfig{
		InstanceID: id, InstanceName: name, DataDir: filepath.Join(dir, id), DNSListen: listenList{"127.0.0.1:0"},
		Control: "127.0.0.1:0", WebListen: "127.0.0.1:0", StatsEvery: demoInterval, LogLevel: "warn", LogFormat: "text",
		QueryLogRetention: 24 * time.Hour, Privacy: "full", Migrate: "auto",
	}
}

func newDemoPrimary(ctx context.Context, dir, policyFile string, o demoOptions, log *slog.Logger) (*primary, error) {
	cfg := primaryConfig{
		instanceConfig: demoInstance(dir, "demo-primary", "office"), StoreURL: secret(o.redis), StorePrefix: "dnsfleet-demo-" + fleet.RandomID(),
		StatsTTL: demoTTL, History: "24h", PolicyFile: policyFile,
	}
	if err := cfg.WebListen.Decode(o.web); err != nil {
		return nil, fmt.Errorf("%w: --web %w", errUsage, err)
	}
	if !cfg.WebListen.loopback() || cfg.WebListen == "" {
		return nil, fmt.Errorf("%w: --web must be on loopback: the demo has no password", errUsage)
	}
	if free, err := net.Listen("tcp", string(cfg.WebListen)); err != nil { //nolint:noctx // a look, not a wait
		cfg.WebListen = "127.0.0.1:0"
	} else if err := free.Close(); err != nil {
		return nil, fmt.Errorf("look for a free port: %w", err)
	}
	p, err := newPrimary(ctx, cfg, time.Now, log, io.Discard)
	if err != nil {
		return nil, err
	}
	if o.redis == "" {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := p.store.Now(ctx); err != nil {
		return nil, fmt.Errorf("--redis: %w", err)
	}
	return p, nil
}

func newDemoReplica(ctx context.Context, dir string, i int, p *primary, log *slog.Logger) (*following, error) {
	names := []string{"home", "cabin", "workshop", "garage", "attic", "library"}
	name := names[i%len(names)]
	if i >= len(names) {
		name = fmt.Sprintf("%s-%d", name, i/len(names)+1)
	}
	now, err := p.store.Now(ctx)
	if err != nil {
		return nil, fmt.Errorf("make token of %s: %w", name, err)
	}
	token, secretText := fleet.NewToken(name, nil, false, now)
	if err := p.store.CreateToken(ctx, token); err != nil {
		return nil, fmt.Errorf("make token of %s: %w", name, err)
	}
	return newFollowing(ctx, replicaConfig{
		instanceConfig: demoInstance(dir, fmt.Sprintf("demo-replica-%d", i+1), name),
		PrimaryURLs:    urlList{p.servers[0].URL()}, SyncToken: secret(secretText), SyncEvery: 10 * time.Second,
	}, time.Now, log)
}

func readiness(replicas []*following) []func() error {
	checks := make([]func() error, 0, len(replicas))
	for _, r := range replicas {
		checks = append(checks, r.ready)
	}
	return checks
}

// awaitReady returns true when every check has nothing to object to, false when ctx has ended before.
func awaitReady(ctx context.Context, checks []func() error) bool {
	for _, check := range checks {
		for check() != nil {
			select {
			case <-ctx.Done():
				return false
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return true
}

// dieAfter runs a replica and lets it die after d: no last push, no word to anybody.
func dieAfter(ctx context.Context, r *following, d time.Duration, stdout io.Writer) error {
	life, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	over := context.AfterFunc(life, func() { r.sender.dead.Store(ctx.Err() == nil) })
	defer over()
	if err := r.run(life); err != nil || ctx.Err() != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s has died, as --kill-one-after asked: watch it turn stale, then offline, and stay in the view.\n", r.cfg.InstanceName)
	<-ctx.Done()
	return nil
}

func tellDemo(w io.Writer, p *primary, replicas []*following, o demoOptions) error {
	host, port, err := net.SplitHostPort(p.engine.Addrs()[0])
	if err != nil {
		return fmt.Errorf("demo's address: %w", err)
	}
	fmt.Fprintf(w, "dnsfleet demo: a fleet of %d on this machine, with traffic. It needs no internet. Ctrl-C ends it.\n\n", 1+len(replicas))
	fmt.Fprintf(w, "  Dashboard   %s/\n\n", p.servers[0].URL())
	fmt.Fprintf(w, "Ask an instance (nas.home.arpa is its own record; ads1.tracker.example is on the block list; any other name has an answer):\n\n")
	fmt.Fprintf(w, "  dig @%s -p %s ads1.tracker.example   # %s, the primary\n", host, port, p.cfg.InstanceName)
	for _, r := range replicas {
		if host, port, err = net.SplitHostPort(r.engine.Addrs()[0]); err != nil {
			return fmt.Errorf("demo's address: %w", err)
		}
		fmt.Fprintf(w, "  dig @%s -p %s ads1.tracker.example   # %s\n", host, port, r.cfg.InstanceName)
	}
	fmt.Fprintf(w, `
Read the fleet as a program does:

  curl -s %[1]s/api/instances/stats
  curl -s %[1]s/api/status
  curl -s '%[1]s/api/queries/top-domains?outcome=blocked&group_by=instance'

Next: let one die with --kill-one-after 30s, keep the counts in a real Redis with --redis redis://127.0.0.1:6379,
add more with --replicas 10. To run it for real, see "Run it for real" in README.md.
`, p.servers[0].URL())
	if o.killAfter > 0 {
		fmt.Fprintf(w, "\n%s will die in %s.\n", replicas[len(replicas)-1].cfg.InstanceName, o.killAfter)
	}
	return nil
}
