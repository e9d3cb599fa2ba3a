package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The shapes of design.md as somebody else's program would declare them: on purpose not the types of the code under test.
type (
	counts map[string]int64

	row struct {
		InstanceID string `json:"instance_id"`
		Name       string `json:"name"`
		Role       string `json:"role"`
		Status     string `json:"status"`
		Source     string `json:"source"`
		BootID     string `json:"boot_id"`
		Revision   int64  `json:"policy_revision"`
		Drift      *bool  `json:"policy_drift"`
		Blocklist  *struct {
			Blocked int `json:"blocked"`
		} `json:"blocklist"`
		Distribution counts  `json:"response_distribution"`
		Lifetime     counts  `json:"lifetime"`
		Recent       *recent `json:"recent"`
	}
	recent struct {
		Seconds      float64  `json:"seconds"`
		QPS          *float64 `json:"queries_per_second"`
		Distribution counts   `json:"response_distribution"`
		P95          *float64 `json:"p95_ms"`
	}
	view struct {
		GeneratedAt time.Time `json:"generated_at"`
		Coverage    struct {
			Reporting int `json:"reporting"`
			Total     int `json:"total"`
			Missing   []struct {
				InstanceID string `json:"instance_id"`
				Status     string `json:"status"`
			} `json:"missing"`
		} `json:"coverage"`
		Totals struct {
			Distribution counts  `json:"response_distribution"`
			Lifetime     counts  `json:"lifetime"`
			Recent       *recent `json:"recent"`
		} `json:"totals"`
		Primary   *row  `json:"primary"`
		Primaries []row `json:"primaries"`
		Replicas  []row `json:"replicas"`
		Errors    []struct {
			Part  string `json:"part"`
			Error string `json:"error"`
		} `json:"errors"`
	}
)

// readView is what a primary says of the fleet.
func readView(t *testing.T, web string) (view, error) {
	t.Helper()
	body, err := get(t.Context(), "http://"+web+"/api/instances/stats", "")
	if err != nil {
		return view{}, err
	}
	var v view
	return v, json.Unmarshal(body, &v)
}

// find is the row of an instance, whatever its role.
func (v view) find(id string) (row, error) {
	for _, rows := range [][]row{v.Primaries, v.Replicas} {
		for _, r := range rows {
			if r.InstanceID == id {
				return r, nil
			}
		}
	}
	return row{}, fmt.Errorf("%s is not in the view", id)
}

// same says how got differs from want; outcomes that did not happen may be missing in want.
func same(what string, got, want counts) error {
	var total int64
	for outcome, n := range want {
		total += n
		if got[outcome] != n {
			return fmt.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	if got["total"] != total {
		return fmt.Errorf("%s: got %v in total, want %v", what, got, want)
	}
	return nil
}

func (c counts) add(d counts) counts {
	sum := counts{}
	for outcome, n := range c {
		sum[outcome] += n
	}
	for outcome, n := range d {
		sum[outcome] += n
	}
	return sum
}

// ask sends one query and returns the answer.
func ask(t *testing.T, addr, network, name string) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.TypeA)
	r, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).ExchangeContext(t.Context(), q, addr)
	if err != nil {
		t.Fatalf("ask %s for %s: %v", addr, name, err)
	}
	return r
}

// load sends queries of known outcomes: fresh names that an upstream answers, the same again from the cache, and names
// that the list blocks. serial keeps the names of different calls apart.
func load(t *testing.T, addr, serial string, fresh, repeat, blocked int) counts {
	t.Helper()
	for i := range fresh {
		if r := ask(t, addr, "udp", fmt.Sprintf("n%d.%s.known.example", i, serial)); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
			t.Fatalf("a fresh name: got %v, want an address", r)
		}
	}
	for i := range repeat {
		if r := ask(t, addr, "tcp", fmt.Sprintf("n%d.%s.known.example", i%fresh, serial)); len(r.Answer) != 1 {
			t.Fatalf("a known name: got %v, want an address", r)
		}
	}
	for range blocked {
		if r := ask(t, addr, "udp", "deep.below."+blockedName); r.Rcode != dns.RcodeNameError {
			t.Fatalf("a blocked name: got %v, want NXDOMAIN", r)
		}
	}
	return counts{"upstream": int64(fresh), "cached": int64(repeat), "blocked": int64(blocked)}
}

const blockedName = "ads.example"
