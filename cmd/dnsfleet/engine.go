package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dnsfleet/internal/dns"
	"dnsfleet/internal/dns/cache/shared"
	"dnsfleet/internal/httpserve"
	"dnsfleet/internal/store/redis/redisurl"
)

// newEngine makes the engine of an instance and binds what it listens on. The instance keeps what has to be closed.
func (n *instance) newEngine(ctx context.Context) (err error) {
	cfg := n.cfg
	o := dns.Options{
		Listen: cfg.DNSListen, DoT: cfg.DoTListen, DoH: cfg.DoHListen, AllowClients: cfg.AllowClients, DataDir: cfg.DataDir,
		DialContext: n.dialer.DialContext, Recorder: n.events, Exchanges: n.counters, Log: n.log,
	}
	if cfg.TLSCertFile != "" {
		certificate, err := httpserve.NewCertificate(cfg.TLSCertFile, cfg.TLSKeyFile, n.log)
		if err != nil {
			return fmt.Errorf("%w: DNSFLEET_TLS_CERT_FILE, DNSFLEET_TLS_KEY_FILE: %w", errConfig, err)
		}
		o.Certificate = certificate.Get
	}
	if cfg.CacheRedis != "" {
		target, err := redisurl.Parse(string(cfg.CacheRedis))
		if err != nil {
			return fmt.Errorf("%w: DNSFLEET_CACHE_REDIS_URL: %w", errConfig, err)
		}
		// Nobody waits for this client longer than the cache says; the times bound how long a dead connection is kept.
		client := target.Client(n.dialer.DialContext, redisurl.Limits{Dial: time.Second, IO: time.Second, Pool: time.Second})
		n.cacheRedis = client
		o.SharedCache = shared.New(shared.Options{Client: client, Log: n.log})
	}
	if n.engine, err = dns.New(o); err != nil {
		return fmt.Errorf("make DNS engine: %w", err)
	}
	if err := n.engine.Bind(ctx); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cfg.dnsListeners(), ", "), err)
	}
	return nil
}

// dnsListeners are the variables that say where DNS is listened for, as they are set.
func (c *instanceConfig) dnsListeners() []string {
	var set []string
	for _, v := range []struct {
		name string
		list listenList
	}{{"DNSFLEET_DNS_LISTEN", c.DNSListen}, {"DNSFLEET_DOT_LISTEN", c.DoTListen}, {"DNSFLEET_DOH_LISTEN", c.DoHListen}} {
		if len(v.list) > 0 {
			set = append(set, fmt.Sprintf("%s=%q", v.name, strings.Join(v.list, ",")))
		}
	}
	return set
}

// answersDNS reports whether the instance listens for DNS at all.
func (c *instanceConfig) answersDNS() bool {
	return len(c.DNSListen)+len(c.DoTListen)+len(c.DoHListen) > 0
}
