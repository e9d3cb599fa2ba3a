package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"dnsfleet/internal/bootstrap"
	"dnsfleet/internal/control"
	"dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpserve"
	"dnsfleet/internal/stats"
)

// instance is what every role runs: it answers DNS, counts, and lets itself be controlled.
type instance struct {
	cfg      instanceConfig
	role     fleet.Role
	log      *slog.Logger
	dialer   *bootstrap.Dialer
	counters *stats.Counters
	events   *eventLog
	engine   *dns.Engine
	control  *httpserve.Server // nil: no control API

	cacheRedis io.Closer // nil: no cache is shared

	controlURL string          // told to the primary
	unapplied  func() []string // what of the policy is not applied
}

// newInstance binds everything that an instance listens on, so that a taken port ends the start. openTarget opens the log
// that its events go to; the dialer and the counters are there already.
func newInstance(ctx context.Context, cfg instanceConfig, role fleet.Role, wall func() time.Time, log *slog.Logger,
	openTarget func(context.Context, *instance) (logTarget, error),
) (_ *instance, err error) {
	n := &instance{cfg: cfg, role: role, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.abandon())
		}
	}()
	n.dialer, err = bootstrap.New(bootstrap.Options{Servers: cfg.BootstrapDNS, Own: cfg.DNSListen, Log: log})
	if err != nil {
		return nil, fmt.Errorf("%w: DNSFLEET_BOOTSTRAP_DNS: %w", errConfig, err)
	}
	n.counters, err = stats.New(stats.Options{Dir: filepath.Join(cfg.DataDir, "history"), BootID: fleet.RandomID(), Now: wall, Log: log})
	if err != nil {
		return nil, fmt.Errorf("open the history in DNSFLEET_DATA_DIR=%q: %w", cfg.DataDir, err)
	}
	target, err := openTarget(ctx, n)
	if err != nil {
		return nil, err
	}
	if n.events, err = newEventLog(cfg, target, n.counters, log); err != nil {
		return nil, err
	}
	if err := n.newEngine(ctx); err != nil {
		return nil, err
	}
	if err := n.dialer.SetOwn(n.engine.Addrs()); err != nil {
		return nil, fmt.Errorf("tell the bootstrap resolver its own listeners: %w", err)
	}
	if cfg.Control != "" {
		n.control, err = bindHTTP(ctx, "DNSFLEET_CONTROL_LISTEN", string(cfg.Control), httpserve.Options{
			Handler: control.New(control.Options{Engine: controlled{n.engine}, Token: string(cfg.ControlToken), QueryStore: func() any { return n.events.stats() }, Log: log}), Log: log,
		})
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

// abandon frees what an instance holds that was never run.
func (n *instance) abandon() error {
	var errs []error
	if n.engine != nil {
		errs = append(errs, n.engine.Close())
	}
	return errors.Join(append(errs, n.free())...)
}

// free closes what an instance holds that has run to its end.
func (n *instance) free() error {
	var errs []error
	if n.events != nil {
		errs = append(errs, n.events.free())
	}
	if n.counters != nil {
		errs = append(errs, n.counters.Close())
	}
	if n.cacheRedis != nil {
		errs = append(errs, n.cacheRedis.Close())
	}
	return errors.Join(errs...)
}

// bindHTTP binds an HTTP server; an error names the variable that the address comes from.
func bindHTTP(ctx context.Context, variable, addr string, o httpserve.Options) (*httpserve.Server, error) {
	listener, err := httpserve.Listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", variable, addr, err)
	}
	server, err := httpserve.New(listener, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s=%q: %w", variable, addr, err), listener.Close())
	}
	return server, nil
}

// answering are the tasks that answer somebody: the first to end, so that what they did last is counted.
func (n *instance) answering() []task {
	tasks := []task{func(ctx context.Context) error {
		n.log.InfoContext(ctx, "instance is up", "instance", n.cfg.InstanceID, "name", n.cfg.InstanceName, "role", string(n.role),
			"boot", n.counters.BootID(), "dns", n.engine.Addrs(), "dot", n.engine.DoTAddrs(), "doh", n.engine.DoHAddrs(), "release", version())
		return n.engine.Run(ctx)
	}}
	if n.control != nil {
		tasks = append(tasks, n.control.Run)
	}
	return tasks
}

// ready says why the instance would not give the answers that it should.
func (n *instance) ready() error {
	if !n.cfg.answersDNS() {
		return nil
	}
	return n.engine.Ready()
}

// Apply makes a policy the one by which queries are answered; see replica.Applier.
func (n *instance) Apply(ctx context.Context, doc fleet.PolicyDoc) ([]string, error) {
	return n.engine.Apply(ctx, doc)
}

// report is what the instance says of itself now, without slices.
func (n *instance) report() fleet.Report {
	revision, hash := n.engine.PolicyHash()
	counters := n.counters.Counters()
	answers := n.cfg.answersDNS()
	return fleet.Report{
		Protocol: fleet.Protocol, InstanceID: n.cfg.InstanceID, Name: n.cfg.InstanceName, BootID: n.counters.BootID(),
		StartedAt: n.counters.StartedAt(), IntervalSeconds: n.cfg.StatsEvery.Seconds(), Release: version(), DNS: &answers,
		PolicyRevision: revision, PolicyHash: hash, PolicyUnapplied: n.unapplied(), ControlURL: n.controlURL,
		Blocklist: n.engine.Blocklist(), Cache: n.engine.Cache(), CacheRefresh: n.engine.Refresh(),
		ResponseDistribution: fleet.Distribution{Outcomes: counters.Outcomes}, ResponseTime: counters.ResponseTime(),
		Upstreams: counters.Upstreams, QueryLog: n.events.name(), LastHour: n.counters.LastHour(), Slices: []fleet.Slice{}, Acks: []fleet.Ack{},
	}
}

// controlled is the engine as the control API wants it.
type controlled struct{ *dns.Engine }

func (c controlled) Check(name string) control.Decision {
	d := c.Engine.Check(name)
	return control.Decision{Blocked: d.Blocked, Rule: d.Rule, List: d.List, Kind: d.Reason}
}

func (c controlled) Upstreams() any { return c.Engine.Upstreams() }
