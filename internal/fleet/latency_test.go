package fleet_test

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"google.golang.org/protobuf/proto"

	"dnsfleet/internal/fleet"
)

func TestQuantilesAreWithinTheStatedError(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var merged fleet.Latency
	var exact []float64
	for range 20 { // merged from parts, as a fleet's is
		var part []time.Duration
		for range 1000 {
			d := time.Duration(math.Exp(rng.NormFloat64()*2) * float64(time.Millisecond))
			part = append(part, d)
			exact = append(exact, float64(d)/float64(time.Millisecond))
		}
		merged.Merge(fleet.NewLatency(part...))
	}
	slices.Sort(exact)
	for _, q := range []float64{0.5, 0.95, 0.99} {
		got, want := *merged.QuantileMS(q), exact[int(q*float64(len(exact)-1))]
		if math.Abs(got-want)/want > fleet.LatencyAccuracy+1e-9 {
			t.Errorf("quantile %v: got %v ms, want %v ms within %v", q, got, want, fleet.LatencyAccuracy)
		}
	}
	if got, want := merged.Count(), uint64(len(exact)); got != want {
		t.Errorf("count: got %d, want %d", got, want)
	}
}

func TestALatencySurvivesTheWire(t *testing.T) {
	for name, l := range map[string]fleet.Latency{
		"an empty one":       {},
		"a single duration":  fleet.NewLatency(3 * time.Millisecond),
		"close durations":    fleet.NewLatency(100, 101*time.Microsecond, 102*time.Microsecond, 103*time.Microsecond, 106*time.Microsecond),
		"scattered ones":     fleet.NewLatency(time.Microsecond, time.Millisecond, time.Second, time.Minute),
		"ones out of range":  fleet.NewLatency(0, -time.Second, time.Hour),
		"thousands of equal": fleet.NewLatency(slices.Repeat([]time.Duration{time.Millisecond}, 5000)...),
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			var back fleet.Latency
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if got, want := back.Count(), l.Count(); got != want {
				t.Errorf("count: got %d, want %d", got, want)
			}
			again, err := json.Marshal(back)
			if err != nil || string(again) != string(text) {
				t.Errorf("written again: got %s, %v, want %s", again, err, text)
			}
		})
	}
}

func TestASketchWithAnotherMappingIsConverted(t *testing.T) {
	foreign, err := ddsketch.NewDefaultDDSketch(0.005)
	if err != nil {
		t.Fatal(err)
	}
	for ms := 1.0; ms <= 1000; ms++ {
		if err := foreign.Add(ms); err != nil {
			t.Fatal(err)
		}
	}
	var l fleet.Latency
	if err := json.Unmarshal(wire(t, foreign), &l); err != nil {
		t.Fatal(err)
	}
	if got := *l.QuantileMS(0.5); math.Abs(got-500)/500 > 0.02 {
		t.Errorf("p50: got %v ms, want 500 ms within both errors", got)
	}
}

func wire(t *testing.T, s *ddsketch.DDSketch) []byte {
	t.Helper()
	raw, err := proto.Marshal(s.ToProto())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(base64.StdEncoding.EncodeToString(raw))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAHostileSketchIsRefused(t *testing.T) {
	negative, err := ddsketch.NewDefaultDDSketch(0.01)
	if err != nil {
		t.Fatal(err)
	}
	absurd, wide := negative.Copy(), negative.Copy()
	for _, err := range []error{negative.Add(-5), absurd.AddWithCount(5, 1e300)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5000 {
		if err := wide.Add(math.Pow(1.03, float64(i-2500))); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string][]byte{
		"negative durations": wire(t, negative), "an absurd count": wire(t, absurd), "too many bins": wire(t, wide),
		"a number": []byte(`5`), "no base64": []byte(`"!"`), "no protobuf": []byte(`"AAAA"`), "no mapping": []byte(`"EgA="`),
	} {
		t.Run(name, func(t *testing.T) {
			var l fleet.Latency
			if err := json.Unmarshal(text, &l); err == nil {
				t.Errorf("got a sketch of %d, want an error", l.Count())
			}
		})
	}
}

// FuzzLatency: whatever is accepted has a finite count within bounds and survives the wire.
func FuzzLatency(f *testing.F) {
	seed, err := json.Marshal(fleet.NewLatency(time.Millisecond, time.Second))
	if err != nil {
		f.Fatal(err)
	}
	var text string
	if err := json.Unmarshal(seed, &text); err != nil {
		f.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		text, err := json.Marshal(base64.StdEncoding.EncodeToString(raw))
		if err != nil {
			t.Fatal(err)
		}
		var l, back fleet.Latency
		if json.Unmarshal(text, &l) != nil {
			return
		}
		again, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &back); err != nil || back.Count() != l.Count() {
			t.Errorf("count %d came back as %d, %v", l.Count(), back.Count(), err)
		}
	})
}

func BenchmarkLatencyBin(b *testing.B) {
	d := 37 * time.Microsecond
	for b.Loop() {
		fleet.LatencyBin(d)
	}
}
