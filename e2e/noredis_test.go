package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestAStartWithoutRedis: the primary starts and answers DNS, says what is missing, refuses pushes for now, and all counts
// arrive once Redis is there.
func TestAStartWithoutRedis(t *testing.T) {
	t.Parallel()
	f := prepareFleet(t)
	f.redis.Stop()
	f.start("p1")
	f.start("r1")
	eventually(t, 15*time.Second, "the primary answers DNS by the seed of the policy", func() error {
		if r := ask(t, f.dns("p1"), "udp", blockedName); r.Rcode != dns.RcodeNameError {
			return fmt.Errorf("got %s for a blocked name, want NXDOMAIN", dns.RcodeToString[r.Rcode])
		}
		return nil
	})

	body, err := get(t.Context(), "http://"+f.web("p1")+"/readyz", "")
	if err == nil || !strings.Contains(string(body), "store") {
		t.Errorf("readyz: got %s, %v, want 503 that names the store", body, err)
	}
	eventually(t, 15*time.Second, "the view shows the primary and says what is missing", func() error {
		v, err := readView(t, f.web("p1"))
		if err != nil {
			return err
		}
		if v.Primary == nil || v.Primary.Distribution["blocked"] == 0 {
			return fmt.Errorf("got primary %+v, want its own counters", v.Primary)
		}
		for _, e := range v.Errors {
			if e.Part == "store" && e.Error != "" {
				return nil
			}
		}
		return fmt.Errorf("got errors %+v, want one of part store", v.Errors)
	})

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.web("p1")+"/sync/stats", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Sync-Token", f.secret["r1"])
	request.Header.Set("X-Dnsfleet-Instance", "r1")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(response.Body)
	response.Body.Close()
	var refusal struct{ Error string }
	if err := errors.Join(err, json.Unmarshal(answer, &refusal)); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || refusal.Error == "" {
		t.Errorf("push: got %s, Retry-After %q, %s, want 503 with Retry-After and a sentence", response.Status, response.Header.Get("Retry-After"), answer)
	}

	f.redis.Restart()
	eventually(t, 60*time.Second, "the replica gets the policy", func() error {
		_, err := get(t.Context(), "http://"+f.web("r1")+"/readyz", "")
		return err
	})
	sent := load(t, f.dns("r1"), "r1", 3, 2, 4)
	f.viewsAgree(60*time.Second, "all counts arrive", []string{"p1"}, func(v view) error {
		r, err := v.find("r1")
		if err != nil {
			return err
		}
		if r.Distribution["blocked"] != sent["blocked"] || r.Distribution["cached"] != sent["cached"] || r.Distribution["upstream"] != sent["upstream"] {
			return fmt.Errorf("got %v, want %v", r.Distribution, sent)
		}
		if len(v.Coverage.Missing) != 0 || v.Coverage.Total != 2 {
			return fmt.Errorf("got coverage %+v, want 2 of 2", v.Coverage)
		}
		return nil
	})
}
