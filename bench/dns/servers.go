package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// server is a process that answers DNS.
type server struct {
	name         string
	port         string
	dot, doh     string // ports; "" for none
	web, control string // of dnsfleet
	cmd          *exec.Cmd
	ended        chan struct{}
	log          string
}

type bench struct {
	setting
	running map[string]*server
}

func (b *bench) stopAll() {
	for _, s := range b.running {
		s.stop()
	}
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(os.Interrupt)
	select {
	case <-s.ended:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

// need returns a running server, which it starts if need be.
func (b *bench) need(ctx context.Context, name string) (*server, error) {
	if s := b.running[name]; s != nil {
		return s, nil
	}
	if b.running == nil {
		b.running = map[string]*server{}
	}
	if name != "nsd" && name != "echo" {
		if _, err := b.need(ctx, "nsd"); err != nil {
			return nil, err
		}
	}
	s := &server{name: name, port: freePort()}
	args, env, err := b.command(s)
	if err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	if err := s.launch(ctx, b.dir, args, env); err != nil {
		return nil, err
	}
	b.running[name] = s
	probe := "ready.bench.test."
	if name == "dnsfleet" || strings.HasPrefix(name, "dnsfleet-") {
		probe = listed(1) + "." // its list comes last
	}
	if err := s.await(probe, 30*time.Second); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *server) launch(ctx context.Context, dir string, args, env []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("%s is missing: ./scripts/deps.sh dnsperf nsd dnsdist unbound dnsmasq installs what is compared", args[0])
	}
	s.log = filepath.Join(dir, s.name+".log")
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), path, args[1:]...)
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, dir
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.ended = make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		_ = log.Close()
		close(s.ended)
	}()
	return nil
}

// await waits until the server answers a name: a listed one with NXDOMAIN, another with an address. An echo answers anyhow.
func (s *server) await(name string, limit time.Duration) error {
	client := &dns.Client{Timeout: 200 * time.Millisecond}
	deadline := time.Now().Add(limit)
	for {
		reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), net.JoinHostPort("127.0.0.1", s.port))
		if err == nil && (s.name == "echo" || len(reply.Answer) > 0 || reply.Rcode == dns.RcodeNameError) {
			return nil
		}
		select {
		case <-s.ended:
			text, _ := os.ReadFile(s.log)
			return fmt.Errorf("%s has ended: %s", s.name, strings.TrimSpace(string(text)))
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer %s within %v", s.name, name, limit)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// cpu is the processor time that the server has taken.
func (s *server) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat has another form")
	}
	const tick = 10 * time.Millisecond
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// rss is the memory that the server takes, in MB.
func (s *server) rss() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kb / 1000, err
		}
	}
	return 0, errors.New("/proc/PID/status has no VmRSS")
}

func freePort() string {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fail(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		p, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		_ = l.Close()
		if err == nil {
			_ = p.Close()
			return port
		}
	}
}
