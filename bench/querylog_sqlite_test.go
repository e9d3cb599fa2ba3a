package bench_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"dnsfleet/internal/fleet"
	"dnsfleet/internal/querylog/batch"
	"dnsfleet/internal/querylog/recorder"
	"dnsfleet/internal/querylog/shipper"
	"dnsfleet/internal/querylog/sqlite"
)

// BenchmarkQueryLogSQLite takes events from Record to SQLite: recorder, batches, a transaction for each, sums
// included. Bare is SQLite by the same driver, which inserts the same rows into one table with as many columns,
// a hundred by one prepared statement, in transactions of as many; its table has no index and no sums.
func BenchmarkQueryLogSQLite(b *testing.B) {
	events := queries(200_000)
	path := filepath.Join(b.TempDir(), "querylog.db")
	log, err := sqlite.Open(b.Context(), sqlite.Options{Path: path, Retention: 168 * time.Hour})
	check(b, err)
	b.Cleanup(func() { log.Close() })
	codec, err := batch.NewCodec()
	check(b, err)
	collect := recorder.New(recorder.Options{
		InstanceID: "box1", BootID: "boot1", Sink: shipper.New(shipper.Options{Sink: log, Codec: codec, Timeout: time.Minute}),
	})
	bare := openBareSQLite(b)
	written, inserted := 0, 0
	compare(b, len(events), func(n int) {
		later(events, n)
		written += n
		for i := range n {
			collect.Record(0, &events[i])
			if (i+1)%batch.MaxEvents == 0 {
				collect.Flush(b.Context())
			}
		}
		if s := collect.Stats(); s.Handed != uint64(written) {
			b.Fatalf("handed on: got %d events, want %d: %d dropped, %d refused", s.Handed, written, s.Dropped, s.Refused)
		}
	}, func(n int) {
		later(events, n)
		inserted += n
		for i := 0; i < n; i += batch.MaxEvents {
			bare.insert(b, events[i:i+batch.MaxEvents])
		}
	})
	stats, err := log.Stats(b.Context())
	check(b, err)
	if stats.Rows != uint64(written) {
		b.Errorf("rows: got %d, want %d", stats.Rows, written)
	}
	check(b, log.Close()) // folds the write-ahead log into the file
	info, err := os.Stat(path)
	check(b, err)
	b.ReportMetric(float64(info.Size())/float64(written), "bytes/row")
	check(b, bare.db.Close())
	info, err = os.Stat(bare.path)
	check(b, err)
	b.ReportMetric(float64(info.Size())/float64(inserted), "bare-bytes/row")
}

// later moves events on by as long as they take, so that they are the next ones.
func later(events []fleet.QueryEvent, n int) {
	for i := range events[:n] {
		events[i].Time = events[i].Time.Add(time.Duration(n) * 50 * time.Microsecond)
	}
}

const (
	bareColumns = 13
	bareRows    = 100 // by one statement
)

type bareSQLite struct {
	path      string
	db        *sql.DB
	insert100 *sql.Stmt
	args      []any
}

func openBareSQLite(b *testing.B) *bareSQLite {
	b.Helper()
	bare := &bareSQLite{path: filepath.Join(b.TempDir(), "bare.db")}
	var err error
	bare.db, err = sql.Open("sqlite", "file:"+bare.path+"?_pragma=journal_mode(wal)&_pragma=synchronous(normal)")
	check(b, err)
	b.Cleanup(func() { bare.db.Close() })
	bare.db.SetMaxOpenConns(1)
	_, err = bare.db.ExecContext(b.Context(), "CREATE TABLE plain (ts INTEGER, instance_id TEXT, client_ip TEXT, client_name TEXT, protocol TEXT, qname TEXT,"+
		" qtype INTEGER, qclass INTEGER, outcome INTEGER, rcode INTEGER, us INTEGER, upstream_address TEXT, list TEXT)")
	check(b, err)
	row := "(" + strings.Repeat("?,", bareColumns-1) + "?)"
	bare.insert100, err = bare.db.PrepareContext(b.Context(), "INSERT INTO plain VALUES "+strings.Repeat(row+",", bareRows-1)+row)
	check(b, err)
	return bare
}

func (bare *bareSQLite) insert(b *testing.B, events []fleet.QueryEvent) {
	b.Helper()
	tx, err := bare.db.BeginTx(b.Context(), nil)
	check(b, err)
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	stmt := tx.StmtContext(b.Context(), bare.insert100)
	for ; len(events) > 0; events = events[bareRows:] {
		bare.args = bare.args[:0]
		for i := range events[:bareRows] {
			e := &events[i]
			bare.args = append(bare.args, e.Time.UnixMilli(), "box1", e.Client.String(), e.ClientName, e.Protocol, e.QName, e.QType, e.QClass,
				e.Outcome, e.RCode, e.Duration.Microseconds(), e.Upstream, e.List)
		}
		_, err := stmt.ExecContext(b.Context(), bare.args...)
		check(b, err)
	}
	check(b, tx.Commit())
}
