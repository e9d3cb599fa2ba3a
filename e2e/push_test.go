package e2e_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// body is a push of an instance as design.md describes it, from its current row.
func (f *fleetUnderTest) body(id string) map[string]any {
	f.t.Helper()
	r := mustFind(f.t, f, id)
	return map[string]any{
		"protocol": 1, "instance_id": id, "name": r.Name, "boot_id": r.BootID, "started_at": time.Now().UTC(), "seq": 1,
		"sent_at": time.Now().UTC(), "interval_seconds": 1, "release": "test", "policy_revision": 1, "policy_hash": "x",
		"policy_unapplied": []string{}, "blocklist": map[string]any{}, "cache": map[string]any{}, "cache_refresh": map[string]any{},
		"response_distribution": map[string]any{"blocked": 5, "total": 5}, "response_time": map[string]any{}, "upstreams": []any{},
		"slices": []any{}, "acks": []any{}, "from_a_newer_release": true,
	}
}

// push sends a push in the name of id, spoiled by change, to each primary and wants the status.
func (f *fleetUnderTest) push(id string, want int, change func(map[string]any)) {
	f.t.Helper()
	p := f.body(id)
	if change != nil {
		change(p)
	}
	text, err := json.Marshal(p)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, primary := range primaries {
		f.send(primary, id, f.secret[id], text, want)
	}
}

func (f *fleetUnderTest) send(primary, id, secret string, body []byte, want int) {
	f.t.Helper()
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, "http://"+f.web(primary)+"/sync/stats", bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+secret)
	request.Header.Set("X-Dnsfleet-Instance", id)
	response, err := client.Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	if response.StatusCode != want {
		f.t.Errorf("push of %.80q…: got %s %s, want %d", body, response.Status, answer, want)
	}
	if bytes.Contains(answer, []byte(secret)) {
		f.t.Errorf("the answer echoes the secret: %s", answer)
	}
	var refusal struct{ Error string }
	if want >= 400 && (json.Unmarshal(answer, &refusal) != nil || refusal.Error == "") {
		f.t.Errorf("got %s, want {\"error\":\"one sentence\"}", answer)
	}
}

// badPushes sends what must be refused or must change nothing.
func (f *fleetUnderTest) badPushes(id string) {
	f.t.Helper()
	f.push(id, 200, nil) // seq 1 of the running boot: older than what is there
	cases := map[string]struct {
		want   int
		change func(map[string]any)
	}{
		"an unknown protocol version": {400, func(p map[string]any) { p["protocol"] = 99 }},
		"a negative counter":          {400, func(p map[string]any) { p["response_distribution"] = map[string]any{"blocked": -1} }},
		"an absurd counter":           {400, func(p map[string]any) { p["response_distribution"] = map[string]any{"blocked": 1e18} }},
		"a sender from the future":    {400, func(p map[string]any) { p["sent_at"] = time.Now().Add(time.Hour).UTC() }},
		"another's instance id":       {403, func(p map[string]any) { p["instance_id"] = "r2" }},
	}
	for name, c := range cases {
		f.t.Run(name, func(*testing.T) { f.push(id, c.want, c.change) })
	}
	for name, c := range map[string]struct {
		body, id, secret string
		want             int
	}{
		"malformed JSON":      {`{"protocol":`, id, f.secret[id], 400},
		"a body over 1 MiB":   {`{"name":"` + strings.Repeat("x", 1<<20) + `"}`, id, f.secret[id], 413},
		"a name not in UTF-8": {"{\"name\":\"\xff\"}", id, f.secret[id], 400},
		"an unknown token":    {`{}`, id, "t123." + strings.Repeat("x", 40), 401},
		"another's token":     {`{}`, "r2", f.secret[id], 403},
		"a primary's id":      {`{}`, "p1", f.secret[id], 403},
	} {
		f.t.Run(name, func(*testing.T) { f.send("p2", c.id, c.secret, []byte(c.body), c.want) })
	}
}
