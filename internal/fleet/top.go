package fleet

import "time"

// How many names a top list has at most.
const (
	TopOfHour  = 100 // in an hour slice
	TopOfNow   = 20  // in the last hour of a report
	TopOfRow   = 5   // in a row of the view
	TopOfFleet = 10  // in the view's totals
)

// TopItem is one name of a top list. Its true count lies between Count-ErrorBound and Count.
type TopItem struct {
	Name       string `json:"name"`
	Count      uint64 `json:"count"`
	ErrorBound uint64 `json:"error_bound"` // 0 = exact
}

// Sketches are what can be merged over time and instances where no query log is read: who asked, and for what most. A
// top list is sorted by count, then name. A name that it does not have was counted no oftener than its last one, or never
// when it is shorter than it may be.
type Sketches struct {
	Clients    Uniques   `json:"clients,omitzero"`
	TopDomains []TopItem `json:"top_domains,omitempty"`
	TopBlocked []TopItem `json:"top_blocked,omitempty"`
	TopClients []TopItem `json:"top_clients,omitempty"`
}

// LastHour is the sketches of the last fifty to sixty minutes, as far as the boot goes back.
type LastHour struct {
	From time.Time `json:"from"`
	Sketches
}
