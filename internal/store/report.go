package store

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"dnsfleet/internal/fleet"
)

// CheckIDs refuses a report whose ids could not be a part of a key, as fleet.ErrInvalid. The rest of a report is for
// its receiver to validate.
func CheckIDs(r fleet.Report) error {
	ids := []string{r.InstanceID, r.BootID}
	for _, s := range r.Slices {
		ids = append(ids, s.BootID)
		if !slices.Contains(fleet.Sizes(), s.Size) {
			return fmt.Errorf("%w: slice size %s", fleet.ErrInvalid, s.Size)
		}
	}
	for _, id := range ids {
		if !fleet.ValidID(id) {
			return fmt.Errorf("%w: %q is no id", fleet.ErrInvalid, id)
		}
	}
	return nil
}

// SortSlices is a copy of list by size, boot and start.
func SortSlices(list []fleet.Slice) []fleet.Slice {
	return slices.SortedFunc(slices.Values(list), func(a, b fleet.Slice) int {
		return cmp.Or(cmp.Compare(a.Size, b.Size), strings.Compare(a.BootID, b.BootID), a.Start.Compare(b.Start))
	})
}

// ByStart orders slices as Store.Slices promises: by start, then boot.
func ByStart(a, b fleet.Slice) int {
	return cmp.Or(a.Start.Compare(b.Start), strings.Compare(a.BootID, b.BootID))
}
