package clickhouse_test

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"text/template"
	"time"

	"dnsfleet/internal/store/storetest/redistest"
)

// installedServer is the ClickHouse server of this machine, of whatever release: Debian's is of 2018, too old for the log's
// tables, but it speaks the native protocol and TLS as servers do. It runs on loopback with data of its own.
type installedServer struct {
	t       *testing.T
	dir     string
	TCP     int // ports
	TLS     int
	HTTP    int
	RootCAs *x509.CertPool
	process *exec.Cmd
	ended   chan struct{}
}

// The account of the server.
const (
	serverUser     = "dnsfleet"
	serverPassword = "geheim"
)

func startInstalled(t *testing.T) *installedServer {
	t.Helper()
	s := &installedServer{t: t, dir: t.TempDir(), RootCAs: x509.NewCertPool()}
	s.certify()
	for range 5 { // somebody may take a port meanwhile
		s.TCP, s.TLS, s.HTTP = redistest.FreePort(t), redistest.FreePort(t), redistest.FreePort(t)
		s.configure()
		if s.start() {
			t.Cleanup(s.kill)
			return s
		}
	}
	t.Fatalf("start clickhouse-server: %s", s.log())
	return nil
}

func (s *installedServer) program() []string {
	s.t.Helper()
	if path, err := exec.LookPath("clickhouse"); err == nil {
		return []string{path, "server"}
	}
	for _, name := range []string{"clickhouse-server", "/usr/sbin/clickhouse-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return []string{path}
		}
	}
	s.t.Fatal("no ClickHouse server on this machine: run scripts/deps.sh clickhouse-server, which installs the package of that name")
	return nil
}

const serverConfig = `<yandex>
<logger><level>warning</level><log>{{.Dir}}/log</log><errorlog>{{.Dir}}/errors</errorlog></logger>
<listen_host>127.0.0.1</listen_host>
<tcp_port>{{.TCP}}</tcp_port><tcp_port_secure>{{.TLS}}</tcp_port_secure><http_port>{{.HTTP}}</http_port>
<openSSL><server><certificateFile>{{.Dir}}/cert.pem</certificateFile><privateKeyFile>{{.Dir}}/key.pem</privateKeyFile>
<verificationMode>none</verificationMode></server></openSSL>
<path>{{.Dir}}/data/</path><tmp_path>{{.Dir}}/tmp/</tmp_path><user_files_path>{{.Dir}}/files/</user_files_path>
<users_config>{{.Dir}}/users.xml</users_config><default_profile>default</default_profile><default_database>default</default_database>
<mark_cache_size>67108864</mark_cache_size><timezone>UTC</timezone>
</yandex>
`

// LowCardinality was an experiment in 2018.
const serverUsers = `<yandex>
<profiles><default><allow_experimental_low_cardinality_type>1</allow_experimental_low_cardinality_type></default></profiles>
<users><{{.User}}><password>{{.Password}}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></{{.User}}></users>
<quotas><default></default></quotas>
</yandex>
`

func (s *installedServer) configure() {
	s.t.Helper()
	values := map[string]any{"Dir": s.dir, "TCP": s.TCP, "TLS": s.TLS, "HTTP": s.HTTP, "User": serverUser, "Password": serverPassword}
	for name, text := range map[string]string{"config.xml": serverConfig, "users.xml": serverUsers} {
		var b bytes.Buffer
		if err := template.Must(template.New(name).Parse(text)).Execute(&b, values); err != nil {
			s.t.Fatal(err)
		}
		s.keep(name, b.Bytes())
	}
}

func (s *installedServer) keep(name string, b []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// certify makes a certificate that only RootCAs vouch for.
func (s *installedServer) certify() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	s.keep("cert.pem", text)
	s.keep("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	s.RootCAs.AppendCertsFromPEM(text)
}

// start reports whether the server takes connections.
func (s *installedServer) start() bool {
	s.t.Helper()
	program := s.program()
	process := exec.Command(program[0], append(program[1:], "--config-file="+filepath.Join(s.dir, "config.xml"))...)
	process.Dir = s.dir
	process.SysProcAttr = endWithParent()
	if err := process.Start(); err != nil {
		s.t.Fatalf("start %s: %v", program[0], err)
	}
	ended := make(chan struct{})
	go func() {
		process.Wait() //nolint:errcheck // how it ended is read from its log
		close(ended)
	}()
	s.process, s.ended = process, ended
	patience := time.After(time.Minute)
	for {
		if listens(s.TCP) && listens(s.TLS) && listens(s.HTTP) {
			return true
		}
		select {
		case <-ended:
			return false
		case <-patience:
			s.kill()
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func listens(port int) bool {
	conn, err := net.DialTimeout("tcp", address(port), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (s *installedServer) log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "errors"))
	return cmp.Or(string(b), fmt.Sprint("no log: ", err))
}

// kill ends the server as a crash does.
func (s *installedServer) kill() {
	_ = s.process.Process.Signal(syscall.SIGKILL) // it may have ended by itself
	<-s.ended
}

func (s *installedServer) restart() {
	s.t.Helper()
	s.kill()
	if !s.start() {
		s.t.Fatalf("start clickhouse-server again: %s", s.log())
	}
}

func (s *installedServer) url(scheme string, port int, password string) string {
	return fmt.Sprintf("%s://%s:%s@%s/default", scheme, serverUser, password, address(port))
}
