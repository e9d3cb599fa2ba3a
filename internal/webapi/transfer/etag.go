package transfer

import "strings"

// MatchesETag reports whether a list of entity tags, as If-None-Match and If-Match hold it, names this one. The
// comparison is the weak one of RFC 9110, section 8.8.3.2.
func MatchesETag(list, etag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		one = strings.TrimSpace(one)
		if one == "*" || strings.TrimPrefix(one, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
