package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// command sets a server up and returns how it is started.
func (b *bench) command(s *server) (args, env []string, err error) {
	write := func(name, text string) string {
		path := filepath.Join(b.dir, name)
		if e := os.WriteFile(path, []byte(text), 0o600); e != nil && err == nil {
			err = e
		}
		return path
	}
	authority := ""
	if nsd := b.running["nsd"]; nsd != nil {
		authority = nsd.port
	}
	switch s.name {
	case "echo":
		self, err := os.Executable()
		return []string{self, "echo", "127.0.0.1:" + s.port}, nil, err
	case "nsd":
		write("bench.zone", "$ORIGIN bench.test.\n$TTL 3600\n@ IN SOA ns hostmaster 1 3600 600 86400 300\n@ IN NS ns\nns IN A 192.0.2.1\n* IN A 192.0.2.2\n")
		return []string{"nsd", "-d", "-c", write("nsd.conf", fmt.Sprintf(`server:
  ip-address: 127.0.0.1@%[1]s
  server-count: 1
  username: ""
  database: ""
  zonesdir: %[2]q
  pidfile: "%[2]s/nsd.pid"
  xfrdfile: "%[2]s/xfrd.state"
  zonelistfile: "%[2]s/zone.list"
  xfrdir: %[2]q
  do-ip6: no
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: bench.test
  zonefile: bench.zone
`, s.port, b.dir))}, nil, err
	case "dnsdist":
		return []string{"dnsdist", "--supervised", "--disable-syslog", "-C", write("dnsdist.lua", fmt.Sprintf(`
for i = 1, %[1]d do addLocal("127.0.0.1:%[2]s", {reusePort=true}) end
newServer({address="127.0.0.1:%[3]s", sockets=%[1]d, healthCheckMode="up"})
setMaxUDPOutstanding(65535)
setSecurityPollSuffix("")
getPool(""):setCache(newPacketCache(300000, {maxTTL=86400, numberOfShards=20}))
local listed = newSuffixMatchNode()
for name in io.lines(%[4]q) do listed:add(newDNSName(name)) end
addAction(SuffixMatchNodeRule(listed), RCodeAction(DNSRCode.NXDOMAIN))
`, runtime.NumCPU(), s.port, authority, b.list()))}, nil, err
	case "unbound":
		s.dot, s.doh = freePort(), freePort()
		cert, key, err := b.certificate()
		if err != nil {
			return nil, nil, err
		}
		var zones strings.Builder
		for i := range b.names {
			fmt.Fprintf(&zones, "  local-zone: %q always_nxdomain\n", listed(i)+".")
		}
		return []string{"unbound", "-d", "-p", "-c", write("unbound.conf", fmt.Sprintf(`server:
  interface: 127.0.0.1@%[1]s
  interface: 127.0.0.1@%[5]s
  interface: 127.0.0.1@%[6]s
  tls-port: %[5]s
  https-port: %[6]s
  tls-service-pem: %[7]q
  tls-service-key: %[8]q
  num-threads: %[2]d
  so-reuseport: yes
  username: ""
  chroot: ""
  directory: %[3]q
  pidfile: "%[3]s/unbound.pid"
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "test." nodefault
  msg-cache-size: 128m
  rrset-cache-size: 256m
  outgoing-range: 8192
  num-queries-per-thread: 4096
%[9]sforward-zone:
  name: "bench.test."
  forward-addr: 127.0.0.1@%[4]s
remote-control:
  control-enable: no
`, s.port, runtime.NumCPU(), b.dir, authority, s.dot, s.doh, cert, key, zones.String()))}, nil, err
	case "dnsmasq":
		var conf strings.Builder
		fmt.Fprintf(&conf, "port=%s\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nserver=127.0.0.1#%s\ncache-size=10000\ndns-forward-max=10000\nuser=root\n", s.port, authority)
		for i := range b.names {
			fmt.Fprintf(&conf, "address=/%s/\n", listed(i))
		}
		return []string{"dnsmasq", "-k", "-C", write("dnsmasq.conf", conf.String()), "--pid-file=" + filepath.Join(b.dir, "dnsmasq.pid")}, nil, err
	}
	return b.dnsfleet(s, authority, write)
}

// dnsfleet sets an instance up: a primary with everything that it has by default, but its query log unless the name asks
// for it.
func (b *bench) dnsfleet(s *server, authority string, write func(name, text string) string) (args, env []string, err error) {
	s.web, s.control, s.dot, s.doh = freePort(), freePort(), freePort(), freePort()
	cert, key, err := b.certificate()
	if err != nil {
		return nil, nil, err
	}
	list := b.list()
	if s.name == "dnsfleet-million" {
		list = filepath.Join(b.dir, "million.txt")
	}
	queryLog := "off"
	if s.name == "dnsfleet-log" {
		queryLog = ""
	}
	policy := write(s.name+".yaml", fmt.Sprintf(`upstreams: [{address: "udp://127.0.0.1:%s"}]
lists: [{name: ads, url: "file://%s", refresh: 24h}]
`, authority, list))
	return []string{b.binary, "primary"}, []string{
		"DNSFLEET_DATA_DIR=" + filepath.Join(b.dir, s.name), "DNSFLEET_DNS_LISTEN=127.0.0.1:" + s.port,
		"DNSFLEET_DOT_LISTEN=127.0.0.1:" + s.dot, "DNSFLEET_DOH_LISTEN=127.0.0.1:" + s.doh,
		"DNSFLEET_TLS_CERT_FILE=" + cert, "DNSFLEET_TLS_KEY_FILE=" + key,
		"DNSFLEET_WEB_LISTEN=127.0.0.1:" + s.web, "DNSFLEET_CONTROL_LISTEN=127.0.0.1:" + s.control,
		"DNSFLEET_QUERYLOG_URL=" + queryLog, "DNSFLEET_POLICY_FILE=" + policy,
	}, nil
}
