package httpserve

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateEvery is how often the files are looked at, at most: once for all handshakes in this time.
const certificateEvery = time.Second

// Certificate is a key pair in two files that somebody else renews. It is safe for concurrent use.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex // guards what follows
	pair    *tls.Certificate
	state   fileState
	checked time.Time
}

// fileState tells whether a pair of files is still the same.
type fileState struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// NewCertificate reads a pair of PEM files, so that a bad one is an error here. log may be nil.
func NewCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// Get is the pair for a handshake, never nil; it fits tls.Config.GetCertificate. While the files cannot be read, or do not fit each other because only one of them is
// new yet, it is the last one that could be used.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) >= certificateEvery {
		if err := c.load(); err != nil {
			c.log.Warn("certificate cannot be renewed, the old one stays", "err", err)
		}
	}
	return c.pair, nil
}

// load reads the pair if its files changed.
func (c *Certificate) load() error {
	c.checked = time.Now()
	state, err := c.stat()
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	if c.pair != nil && state == c.state {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("load certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	if c.pair != nil {
		c.log.Info("certificate renewed", "file", c.certFile, "expires", pair.Leaf.NotAfter)
	}
	c.pair, c.state = &pair, state
	return nil
}

func (c *Certificate) stat() (s fileState, err error) {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return s, err
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return s, err
	}
	return fileState{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}
