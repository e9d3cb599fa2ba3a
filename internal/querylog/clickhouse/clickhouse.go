// Package clickhouse is the query log in ClickHouse: every event in dns_queries, what each minute came to in
// dns_queries_1m, and beside them what an older resolver left in dns_queries_legacy. What is asked for without a filter is
// answered from the minutes, all else from the rows, within limits.
//
// A batch is one insert with a deduplication token made of its identity, so that it may be written again after an unclear
// failure: both tables remember the tokens of the last DedupWindow batches.
package clickhouse

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
)

const (
	// DedupWindow is how many batches, of all instances, may come between a batch and its retry.
	DedupWindow = 100_000

	dialTimeout    = 5 * time.Second
	writeTimeout   = 30 * time.Second
	readTimeout    = 10 * time.Second
	migrateTimeout = 2 * time.Minute
)

// Options say where the log is and how it is kept.
type Options struct {
	// URL is clickhouse:// for the native protocol or clickhouse+http:// or clickhouse+https:// for HTTP, with user, password
	// and database, and the settings of github.com/ClickHouse/clickhouse-go (?secure=true is TLS for the native protocol).
	URL string
	// Retention is how long events are kept, at least; they go by whole days. 0 = a week.
	Retention time.Duration
	// Cluster is the name of the cluster whose replicated and distributed tables keep the log. "" = one server.
	Cluster string
	// NoMigrate leaves the schema as it is. Migrate brings it up to date.
	NoMigrate bool
	// RootCAs are who may vouch for the server where the URL asks for TLS. nil = the system's.
	RootCAs *x509.CertPool
	// DialContext connects to a host by name. nil = the system's way.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	Log         *slog.Logger // nil discards
}

// Log is a query log in ClickHouse. It may be used concurrently, and by several processes at once.
type Log struct {
	conn   driver.Conn
	target *ch.Options
	opt    Options
	schema schema
	log    *slog.Logger

	maxRows     int           // that one question may read
	readTimeout time.Duration // that it may take
	exportRows  uint64        // that an export asks for at once, about

	columns sync.Pool // of *columns

	preparing chan struct{} // holds one token; who has it may prepare the log
	legacy    atomic.Pointer[span]
}

var (
	_ querylog.Sink   = (*Log)(nil)
	_ querylog.Reader = (*Log)(nil)
)

// span is the time between the first and the last event of a table that gets no more, in milliseconds; empty when to is 0.
type span struct{ from, to int64 }

var clusterName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Open checks the options. It does not wait for the server: the first call that needs it connects, and brings the schema
// up to date. Errors never show the URL's password.
func Open(_ context.Context, o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Retention == 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	if o.Retention < time.Hour {
		return nil, fmt.Errorf("open query log: retention %s is shorter than an hour: %w", o.Retention, fleet.ErrInvalid)
	}
	if o.Cluster != "" && !clusterName.MatchString(o.Cluster) {
		return nil, fmt.Errorf("open query log: cluster %q is no name of letters, digits, dots and dashes: %w", o.Cluster, fleet.ErrInvalid)
	}
	target, err := parseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("open query log: %w", err)
	}
	if target.TLS != nil && o.RootCAs != nil {
		target.TLS.RootCAs = o.RootCAs
	}
	target.DialContext = dialer(o, target)
	conn, err := ch.Open(target)
	if err != nil {
		return nil, fmt.Errorf("open query log: %w", err)
	}
	l := &Log{conn: conn, target: target, opt: o, schema: newSchema(o), log: o.Log, maxRows: maxRowsRead, readTimeout: readTimeout, exportRows: exportRows, preparing: make(chan struct{}, 1)}
	l.preparing <- struct{}{}
	return l, nil
}

// Close closes the connections.
func (l *Log) Close() error { return l.conn.Close() }

// Source is the word by which answers name this log.
func (l *Log) Source() string { return "clickhouse" }

// ID names the log: two that reach the same database at the same hosts and ports have the same, whoever they sign in as. It
// shows nothing of the URL.
func (l *Log) ID() string {
	hosts := slices.Sorted(slices.Values(l.target.Addr))
	sum := sha256.Sum256([]byte(strings.Join(append(hosts, cmp.Or(l.target.Auth.Database, "default")), "\n")))
	return "clickhouse:" + hex.EncodeToString(sum[:6])
}

// ready prepares the log before its first use. It fails as long as the server cannot be reached.
func (l *Log) ready(ctx context.Context) (legacy span, err error) {
	if s := l.legacy.Load(); s != nil {
		return *s, nil
	}
	select {
	case <-l.preparing:
	case <-ctx.Done():
		return span{}, unavailable("prepare query log", ctx.Err())
	}
	defer func() { l.preparing <- struct{}{} }()
	if s := l.legacy.Load(); s != nil {
		return *s, nil
	}
	if l.opt.NoMigrate {
		err = l.checkVersion(ctx)
	} else {
		err = l.Migrate(ctx)
	}
	if err != nil {
		return span{}, err
	}
	s, err := l.legacySpan(ctx)
	if err != nil {
		return span{}, err
	}
	l.legacy.Store(&s)
	return s, nil
}

// Oldest release of ClickHouse whose deduplication holds for a table and what a materialized view makes of it.
const oldestMajor, oldestMinor = 24, 8

func (l *Log) checkVersion(ctx context.Context) error {
	const op = "look at ClickHouse's version"
	var version string
	if err := l.conn.QueryRow(ctx, "SELECT version()").Scan(&version); err != nil {
		return l.translate(op, err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return nil //nolint:nilerr // a version of another form is no reason to refuse it
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return fmt.Errorf("%s: ClickHouse %s is too old for the query log, which needs %d.%d or later: %w", op, version, oldestMajor, oldestMinor, fleet.ErrUnavailable)
	}
	return nil
}

// legacySpan looks at the table of an older resolver once: nobody writes to it any more.
func (l *Log) legacySpan(ctx context.Context) (s span, err error) {
	var tables uint64
	err = l.conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'dns_queries_legacy'").Scan(&tables)
	if err == nil && tables > 0 {
		// Without rows both are the epoch.
		err = l.conn.QueryRow(ctx, "SELECT toInt64(toUnixTimestamp(min(ts))) * 1000, toInt64(toUnixTimestamp(max(ts))) * 1000 FROM dns_queries_legacy").Scan(&s.from, &s.to)
	}
	return s, l.translate("look for older queries", err)
}
