package lists

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"dnsfleet/internal/dns/rules"
	"dnsfleet/internal/fleet"
)

const (
	maxSize     = 256 << 20
	fetchLimit  = 10 * time.Minute // for all of one list
	stallLimit  = 30 * time.Second // without a byte
	sniffLength = 512
)

// Why a body is refused.
var (
	errHTML    = errors.New("is an HTML page, not a list")
	errEmpty   = errors.New("is empty")
	errNoRules = errors.New("holds no rule that is understood")
	errTooBig  = fmt.Errorf("is larger than %d MiB", maxSize>>20)
	errStalled = fmt.Errorf("sent nothing for %v", stallLimit)
)

// fetched is what a fetch brought; list is nil when the content is what it was. keepErr says why it could not be kept
// on disk: the list is used all the same.
type fetched struct {
	list    *rules.List
	meta    meta
	keepErr error
}

// fetch reads the source and, when it has changed and is good, stores it as the last good copy.
func (m *Manager) fetch(ctx context.Context, source fleet.PolicyList, kept meta, have bool) (fetched, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchLimit, fmt.Errorf("took longer than %v", fetchLimit))
	defer cancel()
	if isFile(source.URL) {
		return m.fetchFile(source, kept, have)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source.URL, nil)
	if err != nil {
		return fetched{}, err
	}
	req.Header.Set("User-Agent", "dnsfleet")
	if have {
		setIf(req.Header, "If-None-Match", kept.ETag)
		setIf(req.Header, "If-Modified-Since", kept.LastModified)
	}
	ctx, stall := context.WithCancelCause(ctx)
	defer stall(nil)
	watchdog := time.AfterFunc(stallLimit, func() { stall(errStalled) })
	defer watchdog.Stop()
	res, err := m.Client.Do(req.WithContext(ctx))
	if err != nil {
		return fetched{}, causeOf(ctx, err)
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotModified && have:
		kept.CheckedAt = m.Now().UTC()
		return fetched{meta: kept, keepErr: m.saveMeta(source, kept)}, nil
	case res.StatusCode != http.StatusOK:
		return fetched{}, fmt.Errorf("source answers %s", res.Status)
	}
	kept.ETag, kept.LastModified = res.Header.Get("ETag"), res.Header.Get("Last-Modified")
	got, err := m.take(source, &stallReader{res.Body, watchdog}, kept, have)
	if err != nil {
		return fetched{}, causeOf(ctx, err)
	}
	return got, nil
}

func (m *Manager) fetchFile(source fleet.PolicyList, kept meta, have bool) (fetched, error) {
	path, err := filePath(source.URL)
	if err != nil {
		return fetched{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return fetched{}, err
	}
	if !info.Mode().IsRegular() { // a pipe would block for ever
		return fetched{}, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return fetched{}, err
	}
	defer f.Close()
	return m.take(source, f, kept, have)
}

// take reads a body once: into a new copy on disk, through the compiler, and into a sum that tells whether it has
// changed at all.
func (m *Manager) take(source fleet.PolicyList, body io.Reader, kept meta, have bool) (fetched, error) {
	tmp := m.newCopy(source)
	defer tmp.discard()
	limited := &sizeReader{r: body, left: maxSize}
	in := bufio.NewReaderSize(limited, 64<<10)
	if start, _ := in.Peek(sniffLength); looksLikeHTML(start) {
		return fetched{}, errHTML
	}
	sum := sha256.New()
	list, err := rules.ReadList(source.Name, io.TeeReader(in, io.MultiWriter(sum, tmp)))
	if err != nil {
		return fetched{}, err
	}
	if err := usable(list, isFile(source.URL)); err != nil {
		return fetched{}, err
	}
	now := m.Now().UTC()
	kept.URL, kept.CheckedAt = source.URL, now
	digest := hex.EncodeToString(sum.Sum(nil))
	if have && digest == kept.SHA256 {
		return fetched{meta: kept, keepErr: m.saveMeta(source, kept)}, nil
	}
	kept.SHA256, kept.UpdatedAt = digest, now
	keepErr := tmp.commit()
	if keepErr == nil {
		keepErr = m.saveMeta(source, kept)
	}
	return fetched{list, kept, keepErr}, nil
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

func looksLikeHTML(start []byte) bool {
	start = bytes.ToLower(bytes.TrimSpace(bytes.TrimPrefix(start, []byte("\ufeff"))))
	return bytes.HasPrefix(start, []byte("<"))
}

func isFile(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "file"
}

// filePath is the path of a file:// URL.
func filePath(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	if u.Host != "" && u.Host != "localhost" || u.Path == "" {
		return "", fmt.Errorf("%w: %q must be file:/// and an absolute path", fleet.ErrInvalid, address)
	}
	return u.Path, nil
}

func setIf(h http.Header, key, value string) {
	if value != "" {
		h.Set(key, value)
	}
}

// causeOf prefers the reason why we ended a request to the bare "context canceled" that it caused.
func causeOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// stallReader puts the watchdog off with every read that brings something.
type stallReader struct {
	io.Reader
	watchdog *time.Timer
}

func (r *stallReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.watchdog.Reset(stallLimit)
	}
	return n, err
}

// sizeReader fails, other than io.LimitReader, when there is more.
type sizeReader struct {
	r    io.Reader
	left int64
}

func (r *sizeReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, errTooBig
	}
	return n, err
}

// Check says why a list of the policy can never be fetched, as fleet.ErrInvalid.
func Check(source fleet.PolicyList) error {
	u, err := url.Parse(source.URL)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %q is not a URL", fleet.ErrInvalid, source.URL)
	case u.Scheme == "file":
		_, err = filePath(source.URL)
		return err
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		return nil
	}
	return fmt.Errorf("%w: %q is not a file://, http:// or https:// URL", fleet.ErrInvalid, source.URL)
}
