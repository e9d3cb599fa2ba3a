// Package redistest starts real Redis servers for tests: one server, one behind Sentinel, or a cluster. All listen on
// free ports of 127.0.0.1, keep their files in the test's folder and end with the test, by their own process id. A
// missing redis-server fails the test: nothing is skipped.
package redistest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 10 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// Server is one redis-server that keeps what it acknowledged in an append-only file (appendfsync always). Its methods
// fail the test when they do not succeed, and are for the test's own goroutine.
type Server struct {
	t      testing.TB
	binary string
	dir    string
	port   int
	args   []string
	proc   *exec.Cmd
	exited chan struct{} // closed when proc has ended
}

// Start starts a server. args are further command-line options, such as "--appendonly", "no"; they win over those that
// Start gives.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := newServer(t, "redis-server", append([]string{
		"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory", "1gb", "--maxmemory-policy", "noeviction",
	}, args...)...)
	s.startAnywhere()
	return s
}

func newServer(t testing.TB, binary string, args ...string) *Server {
	t.Helper()
	path, err := exec.LookPath(binary)
	if err != nil {
		t.Fatalf("%s is needed by this test (Debian and Ubuntu: apt-get install redis-server): %v", binary, err)
	}
	return &Server{t: t, binary: path, dir: t.TempDir(), args: args}
}

// startAnywhere tries further ports when somebody takes the free one meanwhile.
func (s *Server) startAnywhere() {
	s.t.Helper()
	var err error
	for range 5 {
		s.port = FreePort(s.t)
		if err = s.start(); err == nil {
			s.t.Cleanup(s.end)
			return
		}
	}
	s.t.Fatalf("start %s: %v", s.binary, err)
}

// FreePort is a TCP port of 127.0.0.1 that was free a moment ago. It lies below those that the system gives to outgoing
// connections: such a connection might take it while a server is down, even one to that server, which would then reach
// itself.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("find a free port: none of a hundred was")
	return 0
}

// Addr is where the server listens, host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL is the server's store URL.
func (s *Server) URL() string { return "redis://" + s.Addr() }

func (s *Server) start() error {
	args := append([]string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--daemonize", "no", "--logfile", "redis.log",
		"--enable-debug-command", "local",
	}, s.args...)
	if conf := filepath.Join(s.dir, "sentinel.conf"); strings.HasSuffix(s.binary, "redis-sentinel") {
		args = []string{conf, "--port", strconv.Itoa(s.port)}
	}
	proc := exec.Command(s.binary, args...)
	proc.SysProcAttr = endWithParent()
	if err := proc.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		proc.Wait() //nolint:errcheck // how it ended is read from its log
		close(exited)
	}()
	s.proc, s.exited = proc, exited
	deadline := time.After(startTimeout)
	for {
		if ready(s.Addr()) {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("it ended at once: %s", s.log())
		case <-deadline:
			s.end()
			return fmt.Errorf("it did not answer within %s: %s", startTimeout, s.log())
		case <-time.After(pollEvery):
		}
	}
}

// ready asks in the plain text protocol. A server that wants a password is up, one that is loading is not.
func ready(addr string) bool {
	reply, err := Command(addr, "PING")
	return err == nil && (strings.HasPrefix(reply, "+PONG") || strings.HasPrefix(reply, "-NOAUTH"))
}

// Command sends one line to a server and returns what comes back at once, without any client library.
func Command(addr, line string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func (s *Server) log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "redis.log"))
	if err != nil {
		return "no log"
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-5):], []byte(" | ")))
}

// Stop ends the server as an administrator does.
func (s *Server) Stop() { s.t.Helper(); s.signal(syscall.SIGTERM) }

// Kill ends the server as a crash does: kill -9.
func (s *Server) Kill() { s.t.Helper(); s.signal(syscall.SIGKILL) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.proc.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatalf("send %s to redis: %v", sig, err)
	}
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		s.t.Fatalf("redis did not end within %s of %s: %s", stopTimeout, sig, s.log())
	}
}

// Pause makes the server hang: connections stay open and nothing is answered, until Resume.
func (s *Server) Pause() {
	s.t.Helper()
	if err := s.proc.Process.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatalf("pause redis: %v", err)
	}
}

// Resume ends a Pause.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.proc.Process.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatalf("resume redis: %v", err)
	}
}

// Restart starts the server again, on the same port and with the same files, after Stop or Kill.
func (s *Server) Restart() {
	s.t.Helper()
	select {
	case <-s.exited:
	default:
		s.Stop()
	}
	var err error
	for range 5 { // the port may be taken for a moment
		if err = s.start(); err == nil {
			return
		}
	}
	s.t.Fatalf("restart redis: %v", err)
}

// end ends the server whatever state it is in.
func (s *Server) end() {
	select {
	case <-s.exited:
		return
	default:
	}
	s.proc.Process.Kill() //nolint:errcheck // it may have ended meanwhile
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		s.t.Errorf("redis (pid %d) does not end", s.proc.Process.Pid)
	}
}

// wait polls until done says so or the time is over, which fails the test.
func wait(t testing.TB, what string, within time.Duration, done func() bool) {
	t.Helper()
	deadline := time.After(within)
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s", what, within)
		case <-time.After(pollEvery):
		}
	}
}
