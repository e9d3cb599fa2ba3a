package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/privacy"
	"dnsfleet/internal/querylog"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/clickhouse"
	"dnsfleet/internal/querylog/recorder"
	"dnsfleet/internal/querylog/shipper"
	"dnsfleet/internal/querylog/spool"
	"dnsfleet/internal/querylog/sqlite"
	"dnsfleet/internal/stats"
)

// logOff is the name of a query log that there is not; see fleet.Report.QueryLog.
const logOff = "off"

// logTarget is where an instance's events go in the end.
type logTarget struct {
	kind    string          // sqlite, clickhouse, primary or off
	name    func() string   // see fleet.Report.QueryLog
	sink    querylog.Sink   // nil: nothing is kept
	reader  querylog.Reader // nil: nothing is read here
	timeout time.Duration   // of one try of sink, 0 = the shipper's
	run     task            // nil: nothing to do beside
	close   func() error    // nil: nothing to free
}

func noTarget() logTarget {
	return logTarget{kind: logOff, name: func() string { return logOff }}
}

// openTarget opens the log that DNSFLEET_QUERYLOG_URL names. fallback stands for an empty one.
func openTarget(ctx context.Context, cfg instanceConfig, fallback string, dial dialFunc, log *slog.Logger) (logTarget, error) {
	text := string(cfg.QueryLogURL)
	if text == "" {
		text = fallback
	}
	scheme, path, _ := strings.Cut(text, "://")
	switch {
	case text == logOff:
		return noTarget(), nil
	case scheme == "sqlite":
		return openSQLiteLog(ctx, cfg, path, log)
	case strings.HasPrefix(scheme, "clickhouse"):
		return openClickHouseLog(ctx, cfg, text, dial, log)
	}
	return logTarget{}, fmt.Errorf("%w: DNSFLEET_QUERYLOG_URL=%s: must begin with clickhouse://, clickhouse+http://, clickhouse+https:// or sqlite://, or be off (or primary on a replica)", errConfig, redacted)
}

func openSQLiteLog(ctx context.Context, cfg instanceConfig, path string, log *slog.Logger) (logTarget, error) {
	if path == "" {
		return logTarget{}, fmt.Errorf("%w: DNSFLEET_QUERYLOG_URL=\"sqlite://\": must name a file, as in sqlite:///var/lib/dnsfleet/queries.db", errConfig)
	}
	opened, err := sqlite.Open(ctx, sqlite.Options{Path: path, Retention: cfg.QueryLogRetention, NoMigrate: cfg.Migrate == "off", Log: log})
	if err != nil {
		return logTarget{}, fmt.Errorf("DNSFLEET_QUERYLOG_URL: %w", err)
	}
	return logTarget{
		kind: "sqlite", name: func() string { return "sqlite:" + cfg.InstanceID },
		sink: opened, reader: opened, run: opened.Run, close: opened.Close,
	}, nil
}

func openClickHouseLog(ctx context.Context, cfg instanceConfig, text string, dial dialFunc, log *slog.Logger) (logTarget, error) {
	opened, err := clickhouse.Open(ctx, clickhouse.Options{
		URL: text, Retention: cfg.QueryLogRetention, Cluster: cfg.ClickHouseCluster, NoMigrate: cfg.Migrate == "off", DialContext: dial, Log: log,
	})
	if err != nil {
		return logTarget{}, fmt.Errorf("%w: DNSFLEET_QUERYLOG_URL=%s: %w", errConfig, redacted, err)
	}
	return logTarget{kind: "clickhouse", name: opened.ID, sink: opened, reader: opened, close: opened.Close}, nil
}

// eventLog is the way of an instance's events from the answer to the log.
type eventLog struct {
	logTarget
	privacy  *privacy.Filter
	counters *stats.Counters
	codec    *batch.Codec
	recorder *recorder.Recorder
	shipper  *shipper.Shipper // nil: nothing is kept
	spool    *spool.Spool     // nil with it
}

func newEventLog(cfg instanceConfig, target logTarget, counters *stats.Counters, log *slog.Logger) (_ *eventLog, err error) {
	l := &eventLog{logTarget: target, counters: counters}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.free())
		}
	}()
	if l.privacy, err = newPrivacy(cfg); err != nil {
		return nil, err
	}
	var sink querylog.Sink = nowhere{}
	if target.sink != nil {
		if l.codec, err = batch.NewCodec(); err != nil {
			return nil, err
		}
		l.spool, err = spool.Open(spool.Options{Dir: filepath.Join(cfg.DataDir, "spool"), MaxAge: cfg.QueryLogRetention, Log: log})
		if err != nil {
			return nil, fmt.Errorf("DNSFLEET_DATA_DIR=%q: %w", cfg.DataDir, err)
		}
		l.shipper = shipper.New(shipper.Options{Sink: target.sink, Codec: l.codec, Spool: l.spool, Timeout: target.timeout, Log: log})
		sink = l.shipper
	}
	l.recorder = recorder.New(recorder.Options{
		InstanceID: cfg.InstanceID, BootID: counters.BootID(), Sink: sink, Lend: true, Observe: l.observe, Log: log,
	})
	return l, nil
}

// nowhere is the sink of an instance that keeps nothing.
type nowhere struct{}

func (nowhere) Write(context.Context, querylog.Batch) error { return nil }

// Record counts a query and hands its event on. It never waits. *e and the bytes of its name are the caller's again when it
// returns. Lane 0 is for all, a lane from 1 for one who records at a time.
func (l *eventLog) Record(lane int, e *fleet.QueryEvent) {
	l.counters.Record(lane, e.Outcome, e.Duration)
	kept := *e
	l.privacy.Apply(&kept)
	l.recorder.Record(lane, &kept)
}

// observe sees all events before they are cut into batches. Events have the wall clock's time, slices that of the counters,
// which goes by the store's clock: the log is to agree with the slices.
func (l *eventLog) observe(events []fleet.QueryEvent) {
	shift := time.Until(l.counters.Now()).Round(time.Millisecond)
	if shift.Abs() > toleratedShift {
		for i := range events {
			events[i].Time = events[i].Time.Add(shift)
			batch.Clean(&events[i])
		}
	}
	l.counters.Observe(events)
}

// toleratedShift is how far both clocks may be apart by measuring alone.
const toleratedShift = 100 * time.Millisecond

// recording are the tasks that end when nothing records any more and before the counters do.
func (l *eventLog) recording() []task { return []task{l.recorder.Run} }

// keeping are the tasks that bring to the log what was recorded: the last to end.
func (l *eventLog) keeping() []task {
	var tasks []task
	if l.shipper != nil {
		tasks = append(tasks, l.shipper.Run)
	}
	if l.run != nil {
		tasks = append(tasks, l.run)
	}
	return tasks
}

// free closes what is open, the target last.
func (l *eventLog) free() error {
	var errs []error
	if l.spool != nil {
		errs = append(errs, l.spool.Close())
	}
	if l.close != nil {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

// newPrivacy makes the filter that DNSFLEET_PRIVACY asks for. The key of pseudonyms stays in the data dir, so that a client
// keeps its pseudonym over restarts.
func newPrivacy(cfg instanceConfig) (*privacy.Filter, error) {
	mode := privacy.Mode(cfg.Privacy)
	if mode == "" {
		mode = privacy.Full
	}
	if mode != privacy.Hash {
		return privacy.New(mode, nil)
	}
	key, err := keptKey(filepath.Join(cfg.DataDir, "privacy.key"))
	if err != nil {
		return nil, err
	}
	return privacy.New(mode, key)
}

// keptKey reads a key from path, or makes one and keeps it there.
func keptKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key := make([]byte, privacy.KeyBytes)
		rand.Read(key) // never fails: crypto/rand ends the program instead
		if err := os.WriteFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("keep key of pseudonyms: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read key of pseudonyms: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err == nil && len(key) < privacy.KeyBytes {
		err = errors.New("it is too short")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s is damaged, remove it to have a new one made: %w", errConfig, path, err)
	}
	return key, nil
}

// queryStoreStats is GET /querystore/stats.
type queryStoreStats struct {
	Enabled   bool       `json:"enabled"`
	Kind      string     `json:"kind"`      // clickhouse, sqlite, primary or off
	QueryLog  string     `json:"query_log"` // which one, "" while not known
	Away      bool       `json:"away"`      // the last try to reach it failed
	Recorded  uint64     `json:"recorded"`  // events since boot
	Dropped   uint64     `json:"dropped"`   // that found no room in memory
	Waiting   uint64     `json:"waiting"`   // in memory
	Delivered uint64     `json:"delivered"` // to the log, those of others on a primary included
	Refused   uint64     `json:"refused"`   // by the log, for good
	Lost      uint64     `json:"lost"`      // own events that neither log nor spool took when they were handed over
	Failures  uint64     `json:"failures"`  // tries that failed
	Spool     spoolStats `json:"spool"`
}

type spoolStats struct {
	Batches       uint64  `json:"batches"`
	Events        uint64  `json:"events"`
	Bytes         int64   `json:"bytes"`
	OldestSeconds float64 `json:"oldest_seconds"`
	Dropped       uint64  `json:"dropped"` // events over its bounds or unreadable, since start
	Damaged       uint64  `json:"damaged"` // places that were skipped
}

func (l *eventLog) stats() queryStoreStats {
	r := l.recorder.Stats()
	s := queryStoreStats{
		Enabled: l.shipper != nil, Kind: l.kind, QueryLog: l.name(),
		Recorded: r.Recorded, Dropped: r.Dropped, Waiting: r.Waiting(), Lost: r.Refused,
	}
	if l.shipper == nil {
		return s
	}
	sent := l.shipper.Stats()
	s.Away, s.Delivered, s.Failures, s.Refused = sent.Away, sent.Delivered, sent.Failures, sent.Invalid
	s.Spool = spoolStats{
		Batches: sent.Spool.Records, Events: sent.Spool.Events, Bytes: sent.Spool.Bytes,
		OldestSeconds: sent.Spool.Oldest.Seconds(), Dropped: sent.Spool.Dropped, Damaged: sent.Spool.Damaged,
	}
	return s
}
