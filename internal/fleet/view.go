package fleet

import "time"

// View is GET /api/instances/stats.
type View struct {
	GeneratedAt time.Time   `json:"generated_at"`
	Coverage    Coverage    `json:"coverage"`
	Totals      Totals      `json:"totals"`
	Primary     *Row        `json:"primary"`   // the one that answers
	Primaries   []Row       `json:"primaries"` // all of them
	Replicas    []Row       `json:"replicas"`
	Next        *string     `json:"next"` // cursor of the next page of replicas, nil on the last
	Errors      []PartError `json:"errors"`
}

// PartError names a part of the view that could not be had, and why. It never empties the other parts.
type PartError struct {
	Part  string `json:"part"`
	Error string `json:"error"`
}
