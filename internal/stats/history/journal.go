package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"dnsfleet/internal/fleet"
)

// record is one line of the journal: exactly one of its parts.
type record struct {
	Slice  json.RawMessage `json:"slice,omitempty"`
	SentAt time.Time       `json:"sent_at,omitzero"` // of Slice or Sent
	Sent   []ref           `json:"sent,omitempty"`
	Until  []told          `json:"until,omitempty"`
	Ended  string          `json:"ended,omitempty"` // a boot whose last slices were closed
}

// told is the standing of a series.
type told struct {
	fleet.SlicesUntil
	Proven bool `json:"proven"`
}

func (l *ledger) told(s series) told {
	st := l.standing(s)
	return told{fleet.SlicesUntil{BootID: s.boot, Size: s.size, Until: st.until}, st.proven}
}

// ref names a slice that an earlier line holds.
type ref struct {
	Boot  string     `json:"boot_id"`
	Size  fleet.Size `json:"size"`
	Start int64      `json:"start"`
}

// maxLine bounds a line; the largest slice that fleet allows is well below.
const maxLine = 4 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendLine adds a line: the checksum in eight hex digits, a space, the JSON of v.
func appendLine(b []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return b, err
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(text, castagnoli))
	return append(append(b, text...), '\n'), nil
}

// parseLine is the JSON of a line without its end, false if the line is damaged.
func parseLine(line []byte) ([]byte, bool) {
	sum, text, found := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	return text, found && err == nil && len(sum) == 8 && crc32.Checksum(text, castagnoli) == uint32(want)
}

// readLines calls each for the JSON of every sound line and counts the damaged ones. A last line without its end is a
// write that a crash cut short: it is skipped and not counted.
func readLines(r io.Reader, each func(text []byte) error) (damaged int, err error) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, whole, err := readLine(lines)
		switch {
		case errors.Is(err, io.EOF):
			return damaged, nil
		case err != nil:
			return damaged, err
		}
		text, sound := parseLine(line)
		if !whole || !sound || each(text) != nil {
			damaged++
		}
	}
}

// readLine is the next line without its end; io.EOF where none, or only a part, is left. whole is false for a line
// that is too long, of which only the beginning is kept.
func readLine(r *bufio.Reader) (line []byte, whole bool, err error) {
	whole = true
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) <= maxLine {
			line = append(line, part...)
		} else {
			whole = false
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return bytes.TrimSuffix(line, []byte("\n")), whole, err
	}
}

// load adds what the journal holds to l. The store is to be asked once more for all that was sent: it may have forgotten
// some while nobody looked.
func load(r io.Reader, l *ledger) (damaged int, err error) {
	defer func() {
		for k := range l.entries {
			l.standing(k.series).confirm = true
		}
	}()
	return readLines(r, func(text []byte) error {
		var rec record
		if err := json.Unmarshal(text, &rec); err != nil {
			return err
		}
		if rec.Slice != nil {
			s, err := decode(rec.Slice)
			if err != nil {
				return err
			}
			l.put(keyOf(s), rec.Slice, rec.SentAt)
			l.trim()
		}
		for _, s := range rec.Sent {
			if e, ok := l.entries[key{series{s.Boot, s.Size}, s.Start}]; ok {
				e.sentAt = rec.SentAt
			}
		}
		for _, u := range rec.Until {
			st := l.standing(series{u.BootID, u.Size})
			st.until, st.proven = u.Until, u.Proven
		}
		if rec.Ended != "" {
			l.ended[rec.Ended] = true
		}
		return nil
	})
}

func decode(text []byte) (fleet.Slice, error) {
	var s fleet.Slice
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	return s, s.Validate()
}

// dump is the journal that load turns into l again.
func dump(l *ledger) ([]byte, error) {
	var b []byte
	var err error
	var until []told
	for s := range l.standings {
		until = append(until, l.told(s))
	}
	if until != nil {
		if b, err = appendLine(b, record{Until: until}); err != nil {
			return nil, err
		}
	}
	for boot := range l.ended {
		if b, err = appendLine(b, record{Ended: boot}); err != nil {
			return nil, err
		}
	}
	for _, e := range l.entries {
		if b, err = appendLine(b, record{Slice: e.encoded, SentAt: e.sentAt}); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// replaceFile makes text the content of the file, whole or not at all. With durable it also outlives a power cut.
func replaceFile(path string, text []byte, durable bool) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if durable && err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	if durable {
		return syncDir(filepath.Dir(path))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
