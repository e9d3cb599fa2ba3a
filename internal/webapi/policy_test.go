package webapi_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/webapi"
)

const policyYAML = `
upstreams: [{address: "udp://192.0.2.1:53"}]
deny: ["ads.example"]
cache: {max_bytes: 1MiB}
`

func put(body, ifMatch string) ask {
	a := ask{method: http.MethodPut, path: "/api/policy", body: body, header: map[string]string{"Content-Type": "application/yaml"}}
	if ifMatch == "none" {
		a.header["If-None-Match"] = "*"
	} else if ifMatch != "" {
		a.header["If-Match"] = ifMatch
	}
	return a
}

func TestThePolicyIsReplacedByThoseWhoKnowIt(t *testing.T) {
	var told []int64
	s := newSite(t, openStore(t), func(o *webapi.Options) { o.PolicyChanged = func(d fleet.PolicyDoc) { told = append(told, d.Revision) } })
	s.get("/api/policy").want(t, http.StatusNotFound).sentence(t)
	s.do(put(policyYAML, "")).want(t, http.StatusPreconditionRequired).sentence(t)
	s.do(put(policyYAML, `"anything"`)).want(t, http.StatusPreconditionFailed).sentence(t)

	first := s.do(put(policyYAML, "none")).want(t, http.StatusOK)
	s.do(put(policyYAML+"allow: [x.example]", "none")).want(t, http.StatusPreconditionFailed)
	got := s.get("/api/policy").want(t, http.StatusOK)
	doc := into[fleet.PolicyDoc](t, got)
	if doc.Revision != 1 || doc.Policy.Deny[0] != "ads.example" || got.header.Get("ETag") != first.header.Get("ETag") {
		t.Errorf("got %+v, ETag %s; want what was put, ETag %s", doc, got.header.Get("ETag"), first.header.Get("ETag"))
	}
	s.do(ask{path: "/api/policy", header: map[string]string{"If-None-Match": got.header.Get("ETag")}}).want(t, http.StatusNotModified)

	edited := put(`{"upstreams":[{"address":"udp://192.0.2.2:53"}],"upstream_strategy":"parallel"}`, first.header.Get("ETag"))
	edited.header["Content-Type"] = "application/json; charset=utf-8"
	doc = into[fleet.PolicyDoc](t, s.do(edited).want(t, http.StatusOK))
	if doc.Revision != 2 || doc.Policy.UpstreamStrategy != "parallel" {
		t.Errorf("got %+v, want revision 2", doc)
	}
	s.do(edited).want(t, http.StatusPreconditionFailed)
	s.do(put(policyYAML, `"other", W/"`+doc.Hash+`"`)).want(t, http.StatusOK)
	s.do(put(policyYAML+"allow: [y.example]", "*")).want(t, http.StatusOK)
	if fmt.Sprint(told) != "[1 2 3 4]" {
		t.Errorf("told of revisions %v, want each change and nothing else", told)
	}
}

func TestAPolicyThatIsNotGoodChangesNothing(t *testing.T) {
	s := newSite(t, openStore(t), func(o *webapi.Options) {
		o.CheckPolicy = func(p fleet.Policy) error {
			if len(p.Deny) > 0 && p.Deny[0] == "(" {
				return fmt.Errorf("%w: policy: deny[0]: missing )", fleet.ErrInvalid)
			}
			if len(p.Deny) > 0 && p.Deny[0] == "crash" {
				return errors.New("secret of the engine")
			}
			return nil
		}
	})
	s.do(put(policyYAML, "none")).want(t, http.StatusOK)
	before := s.get("/api/policy").body
	for name, c := range map[string]struct {
		kind, body string
		status     int
		says       string
	}{
		"an unknown key":                 {"application/yaml", "cache: {max_byte: 1}", 400, "cache.max_byte"},
		"an unknown key in a list":       {"application/json", `{"upstreams":[{"address":"a","adres":"b"}]}`, 400, "upstreams[0].adres"},
		"a wrong type":                   {"application/yaml", "lists: ads", 400, "lists"},
		"a value that makes no sense":    {"application/yaml", "upstream_strategy: best", 400, "upstream_strategy"},
		"what the engine cannot use":     {"application/yaml", `deny: ["("]`, 400, "deny[0]"},
		"what breaks the engine":         {"application/yaml", `deny: ["crash"]`, 500, "internal error"},
		"YAML that is none":              {"application/yaml", "a: [", 400, "policy"},
		"JSON that is none":              {"application/json", "{", 400, "JSON"},
		"YAML as JSON":                   {"application/json", policyYAML, 400, "JSON"},
		"a key twice":                    {"application/yaml", "deny: []\ndeny: []", 400, "deny"},
		"two documents":                  {"application/yaml", "allow: []\n---\ndeny: []", 400, "one document"},
		"text that is not UTF-8":         {"application/yaml", "allow: [\"\xff\"]", 400, "UTF-8"},
		"another media type":             {"text/html", policyYAML, 415, "Content-Type"},
		"a broken media type":            {";", policyYAML, 415, "Content-Type"},
		"a body past the limit":          {"application/yaml", "allow: [" + strings.Repeat(" ", 1<<20) + "]", 413, "bytes"},
		"a list where a document should": {"application/json", "[1]", 400, "policy"},
	} {
		for _, a := range []ask{
			{method: http.MethodPut, path: "/api/policy", header: map[string]string{"If-Match": "*"}},
			{method: http.MethodPost, path: "/api/policy/validate", header: map[string]string{}},
		} {
			t.Run(name+", "+a.method, func(t *testing.T) {
				a.body, a.bad, a.header["Content-Type"] = c.body, true, c.kind
				got := s.do(a).want(t, c.status).sentence(t)
				if !strings.Contains(got, c.says) {
					t.Errorf("got %q, want it to say %q", got, c.says)
				}
			})
		}
	}
	if after := s.get("/api/policy").body; after != before {
		t.Errorf("the policy changed:\n%s\n%s", before, after)
	}
}

func TestValidateChangesNothing(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	got := into[struct {
		Valid  bool
		Hash   string
		Policy fleet.Policy
	}](t, s.do(ask{method: http.MethodPost, path: "/api/policy/validate", body: policyYAML, header: map[string]string{"Content-Type": "text/yaml"}, bad: true}).want(t, http.StatusOK))
	if !got.Valid || got.Hash != got.Policy.Hash() || got.Policy.Cache.MaxBytes != 1<<20 {
		t.Errorf("got %+v", got)
	}
	s.get("/api/policy").want(t, http.StatusNotFound)
}
