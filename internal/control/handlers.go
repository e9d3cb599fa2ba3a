package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

const (
	maxPause      = 24 * time.Hour
	reloadTimeout = 2 * time.Minute
	maxBody       = 4 << 10
)

// done is the answer to an action; what is nil is left out.
type done struct {
	OK      bool       `json:"ok"`
	Paused  *bool      `json:"paused,omitempty"`
	Until   *time.Time `json:"until,omitempty"` // when a pause ends by itself
	Cleared *int       `json:"cleared,omitempty"`
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	if err := s.Engine.Ready(); err != nil {
		httpjson.Write(w, http.StatusServiceUnavailable, struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		}{false, err.Error()})
		return
	}
	httpjson.Write(w, http.StatusOK, done{OK: true})
}

func (s *server) blocklist(w http.ResponseWriter, _ *http.Request) {
	b := s.Engine.Blocklist()
	if b.Lists == nil {
		b.Lists = []fleet.ListStats{}
	}
	httpjson.Write(w, http.StatusOK, b)
}

func (s *server) cache(w http.ResponseWriter, _ *http.Request) {
	httpjson.Write(w, http.StatusOK, s.Engine.Cache())
}

func (s *server) refresh(w http.ResponseWriter, _ *http.Request) {
	httpjson.Write(w, http.StatusOK, s.Engine.Refresh())
}

func (s *server) queryStore(w http.ResponseWriter, _ *http.Request) {
	httpjson.Write(w, http.StatusOK, s.QueryStore())
}

func (s *server) upstreams(w http.ResponseWriter, r *http.Request) {
	list, err := json.Marshal(s.Engine.Upstreams())
	if err != nil {
		s.Log.ErrorContext(r.Context(), "upstreams cannot be encoded", "err", err)
		httpjson.Error(w, http.StatusInternalServerError, "internal error")
		return
	}
	if bytes.Equal(list, []byte("null")) {
		list = []byte("[]")
	}
	httpjson.Write(w, http.StatusOK, map[string]json.RawMessage{"upstreams": list})
}

func (s *server) check(w http.ResponseWriter, r *http.Request) {
	name, err := domainName(r.URL.Query()["domain"])
	if err != nil {
		httpjson.Fail(w, err)
		return
	}
	httpjson.Write(w, http.StatusOK, struct {
		Domain string `json:"domain"`
		Decision
	}{name, s.Engine.Check(name)})
}

// domainName is the one name asked for, in lower case and without the final dot.
func domainName(asked []string) (string, error) {
	if len(asked) != 1 {
		return "", fmt.Errorf("%w: domain must be given once", fleet.ErrInvalid)
	}
	name := strings.ToLower(strings.TrimSuffix(asked[0], "."))
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("%w: domain must have 1 to 253 characters", fleet.ErrInvalid)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("%w: each label of domain must have 1 to 63 characters", fleet.ErrInvalid)
		}
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || c == '\\' || c == '/' }) {
		return "", fmt.Errorf("%w: domain must be written in ASCII (an international name as xn--…), without spaces or slashes", fleet.ErrInvalid)
	}
	return name, nil
}

func (s *server) reload(w http.ResponseWriter, r *http.Request) {
	if !s.reloading.TryLock() {
		httpjson.Error(w, http.StatusConflict, "lists are being reloaded already")
		return
	}
	defer s.reloading.Unlock()
	// Lists may take longer than the listener allows an answer; where it sets no limit there is none to lift.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(reloadTimeout + 10*time.Second))
	ctx, cancel := context.WithTimeout(r.Context(), reloadTimeout)
	defer cancel()
	if err := s.Engine.Reload(ctx); err != nil {
		httpjson.Error(w, http.StatusBadGateway, err.Error())
		return
	}
	httpjson.Write(w, http.StatusOK, done{OK: true})
}

func (s *server) pause(w http.ResponseWriter, r *http.Request) {
	d, err := pauseLength(w, r)
	if err != nil {
		status := httpjson.Status(err)
		httpjson.Error(w, status, httpjson.Sentence(err))
		return
	}
	s.Engine.Pause(d)
	s.Log.InfoContext(r.Context(), "blocking paused", "duration", d)
	paused := done{OK: true, Paused: new(true)}
	if d > 0 {
		paused.Until = new(time.Now().Add(d).UTC())
	}
	httpjson.Write(w, http.StatusOK, paused)
}

// pauseLength is how long to pause, from the body or the query; 0 where neither says so.
func pauseLength(w http.ResponseWriter, r *http.Request) (time.Duration, error) {
	var said []time.Duration
	if text := r.URL.Query().Get("duration"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("%w: duration must be like 30s, 5m or 1h", fleet.ErrInvalid)
		}
		said = append(said, d)
	}
	if r.ContentLength != 0 {
		var body struct {
			Seconds *float64 `json:"seconds"`
			Minutes *float64 `json:"duration_minutes"`
		}
		if err := httpjson.Read(w, r, maxBody, &body); err != nil {
			return 0, err
		}
		for unit, n := range map[time.Duration]*float64{time.Second: body.Seconds, time.Minute: body.Minutes} {
			if n != nil {
				said = append(said, time.Duration(min(max(*n, -1), 1e6)*float64(unit)))
			}
		}
	}
	switch {
	case len(said) == 0:
		return 0, nil
	case len(said) > 1:
		return 0, fmt.Errorf("%w: the length of a pause must be given once", fleet.ErrInvalid)
	case said[0] < time.Second || said[0] > maxPause:
		return 0, fmt.Errorf("%w: a pause lasts from one second to 24 hours", fleet.ErrInvalid)
	}
	return said[0], nil
}

func (s *server) resume(w http.ResponseWriter, r *http.Request) {
	s.Engine.Resume()
	s.Log.InfoContext(r.Context(), "blocking resumed")
	httpjson.Write(w, http.StatusOK, done{OK: true, Paused: new(false)})
}

func (s *server) clearCache(w http.ResponseWriter, r *http.Request) {
	n := s.Engine.ClearCache()
	s.Log.InfoContext(r.Context(), "cache cleared", "entries", n)
	httpjson.Write(w, http.StatusOK, done{OK: true, Cleared: &n})
}
