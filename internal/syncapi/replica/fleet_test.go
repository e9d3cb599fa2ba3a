package replica_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store/sqlite"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

// primary is a whole one: a real store behind the sync API on a real socket.
type primary struct {
	*httptest.Server
	sync   *syncapi.Server
	store  *sqlite.Store
	token  fleet.Token
	secret string
}

func newPrimary(t *testing.T) *primary {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "store.db"), History: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	p := &primary{store: store}
	p.token, p.secret = fleet.NewToken("attic", nil, false, time.Now())
	if err := store.CreateToken(t.Context(), p.token); err != nil {
		t.Fatal(err)
	}
	p.sync = syncapi.NewServer(syncapi.ServerOptions{Store: store})
	p.Server = httptest.NewServer(p.sync.Handler())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.sync.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		p.Close()
	})
	return p
}

// put makes policy the current one and spreads the word, as a primary does.
func (p *primary) put(t *testing.T, policy fleet.Policy) fleet.PolicyDoc {
	t.Helper()
	current, err := p.store.Policy(t.Context())
	if err != nil && !errors.Is(err, fleet.ErrNotFound) {
		t.Fatal(err)
	}
	doc, err := p.store.PutPolicy(t.Context(), policy, current.Hash)
	if err != nil {
		t.Fatal(err)
	}
	p.sync.PolicyChanged(doc.Hash)
	return doc
}

// arrivals hands over each policy that a follower applies.
type arrivals chan fleet.PolicyDoc

func (a arrivals) Apply(_ context.Context, doc fleet.PolicyDoc) ([]string, error) {
	a <- doc
	return nil, nil
}

func TestEveryFieldAndEveryDeletionOfAPolicyArrives(t *testing.T) {
	p := newPrimary(t)
	arrived := make(arrivals)
	follower := replica.NewFollower(replica.FollowerOptions{
		Source:  newClient(t, []string{p.URL}, func(o *replica.ClientOptions) { o.Token = p.secret }),
		Applier: arrived, File: filepath.Join(t.TempDir(), "policy.json"),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- follower.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()

	policy := fill(t, reflect.TypeFor[fleet.Policy](), "policy").Interface().(fleet.Policy)
	arrives := func(what string, want fleet.Policy) {
		t.Helper()
		doc := p.put(t, want)
		select {
		case got := <-arrived:
			if diff := cmp.Diff(want, got.Policy, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" || got.Hash != doc.Hash || got.Revision != doc.Revision {
				t.Errorf("after %s (-put +arrived):\n%s", what, diff)
			}
			if got.Policy.Hash() != doc.Hash {
				t.Errorf("after %s the policy hashes to %s there and %s here", what, got.Policy.Hash(), doc.Hash)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("after %s nothing arrived: %+v", what, follower.Stats())
		}
	}
	arrives("filling every field", policy)
	deletions, before := 0, policy.Hash()
	for _, path := range paths(reflect.ValueOf(policy), "") {
		next := clone(t, policy)
		take(reflect.ValueOf(&next).Elem(), path)
		if next.Hash() == before {
			continue // the element of a list of texts is both an element and a leaf
		}
		before = next.Hash()
		arrives("deleting "+path, next)
		deletions++
	}
	if deletions < 20 {
		t.Errorf("only %d deletions were tried", deletions)
	}
	if s := follower.Stats(); len(s.Unapplied) != 0 || s.Failures != 0 {
		t.Errorf("stats are %+v, want all applied and no failure", s)
	}
}

// fill is a value of t with something in every field, two elements in every list.
func fill(t *testing.T, typ reflect.Type, path string) reflect.Value {
	t.Helper()
	v := reflect.New(typ).Elem()
	switch typ {
	case reflect.TypeFor[fleet.BlockMode]():
		return reflect.ValueOf(fleet.BlockMode{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("2001:db8::80")}})
	case reflect.TypeFor[fleet.Duration]():
		return reflect.ValueOf(fleet.Duration(time.Duration(len(path)) * time.Minute))
	}
	switch typ.Kind() {
	case reflect.Struct:
		for i := range typ.NumField() {
			v.Field(i).Set(fill(t, typ.Field(i).Type, path+"."+typ.Field(i).Name))
		}
	case reflect.Slice:
		for i := range 2 {
			v = reflect.Append(v, fill(t, typ.Elem(), fmt.Sprintf("%s[%d]", path, i)))
		}
	case reflect.String:
		v.SetString(path + " ☂")
	case reflect.Pointer:
		v.Set(reflect.New(typ.Elem()))
		v.Elem().Set(fill(t, typ.Elem(), path))
	case reflect.Int:
		v.SetInt(int64(len(path)))
	case reflect.Int64:
		v.SetInt(int64(len(path)) << 10)
	case reflect.Bool:
		v.SetBool(true)
	default:
		t.Fatalf("%s is a %s: teach this test to fill it", path, typ)
	}
	return v
}

// paths are those of every list element, every leaf and every list in v.
func paths(v reflect.Value, path string) []string {
	if v.Type() == reflect.TypeFor[fleet.BlockMode]() {
		return []string{path + ".Addresses[0]", path}
	}
	switch v.Kind() {
	case reflect.Struct:
		var out []string
		for i := range v.NumField() {
			out = append(out, paths(v.Field(i), path+"."+v.Type().Field(i).Name)...)
		}
		return out
	case reflect.Slice:
		var out []string
		for i := range v.Len() {
			out = append(out, paths(v.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
			out = append(out, fmt.Sprintf("%s[%d]", path, i))
		}
		return append(out, path)
	default:
		return []string{path}
	}
}

// take removes what is at the path: an element of a list, or the value of a field.
func take(v reflect.Value, path string) {
	for path != "" {
		var step string
		if strings.HasPrefix(path, "[") {
			step, path, _ = strings.Cut(path[1:], "]")
			var i int
			fmt.Sscan(step, &i) //nolint:errcheck // paths made it
			if path == "" {
				rest := reflect.AppendSlice(v.Slice(0, i), v.Slice(i+1, v.Len()))
				v.Set(rest)
				return
			}
			v = v.Index(i)
			continue
		}
		end := strings.IndexAny(path[1:], ".[") + 1
		if end == 0 {
			end = len(path)
		}
		step, path = path[1:end], path[end:]
		v = v.FieldByName(step)
	}
	switch {
	case v.Type() == reflect.TypeFor[fleet.BlockMode]():
		v.Set(reflect.ValueOf(fleet.BlockMode{Mode: "nxdomain"}))
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	default:
		v.SetZero()
	}
}

func clone(t *testing.T, p fleet.Policy) fleet.Policy {
	t.Helper()
	var copyOf func(v reflect.Value) reflect.Value
	copyOf = func(v reflect.Value) reflect.Value {
		switch v.Kind() {
		case reflect.Slice:
			out := reflect.MakeSlice(v.Type(), 0, v.Len())
			for i := range v.Len() {
				out = reflect.Append(out, copyOf(v.Index(i)))
			}
			return out
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[netip.Addr]() {
				return v
			}
			out := reflect.New(v.Type()).Elem()
			for i := range v.NumField() {
				out.Field(i).Set(copyOf(v.Field(i)))
			}
			return out
		default:
			return v
		}
	}
	return copyOf(reflect.ValueOf(p)).Interface().(fleet.Policy)
}

func TestAReplicaReportsThroughARealPrimary(t *testing.T) {
	p := newPrimary(t)
	c := newClient(t, []string{closed(t), p.URL}, func(o *replica.ClientOptions) { o.Token = p.secret })
	minute := time.Now().UTC().Truncate(time.Minute)
	slice := fleet.Slice{Size: fleet.Minute, Start: minute.Add(-time.Minute), BootID: "boot", Upstreams: []fleet.UpstreamSlice{}, Latency: fleet.NewLatency(time.Millisecond)}
	slice.Outcomes[fleet.Cached] = 1
	history := &source{pending: []fleet.Slice{slice}}
	reporter := replica.NewReporter(replica.ReporterOptions{
		Report: func() fleet.Report {
			r := fleet.Report{InstanceID: "attic-pi", Name: "Attic", BootID: "boot", StartedAt: minute.Add(-time.Hour), Release: "v1.4.0"}
			r.ResponseDistribution.Outcomes[fleet.Cached] = 7
			return r
		},
		Source: history, Sender: c, Interval: 50 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reporter.Run(ctx) }()
	eventually(t, "five pushes are stored", func() bool { return reporter.Stats().Pushes >= 5 })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
	instances, err := p.store.Instances(t.Context(), "attic-pi")
	if err != nil || len(instances) != 1 {
		t.Fatalf("the store has %d instances, %v", len(instances), err)
	}
	i := instances[0]
	if i.Role != fleet.RoleReplica || i.TokenID != p.token.ID || i.Lifetime().Total() != 7 || i.Seq != reporter.Stats().Pushes {
		t.Errorf("stored %s of token %s with %d queries at seq %d, want a replica of %s with 7 at %d", i.Role, i.TokenID, i.Lifetime().Total(), i.Seq, p.token.ID, reporter.Stats().Pushes)
	}
	stored, err := p.store.Slices(t.Context(), "attic-pi", fleet.Minute, minute.Add(-time.Hour), minute.Add(time.Hour))
	if err != nil || len(stored) != 1 || stored[0].Outcomes != slice.Outcomes {
		t.Errorf("stored slices %+v, %v, want the one", stored, err)
	}
	if skew := reporter.Stats().ClockSkew; skew == nil || skew.Abs() > time.Second*slack {
		t.Errorf("skew against a clock of the same machine is %v", skew)
	}

	t.Run("until its token is revoked", func(t *testing.T) {
		if err := p.store.RevokeToken(t.Context(), p.token.ID); err != nil {
			t.Fatal(err)
		}
		_, err := c.Status(t.Context())
		if syncapi.StatusOf(err) != 401 || strings.Contains(err.Error(), p.secret) {
			t.Errorf("error is %v, want 401", err)
		}
	})
}

func TestTheGoldenPushGoesThroughARealStore(t *testing.T) {
	p := newPrimary(t)
	body, err := os.ReadFile("../testdata/push-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, []string{p.URL}, func(o *replica.ClientOptions) { o.Token = p.secret })
	var report fleet.Report
	if err := json.Unmarshal(body, &report); err != nil {
		t.Fatal(err)
	}
	for _, want := range []fleet.SaveResult{fleet.Stored, fleet.Duplicate} {
		reply, err := c.Push(t.Context(), report)
		if err != nil || reply.Result != want {
			t.Fatalf("got %+v, %v, want %s", reply, err, want)
		}
		if !slices.ContainsFunc(reply.SlicesStored, func(u fleet.SlicesUntil) bool { return u.BootID == report.BootID && u.Size == fleet.Hour }) {
			t.Errorf("slices stored are %+v, want the hours of boot %s among them", reply.SlicesStored, report.BootID)
		}
	}
	instances, err := p.store.Instances(t.Context(), report.InstanceID)
	if err != nil || len(instances) != 1 {
		t.Fatalf("the store has %d instances, %v", len(instances), err)
	}
	if got, want := instances[0].Lifetime(), report.ResponseDistribution.Outcomes; got != want {
		t.Errorf("lifetime after the same push twice is %v, want %v", got, want)
	}
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never happened: %s", what)
		}
	}
}
