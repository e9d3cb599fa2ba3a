package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/miekg/dns"
)

// healthTimeout is shorter than the usual time-out of a container's health check.
const healthTimeout = 4 * time.Second

// runHealth asks the instance of this environment, on this machine, whether it is alive: its web listener must answer
// /healthz, and its DNS listener must answer a query.
func runHealth(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := parseFlags("health", args, stderr, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	cfg, err := loadInstance()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if cfg.WebListen == "" && len(cfg.DNSListen) == 0 {
		return fmt.Errorf("%w: DNSFLEET_WEB_LISTEN and DNSFLEET_DNS_LISTEN are both off: there is nobody to ask", errConfig)
	}
	if cfg.WebListen != "" {
		if err := askWeb(ctx, localAddr(string(cfg.WebListen)), cfg.WebCertFile != ""); err != nil {
			return err
		}
	}
	if len(cfg.DNSListen) > 0 {
		if err := askDNS(ctx, localAddr(cfg.DNSListen[0])); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(stdout, "ok")
	return err
}

// localAddr is where this machine reaches a listener: the unspecified address means loopback.
func localAddr(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func askWeb(ctx context.Context, addr string, encrypted bool) error {
	scheme := "http"
	if encrypted {
		scheme = "https"
	}
	// The certificate names the instance as others see it; from here only the port is known to be ours.
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // see above
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: /healthz answers %s", addr, response.Status)
	}
	return nil
}

func askDNS(ctx context.Context, addr string) error {
	query := new(dns.Msg)
	query.SetQuestion("localhost.", dns.TypeA)
	client := dns.Client{Timeout: healthTimeout / 2}
	if _, _, err := client.ExchangeContext(ctx, query, addr); err != nil {
		return fmt.Errorf("ask %s for localhost: %w", addr, err)
	}
	return nil
}
