package syncapi_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/webapi/apitest"
)

func zip(tb testing.TB, body []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func zst(tb testing.TB, body []byte, options ...zstd.EOption) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, options...)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestTheGoldenPush(t *testing.T) {
	t.Run("survives decoding and encoding", func(t *testing.T) {
		var r fleet.Report
		if err := json.Unmarshal(readGolden(t), &r); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		for text, tree := range map[string]*any{string(readGolden(t)): &want, string(again): &got} {
			if err := json.Unmarshal([]byte(text), tree); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("golden push before and after (-before +after):\n%s", diff)
		}
	})
	t.Run("has a value in every field of a report", func(t *testing.T) {
		var r fleet.Report
		if err := json.Unmarshal(readGolden(t), &r); err != nil {
			t.Fatal(err)
		}
		filled := map[string]bool{}
		walk(reflect.ValueOf(r), "report", filled)
		for path, isFilled := range filled {
			if !isFilled {
				t.Errorf("%s is empty everywhere", path)
			}
		}
	})
	t.Run("is stored whole, once, and answered", func(t *testing.T) {
		p := newPrimary(t)
		until := fleet.SlicesUntil{BootID: "p8Qk2mVxT0aJr5Zc", Size: fleet.Minute, Until: storeTime.Truncate(time.Minute)}
		p.store.answer.SlicesUntil = []fleet.SlicesUntil{until}
		res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
		if res.status != http.StatusOK {
			t.Fatalf("status is %d with %s", res.status, res.body)
		}
		want := `{"ok":true,"result":"stored","server_time":"2026-03-14T09:26:55Z","next_push_seconds":10,` +
			`"slices_stored":[{"boot_id":"p8Qk2mVxT0aJr5Zc","size":"1m","until":"2026-03-14T09:26:00Z"}],"commands":[]}` + "\n"
		if res.body != want {
			t.Errorf("answer is  %s\nwant       %s", res.body, want)
		}
		var sent, got any
		stored := p.store.reports()
		if len(stored) != 1 || p.store.savedBy[0] != "replica "+p.token.ID {
			t.Fatalf("stored %d reports by %q, want one by replica %s", len(stored), p.store.savedBy, p.token.ID)
		}
		text, err := json.Marshal(stored[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(readGolden(t), &sent); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Errorf("stored is not what was sent (-sent +stored):\n%s", diff)
		}
	})
}

// walk notes for each field, by the path of its type, whether any value has it filled.
func walk(v reflect.Value, path string, filled map[string]bool) {
	switch x := v.Interface().(type) {
	case time.Time:
		filled[path] = filled[path] || !x.IsZero()
		return
	case fleet.Latency:
		filled[path] = filled[path] || x.Count() > 0
		return
	case fleet.Uniques:
		filled[path] = filled[path] || !x.IsZero()
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			walk(v.Field(i), path+"."+v.Type().Field(i).Name, filled)
		}
	case reflect.Slice:
		filled[path] = filled[path] || v.Len() > 0
		for i := range v.Len() {
			walk(v.Index(i), path+"[]", filled)
		}
	case reflect.Array:
		for i := range v.Len() {
			walk(v.Index(i), path+"["+fleet.Outcome(i).String()+"]", filled)
		}
	default:
		filled[path] = filled[path] || !v.IsZero()
	}
}

func TestPushesArrive(t *testing.T) {
	plain := readGolden(t)
	withUnknown := edited(t, func(push map[string]any) {
		push["of_a_later_release"] = map[string]any{"x": 1}
		push["slices"].([]any)[0].(map[string]any)["outcomes"].(map[string]any)["teleported"] = 3
	})
	for name, tc := range map[string]struct {
		body   []byte
		change func(*http.Request)
	}{
		"plain":                              {plain, func(*http.Request) {}},
		"as identity":                        {plain, header("Content-Encoding", "identity")},
		"packed with gzip":                   {zip(t, plain), header("Content-Encoding", "gzip")},
		"packed with zstd":                   {zst(t, plain), header("Content-Encoding", "ZSTD")},
		"packed with zstd in several frames": {append(zst(t, plain[:100]), zst(t, plain[100:])...), header("Content-Encoding", "zstd")},
		"packed with zstd with the widest window": {zst(t, plain, zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false)), header("Content-Encoding", "zstd")},
		"with the token in its own header": {plain, func(r *http.Request) {
			r.Header.Set(syncapi.TokenHeader, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			r.Header.Del("Authorization")
		}},
		"with the token beside a proxy's authorization": {plain, func(r *http.Request) {
			r.Header.Set(syncapi.TokenHeader, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			r.SetBasicAuth("proxy", "user")
		}},
		"with fields of a later release":         {withUnknown, func(*http.Request) {}},
		"with lists that are null":               {edited(t, nullLists), func(r *http.Request) { apitest.MarkBad(r) }}, // described as lists
		"with a body of exactly one MiB":         {append(bytes.Clone(plain), bytes.Repeat([]byte{' '}, syncapi.MaxBody-len(plain))...), func(*http.Request) {}},
		"with sent_at at the edge of the future": {with(t, storeTime.Add(fleet.MaxFuture), "sent_at"), func(*http.Request) {}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t)
			res := p.do(t, p.request(t, "POST", "/sync/stats", tc.body, tc.change))
			if res.status != http.StatusOK {
				t.Fatalf("status is %d with %s", res.status, res.body)
			}
			stored := p.store.reports()
			if len(stored) != 1 {
				t.Fatalf("stored %d reports, want 1", len(stored))
			}
			r := stored[0]
			if r.InstanceID != "attic-pi" || r.ResponseDistribution.Total() == 0 {
				t.Errorf("stored %s with %d queries", r.InstanceID, r.ResponseDistribution.Total())
			}
			if r.PolicyUnapplied == nil || r.Upstreams == nil || r.Slices == nil || r.Acks == nil || r.Blocklist.Lists == nil {
				t.Errorf("stored a nil list: %v %v %v %v %v", r.PolicyUnapplied, r.Upstreams, r.Slices, r.Acks, r.Blocklist.Lists)
			}
		})
	}
}

func nullLists(push map[string]any) {
	for _, key := range []string{"policy_unapplied", "upstreams", "slices", "acks"} {
		push[key] = nil
	}
	push["blocklist"].(map[string]any)["lists"] = nil
}

func TestBadPushes(t *testing.T) {
	plain := readGolden(t)
	bomb := bytes.Repeat([]byte{' '}, 16<<20)
	gz, zs := header("Content-Encoding", "gzip"), header("Content-Encoding", "zstd")
	none := func(*http.Request) {}
	for name, tc := range map[string]struct {
		body   []byte
		change func(*http.Request)
		status int
		says   string
	}{
		"malformed JSON":                {[]byte(`{"protocol":1,`), none, 400, "body is not the JSON expected here"},
		"no JSON at all":                {nil, none, 400, "body is not the JSON expected here"},
		"a list":                        {[]byte(`[]`), none, 400, "body is not the JSON expected here"},
		"null":                          {[]byte(`null`), none, 400, "protocol 0 is not spoken here, only 1"},
		"two JSON values":               {append(bytes.Clone(plain), '1'), none, 400, "body holds more than one JSON value"},
		"two reports":                   {append(bytes.Clone(plain), plain...), none, 400, "body holds more than one JSON value"},
		"nested too deep":               {bytes.Repeat([]byte{'['}, 100_000), none, 400, "body is not the JSON expected here"},
		"a body of one MiB and a byte":  {bytes.Repeat([]byte{' '}, syncapi.MaxBody+1), none, 413, "body must have at most 1048576 bytes"},
		"one MiB and a byte in gzip":    {zip(t, bytes.Repeat([]byte{' '}, syncapi.MaxBody+1)), gz, 413, "body must have at most 1048576 bytes"},
		"one MiB and a byte in zstd":    {zst(t, bytes.Repeat([]byte{' '}, syncapi.MaxBody+1)), zs, 413, "body must have at most 1048576 bytes"},
		"a gzip bomb":                   {zip(t, bomb), gz, 413, "body must have at most 1048576 bytes"},
		"a zstd bomb":                   {zst(t, bomb), zs, 413, "body must have at most 1048576 bytes"},
		"a zstd window of 64 MiB":       {zst(t, bomb[:2<<20], zstd.WithWindowSize(64<<20)), zs, 400, "body is not whole zstd"},
		"a truncated gzip":              {zip(t, plain)[:2000], gz, 400, "body is not whole gzip"},
		"a gzip with a wrong checksum":  {wrongSum(zip(t, plain)), gz, 400, "body is not whole gzip"},
		"no gzip under that name":       {plain, gz, 400, "body is not gzip"},
		"a truncated zstd":              {zst(t, plain)[:2000], zs, 400, "body is not whole zstd"},
		"no zstd under that name":       {plain, zs, 400, "body is not whole zstd"},
		"an empty body under gzip":      {nil, gz, 400, "body is not gzip"},
		"an unknown content-encoding":   {plain, header("Content-Encoding", "br"), 415, "content-encoding must be identity, gzip or zstd"},
		"two content-encodings":         {plain, header("Content-Encoding", "gzip, gzip"), 415, "content-encoding must be identity, gzip or zstd"},
		"a later protocol":              {with(t, 2, "protocol"), none, 400, "protocol 2 is not spoken here, only 1"},
		"a later protocol in its shape": {edited(t, func(p map[string]any) { p["protocol"], p["cache"] = 2, "new" }), none, 400, "protocol 2 is not spoken here, only 1"},
		"a protocol that is no number":  {with(t, "1", "protocol"), none, 400, "body is not the JSON expected here"},
		"no protocol":                   {edited(t, func(p map[string]any) { delete(p, "protocol") }), none, 400, "protocol 0 is not spoken here, only 1"},
		"a negative counter":            {with(t, -1, "cache", "hits"), none, 400, "body is not the JSON expected here"},
		"a negative size":               {with(t, -1, "blocklist", "blocked"), none, 400, "counters must be whole numbers from 0 to 1125899906842624"},
		"a negative outcome":            {with(t, -1, "response_distribution", "blocked"), none, 400, `count of "blocked" must be a whole number from 0 to 1125899906842624`},
		"an absurd outcome":             {with(t, uint64(1)<<51, "response_distribution", "blocked"), none, 400, `count of "blocked" must be a whole number from 0 to`},
		"an absurd counter":             {with(t, uint64(1)<<63, "cache", "hits"), none, 400, "counters must be whole numbers from 0 to 1125899906842624"},
		"a fraction of an outcome":      {with(t, 1.5, "response_distribution", "blocked"), none, 400, `count of "blocked" must be a whole number from 0 to`},
		"a fraction of a counter":       {with(t, 1.5, "cache", "hits"), none, 400, "body is not the JSON expected here"},
		"a total below its parts":       {with(t, 1, "response_distribution", "total"), none, 400, "total 1 is less than the sum of the outcomes"},
		"more upstream errors than exchanges": {edited(t, func(p map[string]any) {
			p["upstreams"].([]any)[0].(map[string]any)["errors"] = 1 << 30
		}), none, 400, "errors must not exceed count"},
		"a slice of an unknown size":      {with(t, "5m", "slices", 0, "size"), none, 400, `size "5m" is none of 1m, 10m, 1h`},
		"a slice off its grid":            {with(t, "2026-03-14T08:00:01Z", "slices", 0, "start"), none, 400, "slice start 2026-03-14T08:00:01Z is not a whole multiple of 1h"},
		"a slice with a broken sketch":    {with(t, "AAAA", "slices", 0, "latency"), none, 400, "latency sketch"},
		"a sent_at in the future":         {with(t, storeTime.Add(fleet.MaxFuture+time.Second), "sent_at"), none, 400, "sent_at lies in the future"},
		"a sent_at that is no time":       {with(t, "yesterday", "sent_at"), none, 400, "body is not the JSON expected here"},
		"a sent_at of half a MiB":         {with(t, strings.Repeat("é", 256<<10), "sent_at"), none, 400, "body is not the JSON expected here"},
		"no sent_at":                      {edited(t, func(p map[string]any) { delete(p, "sent_at") }), none, 400, "started_at and sent_at are required"},
		"a year that JSON cannot hold":    {with(t, "9999-12-31T23:59:59-10:00", "started_at"), none, 400, "times must lie in the years 1 to 9999"},
		"an instance_id of somebody else": {with(t, "cellar-pi", "instance_id"), none, 403, "token may not speak for this instance"},
		"an instance_id that is none":     {with(t, "attic pi", "instance_id"), none, 400, "instance_id must match"},
		"a header of somebody else":       {with(t, "cellar-pi", "instance_id"), header(syncapi.InstanceHeader, "cellar-pi"), 403, "token may not speak for this instance"},
		"a name that is not UTF-8":        {bytes.Replace(plain, []byte("Dachboden"), []byte("Dach\xff\xfe"), 1), none, 400, "body is not UTF-8"},
		"a name with a control character": {with(t, "a\u0007b", "name"), none, 400, "name must be 1 to 128 bytes of printable UTF-8"},
		"a control_url with a password":   {with(t, "http://u:p@h/", "control_url"), none, 400, "control_url must be an http or https URL without credentials"},
		"no token":                        {plain, without("Authorization"), 401, "a token is required"},
		"an empty token":                  {plain, header("Authorization", "Bearer "), 401, "a token is required"},
		"an unknown token":                {plain, header("Authorization", "Bearer tAAAAAAAAAAAA.nothing"), 401, "unknown token"},
		"a token of half a MiB":           {plain, header("Authorization", "Bearer "+strings.Repeat("x", 512<<10)), 401, "unknown token"},
		"no instance header":              {plain, without(syncapi.InstanceHeader), 400, "X-Dnsfleet-Instance must be the id of the calling instance"},
		"an instance header that is none": {plain, header(syncapi.InstanceHeader, "attic pi"), 400, "X-Dnsfleet-Instance must be the id of the calling instance"},
		"the secret as instance header": {plain, func(r *http.Request) {
			r.Header.Set(syncapi.InstanceHeader, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}, 400, "X-Dnsfleet-Instance must be the id of the calling instance"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t)
			res := p.do(t, p.request(t, "POST", "/sync/stats", tc.body, tc.change))
			if got := res.sentence(t); res.status != tc.status || !strings.Contains(got, tc.says) {
				t.Errorf("answer is %d %q, want %d with %q", res.status, got, tc.status, tc.says)
			}
			if len(res.body) > 1000 {
				t.Errorf("refusal has %d bytes", len(res.body))
			}
			if stored := p.store.reports(); len(stored) != 0 {
				t.Errorf("stored %d reports, want none", len(stored))
			}
			if said := res.body + p.log.String(); strings.Contains(said, p.secret) {
				t.Errorf("the secret was told: %s", said)
			}
			if strings.Contains(p.log.String(), "panicked") {
				t.Errorf("handler panicked: %s", p.log)
			}
		})
	}
}

func wrongSum(packed []byte) []byte {
	packed[len(packed)-8] ^= 0xff
	return packed
}

func TestASecretInAnyFieldIsNotTold(t *testing.T) {
	p := newPrimary(t)
	bodies := [][]byte{[]byte(`{"` + p.secret + `":`), []byte(p.secret)}
	for _, path := range [][]any{{"protocol"}, {"started_at"}, {"seq"}, {"slices", 0, "size"}, {"slices", 0, "start"}, {"slices", 0, "latency"}, {"dns"}, {"control_url"}} {
		bodies = append(bodies, with(t, p.secret, path...))
	}
	for _, body := range bodies {
		res := p.do(t, p.request(t, "POST", "/sync/stats", body))
		if res.status != http.StatusBadRequest {
			t.Errorf("status is %d for %.60s, want 400", res.status, body)
		}
		if said := res.body + p.log.String(); strings.Contains(said, p.secret) {
			t.Fatalf("the secret was told: %s", said)
		}
	}
}

func TestARevokedTokenCountsNoMore(t *testing.T) {
	p := newPrimary(t)
	if res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t))); res.status != http.StatusOK {
		t.Fatalf("before: %d %s", res.status, res.body)
	}
	p.store.do(func() { p.store.tokens[0].RevokedAt = storeTime })
	res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
	if got := res.sentence(t); res.status != http.StatusUnauthorized || got != "token is revoked" {
		t.Errorf("answer is %d %q, want 401 \"token is revoked\"", res.status, got)
	}
	if got := res.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
		t.Errorf("WWW-Authenticate is %q", got)
	}
	if n := len(p.store.reports()); n != 1 {
		t.Errorf("stored %d reports, want the first only", n)
	}
}

func TestWhatTheStoreSaysDecides(t *testing.T) {
	for name, tc := range map[string]struct {
		fault  error
		status int
		says   string
	}{
		"unavailable":        {fmt.Errorf("save report: %w: dial tcp 10.0.0.7:6379: refused", fleet.ErrUnavailable), 503, "store unavailable"},
		"forgotten instance": {fmt.Errorf("save report: %w", fleet.ErrForgotten), 410, "instance was forgotten"},
		"id of a primary":    {fmt.Errorf("save report: %w", fleet.ErrNotYours), 403, "save report: token may not speak for this instance"},
		"something else":     {fmt.Errorf("WRONGTYPE at 10.0.0.7"), 500, "internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPrimary(t)
			p.store.fault = tc.fault
			res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
			if got := res.sentence(t); res.status != tc.status || got != tc.says {
				t.Errorf("answer is %d %q, want %d %q", res.status, got, tc.status, tc.says)
			}
			if got := res.header.Get("Retry-After"); (got != "") != (tc.status == 503) {
				t.Errorf("Retry-After is %q with status %d", got, tc.status)
			}
		})
	}
	t.Run("a report from the future is told the time", func(t *testing.T) {
		p := newPrimary(t)
		res := p.do(t, p.request(t, "POST", "/sync/stats", with(t, storeTime.Add(time.Hour), "sent_at")))
		if got := decode[syncapi.ErrorReply](t, res); !got.ServerTime.Equal(storeTime) {
			t.Errorf("answer is %s, want server_time %s", res.body, storeTime)
		}
	})
	t.Run("and its result is told", func(t *testing.T) {
		for _, result := range []fleet.SaveResult{fleet.Stored, fleet.Duplicate, fleet.Older, fleet.EndedBoot} {
			p := newPrimary(t)
			p.store.answer.Result = result
			res := p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
			reply := decode[syncapi.PushReply](t, res)
			if reply.Result != result || !reply.OK || !strings.Contains(res.body, `"slices_stored":[],"commands":[]`) {
				t.Errorf("answer is %s, want result %q and lists that are []", res.body, result)
			}
			if got := p.sync.Stats().Pushes; got[string(result)] != 1 {
				t.Errorf("counted %v, want one %s", got, result)
			}
		}
	})
}

func TestAnOutageIsLoggedOnce(t *testing.T) {
	p := newPrimary(t)
	p.store.fault = fleet.ErrUnavailable
	for range 5 {
		p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
	}
	p.store.do(func() { p.store.fault = nil })
	p.do(t, p.request(t, "POST", "/sync/stats", readGolden(t)))
	for sentence, want := range map[string]int{"store is unavailable to the sync api": 1, "store is available to the sync api again": 1} {
		if got := strings.Count(p.log.String(), sentence); got != want {
			t.Errorf("logged %q %d times, want %d:\n%s", sentence, got, want, p.log)
		}
	}
	if got := p.sync.Stats().Pushes; got["unavailable"] != 5 || got["stored"] != 1 {
		t.Errorf("counted %v, want 5 unavailable and 1 stored", got)
	}
}
