// Package transfer is what HTTP does to an answer on its way: compression, and entity tags that spare it.
package transfer

import (
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// Gzip compresses answers. Its zero value is ready and safe for concurrent use.
type Gzip struct {
	writers sync.Pool // of *gzip.Writer
}

// Handler gzips the answers of next for clients that take it, where it is worth it.
func (g *Gzip) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		if !AcceptsGzip(r) || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		z := &zipWriter{ResponseWriter: w, pool: &g.writers}
		next.ServeHTTP(z, r)
		z.close() // not after a panic: an answer that was aborted must not end as if it were whole
	})
}

// AcceptsGzip reads Accept-Encoding, where "gzip;q=0" means no.
func AcceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if coding = strings.TrimSpace(coding); !strings.EqualFold(coding, "gzip") && coding != "*" {
			continue
		}
		q, given := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if weight, err := strconv.ParseFloat(q, 64); given && (err != nil || weight <= 0) {
			continue
		}
		return true
	}
	return false
}

// zipMin is the size of a first write below which compressing costs more than it saves.
const zipMin = 1024

// zipWriter decides at the first write whether to compress.
type zipWriter struct {
	http.ResponseWriter

	pool   *sync.Pool
	status int
	begun  bool
	zip    *gzip.Writer // nil = not compressed
}

// WriteHeader waits for the first write, which tells whether Content-Encoding changes.
func (z *zipWriter) WriteHeader(status int) {
	if z.status == 0 {
		z.status = status
	}
}

// Write compresses, or passes on, what the first write decided.
func (z *zipWriter) Write(p []byte) (int, error) {
	if !z.begun {
		z.begin(len(p) >= zipMin)
	}
	if z.zip != nil {
		return z.zip.Write(p)
	}
	return z.ResponseWriter.Write(p)
}

func (z *zipWriter) begin(zip bool) {
	z.begun = true
	if zip {
		z.Header().Set("Content-Encoding", "gzip")
		z.Header().Del("Content-Length")
		pooled, _ := z.pool.Get().(*gzip.Writer)
		if pooled == nil {
			pooled, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // only an unknown level is an error
		}
		pooled.Reset(z.ResponseWriter)
		z.zip = pooled
	}
	if z.status != 0 {
		z.ResponseWriter.WriteHeader(z.status)
	}
}

// FlushError sends what was written until now.
func (z *zipWriter) FlushError() error {
	if !z.begun {
		z.begin(false)
	}
	if z.zip != nil {
		if err := z.zip.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(z.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (z *zipWriter) Unwrap() http.ResponseWriter { return z.ResponseWriter }

func (z *zipWriter) close() {
	if !z.begun {
		z.begin(false)
	}
	if z.zip != nil {
		z.zip.Close() //nolint:errcheck // the client is gone: nobody is left to tell
		z.pool.Put(z.zip)
		z.zip = nil
	}
}
