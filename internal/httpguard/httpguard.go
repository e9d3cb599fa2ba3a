// Package httpguard keeps other web pages, and proxies that nobody meant, away from an HTTP API that trusts whoever
// can reach it. A browser on the same machine reaches a loopback listener, so being on loopback is not enough: a page
// from elsewhere may send requests to 127.0.0.1, or have its own name resolve to it (DNS rebinding).
package httpguard

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"dnsfleet/internal/httpjson"
)

// Loopback lets a request through to next only if it was plainly meant for this machine: its Host is localhost or a
// loopback address, its Origin, where it has one, is that same host and port, and no proxy forwarded it. Everything
// else gets 403 and one sentence. It is for listeners that ask for no password.
func Loopback(next http.Handler) http.Handler {
	next = SameOrigin(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reason := notLocal(r); reason != "" {
			httpjson.Error(w, http.StatusForbidden, reason)
			return
		}
		next.ServeHTTP(w, r)
	})
}

const otherOrigin = "requests from pages of another origin are refused"

// SameOrigin refuses, with 403 and one sentence, what a browser sends on behalf of a page of another origin and what
// would change something; GET, HEAD and OPTIONS pass. Clients that are no browsers (neither Sec-Fetch-Site nor
// Origin) pass. It is for listeners whose password is a cookie.
func SameOrigin(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := crossOrigin.Check(r); err != nil {
			httpjson.Error(w, http.StatusForbidden, otherOrigin)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// notLocal is the reason to refuse a request, "" for none.
func notLocal(r *http.Request) string {
	switch {
	case forwarded(r.Header):
		return "forwarded requests are refused here: this listener has no password"
	case !loopbackHost(r.Host):
		return "Host must be localhost or a loopback address: this listener has no password"
	case !sameHost(r.Header, r.Host):
		return otherOrigin
	}
	return ""
}

// forwarded reports whether any header says that a proxy stands between the client and this listener.
func forwarded(h http.Header) bool {
	for name := range h {
		switch {
		case strings.HasPrefix(name, "X-Forwarded-"), name == "X-Forwarded":
			return true
		case name == "Forwarded", name == "Via", name == "X-Real-Ip":
			return true
		}
	}
	return false
}

func loopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// sameHost reports whether each Origin is the host and port that the request was sent to. "null", which sandboxed
// pages send, is nobody's.
func sameHost(h http.Header, host string) bool {
	for _, origin := range h.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, host) {
			return false
		}
	}
	return true
}
