package queries

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/webapi/params"
)

const (
	maxInstances = 1000
	maxText      = 1024 // of a filter; a name of DNS has at most 1,004 bytes as text
)

// request is what a question's parameters say.
type request struct {
	filter     fleet.QueryFilter
	byInstance bool
	limit      int
	cursor     string
	step       time.Duration
	format     string
}

// filters are the parameters of every question.
var filters = []string{"instance", "window", "from", "to", "domain", "client", "outcome", "qtype", "upstream"}

// repeatable are the parameters that may be given more than once.
var repeatable = []string{"instance", "outcome"}

// parameters are those that a question takes beside filters.
type parameters struct {
	names           []string
	limit, maxLimit int // of a request that names none, and the highest
}

// read reads the parameters of a request.
func (a *API) read(r *http.Request, takes parameters) (q request, err error) {
	values, err := params.Of(r)
	if err != nil {
		return q, err
	}
	if err := wellFormed(values, takes.names); err != nil {
		return q, err
	}
	if q.filter, err = filter(values, a.Now()); err != nil {
		return q, err
	}
	if values.Has("group_by") {
		if q.byInstance = values.Get("group_by") == "instance"; !q.byInstance {
			return q, params.Invalid("group_by can be instance only")
		}
	}
	q.limit = takes.limit
	if values.Has("limit") {
		if q.limit, err = strconv.Atoi(values.Get("limit")); err != nil || q.limit < 1 || q.limit > takes.maxLimit {
			return q, params.Invalid(fmt.Sprintf("limit must be a whole number from 1 to %d", takes.maxLimit))
		}
	}
	q.cursor = values.Get("cursor")
	q.format = "ndjson"
	if values.Has("format") {
		if q.format = values.Get("format"); q.format != "ndjson" && q.format != "csv" {
			return q, params.Invalid("format must be ndjson or csv")
		}
	}
	if slices.Contains(takes.names, "step") {
		q.step, err = step(values, q.filter.To.Sub(q.filter.From))
	}
	return q, err
}

// wellFormed refuses parameters that are not known, given twice, empty or no text.
func wellFormed(values url.Values, more []string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(filters, name) && !slices.Contains(more, name) {
			return params.Invalid(fmt.Sprintf("parameter %.64q is not known here", name))
		}
		if len(values[name]) > 1 && !slices.Contains(repeatable, name) {
			return params.Invalid(name + " may be given once")
		}
		for _, v := range values[name] {
			if v == "" || len(v) > maxText || !utf8.ValidString(v) {
				return params.Invalid(fmt.Sprintf("%s must be 1 to %d bytes of UTF-8", name, maxText))
			}
		}
	}
	return nil
}

func filter(values url.Values, now time.Time) (f fleet.QueryFilter, err error) {
	if f.From, f.To, err = window(values, now); err != nil {
		return f, err
	}
	f.Instances = params.Words(values, "instance")
	switch {
	case values.Has("instance") && len(f.Instances) == 0:
		return f, params.Invalid("instance must be an instance id")
	case len(f.Instances) > maxInstances:
		return f, params.Invalid(fmt.Sprintf("instance may name %d instances at most", maxInstances))
	case slices.ContainsFunc(f.Instances, func(id string) bool { return !fleet.ValidID(id) }):
		return f, params.Invalid("instance must match [A-Za-z0-9._-]{1,64}")
	}
	f.Domain, f.Client, f.Upstream = strings.ToLower(values.Get("domain")), values.Get("client"), values.Get("upstream")
	if dns.IsFqdn(f.Domain) {
		f.Domain = strings.TrimSuffix(f.Domain, ".")
	}
	if addr, err := netip.ParseAddr(f.Client); err == nil { // as the log writes it
		f.Client = addr.Unmap().String()
	}
	if f.Outcomes, err = outcomes(values); err != nil {
		return f, err
	}
	f.QType, err = qtype(values)
	return f, err
}

func outcomes(values url.Values) (list []fleet.Outcome, err error) {
	for _, word := range params.Words(values, "outcome") {
		o, known := fleet.ParseOutcome(word)
		if !known {
			return nil, params.Invalid(fmt.Sprintf("outcome %.64q is not known", word))
		}
		if !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	if values.Has("outcome") && len(list) == 0 {
		return nil, params.Invalid("outcome must name an outcome")
	}
	return list, nil
}

// qtype is the type as the log writes it: by its name where it has one.
func qtype(values url.Values) (string, error) {
	if !values.Has("qtype") {
		return "", nil
	}
	name := strings.ToUpper(values.Get("qtype"))
	if n, known := dns.StringToType[name]; known {
		return dns.Type(n).String(), nil
	}
	digits, numbered := strings.CutPrefix(name, "TYPE")
	n, err := strconv.ParseUint(digits, 10, 16)
	if !numbered || err != nil {
		return "", params.Invalid("qtype must be a type of DNS such as AAAA or TYPE65")
	}
	return dns.Type(n).String(), nil
}
