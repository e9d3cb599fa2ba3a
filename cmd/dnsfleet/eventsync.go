package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/syncapi"
	"dnsfleet/internal/syncapi/replica"
)

// logPrimary is the value of DNSFLEET_QUERYLOG_URL by which a replica sends its events to its primary.
const logPrimary = "primary"

// primaryTimeout bounds one try to send a batch: time for two primaries to be asked, and less than memory holds out.
const primaryTimeout = 5 * time.Second

// primaryTarget sends an instance's events over the sync API.
func primaryTarget(n *instance, client *replica.Client) logTarget {
	sender := replica.NewEventSender(replica.EventSenderOptions{
		Client: client, OnInterval: func(d time.Duration) { n.events.recorder.SetInterval(d) }, Log: n.log,
	})
	return logTarget{kind: logPrimary, name: sender.QueryLog, sink: primarySink{n, sender}, timeout: primaryTimeout}
}

// primarySink is the sync API as a sink. It is made before the instance's event log, whose codec it shares.
type primarySink struct {
	instance *instance
	sender   *replica.EventSender
}

func (s primarySink) Write(ctx context.Context, b querylog.Batch) error {
	body, err := s.instance.events.codec.Encode(b)
	if err != nil {
		return err
	}
	return s.sender.Send(ctx, body)
}

// store takes the events of replicas; it is nil where nothing is kept.
func (l *eventLog) store() syncapi.EventStore {
	if l.shipper == nil {
		return nil
	}
	return eventStore{l}
}

// eventStore puts batches of replicas on the way that the primary's own take.
type eventStore struct{ log *eventLog }

// StoreEvents returns when the batch is in the log or synced to the spool; see syncapi.EventStore.
func (s eventStore) StoreEvents(ctx context.Context, instanceID string, body []byte) error {
	b, err := s.log.codec.Decode(body)
	if errors.Is(err, batch.ErrVersion) { // of a replica that is newer: it keeps the batch until this primary is as new
		return fmt.Errorf("%w: %s", fleet.ErrUnavailable, err.Error())
	}
	if err != nil {
		return err
	}
	if b.InstanceID != instanceID {
		return fmt.Errorf("%w: the batch is of another instance", fleet.ErrNotYours)
	}
	err = s.log.shipper.Write(ctx, b)
	if err == nil || errors.Is(err, fleet.ErrInvalid) {
		return err
	}
	return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
}

// QueryLog names the log; see fleet.Report.QueryLog.
func (s eventStore) QueryLog() string { return s.log.name() }
