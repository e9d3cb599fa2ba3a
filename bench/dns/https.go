package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// inFlight is how many queries are under way over one connection.
const inFlight = 100

// https asks over one HTTP/2 connection. dnsperf 2.10 can do that too, but stalls where headers and body of an answer come in
// TLS records of their own.
func (b *bench) https(ctx context.Context, s *server) (load, error) {
	var bodies [][]byte
	for i := range 1000 {
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("www%d.bench.test.", i), dns.TypeA)
		m.Id = 0
		raw, err := m.Pack()
		if err != nil {
			return load{}, err
		}
		bodies = append(bodies, raw)
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer client.CloseIdleConnections()
	ask := func(i int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://127.0.0.1:"+s.doh+"/dns-query", bytes.NewReader(bodies[i%len(bodies)]))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/dns-message")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s over https: %s", s.name, resp.Status)
		}
		return nil
	}
	if err := ask(0); err != nil { // opens the connection that all share
		return load{}, err
	}
	var completed, lost, next atomic.Int64
	begun := time.Now()
	var askers sync.WaitGroup
	for range inFlight {
		askers.Go(func() {
			for time.Since(begun) < b.turn {
				if ask(int(next.Add(1))) == nil {
					completed.Add(1)
				} else {
					lost.Add(1)
				}
			}
		})
	}
	askers.Wait()
	return load{completed: int(completed.Load()), lost: int(lost.Load()), qps: float64(completed.Load()) / time.Since(begun).Seconds()}, nil
}
