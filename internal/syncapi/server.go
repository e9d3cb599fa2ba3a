package syncapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/time/rate"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/httpjson"
)

// Store is what the primary's end needs of the fleet's memory; store.Store says what each method promises.
type Store interface {
	Now(ctx context.Context) (time.Time, error)
	Authorize(ctx context.Context, secret, instanceID string) (fleet.Token, error)
	SaveReport(ctx context.Context, r fleet.Report, role fleet.Role, tokenID string) (fleet.Saved, error)
	Policy(ctx context.Context) (fleet.PolicyDoc, error)
}

// Defaults of ServerOptions, and the time-outs that bound one request.
const (
	defaultMaxPushes  = 64
	defaultMaxEvents  = 8
	defaultMaxWaiters = 8192
	storeTimeout      = 5 * time.Second
	eventsTimeout     = 8 * time.Second // more than a query log's own time-out, less than a sender's
	bodyTimeout       = 10 * time.Second
	pollInterval      = 5 * time.Second
)

// ServerOptions are what NewServer needs. Zero values of all but Store get a default.
type ServerOptions struct {
	Store Store
	// Events takes query events; nil says that there is no query log here, so that events are thrown away.
	Events EventStore
	// MaxEvents is how many batches of query events may be under way at once; more are told to come back. It bounds memory
	// to some 30 MiB each in the worst case. Pushes have room of their own.
	MaxEvents int
	// MaxPushes is how many pushes may run at once; more are told to come back. It bounds memory to some MiB each.
	MaxPushes int
	// MaxWaiters is how many requests may wait for news at once; more are told to come back.
	MaxWaiters int
	Log        *slog.Logger
}

// Server is the primary's end of the sync API. It is safe for concurrent use.
type Server struct {
	store  Store
	events EventStore // nil = no query log
	log    *slog.Logger
	zstd   *zstd.Decoder
	plain  sync.Pool // *[]byte of capacity MaxBody, for bodies that zstd unpacks

	pushes  chan struct{} // a slot for each push that runs
	batches chan struct{} // a slot for each batch of events that is under way
	senders *senders      // of events
	waiters chan struct{} // a slot for each request that waits
	policy  *policyFeed
	look    chan struct{} // asks Run to look at the policy
	stopped chan struct{} // closed when Run ends

	refusals rate.Sometimes // bounds what strangers can write into the log
	down     atomic.Bool    // the store was unavailable at the last push
	logDown  atomic.Bool    // the query log was unavailable at the last batch
	counts   serverCounts
}

type serverCounts struct {
	stored, duplicate, older, ended            atomic.Uint64
	refused, unauthorized, unavailable, shed   atomic.Uint64
	bodyBytes, slices, configSent, configFresh atomic.Uint64
	events                                     eventCounts
}

// ServerStats is what a Server has done since it was made, for metrics.
type ServerStats struct {
	Pushes       map[string]uint64 // by result: stored, duplicate, older, ended, refused, unavailable, shed
	Unauthorized uint64            // requests of any kind without a right to make them
	BodyBytes    uint64            // of accepted pushes, after decompression
	Slices       uint64            // of accepted pushes
	ConfigSent   uint64            // policies sent, and
	ConfigFresh  uint64            // policies that the caller had already (304)
	PushesNow    int               // pushes that run
	WaitersNow   int               // requests that wait for news

	Events       map[string]uint64 // batches of events by result: stored, discarded, refused, unavailable, shed
	EventBytes   uint64            // of stored batches, as they were sent
	EventsNow    int               // batches that are under way
	EventSenders int               // instances that sent events within the last minute, 100 at most
}

// NewServer is a server that answers once its Handler is mounted. Run gives it news of the policy.
func NewServer(o ServerOptions) *Server {
	if o.MaxPushes <= 0 {
		o.MaxPushes = defaultMaxPushes
	}
	if o.MaxEvents <= 0 {
		o.MaxEvents = defaultMaxEvents
	}
	if o.MaxWaiters <= 0 {
		o.MaxWaiters = defaultMaxWaiters
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		store: o.Store, events: o.Events, log: o.Log, zstd: newZstdDecoder(),
		plain:    sync.Pool{New: func() any { return new(make([]byte, 0, MaxBody)) }},
		pushes:   make(chan struct{}, o.MaxPushes),
		batches:  make(chan struct{}, o.MaxEvents),
		senders:  newSenders(),
		waiters:  make(chan struct{}, o.MaxWaiters),
		policy:   newPolicyFeed(),
		look:     make(chan struct{}, 1),
		stopped:  make(chan struct{}),
		refusals: rate.Sometimes{First: 10, Interval: time.Second},
	}
}

// Handler serves every path below /sync/.
func (s *Server) Handler() http.Handler {
	r := mux.NewRouter().SkipClean(true)
	route := func(path string, h http.HandlerFunc, methods ...string) {
		r.Handle(path, s.authenticated(h)).Methods(methods...)
		allow := strings.Join(methods, ", ")
		r.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allow)
			httpjson.Error(w, http.StatusMethodNotAllowed, "method not allowed, only "+allow)
		})
	}
	route(PathConfig, s.sendConfig, http.MethodGet, http.MethodHead)
	route(PathStats, s.receiveStats, http.MethodPost)
	route(PathEvents, s.receiveEvents, http.MethodPost)
	route(PathWait, s.waitForNews, http.MethodGet)
	route(PathHeartbeat, s.answerHeartbeat, http.MethodPost)
	route(PathStatus, s.sendStatus, http.MethodGet, http.MethodHead)
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Error(w, http.StatusNotFound, "no such path in the sync API")
	})
	return s.recovered(r)
}

// Stats tells what was done so far.
func (s *Server) Stats() ServerStats {
	c := &s.counts
	return ServerStats{
		Pushes: map[string]uint64{
			string(fleet.Stored): c.stored.Load(), string(fleet.Duplicate): c.duplicate.Load(), string(fleet.Older): c.older.Load(),
			string(fleet.EndedBoot): c.ended.Load(), "refused": c.refused.Load(), "unavailable": c.unavailable.Load(), "shed": c.shed.Load(),
		},
		Unauthorized: c.unauthorized.Load(), BodyBytes: c.bodyBytes.Load(), Slices: c.slices.Load(),
		ConfigSent: c.configSent.Load(), ConfigFresh: c.configFresh.Load(),
		PushesNow: len(s.pushes), WaitersNow: len(s.waiters),
		Events: c.events.byResult(), EventBytes: c.events.bytes.Load(), EventsNow: len(s.batches), EventSenders: s.senders.count(),
	}
}

func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				s.log.ErrorContext(ctx, "sync handler panicked", "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				httpjson.Error(w, http.StatusInternalServerError, "internal error")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// fail answers with the status that err stands for, and logs what only the operator can mend.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	who := callerFrom(r.Context())
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
	}
	switch status := httpjson.Status(err); status {
	case http.StatusServiceUnavailable:
		if s.down.CompareAndSwap(false, true) {
			s.log.WarnContext(r.Context(), "store is unavailable to the sync api", "err", err)
		}
		s.busy(w, fleet.ErrUnavailable.Error())
	case http.StatusInternalServerError:
		s.log.ErrorContext(r.Context(), "sync request failed", "path", r.URL.Path, "instance", who.instance, "err", who.redact(err.Error()))
		httpjson.Error(w, status, "internal error")
	default:
		s.refuse(w, r, status, httpjson.Sentence(err))
	}
}

// refuse answers with one sentence that is bounded and never holds the caller's secret.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, sentence string) {
	s.refuseWith(w, r, status, ErrorReply{Error: sentence})
}

func (s *Server) refuseWith(w http.ResponseWriter, r *http.Request, status int, reply ErrorReply) {
	ctx := r.Context()
	who := callerFrom(ctx)
	reply.Error = who.redact(reply.Error)
	s.refusals.Do(func() {
		s.log.WarnContext(ctx, "sync request refused", "path", r.URL.Path, "status", status, "reason", reply.Error,
			"instance", who.instance, "token", who.tokenID, "remote", r.RemoteAddr)
	})
	httpjson.Write(w, status, reply)
}

// busy asks the caller to come back, spread over some seconds so that a crowd does not return as one.
func (s *Server) busy(w http.ResponseWriter, sentence string) {
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(5))) //nolint:gosec // only spreads
	httpjson.Error(w, http.StatusServiceUnavailable, sentence)
}
