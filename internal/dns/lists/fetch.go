package lists

import (
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
	defaultMaxSize = 256 << 20
	fetchLimit     = 10 * time.Minute // for all of one list
	stallLimit     = 30 * time.Second // without a byte
	sniffLength    = 512
)

var errStalled = fmt.Errorf("sent nothing for %v", stallLimit)

// fetched is what a fetch brought; list is nil when the content is what it was. keepErr says why it could not be kept
// on disk: the list is used all the same. The meta of a list that is held back says so.
type fetched struct {
	list    *rules.List
	meta    meta
	keepErr error
}

// fetch reads the source and, when it has changed and is good, stores it as the last good copy. old is the copy in use,
// nil when there is none; kept is what is known of it.
func (m *Manager) fetch(ctx context.Context, source fleet.PolicyList, kept meta, old *rules.List) (fetched, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchLimit, fmt.Errorf("took longer than %v", fetchLimit))
	defer cancel()
	if isFile(source.URL) {
		return m.fetchFile(source, kept, old)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source.URL, nil)
	if err != nil {
		return fetched{}, err
	}
	req.Header.Set("User-Agent", "dnsfleet")
	if old != nil {
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
	case res.StatusCode == http.StatusNotModified && old != nil:
		return m.unchanged(source, kept), nil
	case res.StatusCode != http.StatusOK:
		return fetched{}, fmt.Errorf("source answers %s", res.Status)
	}
	next := kept
	next.ETag, next.LastModified = res.Header.Get("ETag"), res.Header.Get("Last-Modified")
	got, err := m.take(source, &stallReader{res.Body, watchdog}, kept, next, old)
	if err != nil {
		return fetched{}, causeOf(ctx, err)
	}
	return got, nil
}

// checkRedirect follows redirects to other web addresses, but not from https to http, where anybody on the way could
// write the list.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return errors.New("redirects more than ten times")
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return fmt.Errorf("redirects to a %s:// address", req.URL.Scheme)
	case req.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https":
		return errors.New("redirects from https to http")
	}
	return nil
}

func (m *Manager) fetchFile(source fleet.PolicyList, kept meta, old *rules.List) (fetched, error) {
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
	return m.take(source, f, kept, kept, old)
}

// take reads a body once: into a new copy on disk, through the compiler, and into a sum that tells whether it has
// changed at all. kept is what is known of the copy in use, next what will be known of this one.
func (m *Manager) take(source fleet.PolicyList, body io.Reader, kept, next meta, old *rules.List) (fetched, error) {
	tmp := m.newCopy(source)
	defer tmp.discard()
	in, err := unpack(body, m.MaxSize)
	if err != nil {
		return fetched{}, err
	}
	start, _ := in.Peek(sniffLength)
	if err := refuse(start); err != nil {
		return fetched{}, err
	}
	sum := sha256.New()
	list, err := rules.ReadList(source.Name, io.TeeReader(in, io.MultiWriter(sum, tmp)))
	if err != nil {
		return fetched{}, err
	}
	if err := usable(list, isFile(source.URL)); err != nil {
		return fetched{}, err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if old != nil && digest == kept.SHA256 {
		kept.URL, kept.ETag, kept.LastModified = source.URL, next.ETag, next.LastModified
		return m.unchanged(source, kept), nil
	}
	now := m.Now().UTC()
	if !isFile(source.URL) && shrunk(list, old) {
		if !kept.held() {
			kept.HeldSince = now
		}
		if now.Before(kept.HeldSince.Add(holdFor)) {
			kept.HeldEntries, kept.CheckedAt = list.Entries, now
			return fetched{meta: kept, keepErr: m.saveMeta(source, kept)}, nil
		}
	}
	next.URL, next.SHA256, next.UpdatedAt, next.CheckedAt = source.URL, digest, now, now
	next.HeldSince, next.HeldEntries = time.Time{}, 0
	keepErr := tmp.commit()
	if keepErr == nil {
		keepErr = m.saveMeta(source, next)
	}
	return fetched{list, next, keepErr}, nil
}

// unchanged is what a fetch brings that finds the source to be as the copy in use.
func (m *Manager) unchanged(source fleet.PolicyList, kept meta) fetched {
	kept.CheckedAt = m.Now().UTC()
	kept.HeldSince, kept.HeldEntries = time.Time{}, 0
	return fetched{meta: kept, keepErr: m.saveMeta(source, kept)}
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
	max  int64
	left int64
}

func newSizeReader(r io.Reader, size int64) *sizeReader { return &sizeReader{r, size, size} }

func (r *sizeReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, fmt.Errorf("is larger than %.4g MiB", float64(r.max)/(1<<20))
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
