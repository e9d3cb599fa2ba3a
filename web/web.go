// Package web holds the dashboard that every primary serves. Its source is the TypeScript beside this file; what is
// embedded is the built form under dist, which is committed so that building dnsfleet needs no Node.
package web

import (
	"embed"
	"io/fs"
)

//go:embed dist
var dist embed.FS

// Files is the built dashboard: index.html at its root, and under assets/ files whose names hold a hash of their
// content, so that a client may keep those for ever. The page works under the Content-Security-Policy
// "default-src 'self'". The result is read-only and safe for concurrent use.
func Files() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // cannot be: "dist" is a valid path
	}
	return files
}
