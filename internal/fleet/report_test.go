package fleet_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
)

func goodReport() fleet.Report {
	return fleet.Report{
		Protocol: 1, InstanceID: "r1", Name: "kitchen", BootID: "b1", StartedAt: now, Seq: 1, SentAt: now, IntervalSeconds: 10,
		Upstreams: []fleet.UpstreamStats{{Address: "udp://9.9.9.9:53", Count: 2, Errors: 1}},
		Slices:    []fleet.Slice{{Size: fleet.Minute, Start: now.Truncate(time.Minute), BootID: "b1"}},
	}
}

func TestAReportIsCheckedBeforeItIsBelieved(t *testing.T) {
	if err := goodReport().Validate(); err != nil {
		t.Fatalf("a good report: got %v", err)
	}
	for name, c := range map[string]struct {
		spoil func(*fleet.Report)
		want  string
	}{
		"another protocol":          {func(r *fleet.Report) { r.Protocol = 2 }, "protocol 2"},
		"an id with a slash":        {func(r *fleet.Report) { r.InstanceID = "a/b" }, "instance_id"},
		"no boot id":                {func(r *fleet.Report) { r.BootID = "" }, "boot_id"},
		"an empty name":             {func(r *fleet.Report) { r.Name = " " }, "name"},
		"a name that is not UTF-8":  {func(r *fleet.Report) { r.Name = "\xff" }, "name"},
		"a name that turns round":   {func(r *fleet.Report) { r.Name = "a\u202eb" }, "name"},
		"a long name":               {func(r *fleet.Report) { r.Name = strings.Repeat("x", 129) }, "name"},
		"seq zero":                  {func(r *fleet.Report) { r.Seq = 0 }, "seq"},
		"no start":                  {func(r *fleet.Report) { r.StartedAt = time.Time{} }, "started_at"},
		"no interval":               {func(r *fleet.Report) { r.IntervalSeconds = 0 }, "interval_seconds"},
		"an interval that is NaN":   {func(r *fleet.Report) { r.IntervalSeconds = math.NaN() }, "interval_seconds"},
		"a negative count":          {func(r *fleet.Report) { r.Cache.LRU.Entries = -1 }, "counters"},
		"a negative list size":      {func(r *fleet.Report) { r.Blocklist.Lists = []fleet.ListStats{{Entries: -1}} }, "counters"},
		"absurd hits":               {func(r *fleet.Report) { r.Cache.Hits = math.MaxUint64 }, "counters"},
		"more errors than queries":  {func(r *fleet.Report) { r.Upstreams[0].Errors = 3 }, "errors"},
		"an upstream without name":  {func(r *fleet.Report) { r.Upstreams[0].Address = "" }, "upstream address"},
		"too many upstreams":        {func(r *fleet.Report) { r.Upstreams = make([]fleet.UpstreamStats, 65) }, "upstreams"},
		"a control URL with a user": {func(r *fleet.Report) { r.ControlURL = "http://u:p@h/" }, "control_url"},
		"a control URL of a file":   {func(r *fleet.Report) { r.ControlURL = "file:///etc/passwd" }, "control_url"},
		"an absurd average":         {func(r *fleet.Report) { r.ResponseTime.Avg = new(1e308) }, "averages"},
		"a negative quantile":       {func(r *fleet.Report) { r.ResponseTime.P99 = new(-1.0) }, "averages"},
		"a hit rate above all":      {func(r *fleet.Report) { r.Cache.HitRate = new(101.0) }, "hit_rate"},
		"too many acks":             {func(r *fleet.Report) { r.Acks = make([]fleet.Ack, 257) }, "acks"},
		"a long ack":                {func(r *fleet.Report) { r.Acks = []fleet.Ack{{Error: strings.Repeat("x", 513)}} }, "texts"},
		"a slice off its grid":      {func(r *fleet.Report) { r.Slices[0].Start = now }, "whole multiple"},
		"a slice of no size":        {func(r *fleet.Report) { r.Slices[0].Size = 0 }, "slice size"},
		"a slice longer than it is": {func(r *fleet.Report) { r.Slices[0].Seconds = 61 }, "seconds"},
		"too many slices":           {func(r *fleet.Report) { r.Slices = make([]fleet.Slice, fleet.MaxSlices+1) }, "slices"},
		"a long policy hash":        {func(r *fleet.Report) { r.PolicyHash = strings.Repeat("x", 513) }, "texts"},
	} {
		t.Run(name, func(t *testing.T) {
			r := goodReport()
			c.spoil(&r)
			err := r.Validate()
			if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrInvalid that names %q", err, c.want)
			}
		})
	}
}

func TestATokenShowsItsSecretOnceAndMatchesIt(t *testing.T) {
	token, secret := fleet.NewToken("kitchen", nil, false, now)
	if got := fleet.TokenID(secret); got != token.ID {
		t.Errorf("id inside the secret: got %q, want %q", got, token.ID)
	}
	if strings.Contains(token.SecretHash, secret) || !token.Matches(secret) || token.Matches(secret+"x") || token.Matches("") {
		t.Errorf("token %+v does not match just its secret", token)
	}
	renewed := token.NewSecret()
	if token.Matches(secret) || !token.Matches(renewed) {
		t.Error("after a rotation only the new secret should match")
	}
	for _, text := range []string{"", "abc", ".x", "a/b.c"} {
		if id := fleet.TokenID(text); id != "" {
			t.Errorf("TokenID(%q): got %q, want none", text, id)
		}
	}
}

func TestMergingSlicesAddsUp(t *testing.T) {
	a := fleet.Slice{
		Size: fleet.Minute, Start: now.Truncate(time.Minute), Outcomes: fleet.Outcomes{fleet.Cached: 2}, Latency: fleet.NewLatency(1, 2),
		Upstreams: []fleet.UpstreamSlice{{Address: "b", Count: 1}, {Address: "a", Count: 2, Errors: 1}},
	}
	b := a
	b.Seconds, b.Upstreams = 30, []fleet.UpstreamSlice{{Address: "a", Count: 5, Latency: fleet.NewLatency(time.Second)}}
	sum := fleet.MergeSlices(a, b)
	if sum.Outcomes[fleet.Cached] != 4 || sum.Latency.Count() != 4 || sum.Seconds != 90 || len(sum.Upstreams) != 2 ||
		sum.Upstreams[0].Address != "a" || sum.Upstreams[0].Count != 7 || sum.Upstreams[0].Errors != 1 || sum.Upstreams[0].Latency.Count() != 1 {
		t.Errorf("got %+v, want the sum of both, upstreams by address", sum)
	}
	if a.Latency.Count() != 2 || len(fleet.MergeSlices().Upstreams) != 0 {
		t.Error("merging changed what it merged")
	}
}
