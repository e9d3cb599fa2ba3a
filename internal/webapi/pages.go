package webapi

import (
	"net/http"
	"net/url"
	"path"
	"strings"

	"dnsfleet/internal/httpjson"
)

// pages serves the dashboard's files, and index.html for every page that the dashboard has an address for. Pages need a
// session; the files they are made of hold nothing secret.
func (a *API) pages(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path
	if f, found := a.files[name]; found && name != "/index.html" {
		f.ServeHTTP(w, r)
		return
	}
	if page := name == "/" || name == "/index.html" || (path.Ext(name) == "" && wantsHTML(r)); !page {
		httpjson.Error(w, http.StatusNotFound, "there is no such page")
		return
	}
	switch ok, err := a.gate.SignedIn(r); {
	case err != nil:
		a.fail(w, r, err)
		return
	case !ok:
		http.Redirect(w, r, "/login?"+url.Values{"next": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
		return
	}
	f, found := a.files["/index.html"]
	if !found {
		httpjson.Error(w, http.StatusNotFound, "this build has no dashboard; the figures are at /api/instances/stats")
		return
	}
	f.ServeHTTP(w, r)
}

func wantsHTML(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }
