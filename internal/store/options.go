package store

import (
	"time"

	"dnsfleet/internal/fleet"
)

// Bounds that adapters share, so that every store keeps the same.
const (
	// DefaultStatsTTL is used where Options say nothing.
	DefaultStatsTTL = 15 * time.Minute
	// MinutesBack and MinutesAhead bound Instance.Minutes around the time of the last report: fleet.RecentWindow, a push
	// that came late, and the skew that fleet.MaxFuture allows.
	MinutesBack  = 10 * time.Minute
	MinutesAhead = 6 * time.Minute
	// SliceAhead is how far ahead of the store's clock a slice may start. What lies beyond it is not kept, because it
	// would not age for as long; it comes from a boot that began on a wrong clock.
	SliceAhead = 24 * time.Hour
	// BootsKept is how many former boots of an instance are remembered for fleet.Hour.Keep at least, and BootsMax how
	// many at all: one that restarts every second must not fill the store. A report of a boot that is no longer
	// remembered would count as a new boot's.
	BootsKept = 1024
	BootsMax  = 4096
	// MaxExact is where sums of ended boots stay: up to it every store counts exactly.
	MaxExact = 1 << 53
)

// Keep is how long slices of a size are kept after they began; 0 means that none are.
func (o Options) Keep(size fleet.Size) time.Duration {
	keep := min(o.History, size.Keep())
	if size == fleet.Minute {
		keep = max(keep, MinutesBack)
	}
	return keep
}

// WithDefaults is o with what was left out filled in.
func (o Options) WithDefaults() Options {
	if o.StatsTTL <= 0 {
		o.StatsTTL = DefaultStatsTTL
	}
	o.History = max(0, o.History)
	return o
}
