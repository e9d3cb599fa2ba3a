package syncapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

// discard is a store that keeps nothing.
type discard struct{ *memory }

func (d discard) SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error) {
	return fleet.Saved{Result: fleet.Stored, Time: storeTime}, ctx.Err()
}

// BenchmarkPush is the whole of a push but the socket and the store: an everyday one with one minute slice, as a replica
// sends it, and the golden one.
func BenchmarkPush(b *testing.B) {
	var report fleet.Report
	if err := json.Unmarshal(readGolden(b), &report); err != nil {
		b.Fatal(err)
	}
	report.Slices = report.Slices[3:]
	everyday, err := json.Marshal(report)
	if err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct {
		name, coding string
		body         []byte
	}{
		{"everyday", "", everyday},
		{"everyday in zstd", "zstd", zst(b, everyday)},
		{"everyday in gzip", "gzip", zip(b, everyday)},
		{"golden", "", readGolden(b)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			store, secret := newMemory()
			h := syncapi.NewServer(syncapi.ServerOptions{Store: discard{store}}).Handler()
			b.SetBytes(int64(len(bm.body)))
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/sync/stats", bytes.NewReader(bm.body))
				r.Header.Set("Authorization", "Bearer "+secret)
				r.Header.Set(syncapi.InstanceHeader, "attic-pi")
				r.Header.Set("Content-Encoding", bm.coding)
				w := httptest.NewRecorder()
				if h.ServeHTTP(w, r); w.Code != http.StatusOK {
					b.Fatalf("status is %d %s", w.Code, w.Body)
				}
			}
		})
	}
}
