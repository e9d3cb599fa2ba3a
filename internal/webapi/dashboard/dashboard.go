// Package dashboard serves the files of a web page from memory, as browsers like them: compressed, with entity tags, and
// for ever where the name holds a hash of the content.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"

	"dnsfleet/internal/webapi/transfer"
)

// Files are the files of a page by their path, "/index.html" for one. They never change.
type Files map[string]File

// File is one of them. Its zero value is none.
type File struct {
	body, zipped []byte // zipped is nil where that would save nothing
	kind, etag   string
	forever      bool // its name holds a hash of its content
}

// Read reads and compresses all files of a file system; nil has none. Those under assets/ have names with a hash.
func Read(files fs.FS) (Files, error) {
	found := Files{}
	if files == nil {
		return found, nil
	}
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		found["/"+name] = newFile(name, body)
		return nil
	})
	return found, err
}

func newFile(name string, body []byte) File {
	sum := sha256.Sum256(body)
	f := File{
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

// ServeHTTP sends the file.
func (f File) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache")
	if f.forever {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if f.zipped != nil {
		h.Add("Vary", "Accept-Encoding")
	}
	if transfer.MatchesETag(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	body := f.body
	if f.zipped != nil && transfer.AcceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped
	}
	w.Write(body)
}
