package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpguard"
	"dnsfleet/internal/httpjson"
	"dnsfleet/internal/httpserve"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

// runReplica is `dnsfleet replica`.
func runReplica(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	check, err := parseCheck("replica", args, stderr)
	if err != nil {
		return err
	}
	cfg, err := loadReplica()
	if err != nil {
		return err
	}
	if cfg.SyncToken == "" {
		return fmt.Errorf("%w: DNSFLEET_SYNC_TOKEN=\"\": must be set to the secret that dnsfleet token create printed", errConfig)
	}
	if check {
		return writeConfig(stdout, cfg)
	}
	log := newLogger(cfg.instanceConfig, stderr)
	warnUnknown(ctx, log)
	r, err := newFollowing(ctx, cfg, time.Now, log)
	if err != nil {
		return err
	}
	return r.run(ctx)
}

// following is an instance that follows a fleet's primaries.
type following struct {
	*instance
	client   *replica.Client
	follower *replica.Follower
	reporter *replica.Reporter
	web      *httpserve.Server // nil: none
	sender   *mortal
}

// mortal is a sender that can be made to fall silent, so that a demo can let an instance die as in a power cut.
type mortal struct {
	replica.Sender
	dead atomic.Bool
}

// Push fails once the instance is dead.
func (m *mortal) Push(ctx context.Context, r fleet.Report) (syncapi.PushReply, error) {
	if m.dead.Load() {
		return syncapi.PushReply{}, errors.New("instance is dead")
	}
	return m.Sender.Push(ctx, r)
}

// newFollowing opens and binds all that a replica needs.
func newFollowing(ctx context.Context, cfg replicaConfig, wall func() time.Time, log *slog.Logger) (_ *following, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	r := new(following)
	r.instance, err = newInstance(ctx, cfg.instanceConfig, fleet.RoleReplica, wall, log, func(ctx context.Context, n *instance) (logTarget, error) {
		if r.client, err = newClient(cfg, n.dialer.DialContext, log); err != nil {
			return logTarget{}, err
		}
		if cfg.QueryLogURL == "" || cfg.QueryLogURL == logPrimary {
			return primaryTarget(n, r.client), nil
		}
		return openTarget(ctx, cfg.instanceConfig, "", n.dialer.DialContext, log)
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.abandon())
		}
	}()
	r.controlURL, r.sender = cfg.ControlURL, &mortal{Sender: r.client}
	r.follower = replica.NewFollower(replica.FollowerOptions{
		Source: r.client, Applier: r.instance, File: filepath.Join(cfg.DataDir, "policy.json"), Interval: cfg.SyncEvery, Log: log,
	})
	r.unapplied = func() []string { return r.follower.Stats().Unapplied }
	r.reporter = replica.NewReporter(replica.ReporterOptions{
		Report: r.report, Source: r.counters, Sender: r.sender, Interval: cfg.StatsEvery, Wall: wall, Log: log,
	})
	if cfg.WebListen != "" {
		r.web, err = bindHTTP(ctx, "DNSFLEET_WEB_LISTEN", string(cfg.WebListen), httpserve.Options{
			Handler: r.handler(cfg.WebListen.loopback()), CertFile: cfg.WebCertFile, KeyFile: cfg.WebKeyFile, Log: log,
		})
	}
	return r, err
}

// newClient makes the client of the primaries.
func newClient(cfg replicaConfig, dial dialFunc, log *slog.Logger) (_ *replica.Client, err error) {
	options := replica.ClientOptions{
		PrimaryURLs: cfg.PrimaryURLs, Token: string(cfg.SyncToken), InstanceID: cfg.InstanceID, Release: version(), DialContext: dial, Log: log,
	}
	if cfg.SyncCAFile != "" {
		if options.RootCAs, err = replica.LoadRootCAs(cfg.SyncCAFile); err != nil {
			return nil, fmt.Errorf("%w: DNSFLEET_SYNC_CA_FILE=%q: %w", errConfig, cfg.SyncCAFile, err)
		}
	}
	client, err := replica.NewClient(options)
	if err != nil {
		return nil, fmt.Errorf("make sync client: %w", err)
	}
	return client, nil
}

// handler serves what a replica shows: whether it is well.
func (r *following) handler(onLoopback bool) http.Handler {
	router := mux.NewRouter()
	router.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }).Methods(http.MethodGet, http.MethodHead) //nolint:errcheck // nobody is left to tell
	router.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := r.ready(); err != nil {
			httpjson.Error(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		httpjson.Write(w, http.StatusOK, struct {
			Ready bool `json:"ready"`
		}{true})
	}).Methods(http.MethodGet, http.MethodHead)
	router.Handle("/metrics", r.metrics()).Methods(http.MethodGet)
	router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Error(w, http.StatusNotFound, "a replica has /healthz, /readyz and /metrics; the dashboard is on a primary")
	})
	if onLoopback {
		return httpguard.Loopback(router)
	}
	return router
}

// run serves until ctx ends.
func (r *following) run(ctx context.Context) error {
	defer r.client.Close()
	answering := append(r.answering(), r.follower.Run)
	if r.web != nil {
		r.log.InfoContext(ctx, "replica listens", "url", r.web.URL())
		answering = append(answering, r.web.Run)
	}
	err := runStages(ctx, answering, r.events.recording(), []task{r.counters.Run}, []task{r.reporter.Run}, r.events.keeping())
	return errors.Join(err, r.free())
}
