package web_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"dnsfleet/web"
)

var reference = regexp.MustCompile(`(?:src|href)="([^"]*)"`)

func TestEveryFileThatThePageNamesIsEmbedded(t *testing.T) {
	page, err := fs.ReadFile(web.Files(), "index.html")
	if err != nil {
		t.Fatal(err)
	}
	found := reference.FindAllStringSubmatch(string(page), -1)
	if len(found) < 3 {
		t.Fatalf("index.html names %d files, want at least a script, a style sheet and an icon", len(found))
	}
	for _, f := range found {
		if !strings.HasPrefix(f[1], "/assets/") {
			t.Errorf("index.html names %q, want a path below /assets/", f[1])
			continue
		}
		if _, err := fs.Stat(web.Files(), strings.TrimPrefix(f[1], "/")); err != nil {
			t.Errorf("index.html names %q: %v", f[1], err)
		}
	}
}

// Content-Security-Policy "default-src 'self'" lets no inline script or style run, so a page that has any is broken.
func TestThePageHasNothingInline(t *testing.T) {
	page, err := fs.ReadFile(web.Files(), "index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<style", "style=", "<script>", "javascript:", "data:", "http://", "https://"} {
		if strings.Contains(string(page), bad) {
			t.Errorf("index.html contains %q, want no inline code and nothing from elsewhere", bad)
		}
	}
}

func TestAssetsCarryAHashInTheirNames(t *testing.T) {
	hashed := regexp.MustCompile(`-[A-Za-z0-9_-]{8}\.[a-z0-9]+$`)
	files, err := fs.ReadDir(web.Files(), "assets")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !hashed.MatchString(f.Name()) {
			t.Errorf("asset %q has no hash in its name, want name-HASH.ext", f.Name())
		}
	}
}
