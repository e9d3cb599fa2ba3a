package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/store/storetest/redistest"
)

// fleetUnderTest is two primaries and three replicas as processes on one real Redis.
type fleetUnderTest struct {
	t      *testing.T
	redis  *redistest.Server
	common env            // of every instance
	envs   map[string]env // by instance
	procs  map[string]*process
	tokens map[string]string // id of each replica's token
	secret map[string]string
}

// The fleet's timing: short, so that every status is seen within seconds.
const (
	interval = time.Second
	statsTTL = 12 * time.Second
)

var (
	primaries = []string{"p1", "p2"}
	replicas  = []string{"r1", "r2", "r3"}
)

// prepareFleet makes the configuration and the tokens of a fleet, and starts none of it but Redis.
func prepareFleet(t *testing.T) *fleetUnderTest {
	t.Helper()
	f := &fleetUnderTest{t: t, redis: redistest.Start(t), envs: map[string]env{}, procs: map[string]*process{}, tokens: map[string]string{}, secret: map[string]string{}}
	dir := t.TempDir()
	list, policy := filepath.Join(dir, "hosts.txt"), filepath.Join(dir, "policy.yaml")
	write(t, list, "0.0.0.0 "+blockedName+"\n0.0.0.0 tracker.example\n")
	write(t, policy, fmt.Sprintf("upstreams: [{address: \"udp://%s\"}]\nupstream_strategy: failover\nlists: [{name: ads, url: \"file://%s\", refresh: 24h}]\n", startUpstream(t), list))
	f.common = env{
		"DNSFLEET_STORE_URL": f.redis.URL(), "DNSFLEET_STATS_INTERVAL": interval.String(), "DNSFLEET_STATS_TTL": statsTTL.String(),
		"DNSFLEET_POLICY_FILE": policy, "DNSFLEET_LOG_LEVEL": "debug", "DNSFLEET_SYNC_INTERVAL": "1s",
	}
	for _, id := range append(append([]string{}, primaries...), replicas...) {
		f.envs[id] = f.common.with(env{
			"DNSFLEET_INSTANCE_ID": id, "DNSFLEET_INSTANCE_NAME": "name-" + id, "DNSFLEET_DATA_DIR": t.TempDir(),
			"DNSFLEET_DNS_LISTEN": freeAddr(t), "DNSFLEET_WEB_LISTEN": freeAddr(t), "DNSFLEET_CONTROL_LISTEN": freeAddr(t),
		})
	}
	urls := "http://" + f.envs["p1"]["DNSFLEET_WEB_LISTEN"] + ",http://" + f.envs["p2"]["DNSFLEET_WEB_LISTEN"]
	for _, id := range replicas {
		f.tokens[id], f.secret[id] = createToken(t, f.envs["p1"], "--name", "token of "+id)
		f.envs[id]["DNSFLEET_PRIMARY_URLS"], f.envs[id]["DNSFLEET_SYNC_TOKEN"] = urls, f.secret[id]
	}
	return f
}

// newFleet is a fleet of which every instance serves the policy.
func newFleet(t *testing.T) *fleetUnderTest {
	t.Helper()
	f := prepareFleet(t)
	for _, id := range append(append([]string{}, primaries...), replicas...) {
		f.start(id)
	}
	eventually(t, 20*time.Second, "all instances serve the policy", func() error {
		for id := range f.envs {
			if _, err := get(t.Context(), "http://"+f.web(id)+"/readyz", ""); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
		}
		return nil
	})
	return f
}

func (f *fleetUnderTest) start(id string) {
	f.t.Helper()
	role := "replica"
	if id[0] == 'p' {
		role = "primary"
	}
	f.procs[id] = start(f.t, id, role, f.envs[id])
}

func (f *fleetUnderTest) web(id string) string { return f.envs[id]["DNSFLEET_WEB_LISTEN"] }
func (f *fleetUnderTest) dns(id string) string { return f.envs[id]["DNSFLEET_DNS_LISTEN"] }

// viewsAgree waits until the given primaries answer check without objection.
func (f *fleetUnderTest) viewsAgree(within time.Duration, what string, from []string, check func(view) error) {
	f.t.Helper()
	eventually(f.t, within, what, func() error {
		for _, p := range from {
			v, err := readView(f.t, f.web(p))
			if err == nil {
				err = check(v)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
		return nil
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startUpstream is a resolver that gives every name the same address for ten minutes.
func startUpstream(t *testing.T) string {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.RecursionAvailable = true
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 600}, A: net.IPv4(198, 51, 100, 7)}}
		}
		w.WriteMsg(m)
	})
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: handler}
	started, served := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	go func() { served <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := errors.Join(server.Shutdown(), <-served); err != nil {
			t.Error(err)
		}
	})
	return conn.LocalAddr().String()
}

func TestFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	sent := map[string]counts{}
	send := func(id, serial string, fresh, repeat, blocked int) {
		t.Helper()
		if sent[id] == nil {
			sent[id] = counts{}
		}
		sent[id] = sent[id].add(load(t, f.dns(id), serial+"."+id, fresh, repeat, blocked))
	}
	lifetimes := func(v view) error {
		var all counts
		for id, want := range sent {
			r, err := v.find(id)
			if err == nil {
				err = same("lifetime of "+id, r.Lifetime, want)
			}
			if err != nil {
				return err
			}
			all = all.add(want)
		}
		return same("lifetime of the fleet", v.Totals.Lifetime, all)
	}

	send("p1", "a", 10, 5, 3)
	send("p2", "a", 7, 9, 2)
	send("r1", "a", 40, 60, 25)
	send("r2", "a", 20, 10, 5)
	send("r3", "a", 5, 1, 1)
	t.Log("totals equal what was sent, and both primaries give the same view")
	f.viewsAgree(10*time.Second, "totals equal what was sent", primaries, func(v view) error {
		var all counts
		for id, want := range sent {
			r, err := v.find(id)
			if err == nil {
				err = same(id, r.Distribution, want)
			}
			if err != nil {
				return err
			}
			if r.Status != "ok" || r.Blocklist == nil || r.Blocklist.Blocked != 2 || r.Revision != 1 || r.Drift == nil || *r.Drift {
				return fmt.Errorf("%s: got %+v, want an ok row with two blocked names at revision 1", id, r)
			}
			all = all.add(want)
		}
		if v.Coverage.Reporting != 5 || v.Coverage.Total != 5 || len(v.Coverage.Missing) != 0 {
			return fmt.Errorf("coverage: got %+v, want 5 of 5", v.Coverage)
		}
		return errors.Join(same("totals", v.Totals.Distribution, all), lifetimes(v))
	})
	for _, p := range primaries {
		v, err := readView(t, f.web(p))
		if err != nil {
			t.Fatal(err)
		}
		if v.Primary == nil || v.Primary.InstanceID != p || v.Primary.Source != "local" || len(v.Primaries) != 2 || len(v.Replicas) != 3 {
			t.Errorf("%s: got primary %+v, %d primaries and %d replicas, want itself as local, 2 and 3", p, v.Primary, len(v.Primaries), len(v.Replicas))
		}
	}

	t.Log("bad pushes change nothing")
	f.badPushes("r1")
	f.viewsAgree(3*time.Second, "totals are untouched", primaries, lifetimes)

	t.Log("kill -9 of a primary and a restart of Redis lose nothing that was acknowledged")
	f.procs["p1"].kill()
	f.redis.Restart()
	send("r1", "b", 10, 10, 10)
	send("r2", "b", 11, 3, 2)
	send("p2", "b", 2, 2, 2)
	f.viewsAgree(20*time.Second, "the other primary shows everything", []string{"p2"}, lifetimes)
	f.viewsAgree(30*time.Second, "the killed primary turns offline and stays listed", []string{"p2"}, func(v view) error {
		r, err := v.find("p1")
		if err == nil && r.Status != "offline" {
			err = fmt.Errorf("got status %s, want offline", r.Status)
		}
		return err
	})
	f.start("p1")
	send("p1", "c", 3, 3, 3)
	f.viewsAgree(20*time.Second, "both primaries show everything again", primaries, lifetimes)

	t.Log("a stopped replica turns stale, then offline, stays listed, and its lifetime never goes back")
	before := mustFind(t, f, "r3")
	f.procs["r3"].stop()
	for _, status := range []string{"stale", "offline"} {
		f.viewsAgree(20*time.Second, "r3 is "+status, primaries, func(v view) error {
			r, err := v.find("r3")
			if err == nil && r.Status != status {
				err = fmt.Errorf("got status %s, want %s", r.Status, status)
			}
			return errors.Join(err, lifetimes(v))
		})
	}
	f.start("r3")
	send("r3", "d", 4, 4, 4)
	f.viewsAgree(15*time.Second, "r3 is back with its lifetime", primaries, func(v view) error {
		r, err := v.find("r3")
		if err != nil {
			return err
		}
		if r.BootID == before.BootID || r.Status != "ok" {
			return fmt.Errorf("got boot %s, status %s, want another boot than %s, ok", r.BootID, r.Status, before.BootID)
		}
		return errors.Join(same("since boot", r.Distribution, counts{"upstream": 4, "cached": 4, "blocked": 4}), lifetimes(v))
	})

	t.Log("a report of the ended boot changes nothing")
	f.push("r3", 200, func(p map[string]any) {
		p["boot_id"], p["seq"], p["response_distribution"] = before.BootID, 1_000_000, map[string]any{"blocked": 1_000_000, "total": 1_000_000}
	})
	f.viewsAgree(3*time.Second, "totals are untouched", primaries, lifetimes)

	t.Log("a revoked token is refused at once, and its row says so")
	cli(t, f.envs["p1"], "token", "revoke", f.tokens["r2"])
	f.push("r2", 401, nil)
	f.viewsAgree(5*time.Second, "r2 is revoked", primaries, func(v view) error {
		r, err := v.find("r2")
		if err == nil && r.Status != "revoked" {
			err = fmt.Errorf("got status %s, want revoked", r.Status)
		}
		return err
	})
	for _, p := range f.procs {
		if p.log.contains(f.secret["r1"]) || p.log.contains(f.secret["r2"]) {
			t.Errorf("the log of %s holds a secret", p.name)
		}
	}
	for id, p := range f.procs {
		if id != "r2" {
			p.stop()
		}
	}
}

func mustFind(t *testing.T, f *fleetUnderTest, id string) row {
	t.Helper()
	v, err := readView(t, f.web("p1"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.find(id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
