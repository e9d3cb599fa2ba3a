package cookie_test

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"dnsfleet/internal/dns/cookie"
)

func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors of RFC 9018, appendix A.
func TestCookiesAreThoseOfTheRFC(t *testing.T) {
	for _, c := range []struct {
		name, secret, came, client string
		at                         int64
		want                       string
	}{
		{"learning a new server cookie", "e5e973e5a6b2a43f48e7dc849e37bfcf", "2464c4abcf10c957", "198.51.100.100", 1559731985, "2464c4abcf10c957010000005cf79f111f8130c3eee29480"},
		{"the same client learns a renewed one", "e5e973e5a6b2a43f48e7dc849e37bfcf", "2464c4abcf10c957010000005cf79f111f8130c3eee29480", "198.51.100.100", 1559734385, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"},
		{"another client learns a renewed one", "e5e973e5a6b2a43f48e7dc849e37bfcf", "fc93fc62807ddb86010000005cf7a871aef6c76e3c6ecf2f", "203.0.113.203", 1559734700, ""},
		{"an IPv6 client with a rolled secret", "445536bcd2513298075a5d379663c962", "22681ab97d52c298", "2001:db8:220:1:59de:d0f4:8769:82b8", 1559741961, "22681ab97d52c298010000005cf7c609a6bb79d16625507a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			jar := cookie.NewWith([cookie.SecretSize]byte(fromHex(t, c.secret)))
			got := hex.EncodeToString(jar.Append(nil, fromHex(t, c.came), netip.MustParseAddr(c.client), time.Unix(c.at, 0)))
			if c.want != "" && got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got[:16] != c.came[:16] || len(got) != 2*cookie.Size {
				t.Errorf("got %s, want the client's part kept and 24 bytes in all", got)
			}
		})
	}
}

func TestACookieIsValidForItsClientAndItsTime(t *testing.T) {
	jar, client := cookie.New(), netip.MustParseAddr("192.0.2.7")
	noon := time.Unix(1_800_000_000, 0)
	option := jar.Append(nil, []byte("12345678"), client, noon)
	changed := append([]byte(nil), option...)
	changed[len(changed)-1] ^= 1
	for _, c := range []struct {
		name   string
		jar    *cookie.Jar
		option []byte
		client string
		at     time.Time
		want   bool
	}{
		{"at once", jar, option, "192.0.2.7", noon, true},
		{"within the hour", jar, option, "192.0.2.7", noon.Add(59 * time.Minute), true},
		{"after an hour", jar, option, "192.0.2.7", noon.Add(61 * time.Minute), false},
		{"when the clock went back a little", jar, option, "192.0.2.7", noon.Add(-4 * time.Minute), true},
		{"when the clock went back a lot", jar, option, "192.0.2.7", noon.Add(-6 * time.Minute), false},
		{"from another address", jar, option, "192.0.2.8", noon, false},
		{"from the address mapped into IPv6", jar, option, "::ffff:192.0.2.7", noon, true},
		{"changed", jar, changed, "192.0.2.7", noon, false},
		{"of another server", cookie.New(), option, "192.0.2.7", noon, false},
		{"without a server's part", jar, option[:8], "192.0.2.7", noon, false},
		{"with nothing", jar, nil, "192.0.2.7", noon, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.jar.Valid(c.option, netip.MustParseAddr(c.client), c.at); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	if again := jar.Append(nil, option, client, noon.Add(time.Minute)); string(again) != string(option) {
		t.Errorf("a minute later: got % x, want the cookie as it was", again)
	}
	if again := jar.Append(nil, option, client, noon.Add(40*time.Minute)); string(again) == string(option) || !jar.Valid(again, client, noon.Add(95*time.Minute)) {
		t.Errorf("after 40 minutes: got % x, want a new cookie", again)
	}
}
