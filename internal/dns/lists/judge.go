package lists

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"

	"dnsfleet/internal/dns/rules"
)

// holdFor is how long a list that has shrunk by more than half is held back. What is still so small then is meant.
const holdFor = 24 * time.Hour

// Why a body is no list.
var (
	errHTML    = errors.New("is an HTML page, not a list")
	errJSON    = errors.New("is JSON, not a list")
	errEmpty   = errors.New("is empty")
	errNoRules = errors.New("holds no rule that is understood")
)

// unpack reads what gzip has packed, whatever it is called, and bounds it.
func unpack(body io.Reader, size int64) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(newSizeReader(body, size), 64<<10)
	if magic, _ := in.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return in, nil
	}
	unpacked, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return bufio.NewReaderSize(newSizeReader(unpacked, size), 64<<10), nil
}

// refuse says what a body is that is a page or an error of the server in place of a list.
func refuse(start []byte) error {
	start = bytes.TrimSpace(bytes.TrimPrefix(start, []byte("\ufeff")))
	if len(start) == 0 {
		return nil
	}
	switch start[0] {
	case '<':
		return errHTML
	case '{':
		return errJSON
	case '[': // lists of ad blockers begin with "[Adblock Plus 2.0]"
		if rest := bytes.TrimSpace(start[1:]); len(rest) > 0 && bytes.IndexByte([]byte(`{["]`), rest[0]) >= 0 {
			return errJSON
		}
	}
	return nil
}

// usable says why a compiled list must not replace the one before it. A local file of comments alone is taken: its
// owner has emptied it on purpose, while a file without a line may be caught while it is written.
func usable(l *rules.List, local bool) error {
	switch {
	case l.Lines == 0:
		return errEmpty
	case l.Entries > 0, local && l.Ignored == 0:
		return nil
	}
	return errNoRules
}

// shrunk reports whether a list has lost more than half of its rules.
func shrunk(list, old *rules.List) bool { return old != nil && list.Entries < old.Entries-list.Entries }

func (m meta) held() bool { return !m.HeldSince.IsZero() }

// heldError says why a newer list is not in use.
func heldError(inUse *rules.List, m meta) error {
	return fmt.Errorf("holds %d rules where the copy in use holds %d: held back, and taken if it is still so small after %s",
		m.HeldEntries, inUse.Entries, m.HeldSince.Add(holdFor).Format(time.RFC3339))
}
