package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"
)

// listed is a name on the list.
func listed(i int) string { return fmt.Sprintf("ad%06d.tracker%d.example", i, i%997) }

func (s setting) list() string { return filepath.Join(s.dir, "list.txt") }

func (s setting) file(workload string) string { return filepath.Join(s.dir, workload+".queries") }

// writeLines writes n lines.
func writeLines(path string, n int, line func(i int) string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for i := range n {
		fmt.Fprintln(w, line(i))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// writeWorkloads writes the lists, and the queries of each workload in the form of dnsperf. They are the same in every run.
func writeWorkloads(s setting) error {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	ranks := mathrand.NewZipf(random, 1.1, 1, 100_000-1)
	cached := func(i int) string { return fmt.Sprintf("www%d.bench.test A", i) }
	for _, w := range []struct {
		path string
		n    int
		line func(i int) string
	}{
		{s.list(), s.names, listed},
		{filepath.Join(s.dir, "million.txt"), 1_000_000, listed},
		{s.file("cached"), 1000, cached},
		{s.file("blocked"), 100_000, func(i int) string {
			name := listed(random.IntN(s.names))
			if i%2 == 1 {
				name = fmt.Sprintf("x%d.%s", i, name)
			}
			return name + " A"
		}},
		{s.file("zipf"), 400_000, func(int) string {
			if random.IntN(5) == 0 {
				return listed(int(ranks.Uint64())%s.names) + " A"
			}
			return fmt.Sprintf("z%d.bench.test A", ranks.Uint64())
		}},
	} {
		if err := writeLines(w.path, w.n, w.line); err != nil {
			return err
		}
	}
	return nil
}

// writeNew writes names that nobody was asked for before.
func (s setting) writeNew() (path string, err error) {
	path = s.file("new")
	run := mathrand.Uint64()
	return path, writeLines(path, 500_000, func(i int) string { return fmt.Sprintf("n%x-%x.bench.test A", run, i) })
}

// certificate is a pair of PEM files for localhost.
func (s setting) certificate() (certPath, keyPath string, err error) {
	certPath, keyPath = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	if _, err := os.Stat(keyPath); err == nil {
		return certPath, keyPath, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", "", err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return "", "", err
	}
	return certPath, keyPath, os.WriteFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600)
}
