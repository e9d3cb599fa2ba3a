package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"dnsfleet/internal/dns"
	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpserve"
	"dnsfleet/internal/querylog/breakdown"
	"dnsfleet/internal/store"
	"dnsfleet/internal/store/redis"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
	"dnsfleet/internal/view"
	"dnsfleet/internal/webapi"
	"dnsfleet/web"
)

// runPrimary is `dnsfleet primary`.
func runPrimary(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	check, err := parseCheck("primary", args, stderr)
	if err != nil {
		return err
	}
	cfg, err := loadPrimary()
	if err != nil {
		return err
	}
	if check {
		if _, err := readSeed(cfg.PolicyFile); err != nil {
			return err
		}
		return writeConfig(stdout, cfg)
	}
	log := newLogger(cfg.instanceConfig, stderr)
	redis.LogClient(log)
	warnUnknown(ctx, log)
	p, err := newPrimary(ctx, cfg, time.Now, log, stderr)
	if err != nil {
		return err
	}
	return p.run(ctx)
}

// warnUnknown names variables that look like ours and are not: most are typing errors.
func warnUnknown(ctx context.Context, log *slog.Logger) {
	for _, name := range unknownVariables(os.Environ(), primaryConfig{}, replicaConfig{}) {
		log.WarnContext(ctx, "unknown variable in the environment is ignored", "variable", name)
	}
}

// primary is an instance that owns the policy and shows the fleet.
type primary struct {
	*instance
	cfg   primaryConfig
	store store.Store

	storeErrors atomic.Uint64

	seed     fleet.Policy
	policy   *storePolicy
	follower *replica.Follower
	reporter *replica.Reporter
	view     *view.View
	queries  *breakdown.Breakdown
	open     bool // the web asks for no password
	password *password
	sync     *syncapi.Server
	servers  []*httpserve.Server // the web's first
}

// newPrimary opens and binds all that a primary needs. What it has to tell a person once goes to notice.
func newPrimary(ctx context.Context, cfg primaryConfig, wall func() time.Time, log *slog.Logger, notice io.Writer) (_ *primary, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	p := &primary{cfg: cfg}
	if p.seed, err = readSeed(cfg.PolicyFile); err != nil {
		return nil, err
	}
	p.instance, err = newInstance(ctx, cfg.instanceConfig, fleet.RolePrimary, wall, log, func(ctx context.Context, n *instance) (logTarget, error) {
		return openTarget(ctx, cfg.instanceConfig, defaultLog(cfg.instanceConfig), n.dialer.DialContext, log)
	})
	if err != nil {
		return nil, err
	}
	opened, err := openStore(ctx, cfg, p.dialer.DialContext, log)
	if err != nil {
		return nil, errors.Join(err, p.abandon())
	}
	p.store = countedStore{opened, &p.storeErrors}
	p.policy = newStorePolicy(p.store)
	p.follower = replica.NewFollower(replica.FollowerOptions{
		Source: p.policy, Applier: p.instance, File: filepath.Join(cfg.DataDir, "policy.json"), Log: log,
	})
	p.unapplied = func() []string { return p.follower.Stats().Unapplied }
	p.reporter = replica.NewReporter(replica.ReporterOptions{
		Report: p.report, Source: p.counters, Sender: replica.StoreSender{Store: p.store}, Interval: cfg.StatsEvery, Wall: wall, Log: log,
	})
	p.queries = breakdown.New(breakdown.Options{
		Reader: p.events.reader, LogID: p.events.name, Slices: p.store.Slices, Members: p.members, Now: p.counters.Now,
		Retention: cfg.QueryLogRetention, History: cfg.history(), Log: log,
	})
	//nolint:contextcheck // the view asks for queries whenever it is looked at, long after this start
	p.view = view.New(view.Options{Store: p.store, Local: p.local, Queries: p.queries, Log: log})
	p.sync = syncapi.NewServer(syncapi.ServerOptions{Store: p.store, Events: p.events.store(), Log: log})
	if err := p.bindWeb(ctx, notice); err != nil {
		return nil, errors.Join(err, p.store.Close(), p.abandon())
	}
	return p, nil
}

// bindWeb binds the web listener, and the sync listener where it is one of its own.
func (p *primary) bindWeb(ctx context.Context, notice io.Writer) error {
	p.open = p.cfg.AdminPassword == "" && p.cfg.WebListen.loopback()
	p.password = newPassword(string(p.cfg.AdminPassword), p.store, notice)
	api, err := webapi.New(webapi.Options{
		View: p.view, Store: p.store, Queries: p.queries, History: p.cfg.history(), CheckPolicy: dns.CheckPolicy,
		PolicyChanged: func(doc fleet.PolicyDoc) {
			p.policy.hint()
			p.sync.PolicyChanged(doc.Hash)
		},
		Open: p.open, PasswordHash: p.password.hash, Release: version(), Ready: p.ready, Metrics: p.metrics(), Static: web.Files(), Log: p.log,
	})
	if err != nil {
		return fmt.Errorf("make web API: %w", err)
	}
	webHandler := api.Handler()
	if p.cfg.SyncListen == "" {
		webHandler = withSync(webHandler, p.sync.Handler())
	}
	for _, l := range []struct {
		variable string
		addr     listenAddr
		handler  http.Handler
	}{
		{"DNSFLEET_WEB_LISTEN", p.cfg.WebListen, webHandler},
		{"DNSFLEET_SYNC_LISTEN", p.cfg.SyncListen, p.sync.Handler()},
	} {
		if l.addr == "" {
			continue
		}
		server, err := bindHTTP(ctx, l.variable, string(l.addr), httpserve.Options{
			Handler: l.handler, CertFile: p.cfg.WebCertFile, KeyFile: p.cfg.WebKeyFile, Log: p.log,
		})
		if err != nil {
			return err
		}
		p.servers = append(p.servers, server)
	}
	return nil
}

// withSync sends /sync/ to one handler and all else to the other. The sync API has tokens of its own and is for programs,
// so what guards the web against other pages does not stand before it.
func withSync(webHandler, syncHandler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/sync/") {
			syncHandler.ServeHTTP(w, r)
			return
		}
		webHandler.ServeHTTP(w, r)
	})
}

// members are the fleet's instances as answers about queries need to know them.
func (p *primary) members() []breakdown.Member {
	instances := p.view.Instances()
	members := make([]breakdown.Member, 0, len(instances))
	for _, in := range instances {
		m := breakdown.Member{ID: in.ID, Name: in.Name, Primary: in.Role == fleet.RolePrimary, DNS: in.DNS}
		if in.Report != nil {
			m.QueryLog, m.LastHour = in.Report.QueryLog, in.Report.LastHour
		}
		members = append(members, m)
	}
	return members
}

// local is this primary in its own view: as it is now, not as it last reported.
func (p *primary) local() fleet.Instance {
	r := p.report()
	r.SentAt = p.counters.Now()
	if skew := p.reporter.Stats().ClockSkew; skew != nil {
		r.ClockSkew = new(skew.Seconds())
	}
	return fleet.Instance{
		ID: r.InstanceID, Name: r.Name, Role: fleet.RolePrimary, DNS: r.AnswersDNS(), BootID: r.BootID,
		Current: r.ResponseDistribution.Outcomes, Report: &r, Minutes: p.counters.Minutes(),
	}
}

// ready says why the primary is not ready.
func (p *primary) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	var storeErr error
	if _, err := p.store.Now(ctx); err != nil {
		storeErr = fmt.Errorf("store: %w", err)
	}
	return errors.Join(storeErr, p.instance.ready())
}

const readyTimeout = 2 * time.Second

// run serves until ctx ends.
func (p *primary) run(ctx context.Context) error {
	if warner, ok := p.store.(countedStore).Store.(*redis.Store); ok {
		for _, warning := range warner.Warnings(ctx) {
			p.log.WarnContext(ctx, "store may lose what it keeps", "why", warning)
		}
	}
	for _, s := range p.servers {
		p.log.InfoContext(ctx, "primary listens", "url", s.URL())
	}
	serving := []task{p.view.Run, p.sync.Run, p.watchPolicy}
	if !p.open {
		serving = append(serving, p.password.make)
	}
	for _, s := range p.servers {
		serving = append(serving, s.Run)
	}
	err := runStages(ctx,
		append(p.answering(), p.follower.Run, func(ctx context.Context) error {
			if err := p.plantSeed(ctx); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}),
		p.events.recording(),
		[]task{p.counters.Run},
		[]task{p.reporter.Run},
		serving,
		p.events.keeping(),
	)
	return errors.Join(err, p.store.Close(), p.free())
}

// watchPolicy passes on the store's hints that the policy changed, through whichever primary.
func (p *primary) watchPolicy(ctx context.Context) error {
	return p.store.Watch(ctx, func(h fleet.Hint) {
		if h.Policy || h == (fleet.Hint{}) {
			p.policy.hint()
			p.sync.PolicyChanged("")
		}
	})
}
