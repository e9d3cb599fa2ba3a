package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/syncapi"
)

// Push sends a report. Where its sent_at lies in the server's future the error is a FutureError, any other refusal is a
// StatusError; sending the same report again is harmless.
func (c *Client) Push(ctx context.Context, r fleet.Report) (syncapi.PushReply, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return syncapi.PushReply{}, fmt.Errorf("encode report: %w", err)
	}
	var reply syncapi.PushReply
	a, err := c.do(ctx, call{method: http.MethodPost, path: syncapi.PathStats, body: body, limit: maxReply, into: &reply})
	reply.Latency = a.latency
	return reply, err
}

// Config is the policy document as the primary sent it, nil where its hash is still the given one. While there is no
// policy the error is fleet.ErrNotFound.
func (c *Client) Config(ctx context.Context, hash string) (body []byte, err error) {
	what := call{method: http.MethodGet, path: syncapi.PathConfig, limit: maxPolicy}
	if hash != "" {
		what.ifNoneMatch = `"` + hash + `"`
	}
	a, err := c.do(ctx, what)
	if err != nil || a.status == http.StatusNotModified {
		return nil, err
	}
	return a.body, nil
}

// Wait returns when the primary's policy has another hash than the given one, or after wait.
func (c *Client) Wait(ctx context.Context, hash string, wait time.Duration) (syncapi.WaitReply, error) {
	var reply syncapi.WaitReply
	query := url.Values{"policy_hash": {hash}, "wait": {wait.String()}}
	_, err := c.do(ctx, call{method: http.MethodGet, path: syncapi.PathWait, query: query, wait: wait, limit: maxReply, into: &reply})
	return reply, err
}

// Heartbeat asks whether the token still counts, and what time it is.
func (c *Client) Heartbeat(ctx context.Context) (syncapi.HeartbeatReply, error) {
	var reply syncapi.HeartbeatReply
	_, err := c.do(ctx, call{method: http.MethodPost, path: syncapi.PathHeartbeat, body: []byte("{}"), limit: maxReply, into: &reply})
	return reply, err
}

// Status is who the primary takes the caller for, and what policy it serves.
func (c *Client) Status(ctx context.Context) (syncapi.StatusReply, error) {
	var reply syncapi.StatusReply
	_, err := c.do(ctx, call{method: http.MethodGet, path: syncapi.PathStatus, limit: maxReply, into: &reply})
	return reply, err
}
