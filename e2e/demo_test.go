package e2e_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"dnsfleet/internal/store/storetest/redistest"
)

var (
	firstURL = regexp.MustCompile(`https?://\S+`)
	digLine  = regexp.MustCompile(`dig @(127\.0\.0\.1) -p (\d+) (\S+)`)
)

// demoRun is a running `dnsfleet demo`.
type demoRun struct {
	cmd   *exec.Cmd
	url   string   // the first one on its standard output
	addrs []string // of the instances, from the dig lines
	lines chan string
}

func startDemo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	d := &demoRun{cmd: exec.Command(binary, append([]string{"demo", "--web", "127.0.0.1:0"}, args...)...), lines: make(chan string, 1000)}
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = os.Stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.cmd.Process.Kill()        //nolint:errcheck // it has ended by itself in a good test
		for line := range d.lines { // until it has ended
			t.Log(line)
		}
	})
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			d.lines <- lines.Text()
		}
		d.cmd.Wait() //nolint:errcheck // its state is read below
		close(d.lines)
	}()
	d.read(t, "Next: ", func(line string) {
		if d.url == "" {
			d.url = strings.TrimSuffix(firstURL.FindString(line), "/")
		}
		if m := digLine.FindStringSubmatch(line); m != nil {
			d.addrs = append(d.addrs, m[1]+":"+m[2])
		}
	})
	return d
}

// read hands lines to each until one holds text.
func (d *demoRun) read(t *testing.T, text string, each func(string)) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case line, more := <-d.lines:
			if !more {
				t.Fatalf("the demo ended before it printed %q", text)
			}
			if each != nil {
				each(line)
			}
			if strings.Contains(line, text) {
				return
			}
		case <-late:
			t.Fatalf("the demo did not print %q within 30 s", text)
		}
	}
}

// interrupt is Ctrl-C.
func (d *demoRun) interrupt(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	late := time.After(20 * time.Second)
	for {
		select {
		case _, more := <-d.lines:
			if more {
				continue
			}
			if code := d.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code after Ctrl-C: got %d, want 0", code)
			}
			return
		case <-late:
			t.Fatal("the demo did not end within 20 s of Ctrl-C")
		}
	}
}

func TestTheDemoIsAWholeFleet(t *testing.T) {
	t.Parallel()
	d := startDemo(t)
	web := strings.TrimPrefix(d.url, "http://")
	if len(d.addrs) != 4 {
		t.Fatalf("got dig lines for %q, want four instances", d.addrs)
	}
	page, err := get(t.Context(), d.url+"/", "")
	if err != nil || !strings.Contains(string(page), "<html") {
		t.Fatalf("the first URL is %s: got %.200q, %v, want the dashboard", d.url, page, err)
	}
	eventually(t, 30*time.Second, "four instances report traffic", func() error {
		v, err := readView(t, web)
		if err != nil {
			return err
		}
		if v.Coverage.Reporting != 4 || len(v.Replicas) != 3 {
			return fmt.Errorf("got %+v, want four reporting", v.Coverage)
		}
		for _, r := range append(v.Primaries, v.Replicas...) {
			if r.Distribution["blocked"] == 0 || r.Distribution["upstream"] == 0 || r.Distribution["cached"] == 0 {
				return fmt.Errorf("%s: got %v, want queries of every common outcome", r.Name, r.Distribution)
			}
		}
		return nil
	})
	boots := map[string]bool{}
	v, err := readView(t, web)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range append(v.Primaries, v.Replicas...) {
		boots[r.BootID] = true
	}
	if len(boots) != 4 {
		t.Errorf("got boots %v, want one of its own for each instance", boots)
	}
	for _, addr := range d.addrs {
		if r := ask(t, addr, "udp", "ads1.tracker.example"); r.Rcode != dns.RcodeNameError {
			t.Errorf("%s: the name of the dig line: got %s, want NXDOMAIN", addr, dns.RcodeToString[r.Rcode])
		}
		if r := ask(t, addr, "tcp", "www.lemon-0.example"); len(r.Answer) != 1 {
			t.Errorf("%s: another name: got %v, want an answer without the internet", addr, r)
		}
	}
	d.interrupt(t)
}

func TestTheDemoLetsOneDieAndUsesARealRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	d := startDemo(t, "--replicas", "2", "--kill-one-after", "8s", "--redis", redis.URL())
	web := strings.TrimPrefix(d.url, "http://")
	if len(d.addrs) != 3 {
		t.Fatalf("got dig lines for %q, want three instances", d.addrs)
	}
	keys, err := redistest.Command(redis.Addr(), "DBSIZE")
	if err != nil || strings.TrimSpace(keys) == ":0" {
		t.Errorf("keys in Redis: got %q, %v, want some", keys, err)
	}
	d.read(t, "has died", nil)
	for _, status := range []string{"stale", "offline"} {
		eventually(t, 60*time.Second, "the dead one is "+status, func() error {
			v, err := readView(t, web)
			if err != nil {
				return err
			}
			if len(v.Coverage.Missing) != 1 || v.Coverage.Missing[0].Status != status || len(v.Replicas) != 2 {
				return fmt.Errorf("got coverage %+v of %d replicas, want one %s of two", v.Coverage, len(v.Replicas), status)
			}
			return nil
		})
	}
	d.interrupt(t)
}
