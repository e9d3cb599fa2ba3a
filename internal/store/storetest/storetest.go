// Package storetest is the one suite that every store adapter passes: what store.Store promises, as tests.
package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/store"
)

// Backend is one empty place to store in. Open opens a handle on it, each time another one: several are what several
// primaries are, or a primary and a command. A handle closes with the test.
type Backend struct {
	Open func(t *testing.T, o store.Options) store.Store
}

// Run tests an adapter. fresh makes an empty backend; it is called for each test, from several at once.
func Run(t *testing.T, fresh func(t *testing.T) Backend) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Backend){
		"a first report shows the instance":                          firstReport,
		"every field of a report survives":                           everyField,
		"what becomes of a report":                                   results,
		"an id belongs to the role that took it":                     roles,
		"a report from the future is refused and writes nothing":     future,
		"an id that could not be a key is refused":                   badIDs,
		"a report expires and the instance stays":                    expiry,
		"two handles see one store":                                  twoHandles,
		"instances are found by id, all of them where none is named": findInstances,
		"seen tells who reported since":                              seen,
		"a forgotten instance is gone, and only a new boot returns":  forget,
		"pushes at the same time keep exact sums":                    concurrentPushes,

		"until moves over slices without a hole":                    untilRules,
		"until of each boot and size stands by itself":              untilByBootAndSize,
		"a slice is read back as it was sent":                       sliceContent,
		"slices are read by start, then boot":                       sliceOrder,
		"slices come with any report that is not refused":           lateSlices,
		"a slice that is too old or too far ahead counts as stored": unwantedSlices,
		"a hole older than what is kept is passed":                  oldHole,
		"history is trimmed to what is kept":                        trimming,
		"no history keeps the minutes that recent needs":            noHistory,
		"minutes are those around the last report":                  minutes,
		"a report may carry as many slices as are allowed":          manySlices,

		"what a token may speak for":                             tokenRules,
		"a token is listed, rotated and revoked":                 tokenLife,
		"one token used by two instances at once binds to one":   tokenRace,
		"one instance with two new tokens at once holds one":     instanceRace,
		"a token counts from the moment it is written":           tokenNotCached,
		"a policy is replaced only by who has read it":           policy,
		"primaries that start together agree on one policy":      policyRace,
		"primaries that start together agree on one default":     settingsRace,
		"a session lives until it expires or is deleted":         sessions,
		"a watcher hears of changes through another handle":      watch,
		"a watch ends with its context":                          watchEnds,
		"what the caller has given up is not called unavailable": cancelled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, fresh(t))
		})
	}
}

// day is the history that most tests keep.
const day = 24 * time.Hour

func (b Backend) open(t *testing.T) store.Store {
	t.Helper()
	return b.Open(t, store.Options{StatsTTL: time.Minute, History: day})
}

// now is the store's clock.
func now(t *testing.T, s store.Store) time.Time {
	t.Helper()
	at, err := s.Now(t.Context())
	if err != nil {
		t.Fatalf("Now: %v", err)
	}
	return at
}

// report is a report with blocked queries. Its slices may be added.
func report(t *testing.T, s store.Store, id, boot string, seq, blocked uint64, list ...fleet.Slice) fleet.Report {
	t.Helper()
	sent := now(t, s)
	r := fleet.Report{
		Protocol: fleet.Protocol, InstanceID: id, Name: "name of " + id, BootID: boot, Seq: seq, SentAt: sent,
		StartedAt: sent.Add(-time.Hour), IntervalSeconds: 10, Release: "test", Slices: list,
	}
	r.ResponseDistribution.Outcomes[fleet.Blocked] = blocked
	return r
}

// push saves a replica's report and fails the test on an error.
func push(t *testing.T, s store.Store, r fleet.Report) fleet.Saved {
	t.Helper()
	saved, err := save(t.Context(), s, r)
	if err != nil {
		t.Fatalf("SaveReport(%s, boot %s, seq %d): %v", r.InstanceID, r.BootID, r.Seq, err)
	}
	return saved
}

// save tries again while the store is too busy, as an instance does: these tests may share a slow machine.
func save(ctx context.Context, s store.Store, r fleet.Report) (saved fleet.Saved, err error) {
	for range 20 {
		if saved, err = s.SaveReport(ctx, r, fleet.RoleReplica, "t1"); !errors.Is(err, fleet.ErrUnavailable) {
			break
		}
	}
	return saved, err
}

// instance is the stored instance, which must be there.
func instance(t *testing.T, s store.Store, id string) fleet.Instance {
	t.Helper()
	found, err := s.Instances(t.Context(), id)
	if err != nil {
		t.Fatalf("Instances(%s): %v", id, err)
	}
	if len(found) != 1 {
		t.Fatalf("Instances(%s): got %d, want 1", id, len(found))
	}
	return found[0]
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

// eventually polls until done says so; the deadline fails the test.
func eventually(t *testing.T, what string, within time.Duration, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, within)
		case <-tick.C:
		}
	}
}

// compare reports a difference. Latency sketches, which have no comparable inside, count as equal when their JSON is.
func compare(t *testing.T, what string, got, want any) {
	t.Helper()
	sameSketch := cmp.Comparer(func(a, b fleet.Latency) bool {
		x, errX := a.MarshalJSON()
		y, errY := b.MarshalJSON()
		return errX == nil && errY == nil && string(x) == string(y)
	})
	if diff := cmp.Diff(want, got, sameSketch); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
