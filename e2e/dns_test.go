package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// authority answers every name below site.test with an address, and says nothing more once it is stopped.
func authority(t *testing.T) (addr string, stop func()) {
	t.Helper()
	server := &dns.Server{Addr: "127.0.0.1:0", Net: "udp", Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		reply := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			rr, err := dns.NewRR(q.Question[0].Name + " 300 IN A 192.0.2.7")
			if err != nil {
				t.Error(err)
				return
			}
			reply.Answer = []dns.RR{rr}
		}
		_ = w.WriteMsg(reply)
	})}
	started := make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case <-started:
	case err := <-ended:
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = server.Shutdown()
			<-ended
		}
	}
	t.Cleanup(stop)
	return server.PacketConn.LocalAddr().String(), stop
}

// tool runs a client as people do, and returns what it prints.
func tool(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The clients that people have, over every transport, before and after a restart without any upstream.
func TestEveryTransportAnswersTheUsualClients(t *testing.T) {
	certFile, keyFile, _ := certificate(t)
	upstream, stopUpstream := authority(t)
	dir := t.TempDir()
	list := filepath.Join(dir, "list.txt")
	policy := filepath.Join(dir, "policy.yaml")
	for path, text := range map[string]string{
		list:   "||ads.test^\n",
		policy: fmt.Sprintf("upstreams: [{address: \"udp://%s\"}]\nlists: [{name: mine, url: \"file://%s\"}]\nrecords: [{name: nas.home.arpa, type: A, value: 192.168.1.10}]\n", upstream, list),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain, dot, doh := freeAddr(t), freeAddr(t), freeAddr(t)
	e := env{
		"DNSFLEET_DATA_DIR": filepath.Join(dir, "data"), "DNSFLEET_DNS_LISTEN": plain, "DNSFLEET_DOT_LISTEN": dot, "DNSFLEET_DOH_LISTEN": doh,
		"DNSFLEET_TLS_CERT_FILE": certFile, "DNSFLEET_TLS_KEY_FILE": keyFile, "DNSFLEET_POLICY_FILE": policy,
		"DNSFLEET_WEB_LISTEN": freeAddr(t), "DNSFLEET_CONTROL_LISTEN": "off", "DNSFLEET_QUERYLOG_URL": "off",
	}
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	clients := map[string][]string{
		"dig over udp":            {"dig", "@127.0.0.1", "-p", port(plain)},
		"dig without EDNS":        {"dig", "@127.0.0.1", "-p", port(plain), "+noedns"},
		"dig with DNSSEC records": {"dig", "@127.0.0.1", "-p", port(plain), "+dnssec", "+bufsize=4096"},
		"dig over tcp":            {"dig", "@127.0.0.1", "-p", port(plain), "+tcp"},
		"kdig over udp":           {"kdig", "@127.0.0.1", "-p", port(plain)},
		"kdig over tls":           {"kdig", "@127.0.0.1", "-p", port(dot), "+tls"},
		"kdig over https":         {"kdig", "@127.0.0.1", "-p", port(doh), "+https"},
		"kdig over https by GET":  {"kdig", "@127.0.0.1", "-p", port(doh), "+https-get"},
	}
	check := func(t *testing.T) {
		t.Helper()
		for name, client := range clients {
			for _, c := range []struct{ question, want, also string }{
				{"www.site.test", "NOERROR", "192.0.2.7"},
				{"eu.ads.test", "NXDOMAIN", "SOA"},
				{"nas.home.arpa", "NOERROR", "192.168.1.10"},
			} {
				got := tool(t, append(client[:len(client):len(client)], c.question)...)
				if !strings.Contains(got, c.want) || !strings.Contains(got, c.also) {
					t.Errorf("%s, %s: got\n%s\nwant %s with %s", name, c.question, got, c.want, c.also)
				}
			}
		}
	}
	blocks := func() error {
		reply, err := dns.Exchange(new(dns.Msg).SetQuestion("ads.test.", dns.TypeA), plain)
		if err == nil && reply.Rcode != dns.RcodeNameError {
			err = errors.New("the list is not in force: " + dns.RcodeToString[reply.Rcode])
		}
		return err
	}
	p := start(t, "primary", "primary", e)
	eventually(t, 10*time.Second, "the list is in force", blocks)
	check(t)

	stopUpstream()
	p.stop()
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	start(t, "primary again", "primary", e)
	eventually(t, 5*time.Second, "the list of before is in force", blocks)
	check(t) // from the cache of before
}
