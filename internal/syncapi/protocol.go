// Package syncapi is how instances of one fleet talk: the protocol, and the primary's end of it (Server). The replica's
// end is package replica.
//
// Every request is one JSON exchange under /sync/, authenticated by a token and the id of the instance it speaks for.
// Unknown fields are ignored in both directions, because releases of different age work together.
package syncapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"dnsfleet/internal/fleet"
)

// Headers that carry the identity of a request. The token may also come as "Authorization: Bearer".
const (
	InstanceHeader = "X-Dnsfleet-Instance"
	TokenHeader    = "X-Sync-Token"
)

// Limits of the protocol, in bytes and time.
const (
	// MaxBody bounds the body of a push, before and after decompression.
	MaxBody = 1 << 20
	// MaxSliceBytes is how much of a body slices may take, so that there is always room for the report itself.
	MaxSliceBytes = 512 << 10
	// MaxEventsBody bounds the body of a batch of query events, which is compressed in itself.
	MaxEventsBody = MaxBody
	// MaxToken bounds the secret of a token; ours have 56 bytes.
	MaxToken = 256
	// DefaultWait is how long /sync/wait waits when the request does not say; MinWait and MaxWait bound what it may say.
	DefaultWait = 30 * time.Second
	MinWait     = time.Second
	MaxWait     = time.Minute
)

// Paths of the API.
const (
	PathConfig    = "/sync/config"
	PathStats     = "/sync/stats"
	PathEvents    = "/sync/events"
	PathWait      = "/sync/wait"
	PathHeartbeat = "/sync/heartbeat"
	PathStatus    = "/sync/status"
)

// PushReply is the answer to POST /sync/stats.
type PushReply struct {
	OK bool `json:"ok"`
	// Result tells whether the counters were taken; "ended" means that a later boot of this instance has reported.
	Result          fleet.SaveResult    `json:"result"`
	ServerTime      time.Time           `json:"server_time"` // the store's clock
	NextPushSeconds float64             `json:"next_push_seconds"`
	SlicesStored    []fleet.SlicesUntil `json:"slices_stored"`
	Commands        []json.RawMessage   `json:"commands"` // empty in this release

	// Latency is how long before Push returned ServerTime was read, taken as half of the exchange. It is the sender's
	// own estimate and no part of the protocol.
	Latency time.Duration `json:"-"`
}

// EventsType is the content type of POST /sync/events. Its body is one batch of query events as package batch of the query
// log encodes them: it is compressed and names its instance, so it has no content encoding.
const EventsType = "application/octet-stream"

// EventsReply is the answer to POST /sync/events.
type EventsReply struct {
	OK bool `json:"ok"`
	// Stored says that the batch is kept: in the query log, or synced to the disk of the primary on its way there. False
	// says that this primary keeps no query log, so that there is no sense in sending the batch again.
	Stored            bool    `json:"stored"`
	QueryLog          string  `json:"query_log"`           // what keeps it: clickhouse, sqlite or off
	NextEventsSeconds float64 `json:"next_events_seconds"` // how often to send events from now on, before jitter
}

// eventBytesPerSecond is the slowest line that a batch must get through: 2 Mbit/s.
const eventBytesPerSecond = 256 << 10

// TransferTime is how much longer than any other exchange one with a batch of n bytes may take, at both ends.
func TransferTime(n int64) time.Duration {
	return time.Duration(min(max(n, 0), MaxEventsBody)) * time.Second / eventBytesPerSecond
}

// WaitReply is the answer to GET /sync/wait. PolicyHash is "" while there is no policy.
type WaitReply struct {
	PolicyHash string            `json:"policy_hash"`
	Commands   []json.RawMessage `json:"commands"` // empty in this release
}

// HeartbeatReply is the answer to POST /sync/heartbeat.
type HeartbeatReply struct {
	OK         bool      `json:"ok"`
	ServerTime time.Time `json:"server_time"`
}

// StatusReply is the answer to GET /sync/status: who the primary takes the caller for, and what policy it serves.
type StatusReply struct {
	OK             bool      `json:"ok"`
	ServerTime     time.Time `json:"server_time"`
	InstanceID     string    `json:"instance_id"`
	TokenID        string    `json:"token_id"`
	PolicyRevision int64     `json:"policy_revision"` // 0 while there is no policy
	PolicyHash     string    `json:"policy_hash"`
}

// ErrorReply is the body of every refusal. ServerTime is there when the sender's clock is the reason.
type ErrorReply struct {
	Error      string    `json:"error"`
	ServerTime time.Time `json:"server_time,omitzero"`
}

// FutureError is fleet.ErrFutureReport together with the clock that it was measured on, so that a sender can correct
// its own.
type FutureError struct {
	ServerTime time.Time
	Latency    time.Duration // as in PushReply
}

// Error is the text of fleet.ErrFutureReport and the server's time.
func (e *FutureError) Error() string {
	return fmt.Sprintf("%v: server time is %s", fleet.ErrFutureReport, e.ServerTime.UTC().Format(time.RFC3339))
}

// Unwrap is fleet.ErrFutureReport.
func (e *FutureError) Unwrap() error { return fleet.ErrFutureReport }

// StatusError is an answer that is neither success nor "not modified". Where the status stands for one of fleet's
// conditions the error is that condition too.
type StatusError struct {
	Status     int
	Message    string        // the server's sentence, or the status text
	RetryAfter time.Duration // 0 where the server did not say
	// Foreign says that the answer is not in this API's form. Whoever gave it may be no primary at all, such as a port that
	// wants TLS, so its 400 says nothing about what was sent.
	Foreign bool
}

// Error is the sentence with its status.
func (e *StatusError) Error() string { return fmt.Sprintf("%s (status %d)", e.Message, e.Status) }

// Unwrap is the condition of package fleet that the status stands for, nil where there is none.
func (e *StatusError) Unwrap() error {
	switch e.Status {
	case http.StatusBadRequest:
		if e.Foreign {
			return nil
		}
		return fleet.ErrInvalid
	case http.StatusUnauthorized:
		return fleet.ErrUnknownToken
	case http.StatusForbidden:
		return fleet.ErrNotYours
	case http.StatusNotFound:
		return fleet.ErrNotFound
	case http.StatusGone:
		return fleet.ErrForgotten
	case http.StatusServiceUnavailable:
		return fleet.ErrUnavailable
	}
	return nil
}

// StatusOf is the HTTP status that a primary answered with, 0 where none did.
func StatusOf(err error) int {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status
	}
	return 0
}
