package stats

import (
	"slices"
	"time"

	"dnsfleet/internal/fleet"
)

// recentMinutes is one more than fleet.RecentWindow needs, for whoever asks across the turn of a minute.
const recentMinutes = int(fleet.RecentWindow/time.Minute) + 1

// Minutes are the last complete minute slices of this boot, oldest first, as many as fleet.RecentWindow needs. The caller
// must not change them.
func (c *Counters) Minutes() []fleet.Slice {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent
}

// remember keeps a minute for Minutes. The list is made anew, because callers may hold the one before.
func (c *Counters) remember(minute fleet.Slice) {
	c.recent = append(slices.Clone(c.recent[max(0, len(c.recent)-recentMinutes+1):]), minute)
}
