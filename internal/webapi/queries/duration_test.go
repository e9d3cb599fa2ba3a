package queries_test

import (
	"testing"
	"time"

	"dnsfleet/internal/webapi/queries"
)

func TestDurations(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"15m": 15 * time.Minute, "1h": time.Hour, "1h30m": 90 * time.Minute, "7d": 7 * day, "2w": 14 * day, "1d12h": 36 * time.Hour,
		"1w1d": 8 * day, "0.5d": 12 * time.Hour, "90s": 90 * time.Second, "400d": 400 * day, "1.5h": 90 * time.Minute,
		"": 0, "0": 0, "0s": 0, "0d": 0, "-1h": 0, "+1h": 0, "1": 0, "d": 0, "1h ": 0, " 1h": 0, "1H": 0, "1mo": 0, "1.2.3d": 0, "..d": 0,
		"401d": 0, "58w": 0, "400d1s": 0, "9601h": 0, "99999999999999999999w": 0, "1e3h": 0, "١h": 0, "1h\x00": 0, "infd": 0, "0x10h": 0,
	} {
		got, err := queries.ParseDuration(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}

// FuzzParseDuration: what is read lies above 0 and within 400 days, and reads the same when it is written out.
func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"15m", "1h30m", "7d", "2w3d", "0.000001w", "400d", "1d1d1d", "999999999999w", "1.9999999999999d"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := queries.ParseDuration(text)
		if err != nil {
			return
		}
		if d <= 0 || d > 400*24*time.Hour {
			t.Fatalf("%q: got %s", text, d)
		}
		if again, err := queries.ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%q: got %s, which reads as %s, %v", text, d, again, err)
		}
	})
}
