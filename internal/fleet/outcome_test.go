package fleet_test

import (
	"encoding/json"
	"testing"

	"dnsfleet/internal/fleet"
)

func TestDistributionReadsWhatItWrites(t *testing.T) {
	var d fleet.Distribution
	for i := range fleet.NumOutcomes {
		d.Outcomes[i] = uint64(i + 1)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]uint64
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	if got, want := fields["total"], uint64(91); got != want {
		t.Errorf("total: got %d, want %d", got, want)
	}
	if got, want := len(fields), fleet.NumOutcomes+1; got != want {
		t.Errorf("fields: got %d, want every outcome and the total, %d", got, want)
	}
	var back fleet.Distribution
	if err := json.Unmarshal(text, &back); err != nil || back != d {
		t.Errorf("got %v, %v back, want %v", back, err, d)
	}
}

func TestOutcomesRefuseWhatIsNoCount(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"a count":                       {`{"blocked":3}`, true},
		"the largest count":             {`{"blocked":1125899906842624}`, true},
		"an outcome of a newer release": {`{"blocked":3,"teleported":"x"}`, true},
		"a negative count":              {`{"blocked":-1}`, false},
		"a fraction":                    {`{"blocked":1.5}`, false},
		"an absurd count":               {`{"blocked":1125899906842625}`, false},
		"a count too large for any int": {`{"blocked":1e30}`, false},
		"a text":                        {`{"blocked":"3"}`, false},
		"a list":                        {`[1]`, false},
		"a total below the sum":         {`{"blocked":3,"total":2}`, false},
		"a total above the sum":         {`{"blocked":3,"total":4}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			var d fleet.Distribution
			if err := json.Unmarshal([]byte(c.text), &d); (err == nil) != c.ok {
				t.Errorf("%s: got error %v, want ok %v", c.text, err, c.ok)
			}
		})
	}
}

func TestARatioOfNothingIsUnknown(t *testing.T) {
	var none fleet.Outcomes
	if got := none.BlockedPercent(); got != nil {
		t.Errorf("blocked percent of nothing: got %v, want nil", *got)
	}
	some := fleet.Outcomes{fleet.Blocked: 1, fleet.Cached: 1, fleet.Stale: 1, fleet.Servfail: 1}
	for name, c := range map[string]struct {
		got  *float64
		want float64
	}{"blocked": {some.BlockedPercent(), 25}, "cached": {some.CachedPercent(), 50}, "error": {some.ErrorPercent(), 25}} {
		if c.got == nil || *c.got != c.want {
			t.Errorf("%s percent: got %v, want %v", name, c.got, c.want)
		}
	}
}

func TestTheTotalDoesNotWrap(t *testing.T) {
	o := fleet.Outcomes{fleet.Blocked: 1 << 63, fleet.Cached: 1 << 63}
	if got, want := o.Total(), ^uint64(0); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}
