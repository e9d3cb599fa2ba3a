package fleet

import (
	"fmt"
	"strings"
)

// PolicyConditional forwards one domain and all names below it to resolvers of its own. A reverse zone is a domain
// such as 1.168.192.in-addr.arpa.
type PolicyConditional struct {
	Domain    string           `json:"domain"`
	Upstreams []PolicyUpstream `json:"upstreams"`
}

// Suffix is the domain in lower case without a final dot: the form in which domains are compared. Where several
// suffixes fit a name, the longest decides.
func (c PolicyConditional) Suffix() string { return suffixOf(c.Domain) }

// validate says what makes no sense, through bad, which is given the path below the section.
func (c PolicyConditional) validate(bad func(path, why string) error) error {
	if why := domainFault(c.Suffix()); why != "" {
		return bad(".domain", why)
	}
	if len(c.Upstreams) == 0 {
		return bad(".upstreams", "needs at least one upstream")
	}
	for i, u := range c.Upstreams {
		if strings.TrimSpace(u.Address) == "" {
			return bad(fmt.Sprintf(".upstreams[%d].address", i), "is required")
		}
	}
	return nil
}

// suffixOf is a domain in lower case without a final dot.
func suffixOf(domain string) string {
	return strings.ToLower(strings.TrimSuffix(strings.TrimSpace(domain), "."))
}

// domainFault is why a text in lower case is no domain, "" if it is one.
func domainFault(domain string) string {
	if domain == "" {
		return "is required"
	}
	if len(domain) > 253 {
		return "is longer than 253 characters"
	}
	for label := range strings.SplitSeq(domain, ".") {
		if len(label) == 0 || len(label) > 63 {
			return fmt.Sprintf("%q has a label that is empty or longer than 63 characters", domain)
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return fmt.Sprintf("%q is not a domain such as corp.example", domain)
			}
		}
	}
	return ""
}

func validateConditional(sections []PolicyConditional, bad func(path, why string) error) error {
	seen := map[string]bool{}
	for i, c := range sections {
		path := fmt.Sprintf("conditional[%d]", i)
		if err := c.validate(func(below, why string) error { return bad(path+below, why) }); err != nil {
			return err
		}
		if seen[c.Suffix()] {
			return bad(path+".domain", fmt.Sprintf("%q is there twice", c.Domain))
		}
		seen[c.Suffix()] = true
	}
	return nil
}
