package lists

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

// meta is what is known of a copy, kept beside it.
type meta struct {
	URL          string    `json:"url"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	SHA256       string    `json:"sha256"`
	UpdatedAt    time.Time `json:"updated_at"`
	CheckedAt    time.Time `json:"checked_at"`

	// Of a newer list that is held back: since when, and how many rules it holds.
	HeldSince   time.Time `json:"held_since,omitzero"`
	HeldEntries int       `json:"held_entries,omitempty"`
}

// copyPath is where the copy of a source is. Its name comes from the URL, so that a list may be renamed.
func (m *Manager) copyPath(source fleet.PolicyList) string {
	sum := sha256.Sum256([]byte(source.URL))
	return filepath.Join(m.Dir, hex.EncodeToString(sum[:12])+".list")
}

func metaPath(copyPath string) string { return strings.TrimSuffix(copyPath, ".list") + ".json" }

// readCopy loads the last good copy; the list is nil when there is none.
func (m *Manager) readCopy(source fleet.PolicyList) (*rules.List, meta, error) {
	if m.Dir == "" {
		return nil, meta{}, nil
	}
	path := m.copyPath(source)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, meta{}, nil
	}
	if err != nil {
		return nil, meta{}, err
	}
	defer f.Close()
	sum := sha256.New()
	list, err := rules.ReadList(source.Name, io.TeeReader(f, sum))
	if err != nil {
		return nil, meta{}, err
	}
	if err := usable(list, isFile(source.URL)); err != nil {
		return nil, meta{}, fmt.Errorf("copy %s %w", path, err)
	}
	var kept meta
	text, err := os.ReadFile(metaPath(path))
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil || kept.URL != source.URL || kept.SHA256 != hex.EncodeToString(sum.Sum(nil)) { // the copy is good all the same; it will be fetched anew
		kept = meta{URL: source.URL}
	}
	return list, kept, nil
}

func (m *Manager) saveMeta(source fleet.PolicyList, kept meta) error {
	if m.Dir == "" {
		return nil
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	path := metaPath(m.copyPath(source))
	tmp, err := os.CreateTemp(m.Dir, "*.tmp")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), path)
}

// newFile is a copy that is being written. A fault of the disk shows at commit only, so that it costs the copy and not
// the list.
type newFile struct {
	path   string
	file   *os.File // nil = nothing is kept
	buffer *bufio.Writer
	err    error
}

func (m *Manager) newCopy(source fleet.PolicyList) *newFile {
	f := &newFile{}
	if m.Dir == "" {
		return f
	}
	f.path = m.copyPath(source)
	if f.err = os.MkdirAll(m.Dir, 0o750); f.err == nil {
		f.file, f.err = os.CreateTemp(m.Dir, "*.tmp")
	}
	if f.err == nil {
		f.buffer = bufio.NewWriterSize(f.file, 64<<10)
	}
	return f
}

func (f *newFile) Write(p []byte) (int, error) {
	if f.buffer != nil && f.err == nil {
		_, f.err = f.buffer.Write(p)
	}
	return len(p), nil
}

// commit puts the copy in the place of the one before it, whole or not at all.
func (f *newFile) commit() error {
	if f.err == nil && f.file == nil {
		return nil
	}
	err := f.err
	if err == nil {
		err = errors.Join(f.buffer.Flush(), f.file.Sync(), f.file.Close())
	}
	if err == nil {
		err = os.Rename(f.file.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("keep copy of list: %w", err)
	}
	f.file = nil
	return nil
}

// discard removes what was not committed.
func (f *newFile) discard() {
	if f.file != nil {
		_ = f.file.Close()
		_ = os.Remove(f.file.Name())
	}
}

// removeOrphans deletes copies of sources that are no longer in the policy, and what a crash left half written.
func (m *Manager) removeOrphans(sources []fleet.PolicyList) {
	if m.Dir == "" {
		return
	}
	wanted := map[string]bool{}
	for _, s := range sources {
		wanted[m.copyPath(s)] = true
		wanted[metaPath(m.copyPath(s))] = true
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Log.Warn("list directory not readable", "dir", m.Dir, "err", err)
	}
	for _, e := range entries {
		path := filepath.Join(m.Dir, e.Name())
		stale := false
		switch filepath.Ext(path) {
		case ".list", ".json":
			stale = !wanted[path]
		case ".tmp":
			info, err := e.Info()
			stale = err == nil && m.Now().Sub(info.ModTime()) > 2*fetchLimit // younger ones may be in the making
		}
		if !stale {
			continue
		}
		if err := os.Remove(path); err != nil {
			m.Log.Warn("old list copy not removed", "path", path, "err", err)
		}
	}
}
