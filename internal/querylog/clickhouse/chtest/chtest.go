// Package chtest starts a ClickHouse engine for tests: libchdb from the npm package @chdb/lib-linux-x64-gnu, in a process of
// its own that speaks ClickHouse's HTTP and native protocols on loopback addresses (command engine, a module of its own
// below this package). The engine can be killed at any moment, also between an insert and its answer, and started again on its data.
package chtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a start may take: the library is half a gigabyte that a cold disk has to give.
const patience = 2 * time.Minute

// Server is a running engine with data of its own. Its methods belong to the test's goroutine.
type Server struct {
	t       testing.TB
	program string
	library string
	dir     string
	address string // of HTTP
	native  string // of the native protocol
	process *process

	databases int
}

type process struct {
	command *exec.Cmd
	stdin   io.Closer
	stderr  *tail
	ended   chan struct{}
}

// Start starts an engine with empty data, which ends with t. Where the engine is missing, t fails with what to run.
func Start(t testing.TB) *Server {
	t.Helper()
	library, err := findLibrary()
	if err != nil {
		t.Fatal(err)
	}
	program, err := build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, program: program, library: library, dir: t.TempDir(), address: "127.0.0.1:0", native: "127.0.0.1:0"}
	t.Cleanup(s.stop)
	s.start()
	return s
}

// DSN is the URL of the engine's default database over HTTP. It stays the same over Restart.
func (s *Server) DSN() string { return "clickhouse+http://" + s.address + "/default" }

// NativeDSN is as DSN, over the native protocol.
func (s *Server) NativeDSN() string { return "clickhouse://" + s.native + "/default" }

// Addr is the host and port of the HTTP listener.
func (s *Server) Addr() string { return s.address }

// NativeAddr is the host and port of the native protocol's listener.
func (s *Server) NativeAddr() string { return s.native }

// Kill ends the engine as kill -9 does. Connections are refused until Restart.
func (s *Server) Kill() {
	s.t.Helper()
	if s.process == nil {
		return
	}
	if err := s.process.command.Process.Kill(); err != nil && !s.process.hasEnded() {
		s.t.Fatalf("kill engine: %v", err)
	}
	s.stop()
}

// Restart starts the engine again, at the same address and on the same data.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.start()
}

// Hang stops the engine: it takes connections and says nothing more, until Resume.
func (s *Server) Hang() { s.signal(syscall.SIGSTOP) }

// Resume lets an engine that hangs go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(which syscall.Signal) {
	s.t.Helper()
	if err := s.process.command.Process.Signal(which); err != nil {
		s.t.Fatalf("%s to engine: %v", which, err)
	}
}

// DieAfterInsert lets the engine die, as by kill -9, when it has stored the next insert and not answered it yet.
func (s *Server) DieAfterInsert() { s.control("die") }

// WaitDead waits until the engine has ended by itself.
func (s *Server) WaitDead() {
	s.t.Helper()
	select {
	case <-s.process.ended:
	case <-time.After(patience):
		s.t.Fatalf("engine still runs after %s", patience)
	}
}

// LoseAnswers lets the engine store the next n inserts and close their connections without an answer.
func (s *Server) LoseAnswers(n int) { s.control(fmt.Sprintf("lose?n=%d", n)) }

// Delay makes every answer that much later, to the millisecond.
func (s *Server) Delay(d time.Duration) { s.control(fmt.Sprintf("delay?n=%d", d.Milliseconds())) }

// Account lets in clients only that sign in with it, until Restart; no user lets in anybody. Exec and Value need not.
func (s *Server) Account(user, password string) {
	s.control("account?" + url.Values{"user": {user}, "password": {password}}.Encode())
}

// RowsRead is how many rows of tables the questions read that f asks. They are asked twice for it.
func (s *Server) RowsRead(f func()) int {
	s.t.Helper()
	before := s.number(s.control("read"))
	s.control("count?n=1")
	f()
	s.control("count?n=0")
	return s.number(s.control("read")) - before
}

// Inserts is how many inserts were stored since the start, those included that deduplication made into nothing.
func (s *Server) Inserts() int { return s.number(s.control("inserts")) }

func (s *Server) number(text string) int {
	s.t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *Server) control(what string) string {
	s.t.Helper()
	return s.post("http://"+s.address+"/chtest/"+what, "")
}

// Exec runs a statement and fails the test when it fails.
func (s *Server) Exec(sql string) {
	s.t.Helper()
	s.Value(sql)
}

// Value is what a query of one row and one column answers, as text.
func (s *Server) Value(sql string) string {
	s.t.Helper()
	return s.post("http://"+s.address+"/?"+url.Values{"chtest_format": {"TSVRaw"}}.Encode(), sql)
}

func (s *Server) post(target, body string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		s.t.Fatalf("ask engine: %v\n%s", err, s.process.stderr)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: got %s %s, %v", body, response.Status, answer, err)
	}
	return strings.TrimSuffix(string(answer), "\n")
}

func (s *Server) start() {
	s.t.Helper()
	// Not the test's context: that ends before the clean-ups, and the engine is theirs to end.
	command := exec.CommandContext(context.WithoutCancel(s.t.Context()), s.program, "-listen", s.address, "-native", s.native, "-dir", s.dir)
	command.Env = append(command.Environ(), "CHDB_LIB_PATH="+s.library)
	p := &process{command: command, stderr: new(tail), ended: make(chan struct{})}
	command.Stderr = p.stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	p.stdin = stdin
	stdout, err := command.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		s.t.Fatalf("start engine: %v", err)
	}
	s.process = p
	lines := make(chan string, 1)
	go func() {
		defer close(p.ended)
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		lines <- line
		_, _ = io.Copy(io.Discard, r)
		_ = command.Wait() // how it ended is seen in what it no longer answers
	}()
	select {
	case line := <-lines:
		addresses, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
		if !ok {
			<-p.ended
			s.t.Fatalf("start engine: it said %q and\n%s", line, p.stderr)
		}
		s.address, s.native, _ = strings.Cut(addresses, " ")
	case <-time.After(patience):
		s.t.Fatalf("start engine: no word of it in %s\n%s", patience, p.stderr)
	}
}

// stop ends the process and waits for it.
func (s *Server) stop() {
	if s.process == nil {
		return
	}
	_ = s.process.command.Process.Kill() // it may have ended by itself
	<-s.process.ended
	_ = s.process.stdin.Close() // Wait has closed it already
	s.process = nil
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// tail keeps the last of what a process says.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const keep = 8 << 10
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-keep):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

var _ fmt.Stringer = (*tail)(nil)
