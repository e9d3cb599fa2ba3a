package fleet

import "time"

// Status is how an instance is, by the age of its last report on the store's clock.
type Status string

// The statuses.
const (
	StatusOK      Status = "ok"
	StatusStale   Status = "stale"   // older than two intervals and five seconds
	StatusOffline Status = "offline" // its report has expired
	StatusRevoked Status = "revoked" // its token was revoked
	StatusNever   Status = "never"   // a token was made and nothing was seen of it
)

// Instance is what the store remembers of one instance.
type Instance struct {
	ID      string
	Name    string
	Role    Role
	DNS     bool   // whether it answers DNS
	TokenID string // "" for a primary

	FirstSeen time.Time // store's clock, like the next two
	LastSeen  time.Time // when its last report was received
	ExpiresAt time.Time // when that report stops counting

	BootID  string
	Seq     uint64
	Current Outcomes // of BootID
	Ended   Outcomes // sum of all boots before

	Report  *Report // the last report, without slices; nil once it has expired
	Minutes []Slice // the minute slices that Recent needs, oldest first; may hold more, never repeats a (start, boot)
}

// Lifetime is what the instance has counted since it was first seen. It never goes back.
func (i Instance) Lifetime() Outcomes { return i.Ended.Plus(i.Current) }

// StatusAt is the instance's status at now on the store's clock. A report received in the future means that the
// store's clock was set back: the instance is stale until it reports again, which a live one does within an interval.
func (i Instance) StatusAt(now time.Time) Status {
	age := now.Sub(i.LastSeen)
	switch {
	case i.Report == nil || !now.Before(i.ExpiresAt):
		return StatusOffline
	case age > 2*i.Report.Interval()+staleGrace || age < -staleGrace:
		return StatusStale
	}
	return StatusOK
}

const staleGrace = 5 * time.Second

// SaveResult tells what a store did with a report's counters. Its slices are stored in every case but an error.
type SaveResult string

// What became of a report.
const (
	Stored    SaveResult = "stored"
	Duplicate SaveResult = "duplicate" // this (boot, seq) was stored before
	Older     SaveResult = "older"     // a later seq of this boot was stored before
	EndedBoot SaveResult = "ended"     // a later boot has reported
)

// Saved is a store's answer to a report.
type Saved struct {
	Result      SaveResult
	Time        time.Time     // store's clock
	SlicesUntil []SlicesUntil // of every boot and size that the report named, and of its own boot; sorted by boot, then size
}

// Hint says that something in the store may have changed. It may be lost or repeated: it is a reason to look, not
// the truth.
type Hint struct {
	InstanceID string // an instance that changed, "" = anything may have
	Tokens     bool
	Policy     bool
}
