package queries

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dnsfleet/internal/webapi/params"
)

const (
	day           = 24 * time.Hour
	defaultWindow = time.Hour
	maxWindow     = 400 * day

	// maxPoints is how many steps a series may have: a day in minutes, and some more.
	maxPoints = 2000
	// goodPoints is how many a series has at most that nobody chose the step of.
	goodPoints = 200
)

// window reads the parameters that say which time is meant.
func window(values url.Values, now time.Time) (from, to time.Time, err error) {
	to = now.UTC()
	length := defaultWindow
	if values.Has("window") {
		if values.Has("from") || values.Has("to") {
			return from, to, params.Invalid("window goes without from and to")
		}
		if length, err = parseDuration(values.Get("window")); err != nil {
			return from, to, params.Invalid("window must be a duration such as 15m, 1h or 7d, at most 400d")
		}
	}
	for name, at := range map[string]*time.Time{"from": &from, "to": &to} {
		if !values.Has(name) {
			continue
		}
		t, err := time.Parse(time.RFC3339, values.Get(name))
		if err != nil {
			return from, to, params.Invalid(name + " must be a time such as 2006-01-02T15:04:05Z")
		}
		*at = t.UTC()
	}
	if !values.Has("from") {
		from = to.Add(-length)
	}
	switch {
	case !from.Before(to):
		return from, to, params.Invalid("from must be before to")
	case from.Before(to.Add(-maxWindow)):
		return from, to, params.Invalid("from and to may be 400d apart at most")
	}
	return from, to, nil
}

// parseDuration reads 90s, 1h30m, 7d or 2w. What is no duration, not above 0 or above 400 days is an error.
func parseDuration(text string) (time.Duration, error) {
	var sum time.Duration
	for rest := text; rest != ""; {
		unit := strings.TrimLeft(rest, "0123456789.")
		number := rest[:len(rest)-len(unit)]
		if end := strings.IndexAny(unit, "0123456789."); end >= 0 {
			unit = unit[:end]
		}
		rest = rest[len(number)+len(unit):]
		one, err := single(number, unit)
		if err != nil {
			return 0, err
		}
		if sum += one; sum > maxWindow {
			return 0, errDuration
		}
	}
	if sum <= 0 {
		return 0, errDuration
	}
	return sum, nil
}

var errDuration = params.Invalid("not a duration")

// single reads a number and its unit; the result is at most 400 days.
func single(number, unit string) (time.Duration, error) {
	long := map[string]time.Duration{"d": day, "w": 7 * day}[unit]
	if long == 0 {
		d, err := time.ParseDuration(number + unit)
		if err != nil || d < 0 || d > maxWindow {
			return 0, errDuration
		}
		return d, nil
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n*float64(long) <= float64(maxWindow)) {
		return 0, errDuration
	}
	return time.Duration(n * float64(long)), nil
}

// steps are those that a series has where nobody chose one.
var steps = []time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 12 * time.Hour, day, 2 * day,
}

// step reads the parameter of that name, or chooses one for the length of a window.
func step(values url.Values, length time.Duration) (time.Duration, error) {
	if !values.Has("step") {
		for _, s := range steps {
			if length <= goodPoints*s {
				return s, nil
			}
		}
		return steps[len(steps)-1], nil
	}
	s, err := parseDuration(values.Get("step"))
	switch {
	case err != nil || s%time.Minute != 0:
		return 0, params.Invalid("step must be whole minutes, such as 1m, 1h or 1d")
	case length > maxPoints*s:
		return 0, params.Invalid(fmt.Sprintf("step is too short for this window: a series has at most %d points", maxPoints))
	}
	return s, nil
}
