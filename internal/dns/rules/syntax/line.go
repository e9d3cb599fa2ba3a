package syntax

import (
	"bytes"
	"net/netip"
	"slices"
)

func isComment(line []byte) bool {
	switch line[0] {
	case '#':
		return !isCosmetic(line)
	case '!', ';':
		return true
	case '[':
		return true // "[Adblock Plus 2.0]"
	}
	return bytes.HasPrefix(line, []byte("//"))
}

// isCosmetic reports whether a line is a rule for what a browser shows: "example.com##.banner" and its relatives.
func isCosmetic(line []byte) bool {
	if line[0] == '#' { // for all pages; most lines that begin so are comments
		if len(line) < 3 {
			return false
		}
		switch line[1] {
		case '#':
			return bytes.IndexByte([]byte(".[*:+"), line[2]) >= 0
		case '@', '?', '$', '%':
			return bytes.IndexByte(line[2:min(len(line), 5)], '#') >= 0
		}
		return false
	}
	first := bytes.IndexByte(line, '#')
	if first < 0 {
		return false
	}
	for i := first; i < len(line)-1; i++ {
		if line[i] != '#' || line[i-1] == ' ' || line[i-1] == '\t' || line[i-1] == '\\' {
			continue
		}
		for _, marker := range []string{"##", "#@#", "#?#", "#@?#", "#$#", "#@$#", "#$?#", "#%#", "#@%#"} {
			if bytes.HasPrefix(line[i:], []byte(marker)) {
				return true
			}
		}
	}
	return false
}

// cutComment drops a comment that follows white space.
func cutComment(line []byte) []byte {
	first := bytes.IndexByte(line, '#')
	if first < 0 {
		return line
	}
	for i := max(first, 1); i < len(line); i++ {
		if line[i] == '#' && (line[i-1] == ' ' || line[i-1] == '\t') {
			return bytes.TrimSpace(line[:i])
		}
	}
	return line
}

func cutWord(line []byte) (word, rest []byte) {
	for i, c := range line {
		if c == ' ' || c == '\t' {
			rest = line[i+1:]
			for len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t') {
				rest = rest[1:]
			}
			return line[:i], rest
		}
	}
	return line, nil
}

// isSinkhole reports whether a hosts line with this address is meant to block.
func isSinkhole(word []byte) bool {
	switch string(word) { // spares almost every line the parser below
	case "0.0.0.0", "127.0.0.1", "::", "::1":
		return true
	}
	addr, err := netip.ParseAddr(string(word))
	return err == nil && (addr.Unmap().IsUnspecified() || addr.Unmap().IsLoopback())
}

func isAnyAddress(word []byte) bool {
	_, err := netip.ParseAddr(string(word))
	return err == nil
}

// isNumeric reports whether the last label is a number, as in an IPv4 address, which no query has as its name.
func isNumeric(name []byte) bool {
	for _, c := range slices.Backward(name) {
		if c == '.' {
			return true
		}
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// isLocalName reports whether a hosts file names it for the machine's own sake.
func isLocalName(name string) bool {
	switch name {
	case "localhost", "localhost.localdomain", "localhost4", "localhost4.localdomain4", "localhost6",
		"localhost6.localdomain6", "local", "broadcasthost", "0.0.0.0", "ip6-localhost", "ip6-loopback", "ip6-localnet",
		"ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts":
		return true
	}
	return false
}
