package webapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"

	"dnsfleet/internal/httpjson"
)

// static is the dashboard, read and compressed once: it is small.
type static struct{ files map[string]staticFile }

type staticFile struct {
	body, zipped []byte // zipped is nil where that would save nothing
	kind, etag   string
	forever      bool // its name holds a hash of its content
}

// readStatic reads all of files, which may be nil.
func readStatic(files fs.FS) (*static, error) {
	s := &static{files: map[string]staticFile{}}
	if files == nil {
		return s, nil
	}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		s.files["/"+name] = newStaticFile(name, body)
		return nil
	})
	return s, err
}

func newStaticFile(name string, body []byte) staticFile {
	sum := sha256.Sum256(body)
	f := staticFile{
		body: body, kind: contentType(name, body), etag: `"` + hex.EncodeToString(sum[:8]) + `"`,
		forever: strings.HasPrefix(name, "assets/"),
	}
	var zipped bytes.Buffer
	zip, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		return f
	}
	if _, err := zip.Write(body); err != nil || zip.Close() != nil {
		return f
	}
	if zipped.Len() < len(body)*9/10 {
		f.zipped = zipped.Bytes()
	}
	return f
}

// contentType does not depend on what the machine's own tables say about the kinds that a dashboard is made of.
func contentType(name string, body []byte) string {
	ext := path.Ext(name)
	known := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
		".svg": "image/svg+xml", ".json": "application/json", ".map": "application/json", ".png": "image/png",
		".ico": "image/x-icon", ".woff2": "font/woff2", ".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8",
	}[ext]
	if known != "" {
		return known
	}
	if kind := mime.TypeByExtension(ext); kind != "" {
		return kind
	}
	return http.DetectContentType(body)
}

// dashboard serves the files, and index.html for every page that the dashboard has an address for. Pages need a
// session; the files they are made of hold nothing secret.
func (a *API) dashboard(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path
	if f, found := a.static.files[name]; found && name != "/index.html" {
		f.serve(w, r)
		return
	}
	if page := name == "/" || name == "/index.html" || (path.Ext(name) == "" && wantsHTML(r)); !page {
		httpjson.Error(w, http.StatusNotFound, "there is no such page")
		return
	}
	if !a.Open {
		switch ok, err := a.gate.SignedIn(r); {
		case err != nil:
			a.fail(w, r, err)
			return
		case !ok:
			http.Redirect(w, r, "/login?"+url.Values{"next": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
			return
		}
	}
	f, found := a.static.files["/index.html"]
	if !found {
		httpjson.Error(w, http.StatusNotFound, "this build has no dashboard; the figures are at /api/instances/stats")
		return
	}
	f.serve(w, r)
}

func wantsHTML(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

func (f staticFile) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache")
	if f.forever {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if f.zipped != nil {
		h.Add("Vary", "Accept-Encoding")
	}
	if matchesETag(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	body := f.body
	if f.zipped != nil && acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped
	}
	w.Write(body)
}
