package fleet_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"dnsfleet/internal/fleet"
)

func TestLatencyBinaryKeepsAll(t *testing.T) {
	t.Parallel()
	var many []time.Duration
	for i := range 5000 {
		many = append(many, time.Duration(i*i)*time.Microsecond)
	}
	merged := fleet.NewLatency(many...)
	merged.Merge(fleet.NewLatency(0, time.Hour))
	var foreign fleet.Latency // a sketch with other bins, half a count in one of them
	if err := json.Unmarshal([]byte(`"CgkJ/Ujy6fT18D8SChIIAAAAAAAA4D8YAg=="`), &foreign); err != nil {
		t.Fatalf("foreign sketch: %v", err)
	}
	for name, l := range map[string]fleet.Latency{
		"nothing": {}, "one": fleet.NewLatency(time.Millisecond), "the ends of the range": fleet.NewLatency(0, time.Hour),
		"many": fleet.NewLatency(many...), "merged": merged, "half a count": foreign,
	} {
		b, err := l.AppendBinary([]byte("before"))
		if err != nil || !bytes.HasPrefix(b, []byte("before")) {
			t.Fatalf("%s: AppendBinary: %q, %v", name, b, err)
		}
		var got fleet.Latency
		if err := got.UnmarshalBinary(b[len("before"):]); err != nil {
			t.Fatalf("%s: UnmarshalBinary: %v", name, err)
		}
		if want, have := asJSON(t, l), asJSON(t, got); want != have {
			t.Errorf("%s: got %s, want %s", name, have, want)
		}
	}
}

func asJSON(t *testing.T, l fleet.Latency) string {
	t.Helper()
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// FuzzLatencyBinary: any bytes are refused, or are a sketch that comes through again unchanged.
func FuzzLatencyBinary(f *testing.F) {
	b, err := fleet.NewLatency(time.Microsecond, time.Millisecond, time.Second).AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l, again fleet.Latency
		if l.UnmarshalBinary(b) != nil {
			return
		}
		once, err := l.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if l.Count() > 0 {
			if err := again.UnmarshalBinary(once); err != nil {
				t.Fatalf("read again: %v", err)
			}
		}
		twice, err := again.AppendBinary(nil)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("got %x, %v, want %x", twice, err, once)
		}
	})
}
