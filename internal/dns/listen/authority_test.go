package listen_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// authority issues certificates for 127.0.0.1, and is a listen.Options.Certificate that gives the last one.
type authority struct {
	t     testing.TB
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
	last  atomic.Pointer[tls.Certificate]
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t), roots: x509.NewCertPool()}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key)
	a.roots.AddCert(a.cert)
	a.issue(1)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(1000)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue makes a new certificate the one in use.
func (a *authority) issue(serial int64) {
	a.t.Helper()
	key := newKey(a.t)
	cert := a.sign(&x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, key)
	a.last.Store(&tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert})
}

func (a *authority) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return a.last.Load(), nil
}

// client trusts the authority.
func (a *authority) client(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: a.roots, ServerName: "127.0.0.1", NextProtos: protocols}
}
