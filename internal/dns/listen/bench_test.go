package listen_test

import (
	"net"
	"testing"

	"dnsfleet/internal/dns/listen"
)

// One client with 64 queries under way at a time: the cost of an answer is that of both ends.
func BenchmarkUDPEcho(b *testing.B) {
	for name, o := range map[string]listen.Options{
		"in batches":                  {},
		"in batches on all addresses": {UDPAndTCP: []string{"0.0.0.0:0"}},
		"in batches on both families": {UDPAndTCP: []string{":0"}},
		"one by one":                  {Portable: true},
	} {
		b.Run(name, func(b *testing.B) {
			s := serve(b, o, handle(echo))
			_, port, _ := net.SplitHostPort(s.addr())
			conn := dial(b, "udp", net.JoinHostPort("127.0.0.1", port))
			raw, buffer := query(1, 20), make([]byte, 512)
			b.ReportAllocs()
			for b.Loop() {
				for range 64 {
					if _, err := conn.Write(raw); err != nil {
						b.Fatal(err)
					}
				}
				for range 64 {
					if _, err := conn.Read(buffer); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(64*b.N), "ns/query")
		})
	}
}

func BenchmarkTCPEcho(b *testing.B) {
	s := serve(b, listen.Options{}, handle(echo))
	conn := dial(b, "tcp", s.addr())
	var batch []byte
	for range 64 {
		batch = append(batch, framed(query(1, 20))...)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(batch); err != nil {
			b.Fatal(err)
		}
		for range 64 {
			receiveMessage(b, conn)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(64*b.N), "ns/query")
}
