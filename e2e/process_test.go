package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dnsfleet-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "dnsfleet")
	build := exec.Command("go", "build", "-o", binary, "../cmd/dnsfleet")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// env is the environment of a process, on top of a clean one.
type env map[string]string

func (e env) with(more env) env {
	sum := maps.Clone(e)
	maps.Copy(sum, more)
	return sum
}

// process is one running dnsfleet.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan struct{}
}

// start runs `dnsfleet role` and waits until its web listener answers.
func start(t *testing.T, name, role string, e env) *process {
	t.Helper()
	return startWith(t, name, role, e, func() error {
		_, err := get(t.Context(), "http://"+e["DNSFLEET_WEB_LISTEN"]+"/healthz", "")
		return err
	})
}

// startWith runs `dnsfleet role` and waits until alive has no objection.
func startWith(t *testing.T, name, role string, e env, alive func() error) *process {
	t.Helper()
	p := &process{t: t, name: name, log: new(lockedBuffer), exited: make(chan struct{})}
	p.cmd = exec.Command(binary, role)
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for k, v := range e {
		p.cmd.Env = append(p.cmd.Env, k+"="+v)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait() //nolint:errcheck // how it ended shows in its log
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.log.tail(4000))
		}
	})
	eventually(t, 20*time.Second, name+" is alive", func() error {
		select {
		case <-p.exited:
			t.Fatalf("%s ended at start:\n%s", name, p.log.tail(4000))
		default:
		}
		return alive()
	})
	return p
}

// kill ends the process at once, as a power cut would.
func (p *process) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may be gone already
	<-p.exited
}

// stop ends the process cleanly.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(15 * time.Second):
		p.t.Fatalf("%s did not stop within 15 s", p.name)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Errorf("%s: got exit code %d at a clean stop, want 0\n%s", p.name, code, p.log.tail(2000))
	}
}

// lockedBuffer keeps what a process prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.b.String()
	return s[max(0, len(s)-n):]
}

func (b *lockedBuffer) contains(text string) bool {
	return strings.Contains(b.tail(1<<30), text)
}

// eventually asks check again and again until it has no objection.
func eventually(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s: %v", within, what, err)
		case <-tick.C:
		}
	}
}

// handedOut are the ports that freeAddr has given away in this run.
var handedOut sync.Map

// freeAddr is a loopback address that nobody listens on, for UDP and TCP. Its port lies below those that the system gives
// to outgoing connections, one of which might else take it before the process under test does.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if _, taken := handedOut.LoadOrStore(addr, true); taken {
			continue
		}
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err != nil {
			continue
		}
		pc, errUDP := new(net.ListenConfig).ListenPacket(t.Context(), "udp", addr)
		l.Close()
		if errUDP == nil {
			pc.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

var client = &http.Client{Timeout: 5 * time.Second}

// get is the body of a GET that answers 200.
func get(ctx context.Context, url, etag string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if etag != "" {
		request.Header.Set("If-None-Match", etag)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return body, fmt.Errorf("GET %s: %s: %s", url, response.Status, body)
	}
	return body, nil
}

// cli runs a command that ends by itself and returns what it prints on standard output.
func cli(t *testing.T, e env, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for k, v := range e {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dnsfleet %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// createToken makes a token with the command line and returns its id and secret.
func createToken(t *testing.T, e env, args ...string) (id, secret string) {
	t.Helper()
	var made struct{ ID, Name, Secret string }
	out := cli(t, e, append([]string{"token", "create", "--json"}, args...)...)
	if err := json.Unmarshal(out, &made); err != nil || made.ID == "" || made.Secret == "" {
		t.Fatalf("token create --json printed %q (%v), want id, name and secret", out, err)
	}
	return made.ID, made.Secret
}
