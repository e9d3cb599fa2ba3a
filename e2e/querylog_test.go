package e2e_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/querylog/clickhouse/chtest"
)

// The shapes of design.md for queries, as somebody else's program would declare them.
type (
	summary struct {
		Enabled  bool   `json:"enabled"`
		Source   string `json:"source"`
		Total    int64  `json:"total"`
		Outcomes counts `json:"outcomes"`
		Groups   []struct {
			InstanceID string `json:"instance_id"`
			Total      int64  `json:"total"`
			Outcomes   counts `json:"outcomes"`
		} `json:"groups"`
		Missing []struct {
			InstanceID string `json:"instance_id"`
			Reason     string `json:"reason"`
		} `json:"missing"`
	}
	top struct {
		Source string `json:"source"`
		Items  []struct {
			Name       string `json:"name"`
			Count      int64  `json:"count"`
			ErrorBound int64  `json:"error_bound"`
		} `json:"items"`
	}
	page struct {
		Rows []struct {
			TS         time.Time `json:"ts"`
			InstanceID string    `json:"instance_id"`
			ClientIP   string    `json:"client_ip"`
			ClientName string    `json:"client_name"`
			QName      string    `json:"qname"`
			QType      string    `json:"qtype"`
			Outcome    string    `json:"outcome"`
			List       string    `json:"list"`
		} `json:"rows"`
		Next *string `json:"next"`
	}
)

// read asks a primary about queries.
func read[T any](t *testing.T, web, what string, parameters url.Values) (answer T, err error) {
	t.Helper()
	body, err := get(t.Context(), "http://"+web+"/api/queries/"+what+"?"+parameters.Encode(), "")
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	return answer, err
}

// logHolds waits until the query log that a primary reads holds exactly what was sent to each instance.
func (f *fleetUnderTest) logHolds(within time.Duration, from, source string, sent map[string]counts) {
	f.t.Helper()
	eventually(f.t, within, "the query log of "+from+" holds exactly what was sent", func() error {
		s, err := read[summary](f.t, f.web(from), "summary", url.Values{"group_by": {"instance"}, "window": {"1h"}})
		if err != nil {
			return err
		}
		if !s.Enabled || s.Source != source || len(s.Missing) > 0 {
			return fmt.Errorf("got %+v, want a %s log that misses nobody", s, source)
		}
		all, total := counts{}, int64(0)
		for id, want := range sent {
			got := counts{}
			for _, g := range s.Groups {
				if g.InstanceID == id {
					got = g.Outcomes.add(counts{"total": g.Total})
				}
			}
			if err := same(id, got, want); err != nil {
				return err
			}
			all = all.add(want)
		}
		for _, n := range all {
			total += n
		}
		return errors.Join(same("the fleet", s.Outcomes.add(counts{"total": s.Total}), all), nil)
	})
}

// A home pair: one primary with the embedded log, replicas that send it their queries, and everything that goes wrong.
func TestTheQueryLogOfAFleetWithoutAServer(t *testing.T) {
	t.Parallel()
	f := prepareFleet(t)
	for _, id := range replicas[:2] {
		f.envs[id]["DNSFLEET_PRIMARY_URLS"] = "http://" + f.web("p1")
	}
	f.envs["r2"]["DNSFLEET_PRIVACY"] = "hash"
	for _, id := range []string{"p1", "r1", "r2"} {
		f.start(id)
	}
	f.ready("p1", "r1", "r2")
	sent := map[string]counts{}
	send := func(id, serial string, fresh, repeat, blocked int) {
		t.Helper()
		sent[id] = sent[id].add(load(t, f.dns(id), serial+"."+id, fresh, repeat, blocked))
	}

	send("p1", "a", 20, 10, 5)
	send("r1", "a", 30, 20, 15)
	send("r2", "a", 12, 3, 7)
	f.logHolds(5*time.Second, "p1", "sqlite", sent)

	t.Log("rows tell who asked what, and why it was blocked; privacy holds on the instance that wants it")
	blocked, err := read[page](t, f.web("p1"), "recent", url.Values{"outcome": {"blocked"}, "instance": {"r1"}, "limit": {"5"}})
	if err != nil || len(blocked.Rows) != 5 || blocked.Next == nil {
		t.Fatalf("got %+v, %v, want five rows and a next page", blocked, err)
	}
	if r := blocked.Rows[0]; r.QName != "deep.below."+blockedName || r.ClientIP != "127.0.0.1" || r.List != "ads" || r.QType != "A" || r.InstanceID != "r1" {
		t.Errorf("got %+v, want a query of 127.0.0.1 that the list ads blocked", r)
	}
	hashed, err := read[page](t, f.web("p1"), "recent", url.Values{"instance": {"r2"}, "limit": {"1000"}})
	if err != nil || len(hashed.Rows) != 22 {
		t.Fatalf("got %d rows, %v, want 22", len(hashed.Rows), err)
	}
	for _, r := range hashed.Rows {
		if r.ClientIP != "" || !strings.HasPrefix(r.ClientName, "client-") {
			t.Fatalf("got client %q %q, want a pseudonym only", r.ClientIP, r.ClientName)
		}
	}
	domains, err := read[top](t, f.web("p1"), "top-domains", url.Values{"outcome": {"blocked"}})
	if err != nil || len(domains.Items) != 1 || domains.Items[0].Count != 27 || domains.Items[0].ErrorBound != 0 {
		t.Errorf("got %+v, %v, want one blocked name with exactly 27 queries", domains, err)
	}
	body, err := get(t.Context(), "http://"+f.web("p1")+"/api/queries/export?format=csv&window=1h", "")
	if err != nil {
		t.Fatal(err)
	}
	if lines, err := csv.NewReader(strings.NewReader(string(body))).ReadAll(); err != nil || len(lines) != 1+122 {
		t.Errorf("got %d lines of CSV, %v, want a head and 122 rows", len(lines), err)
	}

	t.Log("the primary is killed: replicas keep what they answer, on disk, and deliver it once")
	f.procs["p1"].kill()
	send("r1", "b", 40, 10, 10)
	send("r2", "b", 5, 5, 5)
	eventually(t, 10*time.Second, "events of r1 wait on disk", func() error { return f.spooled("r1", 60) })
	f.procs["r1"].kill() // what waits on disk outlives it
	f.start("r1")
	f.ready("r1")
	send("r1", "c", 3, 3, 3)
	f.start("p1")
	f.ready("p1")
	f.logHolds(45*time.Second, "p1", "sqlite", sent)

	t.Log("the view tells each instance's last hour from the log")
	eventually(t, 45*time.Second, "queries of r1 stand in the view", func() error {
		body, err := get(t.Context(), "http://"+f.web("p1")+"/api/instances/r1", "")
		if err != nil {
			return err
		}
		var got struct {
			Queries *struct {
				Source    string   `json:"source"`
				Window    string   `json:"window"`
				Total     int64    `json:"total"`
				P95       *float64 `json:"p95_ms"`
				Upstreams []struct {
					Address string `json:"address"`
					Count   int64  `json:"count"`
				} `json:"upstreams"`
			} `json:"queries"`
		}
		if err := json.Unmarshal(body, &got); err != nil {
			return err
		}
		if q := got.Queries; q == nil || q.Source != "sqlite" || q.Window != "1h" || q.Total != 134 || q.P95 == nil || len(q.Upstreams) != 1 || q.Upstreams[0].Count != 73 {
			return fmt.Errorf("got %+v, want 134 queries, 73 of them by one upstream", q)
		}
		return nil
	})

	t.Log("a clean stop flushes")
	send("r2", "d", 9, 0, 0)
	f.procs["r2"].stop()
	f.logHolds(5*time.Second, "p1", "sqlite", sent)
	send("p1", "e", 9, 0, 0)
	f.procs["p1"].stop()
	f.start("p1")
	f.ready("p1")
	f.logHolds(5*time.Second, "p1", "sqlite", sent)
}

// ready waits until the instances serve the policy.
func (f *fleetUnderTest) ready(ids ...string) {
	f.t.Helper()
	eventually(f.t, 20*time.Second, "instances serve the policy", func() error {
		for _, id := range ids {
			if _, err := get(f.t.Context(), "http://"+f.web(id)+"/readyz", ""); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
		}
		return nil
	})
}

// spooled objects while fewer events than that wait on an instance's disk.
func (f *fleetUnderTest) spooled(id string, atLeast int64) error {
	body, err := get(f.t.Context(), "http://"+f.envs[id]["DNSFLEET_CONTROL_LISTEN"]+"/querystore/stats", "")
	if err != nil {
		return err
	}
	var s struct {
		Enabled bool `json:"enabled"`
		Waiting int64
		Spool   struct {
			Events int64 `json:"events"`
		} `json:"spool"`
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return err
	}
	if !s.Enabled || s.Waiting > 0 || s.Spool.Events < atLeast {
		return fmt.Errorf("got %s, want %d events in the spool", body, atLeast)
	}
	return nil
}

// Two primaries on one ClickHouse, replicas that know neither of its address nor its password.
func TestTheQueryLogOfAFleetOnClickHouse(t *testing.T) {
	t.Parallel()
	engine := chtest.Start(t)
	f := prepareFleet(t)
	for _, id := range primaries {
		f.envs[id]["DNSFLEET_QUERYLOG_URL"] = engine.DSN()
	}
	for _, id := range []string{"p1", "p2", "r1", "r2"} {
		f.start(id)
	}
	f.ready("p1", "p2", "r1", "r2")
	sent := map[string]counts{}
	send := func(id, serial string, fresh, repeat, blocked int) {
		t.Helper()
		sent[id] = sent[id].add(load(t, f.dns(id), serial+"."+id, fresh, repeat, blocked))
	}
	send("p1", "a", 10, 10, 10)
	send("p2", "a", 11, 5, 1)
	send("r1", "a", 30, 20, 15)
	send("r2", "a", 12, 3, 7)
	for _, p := range primaries {
		f.logHolds(20*time.Second, p, "clickhouse", sent)
	}

	t.Log("a replica's batch that was stored and never acknowledged goes to the other primary, and counts once")
	engine.LoseAnswers(2)
	send("r1", "b", 10, 0, 0)
	f.procs["p1"].kill()
	send("r1", "c", 10, 0, 0)
	send("r2", "c", 10, 0, 0)
	f.logHolds(30*time.Second, "p2", "clickhouse", sent)

	t.Log("ClickHouse dies between an insert and its answer, is away, and comes back")
	engine.DieAfterInsert()
	send("r1", "d", 10, 0, 0)
	engine.WaitDead()
	send("r1", "e", 20, 0, 5)
	send("p2", "e", 5, 5, 5)
	eventually(t, 10*time.Second, "the view names what is missing and shows the rest", func() error {
		v, err := readView(t, f.web("p2"))
		if err == nil && v.Coverage.Reporting < 3 {
			err = fmt.Errorf("got coverage %+v", v.Coverage)
		}
		return err
	})
	engine.Restart()
	f.start("p1")
	f.ready("p1")
	for _, p := range primaries {
		f.logHolds(60*time.Second, p, "clickhouse", sent)
	}
	for id, p := range f.procs {
		if p.log.contains("clickhouse+http") {
			t.Errorf("the log of %s holds ClickHouse's URL, where a password would stand", id)
		}
	}
}

// Nothing is logged anywhere, and the reports still tell what the fleet does.
func TestWithoutAQueryLogReportsStandIn(t *testing.T) {
	t.Parallel()
	f := prepareFleet(t)
	f.common["DNSFLEET_QUERYLOG_URL"] = "off"
	for _, id := range []string{"p1", "r1"} {
		f.envs[id]["DNSFLEET_QUERYLOG_URL"] = "off"
		f.start(id)
	}
	f.ready("p1", "r1")
	want := load(t, f.dns("r1"), "a.r1", 30, 20, 10)
	own := load(t, f.dns("p1"), "a.p1", 5, 5, 5)
	eventually(t, 20*time.Second, "the last hour stands in the view", func() error {
		body, err := get(t.Context(), "http://"+f.web("p1")+"/api/instances/stats", "")
		if err != nil {
			return err
		}
		type lastHour struct {
			UniqueClients int64 `json:"unique_clients"`
			TopDomains    []struct {
				Name  string `json:"name"`
				Count int64  `json:"count"`
			} `json:"top_domains"`
			TopBlocked []struct {
				Name  string `json:"name"`
				Count int64  `json:"count"`
			} `json:"top_blocked"`
		}
		var v struct {
			Totals struct {
				UniqueClients *int64    `json:"unique_clients"`
				LastHour      *lastHour `json:"last_hour"`
			} `json:"totals"`
			Replicas []struct {
				LastHour *lastHour `json:"last_hour"`
				QueryLog string    `json:"query_log"`
			} `json:"replicas"`
			Errors []struct {
				Part string `json:"part"`
			} `json:"errors"`
		}
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		for _, e := range v.Errors {
			if e.Part == "queries" {
				return fmt.Errorf("got %s, want no error: the log is off by intent", body)
			}
		}
		h := v.Totals.LastHour
		if len(v.Replicas) == 0 || v.Replicas[0].LastHour == nil || v.Replicas[0].QueryLog != "off" || h == nil || v.Totals.UniqueClients == nil {
			return fmt.Errorf("got %s, want a last hour", body)
		}
		name := "deep.below." + blockedName
		if *v.Totals.UniqueClients != 1 || len(h.TopBlocked) != 1 || h.TopBlocked[0].Name != name || h.TopBlocked[0].Count != 15 {
			return fmt.Errorf("got %+v, want one client and 15 queries for %s", h, name)
		}
		return nil
	})
	s, err := read[summary](t, f.web("p1"), "summary", nil)
	if err != nil || s.Enabled || s.Source != "reports" {
		t.Fatalf("got %+v, %v, want a summary of reports that says that nothing is stored", s, err)
	}
	rows, err := read[page](t, f.web("p1"), "recent", nil)
	if err != nil || rows.Rows == nil || len(rows.Rows) != 0 {
		t.Errorf("got %+v, %v, want no rows", rows, err)
	}
	for _, id := range []string{"p1", "r1"} {
		found, err := filepath.Glob(filepath.Join(f.envs[id]["DNSFLEET_DATA_DIR"], "*queries*"))
		if err != nil || len(found) > 0 {
			t.Errorf("%s: got files %v, %v, want no log on disk", id, found, err)
		}
	}

	t.Log("a minute later the slices tell the counts")
	f.procs["r1"].stop() // closes its slices
	f.procs["p1"].stop()
	f.start("p1")
	f.ready("p1")
	eventually(t, 20*time.Second, "counts come from slices", func() error {
		s, err := read[summary](t, f.web("p1"), "summary", url.Values{"window": {"1h"}, "group_by": {"instance"}})
		if err != nil {
			return err
		}
		return same("the fleet", s.Outcomes.add(counts{"total": s.Total}), want.add(own))
	})
}
