package clickhouse

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"dnsfleet/internal/fleet"
)

// errURL does not tell the URL: it may show the password.
var errURL = fmt.Errorf("the ClickHouse URL cannot be read (is a character of its password not escaped?): %w", fleet.ErrInvalid)

// parseURL turns the URL of the environment into the client's options.
func parseURL(raw string) (*ch.Options, error) {
	hosts, rest, ok := cutHosts(raw)
	if !ok {
		return nil, errURL
	}
	u, err := url.Parse(rest)
	if err != nil {
		return nil, errURL
	}
	values := u.Query()
	switch u.Scheme {
	case "clickhouse":
	case "clickhouse+http":
		u.Scheme = "http"
		values.Del("secure")
	case "clickhouse+https":
		u.Scheme = "https"
		values.Set("secure", "true")
	default:
		return nil, fmt.Errorf("scheme %q of the ClickHouse URL is none of clickhouse, clickhouse+http, clickhouse+https: %w", u.Scheme, fleet.ErrInvalid)
	}
	if hosts == "" {
		return nil, fmt.Errorf("the ClickHouse URL names no host: %w", fleet.ErrInvalid)
	}
	secure := u.Scheme == "https"
	if u.Scheme == "clickhouse" && values.Has("secure") {
		if secure, err = strconv.ParseBool(cmp.Or(values.Get("secure"), "true")); err != nil {
			return nil, fmt.Errorf("secure of the ClickHouse URL is neither true nor false: %w", fleet.ErrInvalid)
		}
	}
	if u.Host, err = withPorts(hosts, u.Scheme, secure); err != nil {
		return nil, err
	}
	u.RawQuery = values.Encode()
	target, err := ch.ParseDSN(u.String())
	if err != nil {
		return nil, fmt.Errorf("the ClickHouse URL has a setting that cannot be used: %w", errors.Join(fleet.ErrInvalid, hideURL(err)))
	}
	if target.DialTimeout == 0 {
		target.DialTimeout = dialTimeout
	}
	if target.Compression == nil {
		target.Compression = &ch.Compression{Method: ch.CompressionLZ4}
	}
	if target.MaxOpenConns == 0 {
		target.MaxOpenConns = 16
	}
	target.ClientInfo.Products = append(target.ClientInfo.Products, struct{ Name, Version string }{"dnsfleet", "1"})
	return target, nil
}

// cutHosts takes the comma list of hosts out of a URL, which net/url does not take as a host.
func cutHosts(raw string) (hosts, rest string, ok bool) {
	scheme, after, ok := strings.Cut(raw, "://")
	if !ok {
		return "", "", false
	}
	authority, path := after, ""
	if end := strings.IndexAny(after, "/?#"); end >= 0 {
		authority, path = after[:end], after[end:]
	}
	user := authority[:strings.LastIndex(authority, "@")+1]
	return authority[len(user):], scheme + "://" + user + path, true
}

// withPorts adds the usual port to each host of the comma list that has none.
func withPorts(hosts, scheme string, secure bool) (string, error) {
	port := map[string]string{"http": "8123", "https": "8443", "clickhouse": "9000"}[scheme]
	if scheme == "clickhouse" && secure {
		port = "9440"
	}
	list := strings.Split(hosts, ",")
	for i, host := range list {
		name, own, err := net.SplitHostPort(host)
		if err != nil {
			if name, own = host, port; strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
				name = host[1 : len(host)-1]
			}
		}
		if n, err := strconv.ParseUint(own, 10, 16); err != nil || n == 0 || name == "" || strings.ContainsAny(name, "[]@ %") ||
			(strings.Contains(name, ":") && net.ParseIP(name) == nil) {
			return "", errURL
		}
		list[i] = net.JoinHostPort(name, own)
	}
	return strings.Join(list, ","), nil
}

func hideURL(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// dialer is nil where the client dials itself. With a dialer the client leaves TLS of the native protocol to it.
func dialer(o Options, target *ch.Options) func(context.Context, string) (net.Conn, error) {
	if o.DialContext == nil {
		return nil
	}
	timeout := target.DialTimeout
	return func(ctx context.Context, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		conn, err := o.DialContext(ctx, "tcp", address)
		if err != nil || target.TLS == nil || target.Protocol != ch.Native {
			return conn, err
		}
		config := target.TLS.Clone()
		if config.ServerName == "" {
			if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
				return nil, errors.Join(err, conn.Close())
			}
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secure, nil
	}
}
