package upstream_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const echoVariable = "UPSTREAM_TEST_ECHO"

// TestMain lets the test binary be the echo server of a benchmark, so that its own time does not count.
func TestMain(m *testing.M) {
	if os.Getenv(echoVariable) != "" {
		echoUntilEOF()
		return
	}
	m.Run()
}

func echoUntilEOF() {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	_ = conn.SetReadBuffer(4 << 20)
	fmt.Println(conn.LocalAddr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = conn.Close()
	}()
	buffer := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		buffer[2] |= 0x80
		_, _ = conn.WriteToUDPAddrPort(buffer[:n], from)
	}
}

// otherProcess is the address of an echo server in a process of its own.
func otherProcess(b *testing.B) string {
	b.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), echoVariable+"=1")
	stdin, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = command.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return "udp://" + strings.TrimSpace(address)
}

// spent is the processor time of this process.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkStart keeps so many queries under way, and reports the processor time that each costs us.
func BenchmarkStart(b *testing.B) {
	address := otherProcess(b)
	query := mustPack(b)
	for _, inFlight := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("start/%d", inFlight), func(b *testing.B) {
			bench := use(b, policyOf("failover", address))
			end := run(b, bench.pool)
			defer end()
			eventually(b, "the loop runs", func() bool { _, err := start(bench.Router, question("www.test.")); return err == nil })
			slots := make(chan struct{}, inFlight)
			b.ReportAllocs()
			before := spent(b)
			for b.Loop() {
				slots <- struct{}{}
				bench.Start(query, func(_ []byte, _ string, err error) {
					if err != nil {
						b.Error(err)
					}
					<-slots
				})
			}
			for range inFlight {
				slots <- struct{}{}
			}
			b.ReportMetric(float64((spent(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
		b.Run(fmt.Sprintf("exchange/%d", inFlight), func(b *testing.B) {
			bench := use(b, policyOf("failover", address))
			slots := make(chan struct{}, inFlight)
			b.ReportAllocs()
			before := spent(b)
			for b.Loop() {
				slots <- struct{}{}
				go func() {
					if _, _, err := bench.ExchangeWire(context.Background(), query); err != nil {
						b.Error(err)
					}
					<-slots
				}()
			}
			for range inFlight {
				slots <- struct{}{}
			}
			b.ReportMetric(float64((spent(b)-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
	}
}
