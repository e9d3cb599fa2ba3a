// Package params reads the parameters of requests. Its errors are fleet.ErrInvalid, with a text of one sentence.
package params

import (
	"net/http"
	"net/url"
	"strings"

	"dnsfleet/internal/fleet"
)

// Of are the parameters of a request; one that is not well formed is an error and not absent.
func Of(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Invalid("query string is not well formed")
	}
	return values, nil
}

// Words are the parts of a parameter that may be repeated and may hold a comma list.
func Words(values url.Values, name string) []string {
	var out []string
	for _, v := range values[name] {
		for w := range strings.SplitSeq(v, ",") {
			if w = strings.TrimSpace(w); w != "" {
				out = append(out, w)
			}
		}
	}
	return out
}

// Invalid is fleet.ErrInvalid with a sentence of its own.
func Invalid(sentence string) error { return &invalidError{sentence} }

type invalidError struct{ sentence string }

func (e *invalidError) Error() string { return e.sentence }
func (e *invalidError) Unwrap() error { return fleet.ErrInvalid }
