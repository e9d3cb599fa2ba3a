package fleet

import "time"

// Sketches are what can be merged over time and instances where no query log is read: who asked, and for what most. A
// top list is sorted by count, then name. A name that it does not have was counted no oftener than its last one; and never
// if the list is shorter than it may be and its last one is exact.
type Sketches struct {
	Clients    Uniques   `json:"clients,omitzero"`
	TopDomains []TopItem `json:"top_domains,omitempty"`
	TopBlocked []TopItem `json:"top_blocked,omitempty"`
	TopClients []TopItem `json:"top_clients,omitempty"`
}

// Normalize sorts the lists of valid sketches that came from elsewhere; what a list names twice becomes one.
func (s *Sketches) Normalize() {
	for _, list := range []*[]TopItem{&s.TopDomains, &s.TopBlocked, &s.TopClients} {
		*list = MergeTops(0, TopOfHour, *list)
	}
}

func (s Sketches) validate() error {
	for field, list := range map[string][]TopItem{
		"top_domains": s.TopDomains, "top_blocked": s.TopBlocked, "top_clients": s.TopClients,
	} {
		if err := validTop(field, list); err != nil {
			return err
		}
	}
	return nil
}

// mergeSketches merges sketches whose lists have at most full names; those of the result have at most limit.
func mergeSketches(limit, full int, parts []Sketches) Sketches {
	var sum Sketches
	var domains, blocked, clients [][]TopItem
	for _, p := range parts {
		sum.Clients.Merge(p.Clients)
		domains, blocked, clients = append(domains, p.TopDomains), append(blocked, p.TopBlocked), append(clients, p.TopClients)
	}
	sum.TopDomains = MergeTops(limit, full, domains...)
	sum.TopBlocked = MergeTops(limit, full, blocked...)
	sum.TopClients = MergeTops(limit, full, clients...)
	return sum
}

// LastHour is the sketches of the last fifty to sixty minutes, as far as the boot goes back. Its lists have TopOfNow names.
type LastHour struct {
	From time.Time `json:"from"`
	Sketches
}

// MergeLastHours is the last hour of several instances, from the earliest of them on; nil when there is none. Entries may be
// nil. Its lists have at most limit names.
func MergeLastHours(limit int, hours ...*LastHour) *LastHour {
	var from time.Time
	var parts []Sketches
	for _, h := range hours {
		if h == nil {
			continue
		}
		if len(parts) == 0 || h.From.Before(from) {
			from = h.From
		}
		parts = append(parts, h.Sketches)
	}
	if len(parts) == 0 {
		return nil
	}
	return &LastHour{from, mergeSketches(limit, TopOfNow, parts)}
}

// RowHour is a report's last hour as people read it. In totals it is the merge of those of all instances.
type RowHour struct {
	From          time.Time `json:"from"` // the earliest of what was merged
	UniqueClients uint64    `json:"unique_clients"`
	TopDomains    []TopItem `json:"top_domains"`
	TopBlocked    []TopItem `json:"top_blocked"`
	TopClients    []TopItem `json:"top_clients"`
}

// Row is the last hour as people read it, with lists of at most limit names, none of them nil. A nil h has none.
func (h *LastHour) Row(limit int) *RowHour {
	if h == nil {
		return nil
	}
	first := func(list []TopItem) []TopItem { return append([]TopItem{}, list[:min(limit, len(list))]...) }
	return &RowHour{
		From: h.From.UTC(), UniqueClients: h.Clients.Count(),
		TopDomains: first(h.TopDomains), TopBlocked: first(h.TopBlocked), TopClients: first(h.TopClients),
	}
}
