package render

import (
	"fmt"
	"reflect"
	"strings"

	"dnsfleet/internal/fleet"
)

// shape is how a fleet.Row reads as JSON: its fields in their order.
type shape struct {
	names   []string // JSON names
	index   []int    // of the struct field
	all     []int    // 0, 1, 2 …
	age     int      // which of names is age_seconds
	queries int      // which of names is queries
}

func rowShape() shape {
	var s shape
	row := reflect.TypeFor[fleet.Row]()
	for i := range row.NumField() {
		name, _, _ := strings.Cut(row.Field(i).Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		switch name {
		case "age_seconds":
			s.age = len(s.names)
		case "queries":
			s.queries = len(s.names)
		}
		s.all = append(s.all, len(s.names))
		s.names, s.index = append(s.names, name), append(s.index, i)
	}
	return s
}

// choose finds the fields with the given names, and those that are always told; all for no name.
func (s shape) choose(names []string) ([]int, error) {
	if len(names) == 0 {
		return s.all, nil
	}
	wanted := map[string]bool{"instance_id": true, "name": true}
	for _, name := range names {
		wanted[name] = true
	}
	var chosen []int
	for i, name := range s.names {
		if wanted[name] {
			chosen = append(chosen, i)
			delete(wanted, name)
		}
	}
	for _, name := range names {
		if wanted[name] {
			return nil, fmt.Errorf("%w: fields: a row has no field %q", fleet.ErrInvalid, name)
		}
	}
	return chosen, nil
}
