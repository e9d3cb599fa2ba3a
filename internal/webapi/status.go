package webapi

import (
	"net/http"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// status is GET /api/status: the fleet as one flat object, for widgets that read nothing else.
func (a *API) status(w http.ResponseWriter, r *http.Request) {
	v, err := a.View.Stats(fleet.ViewQuery{Limit: 1})
	if err != nil {
		a.fail(w, r, err)
		return
	}
	answer := struct {
		Status             string   `json:"status"` // ok, degraded (something is missing) or down (nobody answers DNS)
		Queries            uint64   `json:"queries"`
		Blocked            uint64   `json:"blocked"`
		BlockedPercent     *float64 `json:"blocked_percent"`
		CachedPercent      *float64 `json:"cached_percent"`
		ErrorPercent       *float64 `json:"error_percent"`
		QueriesPerSecond   *float64 `json:"queries_per_second"`
		P95                *float64 `json:"p95_ms"`
		InstancesReporting int      `json:"instances_reporting"`
		InstancesTotal     int      `json:"instances_total"`
		PolicyRevision     *int64   `json:"policy_revision"`
		Release            string   `json:"release"`
	}{
		Status: fleetStatus(v), Queries: v.Totals.ResponseDistribution.Total(), Blocked: v.Totals.ResponseDistribution.Outcomes[fleet.Blocked],
		BlockedPercent: v.Totals.BlockedPercent, CachedPercent: v.Totals.CachedPercent, ErrorPercent: v.Totals.ErrorPercent,
		InstancesReporting: v.Coverage.Reporting, InstancesTotal: v.Coverage.Total, Release: a.Release,
	}
	if recent := v.Totals.Recent; recent != nil {
		answer.QueriesPerSecond, answer.P95 = recent.QueriesPerSecond, recent.P95
	}
	if v.Primary != nil {
		answer.PolicyRevision = v.Primary.PolicyRevision
	}
	httpjson.Write(w, http.StatusOK, answer)
}

// fleetStatus is the fleet in one word. The query log is no part of it: DNS is fine without.
func fleetStatus(v fleet.View) string {
	broken := v.Coverage.Reporting < v.Coverage.Total
	for _, e := range v.Errors {
		broken = broken || e.Part != "queries"
	}
	switch {
	case v.Coverage.Reporting == 0:
		return "down"
	case broken:
		return "degraded"
	}
	return "ok"
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write([]byte("ok\n"))
}

// readyz says whether this primary can do its work, and every reason why not.
func (a *API) readyz(w http.ResponseWriter, _ *http.Request) {
	reasons := reasons(a.Ready())
	status := http.StatusOK
	if len(reasons) > 0 {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "5")
	}
	httpjson.Write(w, status, struct {
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons"`
	}{len(reasons) == 0, reasons})
}

// reasons are the texts of an error and of those that were joined in it.
func reasons(err error) []string {
	if err == nil {
		return []string{}
	}
	joined, is := err.(interface{ Unwrap() []error }) // only joins are taken apart, not what wraps one
	if !is {
		return []string{err.Error()}
	}
	var out []string
	for _, e := range joined.Unwrap() {
		out = append(out, reasons(e)...)
	}
	return out
}
