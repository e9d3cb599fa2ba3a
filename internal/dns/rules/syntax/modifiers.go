package syntax

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// modify reads the modifiers behind "$". One that is not known makes the whole rule unreadable.
func (r *Rule) modify(text []byte) bool {
	var seen []string
	for part := range bytes.SplitSeq(text, []byte(",")) {
		key, value, valued := strings.Cut(string(bytes.TrimSpace(part)), "=")
		if slices.Contains(seen, key) {
			return false
		}
		seen = append(seen, key)
		ok := false
		switch key {
		case "important":
			r.Important, ok = true, !valued
		case "badfilter":
			r.BadFilter, ok = true, !valued
		case "dnstype":
			ok = r.types(value)
		case "denyallow":
			ok = r.denyAllow(value)
		case "dnsrewrite":
			r.IsRewrite = true
			if value != "" || !r.Exception {
				var rewrite Rewrite
				rewrite, ok = ParseRewrite(value)
				r.Rewrite = rewrite.String()
			} else {
				ok = true
			}
		}
		if !ok {
			return false
		}
	}
	return len(seen) > 0
}

// types reads "A|AAAA" or "~A|~AAAA". Beside types that are named, those that are excepted mean nothing.
func (r *Rule) types(value string) bool {
	for word := range strings.SplitSeq(value, "|") {
		name, not := strings.CutPrefix(word, "~")
		qtype, ok := queryType(name)
		if !ok {
			return false
		}
		if not {
			r.NotTypes = append(r.NotTypes, qtype)
		} else {
			r.Types = append(r.Types, qtype)
		}
	}
	if len(r.Types) > 0 {
		r.NotTypes = nil
	}
	slices.Sort(r.Types)
	slices.Sort(r.NotTypes)
	r.Types, r.NotTypes = slices.Compact(r.Types), slices.Compact(r.NotTypes)
	return true
}

func queryType(name string) (uint16, bool) {
	name = strings.ToUpper(name)
	if qtype, ok := dns.StringToType[name]; ok {
		return qtype, true
	}
	number, ok := strings.CutPrefix(name, "TYPE")
	qtype, err := strconv.ParseUint(number, 10, 16)
	return uint16(qtype), ok && err == nil
}

func (r *Rule) denyAllow(value string) bool {
	for word := range strings.SplitSeq(value, "|") {
		name, ok := Normalize([]byte(word))
		if !ok {
			return false
		}
		r.DenyAllow = append(r.DenyAllow, string(name))
	}
	slices.Sort(r.DenyAllow)
	r.DenyAllow = slices.Compact(r.DenyAllow)
	return true
}

// Rewrite is an answer that a rule gives in place of the real one.
type Rewrite struct {
	RCode int          // other than 0: an empty answer with this code
	CNAME string       // the name that is meant instead, in lower case, without final dot; "" for none
	Addrs []netip.Addr // the addresses, of both families; those not asked for make the answer empty
}

// ParseRewrite reads the value of $dnsrewrite: NOERROR, NXDOMAIN, REFUSED, SERVFAIL, an address, a name, or
// "NOERROR;A;192.0.2.1" with types A, AAAA and CNAME. NOERROR alone is an answer without records.
func ParseRewrite(value string) (rewrite Rewrite, ok bool) {
	rcode, rest, full := strings.Cut(value, ";")
	code, isCode := map[string]int{
		"NOERROR": dns.RcodeSuccess, "NXDOMAIN": dns.RcodeNameError, "REFUSED": dns.RcodeRefused, "SERVFAIL": dns.RcodeServerFailure,
	}[rcode]
	kind, text, _ := strings.Cut(rest, ";")
	switch {
	case isCode && kind == "" && text == "":
		return Rewrite{RCode: code}, true
	case full && (!isCode || code != dns.RcodeSuccess):
		return Rewrite{}, false
	case !full:
		text = value
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		fits := kind == "" || kind == "A" && addr.Is4() || kind == "AAAA" && addr.Is6()
		return Rewrite{Addrs: []netip.Addr{addr}}, fits && addr.Zone() == ""
	}
	if kind != "" && kind != "CNAME" {
		return Rewrite{}, false
	}
	name, ok := Normalize([]byte(text))
	if !ok || isNumeric(name) || strings.ToUpper(text) == text && !strings.Contains(text, ".") {
		return Rewrite{}, false // a keyword that is not known
	}
	return Rewrite{CNAME: string(name)}, true
}

// String is the rewrite as ParseRewrite reads it; of several addresses the first.
func (w Rewrite) String() string {
	switch {
	case w.CNAME != "":
		return "NOERROR;CNAME;" + w.CNAME
	case len(w.Addrs) > 0 && w.Addrs[0].Is4():
		return fmt.Sprintf("NOERROR;A;%s", w.Addrs[0])
	case len(w.Addrs) > 0:
		return fmt.Sprintf("NOERROR;AAAA;%s", w.Addrs[0])
	}
	return dns.RcodeToString[w.RCode]
}
