package webapi_test

import (
	"net/http"
	"strings"
	"testing"

	"dnsfleet/internal/fleet"
)

type issued struct{ ID, Name, Secret string }

func TestATokenLivesAndEnds(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	list := func() string { return s.get("/api/sync/tokens").want(t, http.StatusOK).body }
	if got := strings.TrimSpace(list()); got != `{"tokens":[]}` {
		t.Errorf("got %s, want an empty list", got)
	}
	made := into[issued](t, s.do(ask{method: http.MethodPost, path: "/api/sync/tokens", body: `{"name":"cabin"}`}).want(t, http.StatusCreated))
	if made.Name != "cabin" || fleet.TokenID(made.Secret) != made.ID {
		t.Errorf("got %+v", made)
	}
	if v := into[fleet.View](t, s.get("/api/instances/stats")); len(v.Replicas) != 1 || v.Replicas[0].Status != fleet.StatusNever {
		t.Errorf("got %+v right after, want a row that was never seen", v.Replicas)
	}
	if _, err := s.store.Authorize(t.Context(), made.Secret, "cabin"); err != nil {
		t.Fatalf("authorize: %v", err)
	}
	rotated := into[issued](t, s.do(ask{method: http.MethodPost, path: "/api/sync/tokens/" + made.ID + "/rotate"}).want(t, http.StatusOK))
	if rotated.ID != made.ID || rotated.Secret == made.Secret || rotated.Name != "cabin" {
		t.Errorf("got %+v, want another secret", rotated)
	}
	if _, err := s.store.Authorize(t.Context(), made.Secret, "cabin"); err == nil {
		t.Error("the old secret still works")
	}
	text := list()
	for _, secret := range []string{made.Secret, rotated.Secret, "hash", "secret"} {
		if strings.Contains(text, secret) {
			t.Errorf("the list tells %q", secret)
		}
	}
	if !strings.Contains(text, `"instances":["cabin"]`) || !strings.Contains(text, `"rotated_at":"`) {
		t.Errorf("got %s, want its binding and rotation", text)
	}
	for range 2 {
		s.do(ask{method: http.MethodDelete, path: "/api/sync/tokens/" + made.ID}).want(t, http.StatusNoContent)
	}
	if _, err := s.store.Authorize(t.Context(), rotated.Secret, "cabin"); err == nil {
		t.Error("the revoked token still works")
	}
	if !strings.Contains(list(), `"revoked":true`) {
		t.Error("the list does not tell that it is revoked")
	}
	s.do(ask{method: http.MethodPost, path: "/api/sync/tokens/" + made.ID + "/rotate"}).want(t, http.StatusConflict).sentence(t)
}

func TestTokensThatMakeNoSenseAreRefused(t *testing.T) {
	s := newSite(t, openStore(t), nil)
	for name, c := range map[string]struct{ body, says string }{
		"no name":               {`{}`, "name"},
		"a blank name":          {`{"name":"  "}`, "name"},
		"a name that is long":   {`{"name":"` + strings.Repeat("x", 129) + `"}`, "name"},
		"a name with bidi":      {`{"name":"a\u202eb"}`, "name"},
		"bound and open to any": {`{"name":"a","any":true,"instances":["x"]}`, "both"},
		"an id that is none":    {`{"name":"a","instances":["x","a b"]}`, "instances[1]"},
		"an id twice":           {`{"name":"a","instances":["x","x"]}`, "twice"},
		"an unknown field":      {`{"name":"a","admin":true}`, "admin"},
		"a wrong type":          {`{"name":7}`, "name"},
		"two values":            {`{"name":"a"}{"name":"b"}`, "more than one"},
		"no JSON":               {`name=a`, "JSON"},
		"not UTF-8":             {"{\"name\":\"\xff\"}", "UTF-8"},
		"many instances":        {`{"name":"a","instances":["x` + strings.Repeat(`","x`, 70) + `"]}`, "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.do(ask{method: http.MethodPost, path: "/api/sync/tokens", body: c.body, bad: true}).want(t, http.StatusBadRequest).sentence(t)
			if !strings.Contains(got, c.says) {
				t.Errorf("got %q, want it to say %q", got, c.says)
			}
		})
	}
	s.do(ask{method: http.MethodPost, path: "/api/sync/tokens", body: `{"name":"` + strings.Repeat("x", 1<<17) + `"}`, bad: true}).want(t, http.StatusRequestEntityTooLarge).sentence(t)
	s.do(ask{method: http.MethodPost, path: "/api/sync/tokens/nobody/rotate"}).want(t, http.StatusNotFound).sentence(t)
	s.do(ask{method: http.MethodDelete, path: "/api/sync/tokens/nobody"}).want(t, http.StatusNotFound).sentence(t)
	if got := into[struct{ Tokens []any }](t, s.get("/api/sync/tokens")); len(got.Tokens) != 0 {
		t.Errorf("got %d tokens, want none", len(got.Tokens))
	}
}
