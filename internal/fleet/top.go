package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// How many names a top list has at most.
const (
	TopOfHour  = 100 // in an hour slice
	TopOfNow   = 20  // in the last hour of a report
	TopOfRow   = 5   // in a row of the view
	TopOfFleet = 10  // in the view's totals
)

// MaxTopName is how many bytes a name in a top list may have.
const MaxTopName = 512

// TopItem is one name of a top list. Its true count lies between Count-ErrorBound and Count.
type TopItem struct {
	Name       string `json:"name"`
	Count      uint64 `json:"count"`
	ErrorBound uint64 `json:"error_bound"` // 0 = exact
}

// ByCount orders the items of a top list: by count, the highest first, then by name.
func (t TopItem) ByCount(other TopItem) int {
	return cmp.Or(cmp.Compare(other.Count, t.Count), strings.Compare(t.Name, other.Name))
}

// MergeTops adds up sorted top lists that have at most full names each, and is the first limit names of the sum, all of
// them where limit is 0; nil when there are none. It does not change the lists. A name that a list does not have counts for as
// much as it may have been counted there, which is in its Count and its ErrorBound: see Sketches. So true counts lie
// where TopItem says, and results can be merged again with limit for full. Counts and bounds stay at MaxCount.
func MergeTops(limit, full int, lists ...[]TopItem) []TopItem {
	type sum struct {
		TopItem
		had  uint64 // sum of absentee over the lists that have the name
		last int    // the last of these, counted from 1
	}
	var sums []sum
	at := map[string]int{}
	var all uint64 // sum of absentee over all lists
	for n, list := range lists {
		absent := absentee(list, full)
		all = min(all+absent, 1<<62)
		for _, item := range list {
			i, known := at[item.Name]
			if !known {
				i = len(sums)
				at[item.Name] = i
				sums = append(sums, sum{TopItem: TopItem{Name: item.Name}})
			}
			s := &sums[i]
			s.Count, s.ErrorBound = plus(s.Count, item.Count), plus(s.ErrorBound, item.ErrorBound)
			if s.last != n+1 {
				s.had, s.last = min(s.had+absent, 1<<62), n+1
			}
		}
	}
	if len(sums) == 0 {
		return nil
	}
	out := make([]TopItem, len(sums))
	for i, s := range sums {
		s.Count = plus(s.Count, all-s.had)
		s.ErrorBound = min(plus(s.ErrorBound, all-s.had), s.Count)
		out[i] = s.TopItem
	}
	slices.SortFunc(out, TopItem.ByCount)
	if limit > 0 && len(out) > limit {
		out = slices.Clip(out[:limit])
	}
	return out
}

// absentee is how often a name that a list does not have may have been counted.
func absentee(list []TopItem, full int) uint64 {
	if len(list) == 0 {
		return 0
	}
	last := list[len(list)-1]
	if len(list) < full && last.ErrorBound == 0 {
		return 0
	}
	return min(last.Count, MaxCount)
}

func plus(a, b uint64) uint64 { return min(min(a, MaxCount)+min(b, MaxCount), MaxCount) }

// validTop says what is wrong with a top list that came from elsewhere. Its order is for Normalize.
func validTop(field string, list []TopItem) error {
	if len(list) > TopOfHour {
		return fmt.Errorf("%w: %s has at most %d names", ErrInvalid, field, TopOfHour)
	}
	for _, item := range list {
		switch {
		case item.Name == "" || len(item.Name) > MaxTopName || !utf8.ValidString(item.Name):
			return fmt.Errorf("%w: a name in %s must be 1 to %d bytes of UTF-8", ErrInvalid, field, MaxTopName)
		case item.Count > MaxCount || item.ErrorBound > item.Count:
			return fmt.Errorf("%w: %s: error_bound must not exceed count, nor count %d", ErrInvalid, field, uint64(MaxCount))
		}
	}
	return nil
}
