// Package redisurl reads the URLs that say which Redis servers to use and how they work together, and makes clients for
// them.
package redisurl

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"dnsfleet/internal/fleet"
)

// Kind is how the servers behind a URL work together.
type Kind int

// The kinds.
const (
	Single Kind = iota
	Sentinel
	Cluster
)

// Target is what a store URL says.
type Target struct {
	Kind     Kind
	TLS      bool
	Addrs    []string // host:port; of the sentinels where Kind is Sentinel
	Username string
	Password string
	DB       int    // always 0 on a cluster
	Master   string // the sentinels' name for the servers

	SentinelUsername string
	SentinelPassword string
}

// Parse reads a store URL:
//
//	redis://[user[:password]@]host[:6379][/db]
//	redis+sentinel://[user[:password]@]host[:26379][,host…]/master[/db][?sentinel_username=…&sentinel_password=…]
//	redis+cluster://[user[:password]@]host[:6379][,host…]
//
// rediss instead of redis speaks TLS with all of them. redis://:password@host gives a password alone. User and password
// are percent-encoded; those of a sentinel URL are for the servers. An error never repeats the URL, which holds a secret.
func Parse(text string) (Target, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return Target{}, fmt.Errorf("%w: store URL needs a scheme such as redis://", fleet.ErrInvalid)
	}
	var t Target
	port := "6379"
	switch base, kind, _ := strings.Cut(scheme, "+"); {
	case base != "redis" && base != "rediss", strings.HasSuffix(scheme, "+"):
		return Target{}, badScheme(scheme)
	case kind == "":
		t = Target{Kind: Single, TLS: base == "rediss"}
	case kind == "sentinel":
		t, port = Target{Kind: Sentinel, TLS: base == "rediss"}, "26379"
	case kind == "cluster":
		t = Target{Kind: Cluster, TLS: base == "rediss"}
	default:
		return Target{}, badScheme(scheme)
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		if err := t.readUser(authority[:at]); err != nil {
			return Target{}, err
		}
		authority = authority[at+1:]
	}
	if err := t.readHosts(authority, port); err != nil {
		return Target{}, err
	}
	if err := t.readPath(path); err != nil {
		return Target{}, err
	}
	return t, t.readQuery(query)
}

func badScheme(scheme string) error {
	return fmt.Errorf("%w: store URL scheme %q is none of redis, redis+sentinel, redis+cluster (or rediss…)", fleet.ErrInvalid, scheme)
}

func (t *Target) readUser(info string) error {
	user, password, _ := strings.Cut(info, ":")
	var err, err2 error
	t.Username, err = url.PathUnescape(user)
	t.Password, err2 = url.PathUnescape(password)
	if err != nil || err2 != nil {
		return fmt.Errorf("%w: user and password in a store URL must be percent-encoded", fleet.ErrInvalid)
	}
	return nil
}

func (t *Target) readHosts(list, port string) error {
	for host := range strings.SplitSeq(list, ",") {
		addr := host
		if _, _, err := net.SplitHostPort(host); err != nil {
			addr = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		name, number, err := net.SplitHostPort(addr)
		if n, portErr := strconv.ParseUint(number, 10, 16); err != nil || portErr != nil || n == 0 || name == "" || strings.ContainsAny(name, " @[]") {
			return fmt.Errorf("%w: store URL must name its hosts as host:port", fleet.ErrInvalid)
		}
		t.Addrs = append(t.Addrs, addr)
	}
	if t.Kind == Single && len(t.Addrs) > 1 {
		return fmt.Errorf("%w: several hosts need redis+sentinel:// or redis+cluster://", fleet.ErrInvalid)
	}
	return nil
}

func (t *Target) readPath(path string) error {
	db := strings.TrimSuffix(path, "/")
	if t.Kind == Sentinel {
		if t.Master, db, _ = strings.Cut(db, "/"); t.Master == "" {
			return fmt.Errorf("%w: redis+sentinel:// needs the master's name: redis+sentinel://host:26379/mymaster", fleet.ErrInvalid)
		}
	}
	if db == "" {
		return nil
	}
	n, err := strconv.ParseUint(db, 10, 16)
	if err != nil {
		return fmt.Errorf("%w: store URL database %q is not a number", fleet.ErrInvalid, db)
	}
	if t.Kind == Cluster && n != 0 {
		return fmt.Errorf("%w: a Redis cluster has only database 0", fleet.ErrInvalid)
	}
	t.DB = int(n)
	return nil
}

func (t *Target) readQuery(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("%w: store URL query is malformed", fleet.ErrInvalid)
	}
	for name := range values {
		switch {
		case t.Kind == Sentinel && name == "sentinel_username":
			t.SentinelUsername = values.Get(name)
		case t.Kind == Sentinel && name == "sentinel_password":
			t.SentinelPassword = values.Get(name)
		default:
			return fmt.Errorf("%w: store URL parameter %q is unknown", fleet.ErrInvalid, name)
		}
	}
	return nil
}

// Dialer opens a connection. It need not know of TLS.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Limits are how long a client waits, and how often it tries.
type Limits struct {
	Dial    time.Duration // for a connection, and for a TLS handshake on it
	IO      time.Duration // for an answer
	Pool    time.Duration // for a connection that is free
	Retries int           // of a command whose connection broke: every command must bear to be run twice
}

// Client makes a client that connects to nothing before its first command. dial may be nil.
func (t Target) Client(dial Dialer, limits Limits) redis.UniversalClient {
	if dial == nil {
		dial = (&net.Dialer{Timeout: limits.Dial}).DialContext
	}
	if t.TLS {
		dial = withTLS(dial, limits.Dial)
	}
	o := &redis.UniversalOptions{
		Addrs: t.Addrs, Username: t.Username, Password: t.Password, DB: t.DB, MasterName: t.Master,
		SentinelUsername: t.SentinelUsername, SentinelPassword: t.SentinelPassword,
		Dialer: dial, DialTimeout: limits.Dial, DialerRetries: 1, ReadTimeout: limits.IO, WriteTimeout: limits.IO,
		ContextTimeoutEnabled: true, MaxRetries: limits.Retries, PoolTimeout: limits.Pool, PoolSize: 32,
		ConnMaxIdleTime: 5 * time.Minute, DisableIdentity: true, FailingTimeoutSeconds: 1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch t.Kind {
	case Sentinel:
		return redis.NewFailoverClient(o.Failover())
	case Cluster:
		cluster := o.Cluster()
		cluster.MaxRedirects = 4
		return redis.NewClusterClient(cluster)
	default:
		return redis.NewClient(o.Simple())
	}
}

// withTLS puts TLS on a dialer, because go-redis leaves that to a dialer that it did not make.
func withTLS(dial Dialer, timeout time.Duration) Dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close() //nolint:errcheck // the handshake's error is the one that counts
			return nil, err
		}
		return conn, nil
	}
}
