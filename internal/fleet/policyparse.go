package fleet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParsePolicy reads a policy that a person wrote, YAML or JSON. It is strict: an unknown key, a wrong type or a value
// that makes no sense is ErrInvalid and names the path. What the document leaves out gets its default.
func ParsePolicy(text []byte) (Policy, error) {
	raw, err := readTree(text)
	if err != nil {
		return Policy{}, err
	}
	if unknown := unknownKeys(raw, reflect.TypeFor[Policy](), ""); len(unknown) > 0 {
		return Policy{}, fmt.Errorf("%w: policy: unknown key %s", ErrInvalid, strings.Join(unknown, ", "))
	}
	p, unapplied, reasons := decodePolicy(raw)
	if len(unapplied) > 0 {
		return Policy{}, fmt.Errorf("%w: policy: %s", ErrInvalid, reasons[0])
	}
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// DecodePolicyDoc reads a policy document of another, perhaps newer release: it takes what it knows and returns the
// paths of the rest, sorted. An error means that nothing of it could be read.
func DecodePolicyDoc(body []byte) (doc PolicyDoc, unapplied []string, err error) {
	var envelope struct {
		PolicyDoc
		Policy map[string]any `json:"policy"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return PolicyDoc{}, nil, fmt.Errorf("%w: policy document: %w", ErrInvalid, err)
	}
	if envelope.Policy == nil || envelope.Hash == "" {
		return PolicyDoc{}, nil, fmt.Errorf("%w: policy document lacks policy or hash", ErrInvalid)
	}
	doc = envelope.PolicyDoc
	unknown := unknownKeys(envelope.Policy, reflect.TypeFor[Policy](), "")
	var undecoded []string
	doc.Policy, undecoded, _ = decodePolicy(envelope.Policy)
	unapplied = append(unknown, undecoded...)
	slices.Sort(unapplied)
	return doc, unapplied, nil
}

func readTree(text []byte) (map[string]any, error) {
	var tree map[string]any
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&tree); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: policy: %s", ErrInvalid, yamlReason(err))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: policy: more than one document", ErrInvalid)
	}
	return tree, nil
}

// yamlReason is what is wrong with a text, in one line.
func yamlReason(err error) string {
	var misfit *yaml.TypeError
	if !errors.As(err, &misfit) || len(misfit.Errors) == 0 {
		return strings.TrimPrefix(err.Error(), "yaml: ")
	}
	if strings.Contains(misfit.Errors[0], "cannot unmarshal") {
		return "must be a document of keys and values"
	}
	return misfit.Errors[0] // a key that is there twice
}

// decodePolicy decodes key by key, so that one part that this release cannot read does not cost the others.
func decodePolicy(tree map[string]any) (p Policy, undecoded, reasons []string) {
	p = DefaultPolicy()
	p.Upstreams, p.Lists = []PolicyUpstream{}, []PolicyList{}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		part, err := json.Marshal(map[string]any{key: tree[key]})
		if err == nil {
			next := p
			if err = json.Unmarshal(part, &next); err == nil {
				p = next
				continue
			}
		}
		undecoded = append(undecoded, key)
		reasons = append(reasons, key+": "+strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "))
	}
	p.fillNil()
	return p, undecoded, reasons
}

// fillNil makes every list of the policy non-nil, so that equal policies have equal hashes.
func (p *Policy) fillNil() {
	if p.Upstreams == nil {
		p.Upstreams = []PolicyUpstream{}
	}
	if p.Lists == nil {
		p.Lists = []PolicyList{}
	}
	if p.Allow == nil {
		p.Allow = []string{}
	}
	if p.Deny == nil {
		p.Deny = []string{}
	}
	if p.Records == nil {
		p.Records = []PolicyRecord{}
	}
}

// unknownKeys lists the paths in tree that t has no place for. It does not look into types that decode themselves.
func unknownKeys(tree any, t reflect.Type, path string) []string {
	var unknown []string
	switch node := tree.(type) {
	case map[string]any:
		if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
			return nil
		}
		fields := map[string]reflect.Type{}
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields[name] = field.Type
		}
		for _, key := range slices.Sorted(maps.Keys(node)) {
			at := strings.TrimPrefix(path+"."+key, ".")
			if field, known := fields[key]; known {
				unknown = append(unknown, unknownKeys(node[key], field, at)...)
			} else {
				unknown = append(unknown, at)
			}
		}
	case []any:
		if t.Kind() != reflect.Slice {
			return nil
		}
		for i, item := range node {
			unknown = append(unknown, unknownKeys(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	return unknown
}

// Validate says what in a policy makes no sense, as ErrInvalid naming the path. Whether a pattern or a record value
// parses is for the engine to say.
func (p Policy) Validate() error {
	bad := func(path, why string) error { return fmt.Errorf("%w: policy: %s: %s", ErrInvalid, path, why) }
	if !slices.Contains([]string{"fastest", "parallel", "failover", "balance"}, p.UpstreamStrategy) {
		return bad("upstream_strategy", "must be fastest, parallel, failover or balance")
	}
	for i, u := range p.Upstreams {
		if strings.TrimSpace(u.Address) == "" {
			return bad(fmt.Sprintf("upstreams[%d].address", i), "is required")
		}
	}
	if err := validateConditional(p.Conditional, bad); err != nil {
		return err
	}
	if err := p.validateGuards(bad); err != nil {
		return err
	}
	names := map[string]bool{}
	for i, l := range p.Lists {
		path := fmt.Sprintf("lists[%d]", i)
		if err := ValidName(l.Name); err != nil {
			return bad(path+".name", strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "))
		}
		if names[l.Name] {
			return bad(path+".name", fmt.Sprintf("%q names two lists", l.Name))
		}
		names[l.Name] = true
		u, err := url.Parse(l.URL)
		if err != nil || !slices.Contains([]string{"file", "http", "https"}, u.Scheme) {
			return bad(path+".url", "must be a file://, http:// or https:// URL")
		}
	}
	for i, r := range p.Records {
		if r.Name == "" || r.Type == "" || r.Value == "" {
			return bad(fmt.Sprintf("records[%d]", i), "needs name, type and value")
		}
	}
	if p.Cache.MaxTTL > 0 && p.Cache.MinTTL > p.Cache.MaxTTL {
		return bad("cache.min_ttl", "is above max_ttl")
	}
	return nil
}
