package fleet

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/pb/sketchpb"
	"github.com/DataDog/sketches-go/ddsketch/store"
	"google.golang.org/protobuf/proto"
)

// LatencyAccuracy is the relative error of every quantile that a Latency tells.
const LatencyAccuracy = 0.01

// The range that LatencyBin tells apart: a microsecond to a bit over two minutes. What lies outside counts into
// the nearest bin, so that a fixed array can hold a histogram.
const (
	minLatencyMS = 0.001
	maxLatencyMS = 130_000
)

var (
	latencyMapping = newLatencyMapping()
	firstBin       = latencyMapping.Index(minLatencyMS)

	// LatencyBins is how many bins LatencyBin can name: its results are 0 to LatencyBins-1.
	LatencyBins = latencyMapping.Index(maxLatencyMS) - firstBin + 1
)

func newLatencyMapping() *mapping.LogarithmicMapping {
	m, err := mapping.NewLogarithmicMapping(LatencyAccuracy)
	if err != nil {
		panic(err) // cannot be: the accuracy is a constant between 0 and 1
	}
	return m
}

// LatencyBin is the bin of a histogram into which a duration counts; see LatencyFromBins.
func LatencyBin(d time.Duration) int {
	ms := float64(d) / float64(time.Millisecond)
	return latencyMapping.Index(min(max(ms, minLatencyMS), maxLatencyMS)) - firstBin
}

// Latency is a mergeable distribution of durations in milliseconds: a DDSketch with 1 % relative error. Its zero
// value is empty. A Latency shares its state when copied; it may be read concurrently, but not while Merge changes it.
type Latency struct{ sketch *ddsketch.DDSketch }

// NewLatency is the distribution of the given durations.
func NewLatency(ds ...time.Duration) Latency {
	bins := make([]uint64, LatencyBins)
	for _, d := range ds {
		bins[LatencyBin(d)]++
	}
	return LatencyFromBins(bins)
}

// LatencyFromBins turns a histogram, whose bins LatencyBin names, into a Latency. It keeps nothing of bins.
func LatencyFromBins(bins []uint64) Latency {
	var l Latency
	for i, n := range bins {
		if n == 0 {
			continue
		}
		l.grow()
		// AddWithCount refuses only values outside the mapping, which bins never are.
		if err := l.sketch.AddWithCount(latencyMapping.Value(i+firstBin), float64(n)); err != nil {
			panic(err)
		}
	}
	return l
}

func (l *Latency) grow() {
	if l.sketch == nil {
		l.sketch = ddsketch.NewDDSketchFromStoreProvider(latencyMapping, store.DenseStoreConstructor)
	}
}

// Merge adds all of other, which stays as it is.
func (l *Latency) Merge(other Latency) {
	if other.sketch == nil {
		return
	}
	l.grow()
	if err := l.sketch.MergeWith(other.sketch); err != nil {
		panic(err) // cannot be: every Latency has latencyMapping
	}
}

// Copy is an equal Latency that shares nothing with l.
func (l Latency) Copy() Latency {
	if l.sketch == nil {
		return Latency{}
	}
	return Latency{l.sketch.Copy()}
}

// Count is how many durations were added.
func (l Latency) Count() uint64 {
	if l.sketch == nil {
		return 0
	}
	return uint64(math.Round(l.sketch.GetCount()))
}

// MeanMS is the mean within the sketch's error, nil when empty.
func (l Latency) MeanMS() *float64 {
	if l.Count() == 0 {
		return nil
	}
	mean := l.sketch.GetSum() / l.sketch.GetCount()
	return &mean
}

// QuantileMS is the duration in milliseconds below which the part q (0–1) of all lie, nil when empty.
func (l Latency) QuantileMS(q float64) *float64 {
	if l.Count() == 0 {
		return nil
	}
	v, err := l.sketch.GetValueAtQuantile(q)
	if err != nil {
		return nil
	}
	return &v
}

// Quantiles are the three that every view shows.
type Quantiles struct {
	P50 *float64 `json:"p50_ms"`
	P95 *float64 `json:"p95_ms"`
	P99 *float64 `json:"p99_ms"`
}

// Quantiles tells p50, p95 and p99; each is nil when l is empty.
func (l Latency) Quantiles() Quantiles {
	return Quantiles{l.QuantileMS(0.50), l.QuantileMS(0.95), l.QuantileMS(0.99)}
}

// MarshalJSON writes the base64 of the sketch's protobuf, "" when empty.
func (l Latency) MarshalJSON() ([]byte, error) {
	if l.Count() == 0 {
		return []byte(`""`), nil
	}
	pb := l.sketch.ToProto()
	pb.PositiveValues = smallerStore(pb.GetPositiveValues())
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(pb)
	if err != nil {
		return nil, err
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(raw))
}

// smallerStore picks the shorter of the two forms that a sketch's bins may have: a run costs 8 bytes for each bin of its
// range, a map about 13 for each bin that is not empty.
func smallerStore(run *sketchpb.Store) *sketchpb.Store {
	bins := map[int32]float64{}
	for i, n := range run.GetContiguousBinCounts() {
		if n > 0 {
			bins[run.GetContiguousBinIndexOffset()+int32(i)] = n
		}
	}
	if len(bins)*13 > len(run.GetContiguousBinCounts())*8 {
		return run
	}
	return &sketchpb.Store{BinCounts: bins}
}

// Bounds on a foreign sketch, so that a few hostile bytes cannot make a large object.
const (
	maxSketchBytes = 64 << 10
	maxSketchBins  = 4096
)

// UnmarshalJSON reads what MarshalJSON writes, also from senders with another DDSketch mapping (converted within
// both errors). Sketches that are oversized, negative or not finite are refused.
func (l *Latency) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("%w: a latency sketch must be base64 text", ErrInvalid)
	}
	*l = Latency{}
	if text == "" {
		return nil
	}
	if len(text) > maxSketchBytes {
		return fmt.Errorf("%w: a latency sketch has at most %d bytes", ErrInvalid, maxSketchBytes)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("%w: a latency sketch must be base64 text", ErrInvalid)
	}
	pb := new(sketchpb.DDSketch)
	if err := proto.Unmarshal(raw, pb); err != nil {
		return fmt.Errorf("%w: a latency sketch must be a DDSketch protobuf", ErrInvalid)
	}
	sketch, err := checkedSketch(pb)
	if err != nil {
		return fmt.Errorf("%w: latency sketch: %w", ErrInvalid, err)
	}
	if sketch.GetCount() > 0 {
		l.sketch = sketch
	}
	return nil
}

func checkedSketch(pb *sketchpb.DDSketch) (*ddsketch.DDSketch, error) {
	m, err := mapping.FromProto(pb.GetMapping())
	if err != nil {
		return nil, err
	}
	if negative := pb.GetNegativeValues(); len(negative.GetBinCounts())+len(negative.GetContiguousBinCounts()) > 0 {
		return nil, fmt.Errorf("durations are not negative")
	}
	positive := pb.GetPositiveValues()
	if len(positive.GetBinCounts())+len(positive.GetContiguousBinCounts()) > maxSketchBins {
		return nil, fmt.Errorf("more than %d bins", maxSketchBins)
	}
	if !validCount(pb.GetZeroCount()) {
		return nil, fmt.Errorf("count out of range")
	}
	out := ddsketch.NewDDSketchFromStoreProvider(latencyMapping, store.DenseStoreConstructor)
	add := func(index int64, n float64) error {
		if !validCount(n) {
			return fmt.Errorf("count out of range")
		}
		if index < math.MinInt32 || index > math.MaxInt32 {
			return fmt.Errorf("bin out of range")
		}
		if n == 0 {
			return nil
		}
		ms := m.Value(int(index))
		if math.IsNaN(ms) {
			return fmt.Errorf("bin out of range")
		}
		return out.AddWithCount(min(max(ms, minLatencyMS), maxLatencyMS), n)
	}
	if pb.GetZeroCount() > 0 {
		if err := out.AddWithCount(minLatencyMS, pb.GetZeroCount()); err != nil {
			return nil, err
		}
	}
	for index, n := range positive.GetBinCounts() {
		if err := add(int64(index), n); err != nil {
			return nil, err
		}
	}
	for i, n := range positive.GetContiguousBinCounts() {
		if err := add(int64(positive.GetContiguousBinIndexOffset())+int64(i), n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func validCount(n float64) bool { return n >= 0 && n <= MaxCount && !math.IsNaN(n) }
