package syncapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

// FuzzPush holds that whatever is sent, in whatever coding, the handler answers with one of the statuses of the contract
// and does not panic; and that what it stores is valid, belongs to the caller, has no nil list and can be encoded and
// decoded again.
func FuzzPush(f *testing.F) {
	// Short seeds: the fuzzer spends its time on minimizing long ones.
	plain := edited(f, func(push map[string]any) {
		push["slices"] = push["slices"].([]any)[3:]
		slice := push["slices"].([]any)[0].(map[string]any)
		slice["latency"], slice["upstreams"] = "", slice["upstreams"].([]any)[1:]
	})
	codings := []string{"", "gzip", "zstd", "br"}
	f.Add(plain, uint8(0))
	f.Add(zip(f, plain), uint8(1))
	f.Add(zst(f, plain), uint8(2))
	f.Add(plain[:500], uint8(0))
	f.Add([]byte(`{"protocol":1,"instance_id":"attic-pi","boot_id":"b","name":"n","seq":1,"interval_seconds":1,"started_at":"9999-12-31T23:59:59-10:00","sent_at":"2026-03-14T09:26:53Z"}`), uint8(0))
	f.Add(edited(f, nullLists), uint8(0))
	store, secret := newMemory()
	s := syncapi.NewServer(syncapi.ServerOptions{Store: store})
	f.Fuzz(func(t *testing.T, body []byte, coding uint8) {
		store.do(func() { store.saved = nil })
		r := httptest.NewRequest(http.MethodPost, "/sync/stats", io.NopCloser(bytes.NewReader(body)))
		r.Header.Set("Authorization", "Bearer "+secret)
		r.Header.Set(syncapi.InstanceHeader, "attic-pi")
		r.Header.Set("Content-Encoding", codings[int(coding)%len(codings)])
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		stored := store.reports()
		switch w.Code {
		case 200:
			if len(stored) != 1 {
				t.Fatalf("accepted, and stored %d", len(stored))
			}
		case 400, 403, 413, 415:
			if len(stored) != 0 {
				t.Fatalf("refused with %d, and stored", w.Code)
			}
			return
		default:
			t.Fatalf("status is %d %s", w.Code, w.Body)
		}
		report := stored[0]
		if err := report.Validate(); err != nil || report.InstanceID != "attic-pi" {
			t.Fatalf("stored a report of %q: %v", report.InstanceID, err)
		}
		text, err := json.Marshal(report)
		if err != nil {
			t.Fatalf("stored what cannot be encoded: %v", err)
		}
		if bytes.Contains(text, []byte(`"slices":null`)) || bytes.Contains(text, []byte(`"lists":null`)) {
			t.Fatalf("stored a nil list: %s", text)
		}
		var again fleet.Report
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatalf("stored what cannot be decoded again: %v", err)
		}
	})
}

// FuzzEvents holds that whatever is sent as a batch of events, the handler answers with one of the statuses of the contract,
// accepts nothing but a whole batch of the caller's own, and gives the query log the bytes that were sent.
func FuzzEvents(f *testing.F) {
	log := newShelf(f)
	whole := batchOf(f, log, "attic-pi", 1, 3)
	f.Add(whole)
	f.Add(whole[:len(whole)-4])
	f.Add(batchOf(f, log, "cellar-pi", 1, 1))
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Add([]byte(`{"events":[]}`))
	store, secret := newMemory()
	s := syncapi.NewServer(syncapi.ServerOptions{Store: store, Events: log})
	f.Fuzz(func(t *testing.T, body []byte) {
		log.do(func() { log.bodies, log.kept = nil, nil })
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, eventsRequest(body, secret))
		kept := log.batches()
		switch w.Code {
		case 200:
			if len(kept) != 1 || kept[0].InstanceID != "attic-pi" || !bytes.Equal(log.bodies[0], body) {
				t.Fatalf("accepted, and kept %v", kept)
			}
		case 400, 403:
			if len(kept) != 0 {
				t.Fatalf("refused with %d, and kept %v", w.Code, kept)
			}
		default:
			t.Fatalf("status is %d %s", w.Code, w.Body)
		}
	})
}
