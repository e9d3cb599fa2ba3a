package rules

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
)

const (
	maxLine        = 16 << 10
	maxExpressions = 1000 // of one list: each costs every query
)

// List is one compiled block list. It is immutable.
type List struct {
	Name    string
	Entries int // distinct rules
	Ignored int // lines that hold no rule that is understood
	Lines   int // lines that are not empty, comments included

	block, blockBelow, allow, allowBelow []uint64 // sorted, distinct
	blockExprs                           []expression
}

// ReadList compiles a list: a hosts file, plain domains, *.domain, /expression/ and the simple adblock rules
// ||domain^ and @@||domain^, in any mix. A line that is none of these or longer than 16 KiB is counted as ignored. The
// only errors are those of r.
func ReadList(name string, r io.Reader) (*List, error) {
	l := &List{Name: name}
	in := bufio.NewReaderSize(r, maxLine)
	first := true
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			l.Ignored++
			l.Lines++
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		} else {
			if first {
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			l.addLine(line)
		}
		first = false
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read list %s: %w", name, err)
		}
	}
	l.finish()
	return l, nil
}

func (l *List) finish() {
	for _, hashes := range []*[]uint64{&l.block, &l.blockBelow, &l.allow, &l.allowBelow} {
		slices.Sort(*hashes)
		*hashes = slices.Clone(slices.Compact(*hashes)) // a clone gives back what appending over-allocated
		l.Entries += len(*hashes)
	}
	l.Entries += len(l.blockExprs)
}

// Blocking is how many rules of the list block; the rest are exceptions.
func (l *List) Blocking() int { return len(l.block) + len(l.blockBelow) + len(l.blockExprs) }

func (l *List) addLine(line []byte) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return
	}
	l.Lines++
	if isComment(line) {
		return
	}
	line = cutComment(line)
	word, rest := cutWord(line)
	switch {
	case len(rest) > 0:
		if addr, err := netip.ParseAddr(string(word)); err != nil || !sinkhole(addr) || !l.addHosts(rest) {
			l.Ignored++
		}
	case !l.addRule(word):
		l.Ignored++
	}
}

// addHosts takes the names of a hosts line. It reports whether it understood all of them.
func (l *List) addHosts(names []byte) bool {
	understood := true
	for len(names) > 0 {
		var word []byte
		word, names = cutWord(names)
		if isLocalName(string(word)) {
			continue
		}
		name, ok := normalize(word)
		if !ok || bytes.IndexByte(name, '.') < 0 || isAddress(name) {
			understood = false
			continue
		}
		l.block = append(l.block, hashBytes(name))
	}
	return understood
}

// addRule takes a line of one word. A bare word without a dot is no rule: it is more likely a stray text than meant to
// block a whole top-level domain, which ||domain^ and *.domain still can.
func (l *List) addRule(word []byte) bool {
	if isLocalName(string(word)) {
		return true
	}
	plain := word[0] != '|' && word[0] != '@' && word[0] != '*'
	p, ok := parsePattern(word)
	switch {
	case !ok:
		return false
	case p.expr != nil:
		if len(l.blockExprs) >= maxExpressions {
			return false
		}
		l.blockExprs = append(l.blockExprs, expression{expr: p.expr})
		return true
	case plain && bytes.IndexByte(p.name, '.') < 0, isAddress(p.name):
		return false
	}
	hashes := &l.block
	switch {
	case p.exception && p.belowOnly:
		hashes = &l.allowBelow
	case p.exception:
		hashes = &l.allow
	case p.belowOnly:
		hashes = &l.blockBelow
	}
	*hashes = append(*hashes, hashBytes(p.name))
	return true
}

func isComment(line []byte) bool {
	return line[0] == '#' || line[0] == '!' || line[0] == ';' || line[0] == '[' || bytes.HasPrefix(line, []byte("//"))
}

// cutComment drops a comment that follows white space.
func cutComment(line []byte) []byte {
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && (line[i-1] == ' ' || line[i-1] == '\t') {
			return bytes.TrimSpace(line[:i])
		}
	}
	return line
}

func cutWord(line []byte) (word, rest []byte) {
	i := bytes.IndexAny(line, " \t")
	if i < 0 {
		return line, nil
	}
	return line[:i], bytes.TrimLeft(line[i:], " \t")
}

// sinkhole reports whether a hosts line with this address is meant to block.
func sinkhole(addr netip.Addr) bool { return addr.IsUnspecified() || addr.IsLoopback() }

// isAddress reports whether the name is an IPv4 address, which no query has as its name.
func isAddress(name []byte) bool {
	last := name[bytes.LastIndexByte(name, '.')+1:]
	return len(bytes.Trim(last, "0123456789")) == 0
}

// isLocalName reports whether a hosts file names it for the machine's own sake.
func isLocalName(name string) bool {
	switch name {
	case "localhost", "localhost.localdomain", "localhost4", "localhost6", "local", "broadcasthost", "0.0.0.0",
		"ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts":
		return true
	}
	return false
}
