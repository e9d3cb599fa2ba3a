package syncapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

func TestTheIntervalGrowsWithTheNumberOfSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, secret := fleet.NewToken("any", nil, true, storeTime)
		store := newShelf(t)
		s := syncapi.NewServer(syncapi.ServerOptions{Store: &memory{tokens: []fleet.Token{token}}, Events: store})
		handler := s.Handler()
		bodies := map[int][]byte{}
		// next is what the ith of many instances is told.
		next := func(i int) float64 {
			t.Helper()
			id := fmt.Sprintf("pi-%d", i)
			if bodies[i] == nil {
				bodies[i] = batchOf(t, store, id, 1, 1)
			}
			r := eventsRequest(bodies[i], secret)
			r.Header.Set(syncapi.InstanceHeader, id)
			w := httptest.NewRecorder()
			if handler.ServeHTTP(w, r); w.Code != http.StatusOK {
				t.Fatalf("answer is %d %s, want 200", w.Code, w.Body)
			}
			return decode[syncapi.EventsReply](t, response{status: w.Code, body: w.Body.String()}).NextEventsSeconds
		}
		for i := range 300 {
			want := min(max(0.1*float64(i+1), 0.5), 10)
			if got := next(i); got < want-0.001 || got > want+0.001 {
				t.Fatalf("with %d senders: got %v s, want %v", i+1, got, want)
			}
			if again := next(i); again < want-0.001 || again > want+0.001 {
				t.Fatalf("the same sender again: got %v s, want %v", again, want)
			}
		}
		if got := s.Stats().EventSenders; got != 100 {
			t.Errorf("remembers %d senders, want 100: more change nothing", got)
		}
		time.Sleep(time.Minute)
		if got := next(250); got != 10 {
			t.Errorf("after a minute: got %v s, want still 10", got)
		}
		time.Sleep(time.Second)
		if got := next(250); got != 0.5 {
			t.Errorf("after all others were silent for over a minute: got %v s, want 0.5", got)
		}
		if got := next(251); got != 0.5 || s.Stats().EventSenders != 2 {
			t.Errorf("with a second sender: got %v s and %d senders, want 0.5 and 2", got, s.Stats().EventSenders)
		}
		time.Sleep(40 * time.Second)
		next(250)
		time.Sleep(30 * time.Second)
		if next(252); s.Stats().EventSenders != 2 {
			t.Errorf("with two that sent within the minute, one of them before it, too: got %d senders, want 2", s.Stats().EventSenders)
		}
		time.Sleep(2 * time.Minute)
		if got := s.Stats().EventSenders; got != 0 {
			t.Errorf("after two silent minutes %d senders are left, want none", got)
		}
	})
}
