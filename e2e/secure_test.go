package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// certificate makes a self-signed certificate for 127.0.0.1 and returns its file and its key's.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dnsfleet test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certificatePEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, certFile, string(certificatePEM))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certificatePEM)
	return certFile, keyFile, pool
}

// secureEnv is a primary with HTTPS, a sync listener of its own, and a web listener that is not on loopback alone.
func secureEnv(t *testing.T, certFile, keyFile string) (e env, web, sync string) {
	t.Helper()
	_, port, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	sync = freeAddr(t)
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, policy, fmt.Sprintf("upstreams: [{address: \"udp://%s\"}]\n", startUpstream(t)))
	return env{
		"DNSFLEET_INSTANCE_ID": "p1", "DNSFLEET_DATA_DIR": t.TempDir(), "DNSFLEET_DNS_LISTEN": freeAddr(t), "DNSFLEET_CONTROL_LISTEN": "off",
		"DNSFLEET_WEB_LISTEN": "0.0.0.0:" + port, "DNSFLEET_SYNC_LISTEN": sync, "DNSFLEET_STATS_INTERVAL": "1s",
		"DNSFLEET_WEB_TLS_CERT_FILE": certFile, "DNSFLEET_WEB_TLS_KEY_FILE": keyFile, "DNSFLEET_POLICY_FILE": policy,
	}, "https://127.0.0.1:" + port, sync
}

// browser keeps cookies and trusts the test's certificate.
func browser(t *testing.T, pool *x509.CertPool) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
}

func status(t *testing.T, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

var printedPassword = regexp.MustCompile(`password is: (\S+)`)

func TestOffLoopbackAPasswordIsNeededAndTLSWorks(t *testing.T) {
	t.Parallel()
	certFile, keyFile, pool := certificate(t)
	e, web, sync := secureEnv(t, certFile, keyFile)
	stranger := browser(t, pool)
	p := startWith(t, "p1", "primary", e, func() error {
		response, err := stranger.Get(web + "/healthz")
		if err == nil {
			response.Body.Close()
		}
		return err
	})

	if code, _ := status(t, stranger, http.MethodGet, web+"/api/instances/stats", ""); code != http.StatusUnauthorized {
		t.Errorf("the view without a session: got %d, want 401", code)
	}
	var password string
	eventually(t, 10*time.Second, "the password is printed", func() error {
		m := printedPassword.FindStringSubmatch(p.log.tail(1 << 20))
		if m == nil {
			return errors.New("no password in the output")
		}
		password = m[1]
		return nil
	})
	if code, answer := status(t, stranger, http.MethodPost, web+"/api/auth/login", fmt.Sprintf(`{"password":%q}`, password)); code/100 != 2 {
		t.Fatalf("sign in: got %d %s", code, answer)
	}
	if code, answer := status(t, stranger, http.MethodGet, web+"/api/instances/stats", ""); code != http.StatusOK {
		t.Errorf("the view with a session: got %d %s, want 200", code, answer)
	}
	if code, _ := status(t, stranger, http.MethodGet, web+"/sync/status", ""); code != http.StatusNotFound {
		t.Errorf("/sync/ on the web listener: got %d, want 404 because it has a listener of its own", code)
	}

	// A replica follows over HTTPS with the certificate that it was given, and a session survives a restart.
	_, secret := createToken(t, e, "--name", "r1")
	replica := env{
		"DNSFLEET_INSTANCE_ID": "r1", "DNSFLEET_DATA_DIR": t.TempDir(), "DNSFLEET_DNS_LISTEN": freeAddr(t), "DNSFLEET_CONTROL_LISTEN": "off",
		"DNSFLEET_WEB_LISTEN": freeAddr(t), "DNSFLEET_PRIMARY_URLS": "https://" + sync, "DNSFLEET_SYNC_TOKEN": secret,
		"DNSFLEET_SYNC_CA_FILE": certFile, "DNSFLEET_STATS_INTERVAL": "1s",
	}
	start(t, "r1", "replica", replica)
	p.stop()
	p = startWith(t, "p1", "primary", e, func() error {
		response, err := stranger.Get(web + "/healthz")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	eventually(t, 30*time.Second, "the replica reports over HTTPS", func() error {
		code, answer := status(t, stranger, http.MethodGet, web+"/api/instances/stats", "")
		var v view
		if err := json.Unmarshal([]byte(answer), &v); err != nil || code != http.StatusOK {
			return fmt.Errorf("got %d %s, %w", code, answer, err)
		}
		r, err := v.find("r1")
		if err == nil && r.Status != "ok" {
			err = fmt.Errorf("got status %s, want ok", r.Status)
		}
		return err
	})
	if strings.Contains(p.log.tail(1<<20), "password is:") {
		t.Error("the password was printed again at the second start")
	}
}

func TestAnOpenLoopbackListenerRefusesOtherPagesAndProxies(t *testing.T) {
	t.Parallel()
	f := prepareFleet(t)
	f.start("p1")
	for name, header := range map[string][2]string{
		"a foreign Host, as after DNS rebinding": {"Host", "evil.example"},
		"a foreign Origin":                       {"Origin", "http://evil.example"},
		"a request that a proxy forwarded":       {"X-Forwarded-For", "203.0.113.9"},
		"a request by the standard header":       {"Forwarded", "for=203.0.113.9"},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.web("p1")+"/api/instances/stats", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set(header[0], header[1])
			if header[0] == "Host" {
				request.Host = header[1]
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != http.StatusForbidden || !bytes.Contains(body, []byte(`"error"`)) {
				t.Errorf("got %s %s, %v, want 403 with a sentence", response.Status, body, err)
			}
		})
	}
}
